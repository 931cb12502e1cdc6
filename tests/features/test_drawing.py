"""Drawn outlines become valid polygons, and classes are matched by name."""

import json
import re

import numpy as np
import pytest
import shapely
from hypothesis import assume, given
from hypothesis import strategies as st
from making import box_ring, feature
from shapely.geometry import LinearRing

from features.errors import AnnotationError
from features.regions.annotations import read_annotations
from features.regions.drawing import note_excluded, note_exclusions

SQUARE = box_ring(0, 0, 10, 10)


def read(tmp_path, document, name="s.geojson"):
    path = tmp_path / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return read_annotations(path)


def one(tmp_path, item):
    (annotation,) = read(tmp_path, [item]).annotations
    return annotation


def test_hole_is_left_out(tmp_path):
    assert one(tmp_path, feature(SQUARE, box_ring(2, 2, 5, 5))).polygon.area == 91


def test_multipolygon_keeps_all_parts_and_holes(tmp_path):
    geometry = {
        "type": "MultiPolygon",
        "coordinates": [[SQUARE, box_ring(1, 1, 3, 3)], [box_ring(20, 0, 25, 5)]],
    }
    assert one(tmp_path, feature(geometry=geometry)).polygon.area == 100 - 4 + 25


def area_of(tmp_path, *rings):
    return one(tmp_path, feature(*rings)).polygon.area


BOW_TIE = [[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]


# A bar along x and back over itself along y: 20 x 60 pixels are rounded twice.
CROSSING = [
    [0, 0],
    [100, 0],
    [100, 60],
    [40, 60],
    [40, -40],
    [60, -40],
    [60, 100],
    [0, 100],
    [0, 0],
]


CROSSING_AREA = 80 * 60 + 20 * 60 + 20 * 40 + 60 * 40


# Round a square and back inside it, the ends lapping over: a ring in one stroke, its middle empty.
RING = [
    [0, 0],
    [30, 0],
    [30, 30],
    [0, 30],
    [0, -5],
    [10, -5],
    [10, 20],
    [20, 20],
    [20, 10],
    [0, 10],
    [0, 0],
]


@pytest.mark.parametrize("turn", [1, -1], ids=["forward", "backward"])
@pytest.mark.parametrize(
    ("ring", "area"),
    [
        (BOW_TIE, 50),
        (CROSSING, CROSSING_AREA),
        (SQUARE[:-1], 100),
        (SQUARE[:3], 50),
        ([point for point in SQUARE for _ in range(3)], 100),
        (SQUARE[:-1] + SQUARE, 100),
        ([[0, 0], [10, 0], [10, 10], [5, 10], [5, 30], [5, 10], [0, 10], [0, 0]], 100),
        ([[0, 0], [10, 0], [10, 10], [5, 10], [5, 2], [5, 10], [0, 10], [0, 0]], 100),
    ],
    ids=[
        "bow tie",
        "crossing",
        "open",
        "open triangle",
        "doubled points",
        "drawn twice",
        "spike",
        "cut",
    ],
)
def test_stroke_encloses_what_it_winds_around(tmp_path, ring, area, turn):
    polygon = one(tmp_path, feature(ring[::turn])).polygon
    assert polygon.is_valid
    assert polygon.area == pytest.approx(area)


def winding(ring, point):
    """How often a ring goes round a point: the turn of the line of sight, summed."""
    sight = np.asarray(ring, float) - point
    angle = np.arctan2(sight[:, 1], sight[:, 0])
    turn = np.diff(angle)
    return round(((turn + np.pi) % (2 * np.pi) - np.pi).sum() / (2 * np.pi))


CORNERS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=12)


