"""Regions drawn in QuPath (GeoJSON) or ASAP (XML): files to polygons by class."""

import hashlib
import json
import unicodedata
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, Polygon

from features.errors import AnnotationError, AnnotationMissing
from features.files.unpack import EXPORT, read_unpacked

Region = Polygon | MultiPolygon
SUFFIXES = (".geojson", ".json", ".geojson.gz", ".json.gz", ".zip", ".xml")
UNCLASSIFIED = "(unclassified)"
FARTHEST_PX = 1e9  # no slide is as large; beyond it, areas lose their whole pixels
TOLD_CHANGE = 0.01  # mending that changes an area by more than this is worth a look
_POINTS_AND_LINES = ("Point", "MultiPoint", "LineString", "MultiLineString")
_GEOMETRIES = (*_POINTS_AND_LINES, "Polygon", "MultiPolygon", "GeometryCollection")
_NOT_DRAWN = ("detection", "cell", "tile", "root", "tmacore")  # made by QuPath, by the 100,000


@dataclass(frozen=True)
class Annotation:
    """One drawn region.

    Attributes:
        class_names: the classification, from the base class to the derived ones; empty if none.
        name: the free name of the object, if any.
        polygon: valid polygons with holes, in full-resolution pixels of the image as it was opened
            for drawing; ``features.regions.annotation_frame`` finds where its corner lies on the slide.
    """

    class_names: tuple[str, ...]
    name: str
    polygon: Region

    @property
    def class_name(self) -> str:
        """The whole class as QuPath writes it: ``Tumor: Positive``, or ``(unclassified)``."""
        return ": ".join(self.class_names) or UNCLASSIFIED

    def is_class(self, wanted: str) -> bool:
        """Whether ``wanted`` names the base class or the whole class.

        Letter case, surrounding blanks and QuPath's closing ``*`` do not matter. What has no class is
        ``unclassified`` and nothing else.
        """
        if not self.class_names:
            return wanted.strip().casefold() in (UNCLASSIFIED, UNCLASSIFIED.strip("()"))
        held, asked = _key(self.class_name), _key(wanted)
        return asked in (held, held[:1])


@dataclass(frozen=True)
class Drawing:
    """What an annotation file holds.

    Attributes:
        source: the file's name.
        annotations: every drawn region, in the order of the file.
        notes: plain sentences on what was skipped or changed in reading; empty if nothing was.
    """

    source: str
    annotations: tuple[Annotation, ...]
    notes: tuple[str, ...] = ()

    def histogram(self) -> Counter[str]:
        """How many annotations each class has; ``(unclassified)`` counts those without."""
        return Counter(annotation.class_name for annotation in self.annotations)

    def region(self, classes: Iterable[str]) -> Region:
        """The union of all annotations of the given classes: overlaps count once.

        Args:
            classes: class names as ``Annotation.is_class`` takes them.

        Raises:
            AnnotationError: no annotation has one of the classes; the message lists those there are.
        """
        wanted = tuple(classes)
        chosen = self.excluded(wanted)
        if not chosen.is_empty:
            return chosen
        held = self.histogram()
        listing = ", ".join(f"{name} x{count}" for name, count in held.most_common(8)) or "nothing"
        raise AnnotationError(
            f"{self.source}: no annotation of class {' or '.join(map(repr, wanted))}; it holds {listing}."
            f"{_nearest(wanted, held)} Name the class with --class, or set it in QuPath and export "
            "again." + "".join(f" {note}" for note in self.notes)
        )

    def excluded(self, classes: Iterable[str]) -> Region:
        """The union of the annotations to take away; empty when there are none."""
        names = tuple(classes)
        chosen = [a.polygon for a in self.annotations if any(map(a.is_class, names))]
        return polygons_of(shapely.union_all(chosen))


@dataclass
class Collector:
    """Gathers what a reader finds in one file: regions, and counts of what was skipped or changed."""

    source: str
    annotations: list[Annotation] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    changes: list[tuple[float, str]] = field(default_factory=list)

    def add(self, class_names: tuple[str, ...], name: str, geometry: dict[str, Any]) -> None:
        """Mend one GeoJSON geometry and keep it; what has no area is counted only.

        Raises:
            AnnotationError: the coordinates are malformed.
        """
        try:
            parts = [Polygon(shell, holes) for shell, *holes in _outlines(geometry)]
            polygon, change = _mended(parts)
        except (
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            OverflowError,
            RecursionError,
            shapely.GEOSException,
        ) as error:
            raise AnnotationError(
                f"{self.source}: a {geometry.get('type')} has malformed coordinates ({error}). "
                "Export the annotations again."
            ) from error
        if polygon.is_empty:
            self.counts["Objects without an area ignored"] += 1
            return
        annotation = Annotation(class_names, name, polygon)
        self.annotations.append(annotation)
        if change is not None:
            self.counts["Outlines that cross or touch themselves mended"] += 1
            x, y = polygon.representative_point().coords[0]
            self.changes.append((change, f"{annotation.class_name} near ({x:.0f}, {y:.0f})"))

    def drawing(self) -> Drawing:
        """Everything gathered, with one note per count and one on the areas that mending changed."""
        notes = [f"{what}: {count}." for what, count in self.counts.items()]
        told = [change for change in self.changes if abs(change[0]) > TOLD_CHANGE]
        if told:
            worst = sorted(told, key=lambda change: -abs(change[0]))[:5]
            notes.append(
                f"Mending changed the area of {len(told)} by more than {TOLD_CHANGE:.0%} of what is kept, "
                "against the even-odd rule, which drops what a stroke rounds twice: "
                + ", ".join(f"{where} {change:+.1%}" for change, where in worst)
                + "."
            )
        return Drawing(self.source, tuple(self.annotations), tuple(notes))


