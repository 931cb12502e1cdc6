"""Reader of Hamamatsu's NDPA: nanometres from the centre of the glass slide."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from xml.etree.ElementTree import Element

import openslide
from shapely.affinity import affine_transform

from features.errors import AnnotationError
from features.regions.drawing import Drawing, DrawingBuilder
from features.regions.layers import ellipse_ring
from features.regions.xml_tree import first_element, parse_root, read_number, root_name

_ROOT = "annotations"
UNIT = "nanometers"
_OFFSETS = ("hamamatsu.XOffsetFromSlideCentre", "hamamatsu.YOffsetFromSlideCentre")
_REMEDY = "Annotate the .ndpi file itself, or draw in QuPath and export GeoJSON."


def is_ndpa(raw: bytes | bytearray) -> bool:
    """Whether a file's bytes are XML with NDP.view's root element and its views."""
    return root_name(raw) == _ROOT and first_element(raw, "ndpviewstate") != ""


def read_ndpa(source: str, raw: bytes | bytearray) -> Drawing:
    """Read the annotations of NDP.view; the class of each is its title.

    Closed freehand shapes, rectangles and circles count; open lines, pins and rulers have no area and are
    only counted. The format has no holes: draw them as a class of their own and exclude it. Coordinates are
    nanometres from the centre of the glass; ``place_on_slide`` makes pixels of them.

    Args:
        source: the file's name, for messages.
        raw: its bytes, unpacked.

    Raises:
        AnnotationError: it is not NDPA, declares a document type, counts in another unit, or has malformed
            coordinates.
    """
    builder = DrawingBuilder(source, origin="level0", unit=UNIT)
    for view in parse_root(source, raw, _ROOT, "Hamamatsu NDPA").iter("ndpviewstate"):
        title = (view.findtext("title") or "").strip()
        unit = (view.findtext("coordformat") or UNIT).strip().lower()
        if unit != UNIT:
            raise AnnotationError(
                f"{source}: {title or 'an annotation'} is in {unit}, and NDPA is read in {UNIT}. {_REMEDY}"
            )
        classes = tuple(filter(None, map(str.strip, title.split(":"))))
        for annotation in view.iter("annotation"):
            ring = _read_ring(source, title, annotation)
            if ring:
                builder.add(classes, title, {"type": "Polygon", "coordinates": [ring]})
            else:
                kind = annotation.get("type", "")
                builder.counts[f"Annotations of type {kind!r} ignored, as they have no area"] += 1
    return builder.build()


def place_on_slide(drawing: Drawing, slide: Path) -> Drawing:
    """A drawing in nanometres as one in level-0 pixels of its slide; another is returned as it is.

    Args:
        drawing: of ``read_ndpa``.
        slide: the slide's file, which states where on the glass it was scanned, and its scale.

    Raises:
        AnnotationError: the slide cannot be opened, or does not state this.
    """
    if drawing.unit != UNIT:
        return drawing
    try:
        with openslide.OpenSlide(slide) as handle:
            properties, size_l0 = dict(handle.properties), handle.dimensions
    except (openslide.OpenSlideError, OSError) as error:
        raise AnnotationError(
            f"{drawing.source}: counts from the centre of the glass, and {slide} cannot be opened to find it "
            f"({error}). {_REMEDY}"
        ) from error
    nm_per_px = [
        1000 * _property(drawing, slide, properties, f"openslide.mpp-{axis}") for axis in "xy"
    ]
    centre = [_property(drawing, slide, properties, name) for name in _OFFSETS]
    shift = [
        size / 2 - offset / nm for size, offset, nm in zip(size_l0, centre, nm_per_px, strict=True)
    ]
    matrix = (1 / nm_per_px[0], 0, 0, 1 / nm_per_px[1], *shift)
    placed = tuple(
        replace(annotation, polygon=affine_transform(annotation.polygon, matrix))
        for annotation in drawing.annotations
    )
    return replace(drawing, annotations=placed, unit="px")


def _property(drawing: Drawing, slide: Path, properties: Mapping[str, str], name: str) -> float:
    try:
        return float(properties[name])
    except (KeyError, ValueError) as error:
        raise AnnotationError(
            f"{drawing.source}: NDPA counts nanometres from the centre of the glass, and {slide.name} does "
            f"not state {name}, so that they cannot be placed on it. {_REMEDY}"
        ) from error


def _read_ring(source: str, title: str, annotation: Element) -> list[list[float]]:
    """The corners of an annotation in nanometres; empty if it has no area."""
    place = title or "an annotation"

    def number(element: Element, name: str) -> float:
        return read_number(source, place, element.findtext(name))

    kind = annotation.get("type", "").lower()
    if kind == "circle":
        radius = number(annotation, "radius")
        return ellipse_ring(number(annotation, "x"), number(annotation, "y"), radius, radius)
    closed = (annotation.findtext("closed") or "1").strip() != "0"
    if kind != "freehand" or not closed:
        return []
    points = [[number(point, axis) for axis in "xy"] for point in annotation.iter("point")]
    return points if len(points) > 2 else []
