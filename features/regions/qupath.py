"""Reader of QuPath's GeoJSON, in every form that QuPath has exported over the years."""

import ast
import contextlib
import json
import re
from collections import deque
from collections.abc import Iterator
from typing import Any

from features.errors import AnnotationError
from features.files.unpack import EXPORT
from features.regions.drawing import Drawing, DrawingBuilder

_JSON_START = re.compile(
    rb"[\xef\xbb\xbf\xfe\xff\x00\s]*[{\[]"
)  # byte order marks of UTF-8 to UTF-32
_POINTS_AND_LINES = ("Point", "MultiPoint", "LineString", "MultiLineString")
_GEOMETRIES = (*_POINTS_AND_LINES, "Polygon", "MultiPolygon", "GeometryCollection")
_NOT_DRAWN = ("detection", "cell", "tile", "root", "tmacore")  # made by QuPath, by the 100,000


def is_qupath(raw: bytes | bytearray) -> bool:
    """Whether a file's bytes begin a JSON object or array."""
    return _JSON_START.match(raw) is not None


def read_qupath(source: str, raw: bytes | bytearray) -> Drawing:
    """Read GeoJSON: a FeatureCollection, a bare array, a single feature or a geometry.

    Features may contain others in ``childObjects``. Detections, cells and tiles are skipped before their
    geometry is read, as is anything on another plane than z = 0, t = 0.

    Args:
        source: the file's name, for messages.
        raw: its bytes, unpacked.

    Raises:
        AnnotationError: it is not GeoJSON, or has a malformed geometry.
    """
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{source}: cannot be read as GeoJSON ({error}). {EXPORT}") from error
    builder = DrawingBuilder(source)
    for feature, nested in _walk_features(source, document):
        if _add_feature(builder, feature) and nested:
            builder.counts["Objects nested in others read as well"] += 1
    return builder.build()


def _walk_features(source: str, document: Any) -> Iterator[tuple[dict[str, Any], bool]]:
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
            items = [None]  # refused like any other item that is no feature
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
    complete = item.get("type") == "Feature" and all(isinstance(p, dict) for p in parts.values())
    return item | parts if complete else None


def _add_feature(builder: DrawingBuilder, feature: dict[str, Any]) -> bool:
    """Add a feature that a person drew on the first plane; whether it was added."""
    properties, geometry = feature["properties"], feature["geometry"]
    plane = geometry.get("plane")
    kind = _object_type(feature)
    before = len(builder.annotations)
    if kind in _NOT_DRAWN:
        builder.counts[f"Objects of type {kind} skipped, as nobody drew them"] += 1
    elif isinstance(plane, dict) and any(plane.get(axis) for axis in "zt"):
        builder.counts["Objects on another plane than z=0, t=0 skipped"] += 1
    elif geometry.get("type") in _POINTS_AND_LINES:
        builder.counts["Points and lines ignored, as they have no area"] += 1
    else:
        names = _class_names(properties.get("classification"))
        builder.add(names, _text(properties.get("name")), geometry)
    return len(builder.annotations) > before


def _object_type(feature: dict[str, Any]) -> str:
    """``detection``, ``cell``, ...: QuPath has written it in four places over the years."""
    properties = feature["properties"]
    kind = (
        properties.get("objectType")
        or properties.get("object_type")
        or properties.get("type")
        or feature.get("id")  # PathDetectionObject; a UUID in later versions
    )
    return _text(kind).removeprefix("Path").removesuffix("Object").lower()


def _class_names(classification: Any) -> tuple[str, ...]:
    """A classification as QuPath has written it over the years: a string, ``name`` or ``names``.

    Tables of geometries, such as those of GeoPandas, turn the object into JSON text or Python's form of it.
    """
    if isinstance(classification, str) and classification.lstrip()[:1] in ("{", "["):
        classification = _read_text(classification)
    if isinstance(classification, list):
        classification = {"names": classification}
    if isinstance(classification, dict):
        names = classification.get("names")
        if not isinstance(names, list):
            names = _text(classification.get("name")).split(":")
    else:
        names = _text(classification).split(":")
    return tuple(filter(None, map(_text, names)))


def _read_text(text: str) -> Any:
    """The object that a text is JSON or a Python literal of; the text itself where it is neither."""
    for read in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            return read(text)
    return text


def _text(value: Any) -> str:
    return str(value).strip() if isinstance(value, str | int) else ""
