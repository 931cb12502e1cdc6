"""Readers of ImageScope's XML and of HALO's annotations: layers of regions, some of which are holes."""

import math
from xml.etree.ElementTree import Element

from features.regions.drawing import Annotation, Drawing, DrawingBuilder, polygonal_parts
from features.regions.xml_tree import first_element, parse_root, read_number, root_name

_ROOT = "Annotations"
_VERTICES = ("Vertex", "V")
_RECTANGLES, _ELLIPSES = ("1", "rectangle"), ("2", "ellipse", "circle")
_ELLIPSE_CORNERS = 128  # the polygon through them has 99.96 % of the ellipse's area


def is_imagescope(raw: bytes | bytearray) -> bool:
    """Whether a file's bytes are XML with ImageScope's root element, and not HALO's."""
    return root_name(raw) == _ROOT and first_element(raw, *_VERTICES) != "V"


def is_halo(raw: bytes | bytearray) -> bool:
    """Whether a file's bytes are HALO's annotations, which name corners unlike ImageScope's."""
    return root_name(raw) == _ROOT and first_element(raw, *_VERTICES) == "V"


def read_imagescope(source: str, raw: bytes | bytearray) -> Drawing:
    """Read Aperio ImageScope's XML, in full-resolution pixels whatever the zoom it was drawn at.

    The class of a region is the name of its layer, else the layer's description, else the region's text.
    A region with ``NegativeROA`` is a hole in the other regions of its layer. Regions of two corners are
    the boxes and ellipses between them; arrows and rulers have no area and are only counted.

    Args:
        source: the file's name, for messages.
        raw: its bytes, unpacked.

    Raises:
        AnnotationError: it is not ImageScope's XML, declares a document type, or has malformed coordinates.
    """
    return _read_layers(source, raw, "ImageScope XML")


def read_halo(source: str, raw: bytes | bytearray) -> Drawing:
    """Read HALO's annotations, which are built as ImageScope's XML is; see ``read_imagescope``."""
    return _read_layers(source, raw, "HALO annotations")


def _read_layers(source: str, raw: bytes | bytearray, form: str) -> Drawing:
    builder = DrawingBuilder(source)
    for layer in parse_root(source, raw, _ROOT, form).iter("Annotation"):
        holes = DrawingBuilder(source)
        first = len(builder.annotations)
        for region in layer.iter("Region"):
            negative = region.get("NegativeROA", "0").strip().lower() in ("1", "true")
            target = holes if negative else builder
            ring = _read_ring(source, region)
            if not ring:
                builder.counts[
                    "Regions of fewer than three corners ignored, as they have no area"
                ] += 1
                continue
            classes = () if negative else _class_names(layer, region)
            name = region.get("Text", "").strip()
            target.add(classes, name, {"type": "Polygon", "coordinates": [ring]})
        _cut_holes(builder, first, holes.build())
    return builder.build()


def _class_names(layer: Element, region: Element) -> tuple[str, ...]:
    """A region's class, split at colons as QuPath's are."""
    described = [
        attribute.get("Value", "")
        for attribute in layer.findall("./Attributes/Attribute")
        if attribute.get("Name") == "Description"
    ]
    names = (layer.get("Name", ""), *described, region.get("Text", ""))
    name = next((name for name in map(str.strip, names) if name), "")
    return tuple(filter(None, map(str.strip, name.split(":"))))


def _cut_holes(builder: DrawingBuilder, first: int, holes: Drawing) -> None:
    """Take the negative regions of a layer out of its other regions, those from ``first`` on."""
    if not holes.annotations:
        return
    area = holes.union([annotation.class_name for annotation in holes.annotations])
    cut = [
        Annotation(drawn.class_names, drawn.name, polygonal_parts(drawn.polygon - area))
        for drawn in builder.annotations[first:]
    ]
    builder.annotations[first:] = [drawn for drawn in cut if not drawn.polygon.is_empty]
    if not cut:
        builder.counts["Negative regions without a region around them ignored"] += len(
            holes.annotations
        )


def _read_ring(source: str, region: Element) -> list[list[float]]:
    """The corners of a region; those of the box or the ellipse between two; empty if it has no area."""
    vertices = [vertex for vertex in region.iter() if vertex.tag in _VERTICES]
    place = f"region {region.get('Id') or region.get('Text') or region.get('Type', '')}"
    corners = [
        [read_number(source, place, vertex.get(axis)) for axis in "XY"] for vertex in vertices
    ]
    if len(corners) != 2:
        return corners if len(corners) > 2 else []
    (left, top), (right, bottom) = corners
    kind = region.get("Type", "").strip().lower()
    if kind in _RECTANGLES:
        return [[left, top], [right, top], [right, bottom], [left, bottom]]
    if kind in _ELLIPSES:
        x, y, across, down = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
        return ellipse_ring(x, y, across / 2, down / 2)
    return []


def ellipse_ring(x: float, y: float, across: float, down: float) -> list[list[float]]:
    """Corners on an ellipse, from its centre and its half axes."""
    angles = [2 * math.pi * step / _ELLIPSE_CORNERS for step in range(_ELLIPSE_CORNERS)]
    return [[x + across * math.cos(angle), y + down * math.sin(angle)] for angle in angles]
