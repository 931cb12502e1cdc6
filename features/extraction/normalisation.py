"""Colour normalisation before embedding: to sRGB, then to the stain of a reference."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from features.errors import FeaturesError, SlideError, TileError
from features.extraction.embed import Tiles
from features.extraction.identity import slide_fingerprints
from features.extraction.jobs import SlideJob
from features.extraction.survey import lay_tiles, survey_slide
from features.recipe import Recipe
from features.slides.icc import srgb_transform
from features.slides.slide import Slide
from features.tiles.grid import SlideTiles, TileSource
from features.tiles.stain import (
    Stain,
    StainReference,
    fit_stain,
    load_reference,
    normalise,
)

STAIN_TILES = 32  # tiles of a slide from which its stain is estimated


def resolve_stain_reference(recipe: Recipe, jobs: Sequence[SlideJob]) -> StainReference:
    """The stain to normalise to: loaded from a file, or fitted on the slides the recipe names.

    Raises:
        FeaturesError: a slide is not among the jobs, or has too little tissue.
    """
    names = recipe.stain_reference
    if len(names) == 1 and names[0].endswith(".json"):
        return load_reference(Path(names[0]))
    by_name = {job.slide: job for job in jobs}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise FeaturesError(
            f"stain_reference names {missing[0]}, which is not among the slides of this run. Name slides of "
            "the table, or the stain-reference.json of a store."
        )
    tiles, sources = [], set[str]()
    for name in names:
        job = by_name[name]
        if job.from_tiles:
            tiles.append(_sample_tiles(job.open_tiles(recipe.tile, recipe.mpp), None))
            sources |= slide_fingerprints(job)
            continue
        with job.open() as slide:
            grid = lay_tiles(slide, job, survey_slide(slide, job, recipe), recipe)
            tiles.append(_sample_tiles(SlideTiles(slide, grid), _slide_srgb(slide, recipe)))
            sources |= slide_fingerprints(job, slide)
    return StainReference(
        fit_stain(recipe.stain, np.concatenate(tiles)),
        slides=names,
        cases=tuple(sorted({by_name[name].case for name in names})),
        sources=tuple(sorted(sources)),
    )


def tile_normaliser(
    source: TileSource, slide: Slide | None, recipe: Recipe, reference: StainReference | None
) -> Callable[[Tiles], Tiles] | None:
    """The colour normalisation of one slide's tiles; None where tiles are embedded as they are read.

    Args:
        source: the tiles; a sample of them is read to fit the slide's stain.
        slide: gives the colour profile; None for tile images, which have none.
        recipe: its ``icc`` decides whether the profile is applied.
        reference: the stain to normalise to, if any.

    Returns:
        A function from (B, H, W, 3) RGB to the same shape, or None.
    """
    to_srgb = _slide_srgb(slide, recipe) if slide else None
    return _stain_normaliser(reference.target, source, to_srgb) if reference else to_srgb


def reference_to_json(reference: StainReference) -> dict[str, Any]:
    """A reference as it stands in the recipe of a bag."""
    fields = {
        "target": reference.target.to_json(),
        "slides": list(reference.slides),
        "cases": list(reference.cases),
        "sources": list(reference.sources),
    }
    return {name: value for name, value in fields.items() if value or name != "sources"}


def _sample_tiles(source: TileSource, to_srgb: Callable[[Tiles], Tiles] | None) -> Tiles:
    """At most ``STAIN_TILES`` tiles, evenly spaced over a source."""
    readable = []
    for row in np.unique(np.linspace(0, len(source.grid) - 1, STAIN_TILES).astype(int)):
        with contextlib.suppress(TileError):  # counted later, when the tile is to be embedded
            readable.append(source.read(int(row)))
    if not readable:
        raise SlideError(
            "None of the tiles sampled for their stain can be decoded. Copy the file again."
        )
    tiles = np.stack(readable)
    return to_srgb(tiles) if to_srgb else tiles


def _slide_srgb(slide: Slide, recipe: Recipe) -> Callable[[Tiles], Tiles] | None:
    return srgb_transform(slide.color_profile) if recipe.icc == "srgb" else None


def _stain_normaliser(
    target: Stain, source: TileSource, to_srgb: Callable[[Tiles], Tiles] | None
) -> Callable[[Tiles], Tiles]:
    """The normalisation from this slide's stain to the reference's."""
    stain = fit_stain(target.method, _sample_tiles(source, to_srgb))

    def normalise_tiles(tiles: Tiles) -> Tiles:
        return normalise(to_srgb(tiles) if to_srgb else tiles, stain, target)

    return normalise_tiles