def read_annotations(path: Path) -> Drawing:
    """Read what was drawn on a slide: QuPath's GeoJSON in any of its forms, or ASAP's XML.

    GeoJSON may be a FeatureCollection, a bare array, a single feature or a geometry, plain, gzipped or
    alone in a zip; features may hold others in ``childObjects``. Detections, cells and tiles are
    skipped before their geometry is looked at, as is what lies on another plane than z = 0, t = 0.

    Outlines that cross themselves are mended to what their stroke winds around, be it once or twice:
    both wings of a bow-tie count, the middle of a ring drawn with one stroke does not, and holes are
    taken away. A note tells where this differs from the even-odd rule, in % of the area kept.

    Args:
        path: the file; its suffix, in any letter case, is one of ``SUFFIXES``.

    Raises:
        AnnotationError: the file is missing, cannot be unpacked, is neither GeoJSON nor ASAP's XML,
            or holds a malformed geometry.
    """
    if path.suffix.lower() == ".xml":
        from features.regions.asap import read_asap  # which builds on this module

        return read_asap(path)
    try:
        document = json.loads(read_unpacked(path))
    except (ValueError, RecursionError) as error:
        raise AnnotationError(
            f"{path.name}: cannot be read as GeoJSON ({error}). {EXPORT}"
        ) from error
    held = Collector(path.name)
    for feature, nested in _features(path.name, document):
        if _take(held, feature) and nested:
            held.counts["Objects nested in others read as well"] += 1
    return held.drawing()


def find_annotation(folder: Path, slide_file: str, slide: str) -> Path:
    """The annotation file of a slide: ``<slide>.geojson`` or ``<slide file>.geojson`` and kin.

    A slide ``site-1/a`` has its annotation in ``<folder>/site-1``.

    Raises:
        AnnotationMissing: the folder holds none.
        AnnotationError: it holds more than one.
    """
    inside = (
        folder / PurePosixPath(slide).parent
    )  # slides called alike stand in folders of their own
    stems = {_plain_name(PurePosixPath(slide).name), _plain_name(slide_file)}
    found = sorted(
        path
        for path in inside.glob("*")
        for stem in stems
        if (name := _plain_name(path.name)).startswith(stem)
        and name[len(stem) :].lower() in SUFFIXES
    )
    if len(found) == 1:
        return found[0]
    if found:
        raise AnnotationError(
            f"{slide}: annotated by {' and by '.join(path.name for path in found)} in {folder}. "
            "Keep the one that counts and move the others away."
        )
    raise AnnotationMissing(
        f"{slide}: no annotation in {folder}. Export it from QuPath as {slide}.geojson, or leave out "
        "--annotations to use the tissue instead."
    )


def _plain_name(name: str) -> str:
    """A name with its accents composed: macOS takes them apart, tables do not."""
    return unicodedata.normalize("NFC", name)


def annotation_sha256(path: Path) -> str:
    """The file's fingerprint, kept in the bag so that an edited annotation is seen."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def polygons_of(geometry: shapely.Geometry) -> Region:
    """The parts of a geometry that have area; mending leaves stray lines and points."""
    if isinstance(geometry, Polygon | MultiPolygon):
        return geometry
    parts = [
        part for part in shapely.get_parts(geometry) if isinstance(part, Polygon | MultiPolygon)
    ]
    return polygons_of(shapely.union_all(parts)) if parts else MultiPolygon()


def _features(source: str, document: Any) -> Iterator[tuple[dict[str, Any], bool]]:
    """The features of a document in any of QuPath's forms, and whether each was nested in another."""
    if not isinstance(document, dict):
        top = document
    elif document.get("type") == "FeatureCollection":
        top = document.get("features")
    else:
        top = [document]
    levels = deque([(top, False)])
    while levels:
        items, nested = levels.popleft()
        if not isinstance(items, list):
            items = [None]  # refused as any other item that is no feature
        for item in items:
            feature = _as_feature(item)
            if feature is None:
                raise AnnotationError(
                    f"{source}: JSON, but neither a FeatureCollection nor features. {EXPORT}"
                )
            yield feature, nested
            children = feature.get("childObjects") or feature["properties"].get("childObjects")
            if children:
                levels.append((children, True))


