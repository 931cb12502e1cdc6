"""Survey a slide before any network runs: its region, its tumour fraction and its tiles."""

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image
from shapely.affinity import translate

from features.bags.bag import read_bag
from features.errors import BagError, FeaturesError, NoTiles, NoTissue, SlideError, SlideExcluded
from features.extraction.jobs import SlideJob
from features.recipe import Recipe
from features.regions import annotations
from features.regions.annotation_frame import find_frame
from features.regions.drawing import Drawing, Region, polygonal_parts
from features.regions.masks import (
    is_bright_field,
    mask_fraction,
    polygons_from_mask,
    tissue_mask,
)
from features.regions.placement import Placement, judge_placement
from features.slides.slide import OVERVIEW_PX, Slide
from features.tiles.grid import TileGrid, lay_grid

if TYPE_CHECKING:
    from features.lowpower.tumour_map import TumourMap

SAME_FACTOR = 0.05  # relative difference of two scales that no drawing tells apart

NOTABLE_GLASS_TILES = 0.1  # of a drawing's tiles
SAME_EXTENT = (
    0.01  # relative difference in size between tiles of foreign coordinates and requested ones
)


@dataclass(frozen=True, kw_only=True)
class Survey:
    """A slide and its annotation before any tile is read.

    Attributes:
        overview: the whole slide, small.
        size_l0: (width, height) of the slide.
        mpp: micrometres per level-0 pixel, (x, y).
        drawn: the annotated region less what is excluded, in level-0 pixels; None without annotation.
        origin: the frame of the annotation, ``level0`` or ``bounds``; empty without.
        drawing: all annotations; None without.
        scales: what the coordinates of an annotation may have been taken for; see ``judge_placement``.
        drawn_reach: how far the whole drawing reaches from the corner of the scanned part, as a fraction of
            its width or height, whichever is more; NaN without annotation.
        notes: remarks on how the slide and its annotation were read.
        segmented: what a segmenter marks as tumour, in level-0 pixels; None without one.
    """

    overview: Image.Image
    size_l0: tuple[int, int]
    mpp: tuple[float, float]
    drawn: Region | None = None
    origin: str = ""
    drawing: Drawing | None = None
    scales: Mapping[str, float] = field(default_factory=dict)
    drawn_reach: float = math.nan
    notes: tuple[str, ...] = ()
    segmented: Region | None = None

    @cached_property
    def tissue_mask(self) -> NDArray[np.bool_]:
        """(H, W) of the overview, True where there is tissue by its colour."""
        um_per_px = self.mpp[0] * self.size_l0[0] / self.overview.width
        return tissue_mask(np.asarray(self.overview), um_per_px)

    @cached_property
    def tissue(self) -> Region:
        """Tissue by its colour, in level-0 pixels; computed on first use, as it takes most of the time."""
        return polygons_from_mask(self.tissue_mask, self.size_l0)

    @cached_property
    def placement(self) -> Placement | None:
        """How the drawn region lies on the slide; None without one, or if no tissue is found by colour."""
        if self.drawn is None or not self.drawn.area or not self.tissue_mask.any():
            return None
        return judge_placement(
            self.drawn,
            self.drawn_tissue_area / self.drawn.area,
            np.asarray(self.overview),
            self.tissue_mask,
            self.scales,
            self.size_l0,
        )

    @property
    def drawn_shares(self) -> dict[str, Any]:
        """How the drawing lies on the slide, as fractions; NaN if unknown."""
        placed = self.placement
        return {
            "drawn_glass": placed.glass if placed else math.nan,
            "drawn_outside": placed.outside if placed else math.nan,
            "drawn_reach": self.drawn_reach,
        }

    @property
    def remarks(self) -> tuple[str, ...]:
        """The notes, after a remark on a drawing that seems to be misplaced."""
        misplaced = self.placement.note if self.placement else ""
        return (misplaced, *self.notes) if misplaced else self.notes

    @cached_property
    def drawn_tissue_area(self) -> float:
        """Area of the tissue inside the drawn region, in square level-0 pixels; NaN without annotation."""
        return math.nan if self.drawn is None else polygonal_parts(self.drawn & self.tissue).area

    @property
    def area(self) -> Region:
        """The region that tiles are laid over, in level-0 pixels."""
        if self.segmented is not None:
            return self.segmented
        return self.tissue if self.drawn is None else self.drawn

    @cached_property
    def tumour_of_tissue(self) -> float:
        """Fraction of the tissue that is annotated or segmented; NaN without either, or without tissue."""
        if self.segmented is not None and self.tissue.area:
            return self.segmented.area / self.tissue.area
        if self.drawn is None or not self.tissue.area:
            return math.nan
        return self.drawn_tissue_area / self.tissue.area


