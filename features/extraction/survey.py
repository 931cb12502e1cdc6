"""What is to be read of a slide: its region, its tumour fraction, its tiles. No network yet."""

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import shapely
from PIL import Image
from shapely.affinity import translate

from features.bags.bag import read_bag
from features.errors import BagError, FeaturesError, SlideError, SlideExcluded
from features.recipe import ALWAYS_EXCLUDED, Recipe
from features.regions import annotations
from features.regions.annotation_frame import find_frame
from features.regions.drawing import Drawing, Region, polygonal_parts
from features.regions.masks import OVERVIEW_PX, tissue_from_overview
from features.slides.slide import Slide, open_slide
from features.tiles.grid import TileGrid, lay_grid

SAME_EXTENT = (
    0.01  # of a tile's side: foreign coordinates must be of tiles as large as those asked for
)
IDENTITY_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class SlideJob:
    """One slide to extract.

    Attributes:
        slide: the bag's name.
        files: the slide file, or the tile images of one slide.
        annotations: folder with the slide's annotation; None uses the tissue.
        mpp: micrometres per level-0 pixel, overriding the file; needed for tile images.
        mpp_source: where ``mpp`` comes from: ``table``, ``option`` or ``given``.
        case: if known.
        from_tiles: the files are tile images.
        coordinates: a bag whose tiles are read again, instead of laying a grid.
    """

    slide: str
    files: tuple[Path, ...]
    annotations: Path | None = None
    mpp: float | None = None
    mpp_source: str = "given"
    case: str = ""
    from_tiles: bool = False
    coordinates: Path | None = None

    @property
    def region(self) -> str:
        """What its tiles are laid over."""
        if self.from_tiles or self.coordinates:
            return "tiles" if self.from_tiles else "coordinates"
        return "annotations" if self.annotations else "tissue"

    def annotation(self) -> Path | None:
        """The slide's annotation file, if it is to have one.

        Raises:
            AnnotationError: there is none, or more than one.
        """
        if self.annotations is None:
            return None
        return annotations.find_annotation(self.annotations, self.files[0].name, self.slide)


@dataclass(frozen=True, kw_only=True)
class Survey:
    """A slide as it is seen before any tile is read.

    Attributes:
        overview: the whole slide, small.
        size_l0: (width, height) of the slide.
        drawn: what is annotated and not excluded, in level-0 pixels; None without annotation.
        origin: the frame of the annotation, ``level0`` or ``bounds``; empty without.
        drawing: all that is annotated; None without.
        notes: what a user should know of how the slide and its annotation were read.
    """

    overview: Image.Image
    size_l0: tuple[int, int]
    drawn: Region | None = None
    origin: str = ""
    drawing: Drawing | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def tissue(self) -> Region:
        """Found by colour, in level-0 pixels; most of what a survey costs, where it is asked for."""
        return tissue_from_overview(self.overview, self.size_l0)

    @property
    def area(self) -> Region:
        """What tiles are laid over, in level-0 pixels."""
        return self.tissue if self.drawn is None else self.drawn

    @cached_property
    def tumour_of_tissue(self) -> float:
        """Fraction of the tissue that is annotated; NaN without annotation, or without tissue."""
        if self.drawn is None or not self.tissue.area:
            return math.nan
        return polygonal_parts(self.drawn & self.tissue).area / self.tissue.area


def survey_slide(slide: Slide, job: SlideJob, recipe: Recipe) -> Survey:
    """Look at a slide and its annotation.

    Raises:
        AnnotationError: the annotation cannot be read, lacks the class, or lies outside the slide.
        SlideError: the slide cannot be read.
    """
    seen = Survey(
        overview=slide.thumbnail(OVERVIEW_PX),
        size_l0=slide.size_l0,
        notes=_colour_notes(slide, recipe),
    )
    file = job.annotation()
    if file is None:
        return seen
    drawing = annotations.read_annotations(file)
    drawn = drawing.region(recipe.classes)
    everything = shapely.union_all([annotation.polygon for annotation in drawing.annotations])
    requested = recipe.annotation_origin
    origin = drawing.origin if requested == "auto" else requested
    placed = find_frame(polygonal_parts(everything), slide, origin, lambda: seen.tissue)
    kept = polygonal_parts(drawn - drawing.union(recipe.exclude))
    return replace(
        seen,
        drawn=polygonal_parts(translate(kept, *placed.offset_l0)),
        origin=placed.origin,
        drawing=drawing,
        notes=(
            *drawing.notes,
            *([placed.reason] if any(slide.bounds_l0) else []),
            *_missing_exclusions(drawing, recipe.exclude),
            *seen.notes,
        ),
    )


def _missing_exclusions(drawing: Drawing, exclude: tuple[str, ...]) -> list[str]:
    """A class to exclude that is asked for by name and is not there may be misspelt."""
    return [
        f"No annotation of class {name!r} to exclude."
        for name in exclude
        if name not in ALWAYS_EXCLUDED and drawing.union([name]).is_empty
    ]


def _colour_notes(slide: Slide, recipe: Recipe) -> tuple[str, ...]:
    if recipe.icc == "off" or slide.color_profile is not None:
        return ()
    return ("The file has no colour profile: its pixels are as stored.",)


