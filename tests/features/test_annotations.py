import copy
import json
import re
from contextlib import suppress

import numpy as np
import pytest
import shapely
from hypothesis import assume, given
from hypothesis import strategies as st
from making import box_ring, feature, write_geojson
from shapely.geometry import LinearRing

from features.errors import AnnotationError
from features.regions.annotations import (
    SUFFIXES,
    annotation_sha256,
    find_annotation,
    read_annotations,
)

SQUARE = box_ring(0, 0, 10, 10)


def read(tmp_path, document, name="s.geojson"):
    path = tmp_path / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return read_annotations(path)


def one(tmp_path, item):
    (annotation,) = read(tmp_path, [item]).annotations
    return annotation


@pytest.mark.parametrize(
    "wrap",
    [
        lambda item: {"type": "FeatureCollection", "features": [item]},
        lambda item: [item],
        lambda item: item,
    ],
    ids=["collection", "array", "feature"],
)
def test_every_form_qupath_exports_is_read(tmp_path, wrap):
    drawing = read(tmp_path, wrap(feature(SQUARE, name="core")))
    (annotation,) = drawing.annotations
    assert (annotation.class_names, annotation.name) == (("Tumor",), "core")
    assert annotation.polygon.area == 100
    assert (drawing.source, drawing.notes) == ("s.geojson", ())


@pytest.mark.parametrize("wrap", [lambda item: item, lambda item: [item]], ids=["alone", "array"])
@pytest.mark.parametrize(
    "geometry",
    [
        {"type": "Polygon", "coordinates": [SQUARE]},
        {"type": "MultiPolygon", "coordinates": [[SQUARE]]},
        {
            "type": "GeometryCollection",
            "geometries": [{"type": "Polygon", "coordinates": [SQUARE]}],
        },
    ],
    ids=lambda geometry: geometry["type"],
)
def test_bare_geometry_is_unclassified(tmp_path, geometry, wrap):
    drawing = read(tmp_path, wrap(geometry))
    assert drawing.histogram() == {"(unclassified)": 1}
    assert drawing.region(["unclassified"]).area == 100


def test_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "s.geojson"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps([feature(SQUARE)]).encode())
    assert read_annotations(path).histogram() == {"Tumor": 1}


def reads_or_refuses(path):
    with suppress(AnnotationError):
        drawing = read_annotations(path)
        assert all(a.polygon.is_valid and a.polygon.area > 0 for a in drawing.annotations)


@pytest.mark.parametrize(
    ("classification", "names"),
    [
        ({"name": "Tumor", "color": [200, 0, 0]}, ("Tumor",)),
        ({"names": ["Tumor", "Positive"], "color": [1, 2, 3]}, ("Tumor", "Positive")),
        ("Tumor", ("Tumor",)),
        ("Tumor: Positive", ("Tumor", "Positive")),
        ({"name": "Tumor", "colorRGB": -3670016}, ("Tumor",)),
        ({"name": "Tumor: Positive", "colorRGB": -1}, ("Tumor", "Positive")),
        (None, ()),
        ({}, ()),
        ({"name": None}, ()),
        ({"names": []}, ()),
        ({"names": [None, " "]}, ()),
        ({"name": "Tumor", "color": [200, 0, 0, 128]}, ("Tumor",)),
        ("", ()),
        (7, ("7",)),
        ({"name": " Tumor :  Positive: 3+ "}, ("Tumor", "Positive", "3+")),
    ],
)
def test_classification_of_every_era_is_read(tmp_path, classification, names):
    assert one(tmp_path, feature(SQUARE, classification=classification)).class_names == names


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
    held = read(tmp_path_factory.mktemp("s"), feature(shell, hole)).annotations
    polygon = held[0].polygon if held else shapely.Polygon()
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


def test_mending_that_changes_an_area_is_told(tmp_path):
    drawing = read(tmp_path, [feature(CROSSING), feature(BOW_TIE), feature(SQUARE)])
    mended, changed = drawing.notes
    assert mended == "Outlines that cross or touch themselves mended: 2."
    share = 20 * 60 / CROSSING_AREA
    assert re.search(
        rf"area of 1 by more than 1% .*Tumor near \(\d+, \d+\) \+{share:.1%}\.$", changed
    )


