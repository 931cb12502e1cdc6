"""What extraction would make of a slide, before any network is loaded: counts, reasons, a picture."""

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import openslide
from PIL import Image

from features.backbones.table import feature_dim
from features.errors import FeaturesError, ScaleError, SlideExcluded
from features.extraction.picture import Laid, draw_preview, preview_outlines
from features.extraction.survey import (
    SlideJob,
    Survey,
    allocate_tiles,
    identify_files,
    lay_tiles,
    survey_slide,
)
from features.progress import Progress, Silent
from features.recipe import Recipe
from features.regions.masks import OVERVIEW_PX
from features.slides.slide import Slide, file_name, open_slide
from features.tiles.folders import open_folder
from features.tiles.grid import TileGrid, sample

MAX_THREADS = 16  # each holds a slide and its overview
MM2 = 1e6  # square micrometres
UNKNOWN_DIM = 2048  # assumed of a backbone whose features cannot be counted before it is built
TILE_BYTES = 8 + 8 + 4 + 1  # of a tile besides its features: coordinates, coverage, flags
BAG_BYTES = 90_000  # of a bag besides its tiles: thumbnail and attributes


@dataclass(kw_only=True)
class ScaleCheck:
    """What extraction would take of a slide at one scale.

    Attributes:
        mpp: micrometres per pixel of a tile, as asked.
        status: ``ready``, ``excluded`` (by a rule of the recipe) or ``failed``.
        reason: of an exclusion or a failure, in extraction's own words.
        n_tiles: that meet the recipe.
        n_drawn: of these, that would be embedded.
        level: of the file, that tiles would be read from; None where none would.
        shrink: the level would be decoded that much smaller.
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
    """A slide as extraction would see it; what could not be found out keeps its default.

    Attributes:
        slide: its name.
        scales: one per recipe.
        identity: of its files: two slides that share it are one.
        size_l0: (width, height) in level-0 pixels.
        mpp: micrometres per level-0 pixel, along x.
        mpp_source: ``file``, ``table`` or ``option``.
        reader: what decodes the pixels.
        file_format: the scanner's, as OpenSlide names it.
        classes: how many annotations there are of each class.
        origin: the frame of the annotation, ``level0`` or ``bounds``.
        notes: what a user should know of how the slide and its annotation were read.
        tissue_mm2: found by colour.
        area_mm2: what tiles are laid over.
        tumour_of_tissue: fraction of the tissue that is annotated.
        picture: the file drawn; None where the slide cannot be seen.
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
    picture: Path | None = None

    @property
    def status(self) -> str:
        """The worst over the scales."""
        held = {scale.status for scale in self.scales}
        return next(status for status in ("failed", "excluded", "ready") if status in held)


def check_slides(
    jobs: Sequence[SlideJob],
    recipes: Sequence[Recipe],
    pictures: Path,
    *,
    progress: Progress | None = None,
) -> Iterator[SlideCheck]:
    """Look at every slide on several threads; each picture is written as soon as it is drawn.

    Args:
        jobs: the slides.
        recipes: that differ in mpp only.
        pictures: an existing folder, for ``<slide>.png``; as ``features.slides.slide.file_name`` has it.
        progress: told of slides.

    Yields:
        One per job, in their order. A slide that would fail is told so and raises nothing.
    """
    threads = min(MAX_THREADS, max(2, os.cpu_count() or 2))
    with (
        ThreadPoolExecutor(threads, "check") as pool,
        (progress or Silent()).task("slides", len(jobs), "slides") as advance,
    ):
        shares = [allocate_tiles(jobs, recipe, pool.map) for recipe in recipes]

        def check(job: SlideJob) -> SlideCheck:
            mine = [
                replace(recipe, max_tiles=share.get(job.slide, recipe.max_tiles))
                for share, recipe in zip(shares, recipes, strict=True)
            ]
            return check_slide(job, mine, pictures)

        for found in pool.map(check, jobs):
            advance(1)
            yield found


def check_slide(job: SlideJob, recipes: Sequence[Recipe], pictures: Path) -> SlideCheck:
    """Look at one slide as extraction would, in the same order, so that the first error is the same."""
    found = SlideCheck(
        slide=job.slide,
        case=job.case,
        scales=tuple(ScaleCheck(mpp=recipe.mpp) for recipe in recipes),
    )
    slide: Slide | None = None
    with contextlib.ExitStack() as opened:
        with _record_errors(found.scales):
            job.annotation()
            found.identity = identify_files(job)
            if job.from_tiles:
                _inspect_images(job, recipes, found)
            else:
                slide = opened.enter_context(
                    open_slide(job.files[0], mpp=job.mpp, mpp_source=job.mpp_source)
                )
        if slide:
            _inspect_slide(slide, job, recipes, found, pictures)
    return found