def lay_tiles(slide: Slide, job: SlideJob, seen: Survey, recipe: Recipe) -> TileGrid:
    """All tiles that meet the recipe, before any is drawn.

    Raises:
        SlideExcluded: too little of the tissue is tumour.
        SlideError: there is no such tile, or the slide was scanned too coarsely.
        BagError: the coordinates to take are of tiles of another size.
    """
    if job.coordinates:
        return _grid_of_bag(slide, job.coordinates, recipe)
    if job.annotations and recipe.min_tumour_of_tissue and math.isnan(seen.tumour_of_tissue):
        raise SlideError(
            f"{job.slide}: no tissue is found by colour, so the tumour's part of it is not known. Extract "
            "such slides without --min-tumour-of-tissue."
        )
    if recipe.min_tumour_of_tissue and seen.tumour_of_tissue < recipe.min_tumour_of_tissue:
        raise SlideExcluded(
            f"{job.slide}: {seen.tumour_of_tissue:.0%} of the tissue is annotated, less than "
            f"--min-tumour-of-tissue {recipe.min_tumour_of_tissue:g}."
        )
    grid = lay_grid(
        seen.area, slide, tile_px=recipe.tile, mpp=recipe.mpp, min_coverage=recipe.min_coverage
    )
    if len(grid):
        return grid
    inside = " or ".join(recipe.classes) if job.annotations else "tissue"
    remedy = (
        "Check the annotation"
        if job.annotations
        else "Tissue is found by colour on a bright background: pass --annotations where it is not so"
    )
    raise SlideError(
        f"{job.slide}: no tile of {recipe.tile} px at {recipe.mpp:g} micrometres per pixel is "
        f"{recipe.min_coverage:.0%} {inside}. {remedy}, use a finer --mpp, or lower --min-coverage."
    )


def largest_first(jobs: Sequence[SlideJob]) -> list[SlideJob]:
    """Jobs by size of their files: what is done last should not be the longest."""

    def size(job: SlideJob) -> int:
        return sum(path.stat().st_size for path in job.files if path.is_file())

    return sorted(jobs, key=size, reverse=True)


def shard(jobs: Sequence[SlideJob], number: int, of: int) -> list[SlideJob]:
    """Part ``number`` (from 1) of ``of`` parts of about equal work; every slide is in exactly one."""
    return largest_first(sorted(jobs, key=lambda job: job.slide))[number - 1 :: of]


def allocate_tiles(
    jobs: Sequence[SlideJob], recipe: Recipe, each: Callable[..., Iterable[int]] = map
) -> dict[str, int]:
    """How many tiles each slide gives where a case's tiles are drawn from all its slides at once.

    A slide gives at least one. What is not named gives all it has.

    Args:
        jobs: all slides of the cases.
        recipe: gives ``max_tiles``, the seed and the scale.
        each: ``map``, or that of a pool.
    """
    share: dict[str, int] = {}
    if recipe.sample_per != "case":
        return share
    cases: dict[str, list[SlideJob]] = {}
    for job in jobs:
        cases.setdefault(job.case or f"slide {job.slide}", []).append(job)
    for case, mine in cases.items():
        counts = list(each(lambda job: _count_tiles(job, recipe), mine)) if len(mine) > 1 else [0]
        if sum(counts) > recipe.max_tiles:
            rng = np.random.default_rng([recipe.seed, *case.encode()])
            numbers = rng.multivariate_hypergeometric(counts, recipe.max_tiles)
            share |= {job.slide: max(1, int(n)) for job, n in zip(mine, numbers, strict=True)}
    return share


def identify_files(job: SlideJob) -> tuple[str, ...]:
    """What tells the slide's files from others.

    Raises:
        SlideError: a file is missing.
    """
    missing = [str(path) for path in job.files if not path.is_file()]
    if missing:
        raise SlideError(
            f"{job.slide}: no such file {missing[0]}. Check the path, or --slides and the slide column."
        )
    return tuple(_identify_file(path) for path in job.files)


def _grid_of_bag(slide: Slide, path: Path, recipe: Recipe) -> TileGrid:
    bag = read_bag(path)
    side = (recipe.tile * recipe.mpp / slide.mpp[0], recipe.tile * recipe.mpp / slide.mpp[1])
    if not np.allclose(side, bag.side_l0, rtol=SAME_EXTENT):
        raise BagError(
            f"{path}: its tiles are {bag.side_l0[0]:g} level-0 pixels wide, those asked for {side[0]:g}. "
            f"Use --tile {bag.tile_px} --mpp {bag.side_l0[0] * slide.mpp[0] / bag.tile_px:.4g}."
        )
    return TileGrid(bag.coords_l0, bag.coverage, recipe.tile, recipe.mpp, side)


def _count_tiles(job: SlideJob, recipe: Recipe) -> int:
    """Tiles of a slide before any is drawn; 0 where it will fail, which its own turn will tell."""
    try:
        if job.from_tiles:
            return len(job.files)
        with open_slide(job.files[0], mpp=job.mpp) as slide:
            return len(lay_tiles(slide, job, survey_slide(slide, job, recipe), recipe))
    except FeaturesError:
        return 0


def _identify_file(path: Path) -> str:
    """Size and both ends of a file: changes with its content, yet costs nothing on a slide of gigabytes."""
    with path.open("rb") as file:
        ends = file.read(IDENTITY_BYTES)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - IDENTITY_BYTES))
        ends += file.read(IDENTITY_BYTES)
    return f"{size}-{hashlib.sha256(ends).hexdigest()}"
