"""The outlines that are drawn over a slide: what a segmenter marks as tumour, or what a person has drawn."""

from pathlib import Path
from typing import Any

import numpy as np
import shapely

from features.bags.bag import Bag
from features.errors import AnnotationMissing
from features.regions.annotations import find_annotation, read_annotations

DETAIL = 4000  # steps along the longest side of a slide: finer detail of an outline is left out


def region_rings(folder: Path | None, bag: Bag) -> list[dict[str, Any]]:
    """Each region of a slide: its class, and its rings in level-0 pixels; none without a drawing.

    Args:
        folder: of drawings, one per slide; None for none.
        bag: of the slide.

    Raises:
        AnnotationError: the drawing cannot be read, or there are two.
    """
    if folder is None:
        return []
    try:
        drawing = read_annotations(find_annotation(folder, bag.slide, bag.slide))
    except AnnotationMissing:
        return []
    corner = np.zeros(2) if drawing.origin == "level0" else np.array(bag.bounds_l0, dtype=float)
    regions = []
    for drawn in drawing.annotations:
        outline = shapely.simplify(drawn.polygon, max(bag.size_l0) / DETAIL)
        rings = [
            np.round(np.asarray(ring.coords)[:, :2] + corner).astype(int).tolist()
            for part in shapely.get_parts(outline)
            for ring in (part.exterior, *part.interiors)
        ]
        regions.append({"name": drawn.class_name, "rings": rings})
    return regions
