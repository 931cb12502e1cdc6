"""The bag of an embedded slide, and what it says of itself."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from features.backbones.registry import Backbone
from features.bags.arrays import compact
from features.bags.bag import Bag
from features.errors import SlideExcluded
from features.extraction.jobs import SlideJob
from features.extraction.slide_task import SlideTask
from features.lowpower.segmenter import read_segmenter_card
from features.recipe import Recipe
from features.slides.slide import Slide
from features.tiles.quality import flag_bits
from features.volumes.film import read_facts


def bag_of_part(
    job: SlideJob,
    part: SlideTask,
    base: Mapping[str, Any],
    seen: tuple[tuple[str, ...], tuple[str, ...]],
) -> Bag:
    """The bag of one part, without the tiles that the recipe drops.

    Args:
        job: the slide.
        part: whose tiles have been embedded.
        base: what is the same for all parts.
        seen: as ``seen_for`` returns it.

    Raises:
        SlideExcluded: no tile is left.
    """
    assert part.work
    assert part.rows
    assert part.grid is not None
    recipe, flags = part.target.recipe, part.work.flags
    assert part.rows.filled.sum() + len(part.work.unreadable) == len(flags), "a tile was lost"
    keep = part.rows.filled & ((flags & flag_bits(recipe.drop)) == 0)
    if not keep.any():
        raise SlideExcluded(
            f"{job.slide}: drop ({', '.join(recipe.drop)}) leaves none of {len(flags)} tiles. Drop less."
        )
    grid = part.grid[np.flatnonzero(keep)]
    trained_on, trained_on_slides = seen
    return Bag(
        slide=job.slide,
        features=compact(part.rows.select(keep)),
        coords_l0=grid.coords_l0,
        coverage=grid.coverage,
        side_l0=grid.side_l0,
        tile_px=grid.tile_px,
        target_mpp=grid.mpp,
        recipe=part.resolved,
        request_sha256=part.request,
        case=job.case,
        trained_on=trained_on,
        trained_on_slides=trained_on_slides,
        tile_flags=flags[keep],
        reader=part.outcome.reader or "images",
        n_failed=len(part.work.unreadable),
        **base,
    )


def seen_for(
    job: SlideJob, trained_on: Sequence[str], trained_on_slides: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a bag's backbone has learnt from, and what a network has that drew the region of a volume."""
    cases, slides = set(trained_on), set(trained_on_slides)
    if job.is_film:
        facts = read_facts(job.files[0])
        cases |= set(facts.trained_on)
        slides |= set(facts.trained_on_slides)
    return tuple(sorted(cases)), tuple(sorted(slides))


def seen_by(
    backbone: Backbone, jobs: Sequence[SlideJob]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The cases, and the fingerprints of the slides, that the backbone or a segmenter has learnt from."""
    cases, slides = set(backbone.trained_on), set(backbone.trained_on_slides)
    for file in {job.segmenter for job in jobs if job.segmenter}:
        card, _ = read_segmenter_card(file)
        cases |= set(card.trained_on)
        slides |= set(card.trained_on_slides)
    return tuple(sorted(cases)), tuple(sorted(slides))


def reader_note(slide: Slide, recipe: Recipe) -> str:
    """The reader that decodes the tiles, and the factor by which it shrinks them."""
    shrink = slide.view_for(recipe.mpp).shrink
    return slide.reader if shrink == 1 else f"{slide.reader} at 1/{shrink}"


def encode_jpeg(image: Image.Image) -> bytes:
    """A picture as JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