def _as_feature(item: Any) -> dict[str, Any] | None:
    """An item with its properties and geometry as dictionaries, empty where they are absent."""
    if not isinstance(item, dict):
        return None
    if item.get("type") in _GEOMETRIES:
        item = {"type": "Feature", "geometry": item}
    parts = {part: item.get(part) or {} for part in ("properties", "geometry")}
    whole = item.get("type") == "Feature" and all(isinstance(p, dict) for p in parts.values())
    return item | parts if whole else None


def _take(held: Collector, feature: dict[str, Any]) -> bool:
    """Keep what a person drew on the plane that is tiled; whether the feature was kept."""
    properties, geometry = feature["properties"], feature["geometry"]
    plane = geometry.get("plane")
    kind = _kind(feature)
    before = len(held.annotations)
    if kind in _NOT_DRAWN:
        held.counts[f"Objects of type {kind} skipped, as nobody drew them"] += 1
    elif isinstance(plane, dict) and any(plane.get(axis) for axis in "zt"):
        held.counts["Objects on another plane than z=0, t=0 skipped"] += 1
    elif geometry.get("type") in _POINTS_AND_LINES:
        held.counts["Points and lines ignored, as they have no area"] += 1
    else:
        names = _class_names(properties.get("classification"))
        held.add(names, _text(properties.get("name")), geometry)
    return len(held.annotations) > before


def _kind(feature: dict[str, Any]) -> str:
    """``detection``, ``cell``, ...: QuPath has named it in four places over the years."""
    properties = feature["properties"]
    told = (
        properties.get("objectType")
        or properties.get("object_type")
        or properties.get("type")
        or feature.get("id")  # PathDetectionObject; a UUID in later versions
    )
    return _text(told).removeprefix("Path").removesuffix("Object").lower()


def _class_names(classification: Any) -> tuple[str, ...]:
    """A classification as QuPath has written it over the years: a string, ``name`` or ``names``."""
    if isinstance(classification, dict):
        names = classification.get("names")
        if not isinstance(names, list):
            names = _text(classification.get("name")).split(":")
    else:
        names = _text(classification).split(":")
    return tuple(filter(None, map(_text, names)))


def _text(value: Any) -> str:
    return str(value).strip() if isinstance(value, str | int) else ""


def _key(name: str) -> tuple[str, ...]:
    """A class name without what may differ between two who mean the same."""
    parts = unicodedata.normalize("NFKC", name).casefold().split(":")
    return tuple(part.strip().removesuffix("*").rstrip() for part in parts)


def _nearest(wanted: Sequence[str], held: Iterable[str]) -> str:
    """What the user may have meant, as a sentence; empty if nothing comes near."""
    folded = {name.casefold(): name for name in held}
    near = [name for w in wanted for name in get_close_matches(w.casefold(), folded, 1)]
    if near and folded[near[0]] != UNCLASSIFIED:
        return f" Did you mean --class {folded[near[0]]!r}?"
    return " To take what has no class: --class unclassified." if UNCLASSIFIED in folded else ""


def _outlines(geometry: dict[str, Any]) -> Iterator[list[NDArray[np.float64]]]:
    """Per polygon of a geometry its rings, the shell first."""
    kind = geometry.get("type")
    if kind == "GeometryCollection":
        for part in geometry["geometries"]:
            yield from _outlines(part)
    elif kind in ("Polygon", "MultiPolygon"):
        coordinates = geometry["coordinates"]
        for rings in [coordinates] if kind == "Polygon" else coordinates:
            if rings:
                yield [_ring(ring) for ring in rings]


def _ring(points: Any) -> NDArray[np.float64]:
    """(n, 2) corners of a ring; shapely closes it if need be."""
    ring = np.asarray(points, dtype=np.float64)
    if ring.ndim != 2 or ring.shape[1] < 2:
        raise ValueError("a ring is not a list of x, y pairs")
    if not (np.abs(ring[:, :2]) < FARTHEST_PX).all():
        raise ValueError("a coordinate is not a number or lies beyond any slide")
    return ring[:, :2]


def _mended(parts: list[Polygon]) -> tuple[Region, float | None]:
    """Valid polygons, and by how much mending changed their area; None where nothing was mended.

    The change is measured against the even-odd rule, which drops what a stroke covers twice, and is a
    fraction of the area kept. It is negative where holes cover each other.
    """
    drawn = parts[0] if len(parts) == 1 else MultiPolygon(parts)
    if drawn.is_valid:
        return drawn, None
    mended = polygons_of(shapely.union_all([_filled(part) for part in parts]))
    if not mended.area:
        return MultiPolygon(), None
    return mended, 1 - shapely.make_valid(drawn).area / mended.area


def _filled(polygon: Polygon) -> Region:
    """What the shell's stroke winds around, less what the holes' strokes wind around."""
    rings = shapely.polygons([polygon.exterior, *polygon.interiors])
    shell, *holes = shapely.make_valid(rings, method="structure", keep_collapsed=False)
    return polygons_of(shell - shapely.union_all(holes))