def survey_slide(slide: Slide, job: SlideJob, recipe: Recipe) -> Survey:
    """Read the overview and the annotation of a slide.

    Raises:
        AnnotationError: the annotation cannot be read, lacks the class, or lies outside the slide.
        SlideError: the slide cannot be read.
    """
    overview = slide.thumbnail(OVERVIEW_PX)
    view = Survey(
        overview=overview,
        size_l0=slide.size_l0,
        mpp=slide.mpp,
        notes=(*slide.notes, *_light_notes(overview), *_colour_notes(slide, recipe)),
    )
    if job.segmenter:
        tumour = _segment(slide, job.segmenter, view)
        notes = (*view.notes, *filter(None, [tumour.note]))
        return replace(view, segmented=tumour.region, notes=notes)
    file = job.annotation()
    if file is None:
        return view
    drawing = annotations.read_annotations(file, slide.path)
    drawn = drawing.region(recipe.classes)
    everything = shapely.union_all([annotation.polygon for annotation in drawing.annotations])
    requested = recipe.annotation_origin
    origin = drawing.origin if requested == "auto" else requested
    placed = find_frame(polygonal_parts(everything), slide, origin, lambda: view.tissue)
    region = polygonal_parts(drawn - drawing.union(recipe.exclude))
    return replace(
        view,
        drawn=polygonal_parts(translate(region, *placed.offset_l0)),
        origin=placed.origin,
        drawing=drawing,
        drawn_reach=_reach(polygonal_parts(translate(everything, *placed.offset_l0)), slide),
        scales=_plausible_scales(slide),
        notes=(
            *drawing.notes,
            *([placed.reason] if any(slide.bounds_l0) else []),
            *view.notes,
        ),
    )


def place_drawing(slide: Slide, drawn: Region, everything: Region) -> tuple[str, float]:
    """What there is to say of a drawing's frame; and how far all of it reaches, see ``Survey.drawn_reach``.

    Args:
        slide: an open slide.
        drawn: what is taken from the drawing, in level-0 pixels.
        everything: all of the drawing, likewise.

    Raises:
        SlideError: the slide cannot be read.
    """
    view = Survey(
        overview=slide.thumbnail(OVERVIEW_PX),
        size_l0=slide.size_l0,
        mpp=slide.mpp,
        drawn=drawn,
        scales=_plausible_scales(slide),
    )
    return (view.placement.note if view.placement else ""), _reach(everything, slide)


def _reach(drawn: Region, slide: Slide) -> float:
    ends = drawn.bounds[2:]
    corner, extent = slide.bounds_l0, slide.bounds_size_l0
    return float(max((end - at) / size for end, at, size in zip(ends, corner, extent, strict=True)))


