"""What a check says of one slide: how it would be read, and the tiles at each scale."""

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from features.slides.structure import Structure


@dataclass(kw_only=True)
class ScaleCheck:
    """The tiles that extraction would take of a slide at one scale.

    Attributes:
        mpp: micrometres per pixel of a tile, as requested.
        status: ``ready``, ``excluded`` (by a rule of the recipe) or ``failed``.
        reason: of an exclusion or a failure, as extraction words it.
        n_tiles: tiles that meet the recipe.
        n_drawn: tiles that would be embedded.
        level: of the file that tiles would be read from; None without tiles.
        shrink: factor by which the level would be decoded smaller.
    """

    mpp: float
    status: Literal["ready", "excluded", "failed"] = "failed"
    reason: str = ""
    n_tiles: int = 0
    n_drawn: int = 0
    level: int | None = None
    shrink: int = 1


@dataclass(kw_only=True)
class SlideCheck:
    """A slide as extraction would read it; unknown values have their defaults.

    Attributes:
        slide: its name.
        scales: one per recipe.
        identity: of its files: two slides that share it are one.
        size_l0: (width, height) in level-0 pixels.
        mpp: micrometres per level-0 pixel, along x.
        mpp_source: ``file``, ``table`` or ``option``.
        reader: what decodes the pixels.
        file_format: the scanner's, as OpenSlide names it.
        classes: number of annotations by class.
        origin: the frame of the annotation, ``level0`` or ``bounds``.
        notes: remarks on how the slide and its annotation were read.
        tissue_mm2: area of the tissue, by colour.
        area_mm2: area of the region that tiles are laid over.
        tumour_of_tissue: fraction of the tissue that is annotated.
        drawn_glass: fraction of the drawn area that is glass.
        drawn_outside: fraction of the drawn area that lies outside the slide.
        drawn_reach: how far the whole drawing reaches, as a fraction of the slide's sides.
        picture: the file with the picture; None if the slide cannot be read.
        structure: of its tissue, by which a second scan is recognised; None if the slide cannot be read.
    """

    slide: str
    case: str = ""
    scales: tuple[ScaleCheck, ...]
    identity: tuple[str, ...] = ()
    size_l0: tuple[int, int] | None = None
    mpp: float | None = None
    mpp_source: str = ""
    reader: str = ""
    file_format: str = ""
    classes: Counter[str] = field(default_factory=Counter)
    origin: str = ""
    notes: tuple[str, ...] = ()
    tissue_mm2: float | None = None
    area_mm2: float | None = None
    tumour_of_tissue: float | None = None
    drawn_glass: float | None = None
    drawn_outside: float | None = None
    drawn_reach: float = math.nan
    picture: Path | None = None
    structure: Structure | None = field(default=None, repr=False)

    @property
    def status(self) -> str:
        """The worst over the scales."""
        statuses = {scale.status for scale in self.scales}
        return next(status for status in ("failed", "excluded", "ready") if status in statuses)
