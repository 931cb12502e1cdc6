"""Check slides before any network is loaded: their tiles, problems and a picture of each."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import openslide
from PIL import Image

from features.backbones.table import feature_dim
from features.errors import FeaturesError, SlideExcluded
from features.extraction.jobs import SlideJob, identify_files
from features.extraction.picture import Laid, draw_preview, preview_outlines
from features.extraction.slide_check import ScaleCheck, SlideCheck
from features.extraction.survey import (
    Survey,
    allocate_tiles,
    lay_tiles,
    note_glass,
    survey_slide,
)
from features.progress import Progress, Silent
from features.recipe import Recipe
from features.slides.names import file_name
from features.slides.rehearsal import children_ended, open_slide
from features.slides.slide import OVERVIEW_PX, Slide
from features.slides.structure import find_structure
from features.tiles.folders import FolderTiles
from features.tiles.grid import TileGrid, sample

MAX_THREADS = 16  # every thread has a slide and its overview in memory
MM2 = 1e6  # square micrometres
UNKNOWN_DIM = 2048  # assumed of a backbone whose features cannot be counted before it is built
TILE_BYTES = 8 + 8 + 4 + 1  # coordinates, coverage and flags of a tile
BAG_BYTES = 90_000  # thumbnail and attributes of a bag


def check_slides(
    jobs: Sequence[SlideJob],
    recipes: Sequence[Recipe],
    pictures: Path,
    *,
    progress: Progress | None = None,
) -> Iterator[SlideCheck]:
    """Check all slides on several threads; pictures are written as soon as they are drawn.

    Args:
        jobs: the slides.
        recipes: that differ in mpp only.
        pictures: an existing folder, for ``<slide>.png``; as ``features.slides.slide.file_name`` has it.
        progress: shows slides.

    Yields:
        One check per job, in their order. A slide that would fail raises nothing.
    """
    threads = min(MAX_THREADS, max(2, os.cpu_count() or 2))
    with (
        children_ended(),
        ThreadPoolExecutor(threads, "check") as pool,
        (progress or Silent()).task("slides", len(jobs), "slides") as advance,
    ):
        shares = [allocate_tiles(jobs, recipe, pool.map) for recipe in recipes]

        def check_job(job: SlideJob) -> SlideCheck:
            own_recipes = [
                replace(recipe, max_tiles=share.get(job.slide, recipe.max_tiles))
                for share, recipe in zip(shares, recipes, strict=True)
            ]
            return check_slide(job, own_recipes, pictures, progress)

        for result in pool.map(check_job, jobs):
            advance(1)
            yield result


def check_slide(
    job: SlideJob, recipes: Sequence[Recipe], pictures: Path, progress: Progress | None = None
) -> SlideCheck:
    """Check one slide in the order of extraction, so that the first error is the same."""
    check = SlideCheck(
        slide=job.slide,
        case=job.case,
        scales=tuple(ScaleCheck(mpp=recipe.mpp) for recipe in recipes),
    )
    slide: Slide | None = None
    with contextlib.ExitStack() as opened:
        with _record_errors(check.scales):
            job.annotation()
            check.identity = identify_files(job)
            if job.from_tiles:
                _inspect_images(job, recipes, check)
            else:
                slide = opened.enter_context(
                    open_slide(
                        job.files[0],
                        mpp=job.mpp,
                        mpp_source=job.mpp_source,
                        fallback_mpp=job.fallback_mpp,
                        progress=progress,
                    )
                )
        if slide:
            _inspect_slide(slide, job, recipes, check, pictures)
    return check


def bag_bytes(n_tiles: int, backbone: str) -> int:
    """Size of a bag on the disk, with features of 16 bits as ``features.bags.arrays.compact`` makes them.

    A backbone with an unknown number of features is assumed to give ``UNKNOWN_DIM``.
    """
    return BAG_BYTES + n_tiles * (2 * (feature_dim(backbone) or UNKNOWN_DIM) + TILE_BYTES)


@contextlib.contextmanager
def _record_errors(scales: Sequence[ScaleCheck]) -> Iterator[None]:
    """Record an error inside as the outcome of these scales, so that a bad slide does not end the check."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - as extraction's one guard
        known = isinstance(error, FeaturesError)
        for scale in scales:
            scale.status = "excluded" if isinstance(error, SlideExcluded) else "failed"
            scale.reason = str(error) if known else f"{type(error).__name__}: {error}"


