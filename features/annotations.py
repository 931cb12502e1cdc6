"""Regions drawn in QuPath: GeoJSON to polygons by class."""

import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry import MultiPolygon, Polygon, shape

from features.errors import AnnotationError

Region = Polygon | MultiPolygon
SUFFIXES = (".geojson", ".json", ".geojson.gz")
_NOT_DRAWN = ("detection", "cell", "tile", "root", "tmaCore")  # made by QuPath, by the 100,000


@dataclass(frozen=True)
class Annotation:
    """One drawn region.

    Attributes:
        class_names: QuPath's classification, from the base class to the derived ones; empty if none.
        name: the free name of the object, if any.
        polygon: valid polygons with holes, in level-0 pixels.
    """

    class_names: tuple[str, ...]
    name: str
    polygon: Region

    def is_class(self, wanted: str) -> bool:
        """Whether ``wanted`` names the base class or the whole class, in any letter case."""
        spoken = {self.class_names[0], ": ".join(self.class_names)} if self.class_names else set()
        return wanted.strip().casefold() in {name.strip().casefold() for name in spoken}


def read_annotations(path: Path) -> tuple[Annotation, ...]:
    """Read a QuPath export: a FeatureCollection, a bare array of features, or a single feature.

    Detections, cells and tiles are skipped, as are points and lines: they have no area.

    Raises:
        AnnotationError: the file is missing, is not GeoJSON, or holds a malformed geometry.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        document = json.loads(raw)
    except (OSError, ValueError, RecursionError, EOFError, zlib.error) as error:
        raise AnnotationError(
            f"{path.name}: cannot be read as GeoJSON ({error}). "
            "In QuPath: File > Export objects as GeoJSON."
        ) from error
    annotations = []
    for feature in _features(path, document):
        properties = feature.get("properties") or {}
        kind = properties.get("objectType", properties.get("object_type"))
        if kind in _NOT_DRAWN:
            continue
        polygon = _polygon(path, feature.get("geometry") or {})
        if polygon is not None:
            names = _class_names(properties.get("classification"))
            annotations.append(Annotation(names, str(properties.get("name") or ""), polygon))
    return tuple(annotations)


def region(annotations: Sequence[Annotation], classes: Iterable[str], *, source: str) -> Region:
    """The union of all annotations of the given classes: overlaps count once.

    Args:
        annotations: what a file holds.
        classes: class names, any letter case; a derived class counts with its base class.
        source: the file, for the message.

    Raises:
        AnnotationError: no annotation has one of the classes; the message lists those there are.
    """
    wanted = tuple(classes)
    chosen = [a.polygon for a in annotations if any(a.is_class(name) for name in wanted)]
    if not chosen:
        held = Counter(": ".join(a.class_names) or "(unclassified)" for a in annotations)
        listing = ", ".join(f"{name} x{count}" for name, count in held.most_common(8)) or "nothing"
        folded = {name.casefold(): name for name in held if name != "(unclassified)"}
        near = get_close_matches(wanted[0].casefold(), folded, 1)
        hint = f" Did you mean --class {folded[near[0]]!r}?" if near else ""
        raise AnnotationError(
            f"{source}: no annotation of class {' or '.join(map(repr, wanted))}; it holds {listing}."
            f"{hint} Name the class with --class, or set it in QuPath and export again."
        )
    return polygons_of(shapely.union_all(chosen))


def excluded_region(annotations: Sequence[Annotation], classes: Iterable[str]) -> Region:
    """The union of the annotations to take away; empty when there are none."""
    names = tuple(classes)
    chosen = [a.polygon for a in annotations if any(a.is_class(name) for name in names)]
    return polygons_of(shapely.union_all(chosen))


def find_annotation(folder: Path, slide_file: str, slide: str) -> Path:
    """The annotation file of a slide: ``<slide>.geojson`` or ``<slide file>.geojson`` and kin.

    Raises:
        AnnotationError: the folder holds none.
    """
    for stem in (slide, slide_file):
        for suffix in SUFFIXES:
            if (folder / f"{stem}{suffix}").is_file():
                return folder / f"{stem}{suffix}"
    raise AnnotationError(
        f"{slide}: no annotation in {folder}. Export it from QuPath as {slide}.geojson, or leave out "
        "--annotations to use the tissue instead."
    )


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


def _features(path: Path, document: Any) -> list[dict[str, Any]]:
    """The features of a document, whichever of QuPath's forms it has."""
    if isinstance(document, dict) and document.get("type") == "FeatureCollection":
        document = document.get("features")
    elif isinstance(document, dict) and document.get("type") == "Feature":
        document = [document]
    if not isinstance(document, list) or not all(map(_is_feature, document)):
        raise AnnotationError(
            f"{path.name}: JSON, but neither a FeatureCollection nor features. "
            "In QuPath: File > Export objects as GeoJSON."
        )
    return document


def _is_feature(item: Any) -> bool:
    return (
        isinstance(item, dict)
        and item.get("type") == "Feature"
        and all(isinstance(item.get(part) or {}, dict) for part in ("properties", "geometry"))
    )


def _class_names(classification: Any) -> tuple[str, ...]:
    """A classification as QuPath has written it over the years: a string, ``name`` or ``names``."""
    if isinstance(classification, str):
        return tuple(part.strip() for part in classification.split(":") if part.strip())
    if isinstance(classification, dict):
        names = classification.get("names")
        if isinstance(names, list):
            return tuple(str(name) for name in names)
        return _class_names(classification.get("name"))
    return ()


def _polygon(path: Path, geometry: dict[str, Any]) -> Region | None:
    """The geometry made valid, or None where it has no area."""
    if geometry.get("type") not in ("Polygon", "MultiPolygon", "GeometryCollection"):
        return None
    try:
        mended = polygons_of(shapely.make_valid(shape(geometry)))
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        IndexError,
        shapely.GEOSException,
    ) as error:
        raise AnnotationError(
            f"{path.name}: a {geometry.get('type')} has malformed coordinates ({error}). "
            "Export the annotations from QuPath again."
        ) from error
    return None if mended.is_empty else mended