def test_mending_that_changes_less_than_a_hundredth_is_counted_only(tmp_path):
    thin = [[0, 0], [999, 0], [999, 6], [40, 6], [40, -4], [41, -4], [41, 9], [0, 9]]
    drawing = read(tmp_path, [feature(thin)])
    assert drawing.notes == ("Outlines that cross or touch themselves mended: 1.",)
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


@pytest.mark.parametrize(
    "geometry",
    [
        {},
        None,
        {"type": "Point", "coordinates": [1, 1]},
        {"type": "MultiPoint", "coordinates": [[1, 1]]},
        {"type": "LineString", "coordinates": [[0, 0], [9, 9]]},
        {"type": "Polygon", "coordinates": []},
        {"type": "Polygon", "coordinates": [[[0, 0], [5, 5], [9, 9], [0, 0]]]},
        {"type": "GeometryCollection", "geometries": []},
    ],
)
def test_what_has_no_area_is_passed_over(tmp_path, geometry):
    item = feature(SQUARE)
    item["geometry"] = geometry
    drawing = read(tmp_path, [item, feature(SQUARE)])
    assert [a.polygon.area for a in drawing.annotations] == [100]
    assert re.search("^(Points and lines|Objects without an area) ignored.*: 1.$", *drawing.notes)


MADE = ["detection", "cell", "tile", "root", "tmaCore"]


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("key", ["objectType", "object_type", "type"])
@pytest.mark.parametrize("ring", [SQUARE, [[0, 0]], "garbage"])
def test_what_nobody_drew_is_skipped_before_its_outline_is_read(tmp_path, kind, key, ring):
    item = feature(ring)
    item["properties"] = {key: kind, "classification": {"name": "Tumor"}}
    drawing = read(tmp_path, [item, feature(SQUARE)])
    assert drawing.histogram() == {"Tumor": 1}
    assert drawing.notes == (f"Objects of type {kind.lower()} skipped, as nobody drew them: 1.",)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("PathDetectionObject", 0),
        ("PathCellObject", 0),
        ("PathTileObject", 0),
        ("PathRootObject", 0),
        ("TMACoreObject", 0),
        ("PathAnnotationObject", 1),
        ("a0a5d0fb-6f31-4c0e-9b3e-0d3d7a6d4b11", 1),
        (None, 1),
        (["x"], 1),
    ],
)
def test_old_files_name_the_kind_in_the_id(tmp_path, name, kept):
    item = feature(SQUARE) | {"id": name}
    del item["properties"]["objectType"]
    assert len(read(tmp_path, [item]).annotations) == kept


def test_two_hundred_thousand_detections_are_skipped(tmp_path):
    cell = json.dumps(feature([["x"]], objectType="cell"))
    text = "[" + ",".join([cell] * 200_000 + [json.dumps(feature(SQUARE))]) + "]"
    drawing = read(tmp_path, text)
    assert drawing.histogram() == {"Tumor": 1}
    assert drawing.notes == ("Objects of type cell skipped, as nobody drew them: 200000.",)


@pytest.mark.parametrize("where", ["feature", "properties"])
def test_nested_objects_are_read_at_any_depth(tmp_path, where):
    def nest(outer, *inner):
        (outer if where == "feature" else outer["properties"])["childObjects"] = list(inner)
        return outer

    cell = feature("garbage", objectType="cell")
    deep = nest(feature(box_ring(1, 1, 2, 2), classification="Necrosis"), cell)
    core = nest(feature(SQUARE, objectType="tmaCore"), nest(feature(SQUARE), deep), cell)
    drawing = read(tmp_path, [core])
    assert drawing.histogram() == {"Tumor": 1, "Necrosis": 1}
    assert "Objects nested in others read as well: 2." in drawing.notes
    assert "Objects of type cell skipped, as nobody drew them: 2." in drawing.notes


