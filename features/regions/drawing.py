"""What a person has drawn on a slide: classified regions as valid polygons, and how a reader builds them."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, Polygon

from features.choices import closest, did_you_mean
from features.errors import AnnotationError
from features.recipe import ALWAYS_EXCLUDED

Region = Polygon | MultiPolygon
UNCLASSIFIED = "(unclassified)"
PREDICTED = "Predicted"  # of a region that a segmenter drew: derived from the class it has learnt


def is_predicted(class_name: str) -> bool:
    """Whether a class of annotations says that a segmenter drew them."""
    return class_name.endswith(f": {PREDICTED}")


MAX_COORDINATE_PX = 1e9  # no slide is as large; beyond it, areas are no longer exact to a pixel
NOTABLE_CHANGE = 0.01  # a repair that changes an area by more than this fraction is reported


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

    def is_class(self, name: str) -> bool:
        """Whether ``name`` is this annotation's base class or its whole class; see ``matches_class``."""
        return matches_class(self.class_name, name)


@dataclass(frozen=True)
class Drawing:
    """The annotations of one file.

    Attributes:
        source: the file's name.
        annotations: every drawn region, in the order of the file.
        notes: plain sentences on what was skipped or repaired in reading; empty if nothing was.
        origin: the frame its coordinates are in, as ``Recipe.annotation_origin``; ``auto`` where the format
            leaves it open.
        unit: of its coordinates: ``px``, or ``nanometers`` from the centre of the glass.
    """

    source: str
    annotations: tuple[Annotation, ...]
    notes: tuple[str, ...] = ()
    origin: str = "auto"
    unit: str = "px"

    def histogram(self) -> Counter[str]:
        """How many annotations each class has; ``(unclassified)`` counts those without."""
        return Counter(annotation.class_name for annotation in self.annotations)

    def region(self, classes: Iterable[str]) -> Region:
        """The union of all annotations of the given classes: overlaps count once.

        Args:
            classes: class names as ``Annotation.is_class`` takes them.

        Returns:
            Polygons in the pixels of the file, never empty.

        Raises:
            AnnotationError: no annotation has one of the classes; the message lists those there are.
        """
        names = tuple(classes)
        region = self.union(names)
        if not region.is_empty:
            return region
        counts = self.histogram()
        listing = ", ".join(f"{name} x{count}" for name, count in counts.most_common(8))
        raise AnnotationError(
            f"{self.source}: no annotation of class {' or '.join(map(repr, names))}; the file has "
            f"{listing or 'no annotations'}.{_suggest_class(names, counts)} Set classes to a class of the "
            "file, or set the class in QuPath and export again."
            + "".join(f" {note}" for note in self.notes)
        )

    def union(self, classes: Iterable[str]) -> Region:
        """As ``region``, but an empty polygon where no annotation has one of the classes."""
        names = tuple(classes)
        polygons = [a.polygon for a in self.annotations if any(map(a.is_class, names))]
        return polygonal_parts(shapely.union_all(polygons))


@dataclass
class DrawingBuilder:
    """Builds the drawing of one file: a reader adds its annotations and counts what it leaves out.

    Attributes:
        source: the file's name.
        origin: as that of ``Drawing``.
        unit: as that of ``Drawing``.
        annotations: what has been added, in the order of the file.
        counts: per sentence on what was skipped or changed, how often; they become the notes.
        repairs: (change of the area as a fraction, class and place) of each repaired outline.
    """

    source: str
    origin: str = "auto"
    unit: str = "px"
    annotations: list[Annotation] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    repairs: list[tuple[float, str]] = field(default_factory=list)

    def add(self, class_names: tuple[str, ...], name: str, geometry: dict[str, Any]) -> None:
        """Add the polygons of one GeoJSON geometry, repaired; one without an area is only counted.

        Raises:
            AnnotationError: the coordinates are malformed.
        """
        try:
            polygons = [Polygon(shell, holes) for shell, *holes in _polygon_rings(geometry)]
            region, change = _repair(polygons)
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
        if region.is_empty:
            self.counts["Objects without an area ignored"] += 1
            return
        annotation = Annotation(class_names, name, region)
        self.annotations.append(annotation)
        if change is not None:
            self.counts["Outlines that cross or touch themselves repaired"] += 1
            x, y = region.representative_point().coords[0]
            self.repairs.append((change, f"{annotation.class_name} near ({x:.0f}, {y:.0f})"))

    def build(self) -> Drawing:
        """The drawing, with one note per count and one on the areas that repairs changed."""
        notes = [f"{sentence}: {count}." for sentence, count in self.counts.items()]
        notable = [repair for repair in self.repairs if abs(repair[0]) > NOTABLE_CHANGE]
        if notable:
            largest = sorted(notable, key=lambda repair: -abs(repair[0]))[:5]
            notes.append(
                f"Repairs changed the area of {len(notable)} by more than {NOTABLE_CHANGE:.0%} of the "
                "repaired area, compared with the even-odd rule, which leaves out what a stroke encircles "
                "twice: " + ", ".join(f"{place} {change:+.1%}" for change, place in largest) + "."
            )
        return Drawing(self.source, tuple(self.annotations), tuple(notes), self.origin, self.unit)


def polygonal_parts(geometry: shapely.Geometry) -> Region:
    """The parts of a geometry that have an area; repairs and intersections leave stray lines and points."""
    if isinstance(geometry, Polygon | MultiPolygon):
        return geometry
    parts = [
        part for part in shapely.get_parts(geometry) if isinstance(part, Polygon | MultiPolygon)
    ]
    return polygonal_parts(shapely.union_all(parts)) if parts else MultiPolygon()


