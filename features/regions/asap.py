"""Regions drawn in ASAP: its XML to polygons by group."""

from pathlib import Path
from xml.etree import ElementTree

from features.errors import AnnotationError
from features.files.unpack import read_unpacked
from features.regions.annotations import Collector, Drawing

_AREAL = ("Polygon", "Rectangle", "Spline")


class _PlainTree(ElementTree.TreeBuilder):
    """Refuses a document type: its entities can unfold to gigabytes, and ASAP writes none."""

    def doctype(self, name: str, *_: object) -> None:
        raise ValueError(f"it declares a DOCTYPE, {name}")


def read_asap(path: Path) -> Drawing:
    """Read ASAP's XML; an annotation's class is its group, after the groups that hold this one.

    Polygons, rectangles and splines count, splines by their control points; dots, point sets and
    measurements have no area and are counted only. ASAP has no holes: draw them in a group of their
    own and take that away with ``--exclude-class``. Coordinates are level-0 pixels: unlike QuPath,
    ASAP does not crop a slide to its scanned part.

    Raises:
        AnnotationError: the file is missing, is not ASAP's XML, declares a document type, or holds
            malformed coordinates.
    """
    parser = ElementTree.XMLParser(target=_PlainTree())
    try:
        parser.feed(read_unpacked(path))
        root = parser.close()
        if root.tag != "ASAP_Annotations":
            raise ValueError(f"its root is {root.tag}, not ASAP_Annotations")
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise AnnotationError(
            f"{path.name}: cannot be read as ASAP XML ({error}). Save it from ASAP again, or draw in "
            "QuPath and export GeoJSON."
        ) from error
    parents = {_name(group): _name(group, "PartOfGroup") for group in root.iter("Group")}
    held = Collector(path.name)
    for annotation in root.iter("Annotation"):
        kind = annotation.get("Type", "")
        if kind not in _AREAL:
            held.counts[f"Annotations of type {kind!r} ignored, as they have no area"] += 1
            continue
        if kind == "Spline":
            held.counts["Splines read as polygons through their control points"] += 1
        points = _points(path.name, annotation)
        rings = [points] if len(points) > 2 else []  # a slip of the mouse leaves one or two points
        classes = _class_names(_name(annotation, "PartOfGroup"), parents)
        held.add(classes, _name(annotation), {"type": "Polygon", "coordinates": rings})
    return held.drawing()


def _name(element: ElementTree.Element, key: str = "Name") -> str:
    """An attribute without blanks; ASAP writes ``None`` for no group."""
    told = element.get(key, "").strip()
    return "" if told == "None" else told


def _class_names(group: str, parents: dict[str, str]) -> tuple[str, ...]:
    """A group's name after those of the groups around it, outermost first."""
    names: list[str] = []
    while group and group not in names:  # groups that hold each other end the walk
        names.insert(0, group)
        group = parents.get(group, "")
    return tuple(names)


def _points(source: str, annotation: ElementTree.Element) -> list[list[float]]:
    """The corners in their stated order; a decimal comma is a point."""
    try:
        corners = sorted(annotation.iter("Coordinate"), key=lambda c: float(c.get("Order", "0")))
        return [[float(c.get(axis, "").replace(",", ".")) for axis in "XY"] for c in corners]
    except ValueError as error:
        raise AnnotationError(
            f"{source}: {_name(annotation) or 'an annotation'} has malformed coordinates ({error}). "
            "Save it from ASAP again."
        ) from error