@pytest.mark.parametrize(
    ("plane", "kept"),
    [
        ({"c": -1, "z": 0, "t": 0}, 1),
        ({"c": 2, "z": 0, "t": 0}, 1),
        ({}, 1),
        (None, 1),
        ([1], 1),
        ({"c": -1, "z": 1, "t": 0}, 0),
        ({"c": -1, "z": 0, "t": 3}, 0),
        ({"z": 2}, 0),
    ],
)
def test_only_the_first_plane_is_read(tmp_path, plane, kept):
    geometry = {"type": "Polygon", "coordinates": [SQUARE], "plane": plane, "isEllipse": True}
    drawing = read(tmp_path, [feature(geometry=geometry)])
    assert len(drawing.annotations) == kept
    told = () if kept else ("Objects on another plane than z=0, t=0 skipped: 1.",)
    assert drawing.notes == told


def test_points_and_lines_are_counted(tmp_path):
    lines = {"type": "LineString", "coordinates": [[0, 0], [9, 9]]}
    point = {"type": "Point", "coordinates": [1, 1]}
    drawing = read(
        tmp_path, [feature(geometry=lines), feature(geometry=point), feature(geometry=point)]
    )
    assert drawing.notes == ("Points and lines ignored, as they have no area: 3.",)


@pytest.mark.parametrize("number", ["NaN", '"NaN"', "Infinity"])
@pytest.mark.parametrize("form", [{"Area": 1234}, [{"name": "Area", "value": 1234}]])
def test_measurements_may_be_not_a_number(tmp_path, form, number):
    text = json.dumps([feature(SQUARE, measurements=form)])
    assert len(read(tmp_path, text.replace("1234", number)).annotations) == 1


def test_key_written_twice_is_read(tmp_path):
    text = json.dumps([feature(SQUARE, metadata={"a": "b"})])
    assert (
        len(read(tmp_path, text.replace('"metadata"', '"metadata": {}, "metadata"')).annotations)
        == 1
    )


@pytest.mark.parametrize(
    "document",
    [
        "",
        "{",
        "not json",
        "3",
        "null",
        "[1]",
        '{"type": "FeatureCollection"}',
        '{"annotations": [{"polygon": {}}]}',
        {"type": "Feature", "geometry": "abc"},
        {"type": "Feature", "geometry": {}, "properties": "abc"},
        feature([[0, 0], [1, 1]]),
        feature([["a", 0], [1, 1], [1, 0], [0, 0]]),
        feature([[10**400, 0], [1, 1], [1, 0], [0, 0]]),
        feature([[1e10, 0], [1, 1], [1, 0], [0, 0]]),
        feature([[0], [1, 1], [1, 0], [0, 0]]),
        feature(SQUARE, []),
        feature(geometry={"type": "GeometryCollection"}),
        feature(SQUARE, childObjects={"type": "Feature"}),
        feature(SQUARE, childObjects=[1]),
        "[" * 100_000,
        "9" * 5_000,
        feature(geometry={"type": "Polygon"}),
        feature(geometry={"type": "MultiPolygon", "coordinates": [1]}),
        feature([[float("nan"), 0], [1, 1], [1, 0], [0, 0]]),
        feature([[float("inf"), 0], [1, 1], [1, 0], [0, 0]]),
    ],
)
def test_what_is_not_geojson_is_refused_with_the_remedy(tmp_path, document):
    with pytest.raises(AnnotationError, match=r"^s\.geojson: .*Export") as caught:
        read(tmp_path, document)
    assert "\n" not in str(caught.value)


def test_overlapping_annotations_count_once(tmp_path):
    held = read(tmp_path, [feature(SQUARE), feature(box_ring(5, 0, 15, 10))])
    assert held.region(["Tumor"]).area == 150


def test_derived_class_counts_with_its_base(tmp_path):
    held = read(tmp_path, [feature(SQUARE, classification={"names": ["Tumor", "Positive"]})])
    assert held.region(["Tumor"]).area == 100


def test_base_class_does_not_count_as_the_derived_one(tmp_path):
    derived = feature(SQUARE, classification={"names": ["Tumor", "Positive"]})
    base = feature(box_ring(50, 0, 51, 1), classification="Tumor")
    held = read(tmp_path, [derived, base])
    assert held.region(["tumor: positive"]).area == 100
    assert held.region(["Tumor:Positive"]).area == 100
    assert held.excluded(["Positive"]).is_empty


