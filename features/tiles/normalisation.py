"""The colours tiles are given before they are embedded: sRGB, then the stain of a reference."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from features.errors import (
    FeaturesError,
    SlideError,
    TileError,
)
from features.extraction.embed import Tiles
from features.extraction.survey import SlideJob, lay_tiles, survey_slide
from features.recipe import Recipe
from features.slides.icc import to_srgb
from features.slides.slide import Slide, open_slide
from features.tiles.folders import open_folder
from features.tiles.grid import SlideTiles, TileSource
from features.tiles.stain import (
    Stain,
    StainReference,
    fit_stain,
    load_reference,
    normalise,
)

STAIN_TILES = 32  # of a slide, from which its stain is estimated


def stain_reference(recipe: Recipe, jobs: Sequence[SlideJob]) -> StainReference:
    """The stain to normalise to: as saved, or taken from the slides the recipe names.

    Raises:
        FeaturesError: a slide is not among the jobs, or holds too little tissue.
    """
    told = recipe.stain_reference
    if len(told) == 1 and told[0].endswith(".json"):
        return load_reference(Path(told[0]))
    by_name = {job.slide: job for job in jobs}
    missing = [name for name in told if name not in by_name]
    if missing:
        raise FeaturesError(
            f"--stain-reference {missing[0]}: no such slide among those of this run. Name slides of the "
            "table, or the stain-reference.json of a store."
        )
    tiles = []
    for name in told:
        job = by_name[name]
        if job.from_tiles:
            source = open_folder(job.files, mpp=job.mpp or recipe.mpp, tile_px=recipe.tile)
            tiles.append(_looked_at(source, None))
            continue
        with open_slide(job.files[0], mpp=job.mpp) as slide:
            grid = lay_tiles(slide, job, survey_slide(slide, job, recipe), recipe)
            tiles.append(_looked_at(SlideTiles(slide, grid), _srgb(slide, recipe)))
    return StainReference(
        fit_stain(recipe.stain, np.concatenate(tiles)),
        slides=told,
        cases=tuple(sorted({by_name[name].case for name in told})),
    )


def recolouring(
    source: TileSource, slide: Slide | None, recipe: Recipe, reference: StainReference | None
) -> Callable[[Tiles], Tiles] | None:
    """From a slide's tiles as they are read to those that are embedded; None where they stay as read.

    Args:
        source: the tiles, of which some are looked at for the slide's stain.
        slide: whose colour profile may be applied; None for tile images, which have none.
        recipe: says whether it is.
        reference: the stain to normalise to, if any.
    """
    before = _srgb(slide, recipe) if slide else None
    return _stained(reference.target, source, before) if reference else before


def as_told(reference: StainReference) -> dict[str, Any]:
    """A reference as a recipe tells of it."""
    target = reference.target.to_json()
    return {"target": target, "slides": list(reference.slides), "cases": list(reference.cases)}


def _looked_at(source: TileSource, recolour: Callable[[Tiles], Tiles] | None) -> Tiles:
    """Some tiles from all over a source."""
    seen = []
    for row in np.unique(np.linspace(0, len(source.grid) - 1, STAIN_TILES).astype(int)):
        with contextlib.suppress(TileError):  # counted when its turn to be embedded comes
            seen.append(source.read(int(row)))
    if not seen:
        raise SlideError(
            "None of the tiles looked at for their stain can be decoded. Copy the file again."
        )
    tiles = np.stack(seen)
    return recolour(tiles) if recolour else tiles


def _srgb(slide: Slide, recipe: Recipe) -> Callable[[Tiles], Tiles] | None:
    return to_srgb(slide.color_profile) if recipe.icc == "srgb" else None


def _stained(
    target: Stain, source: TileSource, before: Callable[[Tiles], Tiles] | None
) -> Callable[[Tiles], Tiles]:
    """Normalise from this slide's stain to the reference's."""
    own = fit_stain(target.method, _looked_at(source, before))

    def recolour(tiles: Tiles) -> Tiles:
        return normalise(before(tiles) if before else tiles, own, target)

    return recolour