def _plausible_scales(slide: Slide) -> dict[str, float]:
    """What the coordinates of an annotation may have been taken for, and the factors to level-0 pixels.

    Readings with one factor, as micrometres and a level may have, are named together.
    """
    readings = [
        ("micrometres", 1 / slide.mpp[0]),
        *((f"pixels of level {n}", sum(f) / 2) for n, f in enumerate(slide.downsamples) if n),
        ("pixels at half of the slide's resolution", 2.0),
        ("pixels at a quarter of the slide's resolution", 4.0),
    ]
    groups: list[tuple[float, list[str]]] = []
    for name, factor in readings:
        names = next(
            (names for other, names in groups if abs(factor / other - 1) <= SAME_FACTOR), None
        )
        if names is None:
            groups.append((factor, [name]))
        elif not name.startswith("pixels at"):  # these name only what nothing else does
            names.append(name)
    return {f"taken as {' or '.join(names)}": factor for factor, names in groups}


def _segment(slide: Slide, segmenter: Path, view: Survey) -> "TumourMap":
    """What a segmenter marks as tumour.

    Raises:
        FeaturesError: the file is no segmenter.
        SlideError: the slide shows no tissue, or cannot be read.
    """
    from features.lowpower.feature_map import lay_cells
    from features.lowpower.slide_maps import tumour_map_of

    return tumour_map_of(slide, segmenter, lay_cells(slide, view.tissue_mask))


def note_glass(grid: TileGrid, view: Survey, recipe: Recipe) -> tuple[str, ...]:
    """A remark on tiles of a drawing that are mostly glass, if there are many."""
    if view.drawn is None or not view.tissue_mask.any():
        return ()
    tissue = mask_fraction(view.tissue_mask, view.size_l0, grid.coords_l0, grid.side_l0)
    n_glass = int((tissue < 0.5).sum())
    if n_glass < NOTABLE_GLASS_TILES * len(grid):
        return ()
    remedy = " Set drop to background to leave out those without tissue."
    return (
        f"{n_glass} of {len(grid)} tiles are mostly glass."
        + (remedy if "background" not in recipe.drop else ""),
    )


def _light_notes(overview: Image.Image) -> tuple[str, ...]:
    """A remark on a slide that was not scanned in transmitted light."""
    if is_bright_field(np.asarray(overview)):
        return ()
    return (
        "Not a bright-field scan: most of what is lit lacks one colour altogether, as in fluorescence. "
        "Tissue, stains and most backbones here are made for H&E.",
    )


def _colour_notes(slide: Slide, recipe: Recipe) -> tuple[str, ...]:
    if recipe.icc == "off" or slide.color_profile is not None:
        return ()
    return ("The file has no colour profile: its pixels are as stored.",)


def lay_tiles(slide: Slide, job: SlideJob, view: Survey, recipe: Recipe) -> TileGrid:
    """All tiles that meet the recipe, before the sample is drawn.

    Raises:
        SlideExcluded: too little of the tissue is tumour.
        NoTiles: there is no such tile; NoTissue where there is no tissue.
        SlideError: the slide was scanned too coarsely.
        BagError: the tiles of ``coordinates`` have another size.
    """
    if job.coordinates:
        return _grid_of_bag(slide, job.coordinates, recipe)
    if job.annotations and recipe.min_tumour_of_tissue and math.isnan(view.tumour_of_tissue):
        remedy = (
            "The model needs it" if job.fixed else "Set min_tumour_of_tissue to 0 for such slides"
        )
        raise SlideError(
            f"{job.slide}: no tissue is found by colour, so the tumour's fraction of it is unknown. {remedy}."
        )
    if recipe.min_tumour_of_tissue and view.tumour_of_tissue < recipe.min_tumour_of_tissue:
        raise SlideExcluded(
            f"{job.slide}: {view.tumour_of_tissue:.0%} of the tissue is annotated, less than "
            f"min_tumour_of_tissue {recipe.min_tumour_of_tissue:g}."
        )
    grid = lay_grid(
        view.area,
        slide,
        tile_px=recipe.tile,
        mpp=recipe.mpp,
        min_coverage=recipe.min_coverage,
        fixed=job.fixed,
    )
    if not len(grid):
        is_blank = not job.annotations and not view.tissue_mask.any()
        raise (NoTissue if is_blank else NoTiles)(_no_tile(job, recipe))
    return grid