@pytest.mark.parametrize("wanted", ["tumor", " TUMOR ", "Tumor"])
def test_letter_case_and_blanks_do_not_matter(tmp_path, wanted):
    held = read(tmp_path, [feature(SQUARE, classification="Tumor ")])
    assert held.region([wanted]).area == 100


def test_several_classes_are_united(tmp_path):
    held = read(tmp_path, [feature(SQUARE), feature(box_ring(20, 0, 21, 1), classification="Bone")])
    assert held.region(["Tumor", "Bone"]).area == 101


@pytest.mark.parametrize("held", ["Ignore*", "Ignore", "ignore* "])
@pytest.mark.parametrize("wanted", ["Ignore*", "IGNORE", " ignore *"])
def test_asterisk_of_ignored_classes_does_not_matter(tmp_path, held, wanted):
    assert read(tmp_path, [feature(SQUARE, classification=held)]).excluded([wanted]).area == 100


def test_accents_typed_in_two_ways_are_the_same(tmp_path):
    held = read(tmp_path, [feature(SQUARE, classification="Bo\u0308sartig")])
    assert held.region(["b\u00f6sartig"]).area == 100


@pytest.mark.parametrize("wanted", ["unclassified", "Unclassified", " (UNCLASSIFIED) "])
def test_unclassified_is_taken_when_named(tmp_path, wanted):
    held = read(tmp_path, [feature(SQUARE, classification=None), feature(box_ring(50, 0, 51, 1))])
    assert held.region([wanted]).area == 100


@pytest.mark.parametrize("wanted", ["", "*", "None", ":"])
def test_unclassified_is_not_taken_by_an_empty_name(tmp_path, wanted):
    assert read(tmp_path, [feature(SQUARE, classification=None)]).excluded([wanted]).is_empty