@given(CORNERS, CORNERS)
def test_any_scribble_is_what_its_stroke_winds_around(tmp_path_factory, shell, hole):
    assume(len(set(shell)) > 2 and len(set(hole)) > 2)
    shell, hole = [*shell, shell[0]], [*hole, hole[0]]
    annotations = read(tmp_path_factory.mktemp("s"), feature(shell, hole)).annotations
    polygon = annotations[0].polygon if annotations else shapely.Polygon()
    assert polygon.is_valid
    lines = shapely.union_all([LinearRing(shell), LinearRing(hole)])
    for x in np.arange(0.3, 9, 1.1):
        for y in np.arange(0.4, 9, 1.1):
            if lines.distance(shapely.Point(x, y)) > 1e-6:
                inside = bool(winding(shell, (x, y))) and not winding(hole, (x, y))
                assert polygon.contains(shapely.Point(x, y)) == inside


def test_crossing_hole_is_a_hole(tmp_path):
    frame = box_ring(-100, -100, 200, 200)
    assert area_of(tmp_path, frame, CROSSING) == 300 * 300 - CROSSING_AREA
    assert area_of(tmp_path, frame, BOW_TIE, CROSSING) == pytest.approx(300 * 300 - CROSSING_AREA)


def test_hole_over_the_edge_takes_away_only_what_is_there(tmp_path):
    assert area_of(tmp_path, SQUARE, box_ring(5, 5, 15, 8)) == 100 - 15
    assert area_of(tmp_path, SQUARE, box_ring(20, 20, 30, 30)) == 100


def test_ring_within_a_hole_is_part_of_the_hole_but_a_part_of_its_own_is_not(tmp_path):
    rings = [SQUARE, box_ring(2, 2, 8, 8), box_ring(4, 4, 6, 6)]
    assert area_of(tmp_path, *rings) == 100 - 36
    island = {"type": "MultiPolygon", "coordinates": [rings[:2], rings[2:]]}
    assert one(tmp_path, feature(geometry=island)).polygon.area == 100 - 36 + 4


def test_parts_that_overlap_count_once(tmp_path):
    parts = {"type": "MultiPolygon", "coordinates": [[SQUARE], [box_ring(5, 0, 15, 10)], [BOW_TIE]]}
    assert one(tmp_path, feature(geometry=parts)).polygon.area == pytest.approx(150)


def test_repair_that_changes_an_area_is_reported(tmp_path):
    drawing = read(tmp_path, [feature(CROSSING), feature(BOW_TIE), feature(SQUARE)])
    repairs, changes = drawing.notes
    assert repairs == "Outlines that cross or touch themselves repaired: 2."
    share = 20 * 60 / CROSSING_AREA
    assert re.search(
        rf"area of 1 by more than 1% .*Tumor near \(\d+, \d+\) \+{share:.1%}\.$", changes
    )


def test_repair_that_changes_less_than_a_hundredth_is_counted_only(tmp_path):
    thin = [[0, 0], [999, 0], [999, 6], [40, 6], [40, -4], [41, -4], [41, 9], [0, 9]]
    drawing = read(tmp_path, [feature(thin)])
    assert drawing.notes == ("Outlines that cross or touch themselves repaired: 1.",)
    assert drawing.region(["Tumor"]).area == 999 * 6 + 4 + 41 * 3


def test_ring_drawn_in_one_stroke_keeps_its_middle_empty(tmp_path):
    polygon = one(tmp_path, feature(RING)).polygon
    assert not polygon.contains(shapely.Point(15, 15))
    assert polygon.contains(shapely.Point(25, 25))


def test_geometry_collection_gives_its_polygons(tmp_path):
    parts = [
        {"type": "Point", "coordinates": [1, 1]},
        {"type": "Polygon", "coordinates": [SQUARE]},
        {"type": "LineString", "coordinates": [[0, 0], [99, 99]]},
        {"type": "Polygon", "coordinates": [box_ring(5, 0, 15, 10)]},
    ]
    item = feature(geometry={"type": "GeometryCollection", "geometries": parts})
    assert one(tmp_path, item).polygon.area == 150


def test_overlapping_annotations_count_once(tmp_path):
    drawing = read(tmp_path, [feature(SQUARE), feature(box_ring(5, 0, 15, 10))])
    assert drawing.region(["Tumor"]).area == 150


