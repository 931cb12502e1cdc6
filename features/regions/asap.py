"""Reader of ASAP's XML: polygons by group."""

from xml.etree import ElementTree

from features.errors import AnnotationError
from features.regions.drawing import Drawing, DrawingBuilder
from features.regions.xml_tree import parse_root, root_name

_ROOT = "ASAP_Annotations"
_AREAL = ("Polygon", "Rectangle", "Spline")


def is_asap(raw: bytes | bytearray) -> bool:
    """Whether a file's bytes are XML with ASAP's root element."""
    return root_name(raw) == _ROOT


def read_asap(source: str, raw: bytes | bytearray) -> Drawing:
    """Read ASAP's XML; the class of an annotation is its group, preceded by the groups around that one.

    Polygons, rectangles and splines count, splines by their control points; dots, point sets and
    measurements have no area and are only counted. ASAP has no holes: draw them in a group of their own
    and exclude that class. Coordinates are level-0 pixels: unlike QuPath, ASAP does not crop a slide to
    its scanned part.

    Args:
        source: the file's name, for messages.
        raw: its bytes, unpacked.

    Raises:
        AnnotationError: it is not ASAP's XML, declares a document type, or has malformed coordinates.
    """
    root = parse_root(source, raw, _ROOT, "ASAP XML")
    parents = {_attribute(group): _attribute(group, "PartOfGroup") for group in root.iter("Group")}
    builder = DrawingBuilder(source, origin="level0")
    for annotation in root.iter("Annotation"):
        kind = annotation.get("Type", "")
        if kind not in _AREAL:
            builder.counts[f"Annotations of type {kind!r} ignored, as they have no area"] += 1
            continue
        if kind == "Spline":
            builder.counts["Splines read as polygons through their control points"] += 1
        points = _read_corners(source, annotation)
        rings = [points] if len(points) > 2 else []  # a slip of the mouse leaves one or two points
        classes = _class_names(_attribute(annotation, "PartOfGroup"), parents)
        builder.add(classes, _attribute(annotation), {"type": "Polygon", "coordinates": rings})
    return builder.build()


def _attribute(element: ElementTree.Element, key: str = "Name") -> str:
    """An attribute without blanks; empty for ``None``, which ASAP writes for no group."""
    value = element.get(key, "").strip()
    return "" if value == "None" else value


def _class_names(group: str, parents: dict[str, str]) -> tuple[str, ...]:
    """A group's name after those of the groups around it, outermost first."""
    names: list[str] = []
    while group and group not in names:  # groups that contain each other end the walk
        names.insert(0, group)
        group = parents.get(group, "")
    return tuple(names)


def _read_corners(source: str, annotation: ElementTree.Element) -> list[list[float]]:
    """The corners by their ``Order``; a decimal comma is read as a point."""
    try:
        corners = sorted(annotation.iter("Coordinate"), key=lambda c: float(c.get("Order", "0")))
        return [[float(c.get(axis, "").replace(",", ".")) for axis in "XY"] for c in corners]
    except ValueError as error:
        raise AnnotationError(
            f"{source}: {_attribute(annotation) or 'an annotation'} has malformed coordinates ({error}). "
            "Save it from ASAP again."
        ) from error