def matches_class(written: str, requested: str) -> bool:
    """Whether a class of a file is the requested one, or is derived from it.

    Letter case, surrounding blanks and the closing ``*`` of QuPath's own classes do not matter. In the
    requested name, ``*`` stands for any letters and ``?`` for one. An annotation without a class matches
    ``unclassified`` and nothing else.

    Args:
        written: the whole class, as ``Annotation.class_name``.
        requested: a base class, or a whole one.

    Example:
        >>> matches_class("Tumor: Positive", "tumor"), matches_class("S1 Tumor", "* tumo?r")
        (True, False)
        >>> matches_class("S1 Tumour", "*tumo?r"), matches_class("Ignore*", "Ignore")
        (True, True)
    """
    if written == UNCLASSIFIED:
        return requested.strip().casefold() in (UNCLASSIFIED, UNCLASSIFIED.strip("()"))
    if not requested.strip(" :"):
        return False
    whole = _normalise_class(written)
    wildcards = {"*": ".*", "?": "."}
    letters = re.sub(r" *\*$", "*", ": ".join(_class_parts(requested)))
    pattern = "".join(wildcards.get(letter, re.escape(letter)) for letter in letters)
    return any(re.fullmatch(pattern, name, re.DOTALL) for name in (": ".join(whole), whole[0]))


def note_exclusions(exclude: Iterable[str], counts: Mapping[str, int]) -> list[str]:
    """Remarks on classes to exclude that no annotation of a cohort has; their names may be misspelt.

    Args:
        exclude: the names of the classes.
        counts: how many annotations of the cohort each class has; empty if there are none.
    """
    listing = ", ".join(f"{name} x{n}" for name, n in Counter(counts).most_common(8))
    return [
        f"Class {name!r}, which is to be excluded, is in none of the annotations; they have {listing}."
        f"{_suggest_class([name], counts)} Set exclude to a class of the files."
        for name in exclude
        if counts and not any(matches_class(written, name) for written in counts)
    ]


def note_excluded(exclude: Collection[str], counts: Mapping[str, int]) -> list[str]:
    """As ``note_exclusions``, which the default needs not; and a remark where the default is left out.

    Args:
        exclude: the names of the classes to exclude.
        counts: how many annotations of the cohort each class has.
    """
    left = [
        name
        for name in ALWAYS_EXCLUDED
        if name not in exclude and any(matches_class(written, name) for written in counts)
    ]
    notes = [
        f"Class {name!r} of the annotations is not excluded, as exclude names other classes. Add it to "
        "exclude if its areas are to be left out."
        for name in left
    ]
    return (
        note_exclusions([name for name in exclude if name not in ALWAYS_EXCLUDED], counts) + notes
    )


def _class_parts(name: str) -> tuple[str, ...]:
    """A class name without letter case and blanks, split into base and derived classes."""
    parts = unicodedata.normalize("NFKC", name).casefold().split(":")
    return tuple(part.strip() for part in parts)


def _normalise_class(name: str) -> tuple[str, ...]:
    """A class name without letter case, blanks and asterisks, split into base and derived classes."""
    return tuple(part.removesuffix("*").rstrip() for part in _class_parts(name))


def _suggest_class(requested: Sequence[str], present: Iterable[str]) -> str:
    """A sentence that names the class the user may mean; empty if none is similar."""
    folded = {name.casefold(): name for name in present}
    close = [match for name in requested for match in closest(name, folded)]
    if close and folded[close[0]] != UNCLASSIFIED:
        return did_you_mean([repr(folded[close[0]])])
    if UNCLASSIFIED in folded:
        return " Annotations without a class are taken by the class name unclassified."
    return ""


def _polygon_rings(geometry: dict[str, Any]) -> Iterator[list[NDArray[np.float64]]]:
    """The rings of each polygon of a GeoJSON geometry, the shell first."""
    kind = geometry.get("type")
    if kind == "GeometryCollection":
        for part in geometry["geometries"]:
            yield from _polygon_rings(part)
    elif kind in ("Polygon", "MultiPolygon"):
        coordinates = geometry["coordinates"]
        for rings in [coordinates] if kind == "Polygon" else coordinates:
            if rings:
                yield [_check_ring(ring) for ring in rings]


def _check_ring(points: Any) -> NDArray[np.float64]:
    """(n, 2) corners of a ring; shapely closes it if need be.

    Raises:
        ValueError: it is not a list of x, y pairs, or a coordinate lies beyond any slide.
    """
    ring = np.asarray(points, dtype=np.float64)
    if ring.ndim != 2 or ring.shape[1] < 2:
        raise ValueError("a ring is not a list of x, y pairs")
    if not (np.abs(ring[:, :2]) < MAX_COORDINATE_PX).all():
        raise ValueError("a coordinate is not a number or lies beyond any slide")
    return ring[:, :2]


def _repair(polygons: list[Polygon]) -> tuple[Region, float | None]:
    """Valid polygons, and by how much the repair changed their area; None where nothing was repaired.

    The change is measured against the even-odd rule, which leaves out what a stroke encircles twice. It
    is a fraction of the repaired area, and negative where holes overlap each other.
    """
    drawn = polygons[0] if len(polygons) == 1 else MultiPolygon(polygons)
    if drawn.is_valid:
        return drawn, None
    repaired = polygonal_parts(shapely.union_all([_fill_stroke(polygon) for polygon in polygons]))
    if not repaired.area:
        return MultiPolygon(), None
    return repaired, 1 - shapely.make_valid(drawn).area / repaired.area


def _fill_stroke(polygon: Polygon) -> Region:
    """The area the shell's stroke winds around, less the areas the holes' strokes wind around."""
    rings = shapely.polygons([polygon.exterior, *polygon.interiors])
    shell, *holes = shapely.make_valid(rings, method="structure", keep_collapsed=False)
    return polygonal_parts(shell - shapely.union_all(holes))