def test_derived_class_counts_with_its_base(tmp_path):
    drawing = read(tmp_path, [feature(SQUARE, classification={"names": ["Tumor", "Positive"]})])
    assert drawing.region(["Tumor"]).area == 100


def test_base_class_does_not_count_as_the_derived_one(tmp_path):
    derived = feature(SQUARE, classification={"names": ["Tumor", "Positive"]})
    base = feature(box_ring(50, 0, 51, 1), classification="Tumor")
    drawing = read(tmp_path, [derived, base])
    assert drawing.region(["tumor: positive"]).area == 100
    assert drawing.region(["Tumor:Positive"]).area == 100
    assert drawing.union(["Positive"]).is_empty


@pytest.mark.parametrize("requested", ["tumor", " TUMOR ", "Tumor"])
def test_letter_case_and_blanks_do_not_matter(tmp_path, requested):
    drawing = read(tmp_path, [feature(SQUARE, classification="Tumor ")])
    assert drawing.region([requested]).area == 100


def test_several_classes_are_united(tmp_path):
    drawing = read(
        tmp_path, [feature(SQUARE), feature(box_ring(20, 0, 21, 1), classification="Bone")]
    )
    assert drawing.region(["Tumor", "Bone"]).area == 101


@pytest.mark.parametrize("written", ["Ignore*", "Ignore", "ignore* "])
@pytest.mark.parametrize("requested", ["Ignore*", "IGNORE", " ignore *"])
def test_asterisk_of_ignored_classes_does_not_matter(tmp_path, written, requested):
    assert read(tmp_path, [feature(SQUARE, classification=written)]).union([requested]).area == 100


@pytest.mark.parametrize(
    ("written", "requested", "taken"),
    [
        ("S-12 Tumor", "*tumor", True),
        ("S-12 Tumor", "s-?? Tumor", True),
        ("S-12 Tumor", "s-? Tumor", False),
        ("S-12 Tumor 3", "*Tumor*", True),
        ("Tumor (S-12)", "tumor*", True),
        ("Tumor: Positive", "T*r", True),
        ("Tumor: Positive", "*: pos*", True),
        ("S-12: Tumor", "*: tumor", True),
        ("S-12: Tumor", "*tumour*", False),
        ("Tumor", "Tum?r", True),
        ("Tumor", "Tum?", False),
        ("a.b", "a?b", True),
        ("axb", "a.b", False),
        ("[x]", "[x]", True),
        ("x", "[x]", False),
        ("Ignore*", "ign*", True),
        ("Stroma", "*", True),
    ],
)
def test_asterisk_and_question_mark_stand_for_letters_anywhere(tmp_path, written, requested, taken):
    drawing = read(tmp_path, [feature(SQUARE, classification=written)])
    assert drawing.union([requested]).is_empty != taken


def test_classes_to_exclude_that_no_file_has_are_remarked_on_once_with_those_there_are():
    counts = {"Tumor": 7, "Artefact": 2, "(unclassified)": 1}
    assert note_exclusions(["Ignore*", "tumor", "Art*"], counts) == [
        "Class 'Ignore*', which is to be excluded, is in none of the annotations; they have Tumor x7, "
        "Artefact x2, (unclassified) x1. Annotations without a class are taken by the class name "
        "unclassified. Set exclude to a class of the files."
    ]
    assert "Did you mean 'Artefact'?" in note_exclusions(["Artifact"], counts)[0]
    assert note_exclusions(["Artifact"], {}) == []


def test_accents_typed_in_two_ways_are_the_same(tmp_path):
    drawing = read(tmp_path, [feature(SQUARE, classification="Bo\u0308sartig")])
    assert drawing.region(["b\u00f6sartig"]).area == 100


