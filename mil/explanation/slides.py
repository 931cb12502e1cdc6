"""The slide behind a bag: its pixels, and the backbone that embedded them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from features.backbones.registry import Backbone, load_backbone
from features.bags.bag import Bag
from features.errors import BackboneError, SlideError
from features.extraction import normalisation
from features.extraction.embed import Tiles
from features.extraction.jobs import SlideJob, identify_files
from features.files.checksum import fingerprint
from features.recipe import NO_PLACES
from features.slides.slide import Slide, open_slide
from features.tiles.grid import SlideTiles, TileGrid
from features.volumes.film import check_film
from mil.runs.inputs import recipe_from

NOT_EXTRACTED = ("converted", NO_PLACES, "joined", "vector")
UNRECORDED = {
    "interpolation": "float",
    "resize_px": 0,
}  # of bags that do not say how tiles were resized
MOST_PX = 12_000  # longer side of a picture in memory


@contextmanager
def open_bag_slide(
    file: Path, bag: Bag, slide_mpp: float | None, notify: Callable[[str], None]
) -> Iterator[Slide]:
    """Open the slide that a bag was made from.

    Args:
        file: of the slide.
        bag: its tiles.
        slide_mpp: micrometres per level-0 pixel; the file's own, or the bag's, if not given.
        notify: receives a sentence if the file's content has changed.

    Raises:
        SlideError: the slide cannot be opened, or is of another size, or another film.
    """
    check_film(file, bag.volume)
    bag_mpp = bag.mpp_l0[0] if bag.mpp_source != "file" else None
    with open_slide(file, mpp=slide_mpp or bag_mpp) as slide:
        if slide.size_l0 != bag.size_l0:
            raise SlideError(
                f"{file} is {slide.size_l0[0]} x {slide.size_l0[1]} pixels, the bag's slide "
                f"{bag.size_l0[0]} x {bag.size_l0[1]}. Give the slide the bag was made from."
            )
        source = fingerprint({"files": identify_files(SlideJob(slide=bag.slide, files=(file,)))})
        if bag.source_sha256 not in ("", source):
            notify(
                f"{file} is not the file that the bag of {bag.slide} was made from: its pixels may differ."
            )
        yield slide


def draw_picture(slide: Slide, mpp: float) -> Image.Image:
    """The whole slide at ``mpp`` micrometres per pixel, no finer than its own.

    Raises:
        SlideError: the picture would be too large.
    """
    extent = [pixels * own_mpp for pixels, own_mpp in zip(slide.size_l0, slide.mpp, strict=True)]
    if max(extent) / mpp > MOST_PX:
        raise SlideError(
            f"A picture at mpp={mpp:g} would be {max(extent) / mpp:.0f} pixels wide or high, and {MOST_PX} "
            f"are the most. Set mpp to {max(extent) / MOST_PX:.2g} or more."
        )
    return slide.thumbnail(round(max(extent) / mpp))


def bag_tiles(slide: Slide, bag: Bag) -> SlideTiles:
    """The pixels of a bag's tiles."""
    grid = TileGrid(bag.coords_l0, bag.coverage, bag.tile_px, bag.target_mpp, bag.side_l0)
    return SlideTiles(slide, grid)


def load_bag_backbone(
    recipe: Mapping[str, Any], weights: str | None, store: Path, tiles: SlideTiles
) -> tuple[Backbone, Callable[[Tiles], Tiles] | None]:
    """The network that made bags, and the stain normalisation before it, if there was one.

    Args:
        recipe: of the bags, resolved.
        weights: the backbone's weights file, if the bags were made with one.
        store: folder for the stain reference.
        tiles: of the slide.

    Raises:
        BackboneError: another tool made the bags, or their weights file is not given.
    """
    if recipe.get("region") in NOT_EXTRACTED:
        raise BackboneError(
            "The bags were not extracted from slides by one backbone: they are joined, or made by another "
            "tool. Choose a method that needs no pixels."
        )
    repeated = recipe_from(recipe, weights, store)
    reference = (
        normalisation.resolve_stain_reference(repeated, ()) if repeated.stain != "off" else None
    )
    normaliser = normalisation.tile_normaliser(tiles, tiles.slide, repeated, reference)
    backbone = load_backbone(recipe["backbone"], repeated.weights, stated=repeated.stated)
    as_then = {key: recipe.get(key, default) for key, default in UNRECORDED.items()}
    return replace(backbone, recipe=replace(backbone.recipe, **as_then)), normaliser
