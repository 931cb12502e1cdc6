"""Where a drawing lies on its slide: QuPath may count from the corner of the scanned part."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import shapely
from shapely.affinity import translate

from features.errors import AnnotationError
from features.regions.annotations import Region
from features.slides.slide import Slide

ORIGINS = ("auto", "level0", "bounds")
FITS = 0.9  # of the drawn area inside the scanned part: freehand strokes run over edges
CLEAR = 1.5  # this many times the tissue of the other frame decides


@dataclass(frozen=True)
class Placed:
    """Where the corner of a drawing's frame lies on the slide.

    Attributes:
        offset_l0: (x, y) in level-0 pixels, to be added to everything drawn in the same file.
        origin: ``level0`` if the drawing counts from the slide's corner, ``bounds`` if from the corner
            of its scanned part.
        reason: why, as a sentence.
    """

    offset_l0: tuple[int, int]
    origin: Literal["level0", "bounds"]
    reason: str


def place(drawn: Region, slide: Slide, origin: str, tissue: Callable[[], Region]) -> Placed:
    """Find the frame in which a drawing was made.

    QuPath crops MIRAX and Leica SCN slides to their scanned part and counts from its corner; ASAP, and
    QuPath with ``--no-crop``, count from the corner of level 0. The file does not say which. ``auto``
    takes the one frame in which the drawing lies within the scanned part (``FITS`` of its area), else
    the one with ``CLEAR`` times the tissue of the other, else ``bounds``, which is QuPath's default.

    Args:
        drawn: what the file holds, best the union of all classes: the more, the surer. Its offset
            holds for every region of the file, those to be taken away included.
        slide: its size, and where its scanned part lies.
        origin: one of ``ORIGINS``.
        tissue: makes the tissue's polygons in level-0 pixels; called only if they must decide.

    Raises:
        AnnotationError: the drawing lies outside the slide, or ``origin`` is unknown.
    """
    if origin not in ORIGINS:
        raise AnnotationError(
            f"--annotation-origin {origin!r} is unknown. Pass one of {', '.join(ORIGINS)}."
        )
    placed = _chosen(drawn, slide, origin, tissue)
    if not _shifted(drawn, placed.offset_l0).intersects(shapely.box(0, 0, *slide.size_l0)):
        left, top, right, bottom = drawn.bounds
        width, height = slide.size_l0
        raise AnnotationError(
            f"{slide.name}: what is drawn, x {left:.0f} to {right:.0f} and y {top:.0f} to {bottom:.0f}, "
            f"lies outside the slide of {width} x {height} pixels (origin: {placed.origin}). Check that "
            "the annotation is this slide's and in full-resolution pixels, or try another "
            "--annotation-origin."
        )
    return placed


def _chosen(drawn: Region, slide: Slide, origin: str, tissue: Callable[[], Region]) -> Placed:
    level0 = (0, 0)
    bounds = slide.bounds_l0
    if bounds == level0:
        return Placed(level0, "level0", "The slide's scanned part starts at its corner.")
    if origin == "level0":
        return Placed(level0, "level0", "Asked for.")
    if origin == "bounds":
        return Placed(bounds, "bounds", "Asked for.")
    scanned = translate(shapely.box(0, 0, *slide.bounds_size_l0), *bounds)
    from_level0, from_bounds = _shares(drawn, scanned, bounds)
    if (from_level0 >= FITS) != (from_bounds >= FITS):
        reason = (
            f"Of the drawing, {from_level0:.0%} lies in the scanned part if it counts from the slide's "
            f"corner, {from_bounds:.0%} if from the scanned part's."
        )
        if from_bounds >= FITS:
            return Placed(bounds, "bounds", reason)
        return Placed(level0, "level0", reason)
    from_level0, from_bounds = _shares(drawn, tissue(), bounds)
    reason = (
        f"Of the drawing, {from_level0:.0%} is tissue if it counts from the slide's corner, "
        f"{from_bounds:.0%} if from the scanned part's"
    )
    if from_level0 > CLEAR * from_bounds:
        return Placed(level0, "level0", f"{reason}.")
    if from_bounds > CLEAR * from_level0:
        return Placed(bounds, "bounds", f"{reason}.")
    return Placed(
        bounds,
        "bounds",
        f"{reason}: undecided, so QuPath's default. Pass --annotation-origin level0 if the tiles "
        "lie beside the drawing.",
    )


def _shares(drawn: Region, area: Region, offset: tuple[int, int]) -> tuple[float, float]:
    """The fractions of the drawing that lie in an area: as it is, and moved by the offset."""
    both = (drawn, _shifted(drawn, offset))
    unmoved, moved = ((there & area).area / drawn.area for there in both)
    return unmoved, moved


def _shifted(drawn: Region, offset: tuple[int, int]) -> Region:
    moved: Region = translate(drawn, *offset)
    return moved
