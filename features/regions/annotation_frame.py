"""The coordinate frame of a drawing: QuPath may count from the corner of the scanned part."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import shapely
from shapely.affinity import translate

from features.errors import AnnotationError
from features.recipe import ORIGINS
from features.regions.drawing import Region
from features.slides.slide import Slide

MIN_INSIDE = 0.9  # of the drawn area in the scanned part: freehand strokes run over its edges
MIN_TISSUE_RATIO = 1.5  # times the tissue of the other frame; less is undecided


@dataclass(frozen=True)
class AnnotationFrame:
    """Where the origin of a drawing's coordinates lies on the slide.

    Attributes:
        offset_l0: (x, y) in level-0 pixels, to be added to all coordinates of the file.
        origin: ``level0`` if the drawing counts from the slide's corner, ``bounds`` if from the corner
            of its scanned part.
        reason: why, as a sentence.
    """

    offset_l0: tuple[int, int]
    origin: Literal["level0", "bounds"]
    reason: str


def find_frame(
    drawn: Region, slide: Slide, origin: str, tissue: Callable[[], Region]
) -> AnnotationFrame:
    """Find the coordinate frame of a drawing.

    QuPath crops MIRAX and Leica SCN slides to their scanned part and counts from its corner. ASAP, and
    QuPath where cropping is switched off, count from the corner of level 0. QuPath's files do not say
    which. ``auto`` takes the one frame in which the drawing lies within the scanned part (``MIN_INSIDE`` of
    its area), else the one with ``MIN_TISSUE_RATIO`` times the tissue of the other, else ``bounds``,
    QuPath's default.

    Args:
        drawn: the union of all classes of the file: the more is drawn, the surer the choice. The offset
            applies to every region of the file, excluded ones too.
        slide: gives its size, and where its scanned part lies.
        origin: one of ``ORIGINS``.
        tissue: segments the tissue, as polygons in level-0 pixels; called only if it has to decide.

    Raises:
        AnnotationError: the drawing lies outside the slide, or ``origin`` is unknown.
    """
    if origin not in ORIGINS:
        raise AnnotationError(
            f"annotation_origin is one of {', '.join(ORIGINS)}; got {origin!r}. Use auto."
        )
    frame = _choose_frame(drawn, slide, origin, tissue)
    if not _shift(drawn, frame.offset_l0).intersects(shapely.box(0, 0, *slide.size_l0)):
        left, top, right, bottom = drawn.bounds
        width, height = slide.size_l0
        raise AnnotationError(
            f"{slide.name}: the drawing, x {left:.0f} to {right:.0f} and y {top:.0f} to {bottom:.0f}, "
            f"lies outside the slide of {width} x {height} pixels (origin: {frame.origin}). Check that "
            "the annotation is this slide's and in full-resolution pixels, or set another "
            "annotation_origin."
        )
    return frame


def _choose_frame(
    drawn: Region, slide: Slide, origin: str, tissue: Callable[[], Region]
) -> AnnotationFrame:
    level0 = (0, 0)
    bounds = slide.bounds_l0
    if bounds == level0:
        return AnnotationFrame(level0, "level0", "The slide's scanned part starts at its corner.")
    if origin == "level0":
        return AnnotationFrame(level0, "level0", "Set by annotation_origin.")
    if origin == "bounds":
        return AnnotationFrame(bounds, "bounds", "Set by annotation_origin.")
    scanned = translate(shapely.box(0, 0, *slide.bounds_size_l0), *bounds)
    from_level0, from_bounds = _fractions_inside(drawn, scanned, bounds)
    if (from_level0 >= MIN_INSIDE) != (from_bounds >= MIN_INSIDE):
        reason = (
            f"{from_level0:.0%} of the drawing lies in the scanned part if it counts from the slide's "
            f"corner, {from_bounds:.0%} if it counts from the scanned part's."
        )
        if from_bounds >= MIN_INSIDE:
            return AnnotationFrame(bounds, "bounds", reason)
        return AnnotationFrame(level0, "level0", reason)
    from_level0, from_bounds = _fractions_inside(drawn, tissue(), bounds)
    reason = (
        f"{from_level0:.0%} of the drawing is tissue if it counts from the slide's corner, "
        f"{from_bounds:.0%} if it counts from the scanned part's"
    )
    if from_level0 > MIN_TISSUE_RATIO * from_bounds:
        return AnnotationFrame(level0, "level0", f"{reason}.")
    if from_bounds > MIN_TISSUE_RATIO * from_level0:
        return AnnotationFrame(bounds, "bounds", f"{reason}.")
    return AnnotationFrame(
        bounds,
        "bounds",
        f"{reason}: undecided, so QuPath's default is used. Set annotation_origin to level0 if the tiles "
        "lie beside the drawing.",
    )


def _fractions_inside(drawn: Region, area: Region, offset: tuple[int, int]) -> tuple[float, float]:
    """The fractions of the drawing that lie in an area: as it is, and moved by the offset."""
    moved = _shift(drawn, offset)
    return (drawn & area).area / drawn.area, (moved & area).area / drawn.area


def _shift(drawn: Region, offset: tuple[int, int]) -> Region:
    moved: Region = translate(drawn, *offset)
    return moved