def _inspect_images(job: SlideJob, recipes: Sequence[Recipe], check: SlideCheck) -> None:
    check.mpp_source, check.reader = "file" if job.is_film else job.mpp_source, "images"
    for recipe, scale in zip(recipes, check.scales, strict=True):
        source = job.open_tiles(recipe.tile, recipe.mpp)
        if isinstance(source, FolderTiles):
            source.check_images()
        check.mpp = source.mpp_l0
        scale.mpp = round(source.grid.mpp, 4)
        check.notes = tuple(filter(None, [source.note(recipe.mpp)]))
        _sample_scale(source.grid, job, recipe, scale)


def _inspect_slide(
    slide: Slide, job: SlideJob, recipes: Sequence[Recipe], check: SlideCheck, pictures: Path
) -> None:
    """Fill in the check of an open slide, and write its picture."""
    check.size_l0, check.reader = slide.size_l0, slide.reader
    check.mpp, check.mpp_source = slide.mpp[0], slide.mpp_source
    check.file_format = openslide.OpenSlide.detect_format(slide.path) or ""
    laid: list[Laid | None] = [None] * len(recipes)
    view = None
    with _record_errors(check.scales):
        view = survey_slide(slide, job, recipes[0])
        pixel_mm2 = slide.mpp[0] * slide.mpp[1] / MM2
        check.origin, check.notes = view.origin, view.remarks
        check.drawn_reach = view.drawn_reach
        check.structure = find_structure(
            np.asarray(view.overview),
            view.tissue_mask,
            um_per_px=slide.mpp[0] * slide.size_l0[0] / view.overview.width,
        )
        if view.drawing:
            check.classes = view.drawing.histogram()
        if view.placement:
            check.drawn_glass, check.drawn_outside = view.placement.glass, view.placement.outside
        check.tissue_mm2, check.area_mm2 = view.tissue.area * pixel_mm2, view.area.area * pixel_mm2
        if np.isfinite(view.tumour_of_tissue):
            check.tumour_of_tissue = view.tumour_of_tissue
        laid = [
            _lay_scale(slide, job, view, recipe, scale, check)
            for recipe, scale in zip(recipes, check.scales, strict=True)
        ]
    picture = None
    with contextlib.suppress(
        Exception
    ):  # a slide that failed may have no picture; its reason is recorded above
        overview = view.overview if view else slide.thumbnail(OVERVIEW_PX)
        lines = preview_outlines(slide, job, recipes[0], view)
        picture = draw_preview(check, overview, lines, laid)
    if picture:
        check.picture = pictures / f"{file_name(job.slide)}.png"
        # A palette takes a quarter of the bytes and a tenth of the time, and looks the same.
        picture.quantize(method=Image.Quantize.FASTOCTREE).save(check.picture)


def _lay_scale(
    slide: Slide, job: SlideJob, view: Survey, recipe: Recipe, scale: ScaleCheck, check: SlideCheck
) -> Laid | None:
    laid = None
    with _record_errors([scale]):
        grid = lay_tiles(slide, job, view, recipe)
        level = slide.view_for(recipe.mpp)
        scale.level, scale.shrink = level.level, level.shrink
        laid = _sample_scale(grid, job, recipe, scale)
        check.notes += note_glass(grid, view, recipe)
    return laid


def _sample_scale(grid: TileGrid, job: SlideJob, recipe: Recipe, scale: ScaleCheck) -> Laid:
    """All tiles and the sample of them that extraction would draw."""
    sampled = sample(grid, recipe.max_tiles, seed=recipe.seed, name=job.slide)
    drawn = grid if job.coordinates else sampled
    scale.status, scale.n_tiles, scale.n_drawn = "ready", len(grid), len(drawn)
    return grid, drawn