@pytest.mark.parametrize("requested", ["unclassified", "Unclassified", " (UNCLASSIFIED) "])
def test_unclassified_is_taken_when_named(tmp_path, requested):
    drawing = read(
        tmp_path, [feature(SQUARE, classification=None), feature(box_ring(50, 0, 51, 1))]
    )
    assert drawing.region([requested]).area == 100


@pytest.mark.parametrize("requested", ["", "*", "None", ":"])
def test_unclassified_is_not_taken_by_an_empty_name(tmp_path, requested):
    assert read(tmp_path, [feature(SQUARE, classification=None)]).union([requested]).is_empty


def test_missing_class_tells_how_to_take_the_unclassified_and_what_was_skipped(tmp_path):
    items = [feature(SQUARE, classification=None), feature(SQUARE, objectType="cell")]
    with pytest.raises(
        AnnotationError, match=r"class name unclassified.*Objects of type cell skipped"
    ):
        read(tmp_path, items).region(["Tumor"])


def test_histogram_counts_whole_classes(tmp_path):
    derived = feature(SQUARE, classification={"names": ["Tumor", "Positive"]})
    items = [feature(SQUARE), feature(SQUARE), derived, feature(SQUARE, classification=None)]
    assert read(tmp_path, items).histogram() == {
        "Tumor": 2,
        "Tumor: Positive": 1,
        "(unclassified)": 1,
    }


def test_unclassified_is_never_tumour(tmp_path):
    drawing = read(tmp_path, [feature(SQUARE, classification=None, name="Tumor")])
    with pytest.raises(AnnotationError, match=r"\(unclassified\) x1"):
        drawing.region(["Tumor"])


@pytest.mark.parametrize("requested", ["Tumour", "tumour", "TUMOUR"])
@pytest.mark.parametrize("written", ["Tumor", "TUMOR"])
def test_missing_class_gives_the_counts_and_the_nearest_name(tmp_path, requested, written):
    items = [feature(SQUARE, classification=name) for name in (written, written, "Stroma")]
    with pytest.raises(AnnotationError) as caught:
        read(tmp_path, items).region([requested])
    message = str(caught.value)
    assert "s.geojson: no annotation of class" in message
    assert f"{written} x2, Stroma x1" in message
    assert f"Did you mean '{written}'?" in message


def test_empty_file_lacks_the_class(tmp_path):
    with pytest.raises(AnnotationError, match="the file has no annotations"):
        read(tmp_path, []).region(["Tumor"])


def test_excluded_classes_are_united(tmp_path):
    items = [
        feature(SQUARE),
        feature(box_ring(0, 0, 2, 2), classification="Ignore*"),
        feature(box_ring(1, 0, 3, 2), classification="ignore*"),
    ]
    drawing = read(tmp_path, items)
    assert drawing.union(["Ignore*"]).area == 6
    assert (drawing.region(["Tumor"]) - drawing.union(["Ignore*"])).area == 94


def test_nothing_excluded_is_an_empty_region(tmp_path):
    assert read(tmp_path, [feature(SQUARE)]).union(["Ignore*"]).is_empty


@pytest.mark.parametrize("ring", [[0, 1, 2, 0], [[0], [1], [2], [0]], [[[0, 0]], [[1, 1]]], "abc"])
def test_ring_without_pairs_is_named_so(tmp_path, ring):
    with pytest.raises(AnnotationError, match="Polygon has malformed coordinates"):
        read(tmp_path, feature(ring))


def test_ring_of_single_numbers_is_explained(tmp_path):
    with pytest.raises(AnnotationError, match="not a list of x, y pairs"):
        read(tmp_path, feature([[0], [1], [2], [0]]))


def test_the_default_that_other_classes_replace_is_told():
    counts = {"Tumor": 3, "Ignore*": 2}
    assert note_excluded(["Ignore*"], counts) == []
    assert note_excluded(["Tumor"], {"Tumor": 3}) == []
    [note] = note_excluded(["tumor"], counts)
    assert note.startswith("Class 'Ignore*' of the annotations is not excluded")
    assert len(note_excluded(["Fold"], counts)) == 2