def bag_bytes(n_tiles: int, backbone: str) -> int:
    """Size of a bag on the disk, with features of 16 bits as ``features.bags.bag.compact`` makes them.

    A backbone with an unknown number of features is assumed to give ``UNKNOWN_DIM``.
    """
    return BAG_BYTES + n_tiles * (2 * (feature_dim(backbone) or UNKNOWN_DIM) + TILE_BYTES)


@contextlib.contextmanager
def _record_errors(scales: Sequence[ScaleCheck]) -> Iterator[None]:
    """What goes wrong inside is the fate of these scales: a bad slide must not end the check."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - as extraction's one guard
        known = isinstance(error, FeaturesError)
        for scale in scales:
            scale.status = "excluded" if isinstance(error, SlideExcluded) else "failed"
            scale.reason = str(error) if known else f"{type(error).__name__}: {error}"


def _inspect_images(job: SlideJob, recipes: Sequence[Recipe], found: SlideCheck) -> None:
    if job.mpp is None:
        raise ScaleError(
            f"{job.slide}: tile images carry no micrometres per pixel. Pass --slide-mpp, e.g. 0.5 for 20x."
        )
    found.mpp, found.mpp_source, found.reader = job.mpp, job.mpp_source, "images"
    for recipe, scale in zip(recipes, found.scales, strict=True):
        _sample_scale(
            open_folder(job.files, mpp=job.mpp, tile_px=recipe.tile).grid, job, recipe, scale
        )


def _inspect_slide(
    slide: Slide, job: SlideJob, recipes: Sequence[Recipe], found: SlideCheck, pictures: Path
) -> None:
    """All there is to know of an open slide, and its picture."""
    found.size_l0, found.reader = slide.size_l0, slide.reader
    found.mpp, found.mpp_source = slide.mpp[0], slide.mpp_source
    found.file_format = openslide.OpenSlide.detect_format(slide.path) or ""
    laid: list[Laid | None] = [None] * len(recipes)
    seen = None
    with _record_errors(found.scales):
        seen = survey_slide(slide, job, recipes[0])
        pixel_mm2 = slide.mpp[0] * slide.mpp[1] / MM2
        found.origin, found.notes = seen.origin, seen.notes
        if seen.drawing:
            found.classes = seen.drawing.histogram()
        found.tissue_mm2, found.area_mm2 = seen.tissue.area * pixel_mm2, seen.area.area * pixel_mm2
        if np.isfinite(seen.tumour_of_tissue):
            found.tumour_of_tissue = seen.tumour_of_tissue
        laid = [
            _lay_scale(slide, job, seen, recipe, scale)
            for recipe, scale in zip(recipes, found.scales, strict=True)
        ]
    picture = None
    with contextlib.suppress(
        Exception
    ):  # a slide that failed may show nothing; that was told above
        overview = seen.overview if seen else slide.thumbnail(OVERVIEW_PX)
        lines = preview_outlines(slide, job, recipes[0], seen)
        picture = draw_preview(found, overview, lines, laid)
    if picture:
        found.picture = pictures / f"{file_name(job.slide)}.png"
        # A palette: a quarter of the bytes and a tenth of the time, and no one sees it.
        picture.quantize(method=Image.Quantize.FASTOCTREE).save(found.picture)


def _lay_scale(
    slide: Slide, job: SlideJob, seen: Survey, recipe: Recipe, scale: ScaleCheck
) -> Laid | None:
    laid = None
    with _record_errors([scale]):
        grid = lay_tiles(slide, job, seen, recipe)
        view = slide.view_for(recipe.mpp)
        scale.level, scale.shrink = view.level, view.shrink
        laid = _sample_scale(grid, job, recipe, scale)
    return laid


def _sample_scale(grid: TileGrid, job: SlideJob, recipe: Recipe, scale: ScaleCheck) -> Laid:
    """All tiles and those drawn of them, as extraction draws."""
    kept = sample(grid, recipe.max_tiles, seed=recipe.seed, name=job.slide)
    drawn = grid if job.coordinates else kept
    scale.status, scale.n_tiles, scale.n_drawn = "ready", len(grid), len(drawn)
    return grid, drawn
