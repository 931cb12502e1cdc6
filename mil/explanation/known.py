"""Tiles that are known to matter, from regions drawn on the slide."""

from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from features.bags.bag import Bag
from features.errors import AnnotationError, AnnotationMissing
from features.recipe import ALWAYS_EXCLUDED
from features.regions.annotations import find_annotation, read_annotations
from features.regions.drawing import polygonal_parts
from features.regions.masks import coverage

INSIDE = 0.5  # share of a tile's area from which it lies in the regions


def known_tiles(regions: Path, bag: Bag) -> NDArray[np.bool_]:
    """(N,) tiles of which at least half lies in the regions drawn on the slide.

    Args:
        regions: folder of annotations, by slide.
        bag: the tiles.

    Raises:
        AnnotationMissing: there is no annotation of the slide.
        AnnotationError: it cannot be read.
    """
    if not regions.is_dir():
        raise AnnotationError(f"regions is {regions}: no such folder. Check the path.")
    try:
        file = find_annotation(regions, bag.slide, bag.slide)
    except AnnotationMissing as error:
        raise AnnotationMissing(
            f"{bag.slide}: no regions in {regions}. Export those of this slide from QuPath as "
            f"{bag.slide}.geojson."
        ) from error
    drawing = read_annotations(file)
    if drawing.unit != "px":
        raise AnnotationError(
            f"{drawing.source}: its coordinates are {drawing.unit}, which only the slide's file can place. "
            "Give the regions as GeoJSON of QuPath."
        )
    drawn = shapely.union_all([annotation.polygon for annotation in drawing.annotations])
    area = polygonal_parts(drawn - drawing.union(ALWAYS_EXCLUDED))
    x, y = (bag.coords_l0 - (bag.bounds_l0 if bag.annotation_origin == "bounds" else (0, 0))).T
    return coverage(area, x.astype(float), y.astype(float), bag.side_l0) >= INSIDE