def test_missing_class_tells_how_to_take_the_unclassified_and_what_was_skipped(tmp_path):
    items = [feature(SQUARE, classification=None), feature(SQUARE, objectType="cell")]
    with pytest.raises(
        AnnotationError, match=r"--class unclassified.*Objects of type cell skipped"
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
    held = read(tmp_path, [feature(SQUARE, classification=None, name="Tumor")])
    with pytest.raises(AnnotationError, match=r"\(unclassified\) x1"):
        held.region(["Tumor"])


@pytest.mark.parametrize("wanted", ["Tumour", "tumour", "TUMOUR"])
@pytest.mark.parametrize("held", ["Tumor", "TUMOR"])
def test_missing_class_gives_the_counts_and_the_nearest_name(tmp_path, wanted, held):
    items = [feature(SQUARE, classification=name) for name in (held, held, "Stroma")]
    with pytest.raises(AnnotationError) as caught:
        read(tmp_path, items).region([wanted])
    message = str(caught.value)
    assert "s.geojson: no annotation of class" in message
    assert f"{held} x2, Stroma x1" in message
    assert f"Did you mean --class '{held}'?" in message


def test_empty_file_lacks_the_class(tmp_path):
    with pytest.raises(AnnotationError, match="it holds nothing"):
        read(tmp_path, []).region(["Tumor"])


def test_excluded_classes_are_united(tmp_path):
    items = [
        feature(SQUARE),
        feature(box_ring(0, 0, 2, 2), classification="Ignore*"),
        feature(box_ring(1, 0, 3, 2), classification="ignore*"),
    ]
    held = read(tmp_path, items)
    assert held.excluded(["Ignore*"]).area == 6
    assert (held.region(["Tumor"]) - held.excluded(["Ignore*"])).area == 94


def test_nothing_excluded_is_an_empty_region(tmp_path):
    assert read(tmp_path, [feature(SQUARE)]).excluded(["Ignore*"]).is_empty


@pytest.mark.parametrize("stem", ["a.b", "a.b.svs"])
@pytest.mark.parametrize("suffix", [*SUFFIXES, ".GeoJSON", ".XML", ".Json.GZ"])
def test_annotation_is_found_by_slide_or_slide_file(tmp_path, stem, suffix):
    write_geojson(tmp_path / f"{stem}{suffix}")
    write_geojson(tmp_path / "a.b.c.geojson")
    (tmp_path / "a.b.txt").touch()
    assert find_annotation(tmp_path, "a.b.svs", "a.b") == tmp_path / f"{stem}{suffix}"


@pytest.mark.parametrize("other", ["a.xml", "a.GEOJSON.gz", "a.svs.geojson"])
def test_two_annotations_of_one_slide_are_refused_by_name(tmp_path, other):
    write_geojson(tmp_path / "a.geojson")
    write_geojson(tmp_path / other)
    with pytest.raises(AnnotationError, match=r"^a: annotated by .* and by .*Keep") as caught:
        find_annotation(tmp_path, "a.svs", "a")
    assert "a.geojson" in str(caught.value)
    assert other in str(caught.value)


def test_missing_folder_is_an_annotation_error(tmp_path):
    with pytest.raises(AnnotationError, match="no annotation in"):
        find_annotation(tmp_path / "none", "a.svs", "a")


def test_annotation_of_a_longer_name_is_another_slides(tmp_path):
    write_geojson(tmp_path / "a.b.geojson")
    with pytest.raises(AnnotationError, match=r"^a: .*as a\.geojson.*--annotations"):
        find_annotation(tmp_path, "a.svs", "a")


def test_fingerprint_changes_with_the_annotation(tmp_path):
    one = write_geojson(tmp_path / "a.geojson", feature(SQUARE))
    other = write_geojson(tmp_path / "b.geojson", feature(box_ring(0, 0, 10, 11)))
    assert annotation_sha256(one) != annotation_sha256(other)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats()
    | st.sampled_from(["Feature", "Polygon", "MultiPolygon", "GeometryCollection", "cell", "Tumor"])
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "geometry", "coordinates", "geometries", "features", "plane", "name"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
WHOLE = {
    "type": "FeatureCollection",
    "features": [
        feature(SQUARE, box_ring(1, 1, 2, 2), name="n", measurements=[{"name": "a", "value": 1}]),
        feature(BOW_TIE, classification={"names": ["Tumor", "Positive"]}),
        feature(SQUARE, objectType="cell", childObjects=[feature(SQUARE)]),
        feature(
            geometry={
                "type": "GeometryCollection",
                "geometries": [
                    {"type": "MultiPolygon", "coordinates": [[SQUARE]], "plane": {"z": 0}},
                    {"type": "Point", "coordinates": [0, 0]},
                ],
            }
        ),
    ],
}


def places(node):
    """Every (container, key) of a document."""
    keys = (
        list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    )
    return [(node, key) for key in keys] + [place for key in keys for place in places(node[key])]


@given(st.data())
def test_any_damaged_document_is_an_annotation_error_or_read(tmp_path_factory, data):
    document = copy.deepcopy(WHOLE)
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(places(document)))
        container[key] = data.draw(JSON)
    path = tmp_path_factory.mktemp("s") / "s.geojson"
    path.write_text(json.dumps(document))
    reads_or_refuses(path)


@given(JSON)
def test_any_document_is_an_annotation_error_or_read(tmp_path_factory, document):
    path = tmp_path_factory.mktemp("s") / "s.geojson"
    path.write_text(json.dumps(document))
    reads_or_refuses(path)


@pytest.mark.parametrize("depth", [100, 400, 5000])
@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ('{"type": "GeometryCollection", "geometries": [', "]}"),
        ('{"type": "Feature", "childObjects": [', "]}"),
        ('{"type": "Feature", "id": [', "]}"),
        ('{"type": "Polygon", "coordinates": [', "]}"),
        ('{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[', "]]}}"),
    ],
)
def test_deeply_nested_document_is_an_annotation_error_or_read(tmp_path, opening, closing, depth):
    path = tmp_path / "s.geojson"
    path.write_text(opening * depth + closing * depth)
    reads_or_refuses(path)


@pytest.mark.parametrize("ring", [[0, 1, 2, 0], [[0], [1], [2], [0]], [[[0, 0]], [[1, 1]]], "abc"])
def test_ring_without_pairs_is_named_so(tmp_path, ring):
    with pytest.raises(AnnotationError, match="Polygon has malformed coordinates"):
        read(tmp_path, feature(ring))


def test_ring_of_single_numbers_is_explained(tmp_path):
    with pytest.raises(AnnotationError, match="not a list of x, y pairs"):
        read(tmp_path, feature([[0], [1], [2], [0]]))