def _no_tile(job: SlideJob, recipe: Recipe) -> str:
    """Why a slide has no tile, and what can be done; the recipe of a trained model stays as it is."""
    inside = " or ".join(recipe.classes) if job.annotations else "tissue"
    inside = "what the segmenter marks as tumour" if job.segmenter else inside
    remedy = (
        "Check the annotation"
        if job.annotations
        else "Look at what it finds on this slide"
        if job.segmenter
        else "Tissue is found by colour on a bright background: give annotations for other slides"
    )
    if not job.fixed:
        remedy += ", set mpp finer, or set min_coverage lower"
    return (
        f"{job.slide}: no tile of {recipe.tile} px at {recipe.mpp:g} micrometres per pixel is "
        f"{recipe.min_coverage:.0%} {inside}. {remedy}."
    )


def allocate_tiles(
    jobs: Sequence[SlideJob], recipe: Recipe, map_jobs: Callable[..., Iterable[int]] = map
) -> dict[str, int]:
    """The number of tiles of every slide, if a case's tiles are drawn from all its slides at once.

    Every slide gets at least one. Slides that are not named give all their tiles.

    Args:
        jobs: all slides of the cases.
        recipe: with ``max_tiles``, the seed and the scale.
        map_jobs: ``map``, or that of a pool.
    """
    share: dict[str, int] = {}
    if recipe.sample_per != "case":
        return share
    cases: dict[str, list[SlideJob]] = {}
    for job in jobs:
        cases.setdefault(job.case or f"slide {job.slide}", []).append(job)
    for case, slides in cases.items():
        counts = (
            list(map_jobs(lambda job: count_tiles(job, [recipe])[0], slides))
            if len(slides) > 1
            else [0]
        )
        if sum(counts) > recipe.max_tiles:
            rng = np.random.default_rng([recipe.seed, *case.encode()])
            numbers = rng.multivariate_hypergeometric(counts, recipe.max_tiles)
            share |= {job.slide: max(1, int(n)) for job, n in zip(slides, numbers, strict=True)}
    return share


def _grid_of_bag(slide: Slide, path: Path, recipe: Recipe) -> TileGrid:
    bag = read_bag(path)
    side = (recipe.tile * recipe.mpp / slide.mpp[0], recipe.tile * recipe.mpp / slide.mpp[1])
    if not np.allclose(side, bag.side_l0, rtol=SAME_EXTENT):
        raise BagError(
            f"{path}: its tiles are {bag.side_l0[0]:g} level-0 pixels wide, the requested ones {side[0]:g}. "
            f"Set tile to {bag.tile_px} and mpp to {bag.side_l0[0] * slide.mpp[0] / bag.tile_px:.4g}."
        )
    return TileGrid(bag.coords_l0, bag.coverage, recipe.tile, recipe.mpp, side)


def count_tiles(job: SlideJob, recipes: Sequence[Recipe], enough: float = math.inf) -> list[int]:
    """The number of tiles of a slide by recipes that choose the same region; 0 where there is none.

    At a scale where a recipe has ``enough`` of them, those after it count as many, and lay none.
    A slide that cannot be read has none, which its own extraction will report.
    """
    with contextlib.suppress(FeaturesError):
        if job.from_tiles:
            return [len(job.open_tiles(recipe.tile, recipe.mpp).grid) for recipe in recipes]
        with job.open() as slide:
            view, counts, numbers = survey_slide(slide, job, recipes[0]), dict[float, int](), []
            for recipe in recipes:
                if counts.get(recipe.mpp, 0) < enough:
                    counts[recipe.mpp] = _n_tiles(slide, job, view, recipe)
                numbers.append(counts[recipe.mpp])
            return numbers
    return [0] * len(recipes)


def _n_tiles(slide: Slide, job: SlideJob, view: Survey, recipe: Recipe) -> int:
    try:
        return len(lay_tiles(slide, job, view, recipe))
    except FeaturesError:
        return 0
