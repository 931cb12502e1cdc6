"""QuPath's GeoJSON in every form, and damaged in every way."""

import copy
import json
import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import box_ring, feature

from features.errors import AnnotationError
from features.regions.annotations import read_annotations

SQUARE = box_ring(0, 0, 10, 10)
BOW_TIE = [[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]


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


@pytest.mark.parametrize(
    ("classification", "names"),
    [
        ('{"name": "Tumor: Positive", "colorRGB": -3670016}', ("Tumor", "Positive")),
        (' { "names": [ "Tumor", "Positive" ] }', ("Tumor", "Positive")),
        ("{'name': 'Tumor', 'color': [200, 0, 0]}", ("Tumor",)),
        ('["Tumor", "Positive"]', ("Tumor", "Positive")),
        (["Tumor"], ("Tumor",)),
        ("{not json", ("{not json",)),
        ("{}", ()),
        ("[" * 5000, ("[" * 5000,)),
    ],
)
def test_a_classification_that_a_table_turned_into_text_is_read(tmp_path, classification, names):
    item = feature(SQUARE) | {"properties": {"classification": classification}}
    assert one(tmp_path, item).class_names == names


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
    ("name", "count"),
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
def test_old_files_name_the_kind_in_the_id(tmp_path, name, count):
    item = feature(SQUARE) | {"id": name}
    del item["properties"]["objectType"]
    assert len(read(tmp_path, [item]).annotations) == count


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
    ("plane", "count"),
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
def test_only_the_first_plane_is_read(tmp_path, plane, count):
    geometry = {"type": "Polygon", "coordinates": [SQUARE], "plane": plane, "isEllipse": True}
    drawing = read(tmp_path, [feature(geometry=geometry)])
    assert len(drawing.annotations) == count
    notes = () if count else ("Objects on another plane than z=0, t=0 skipped: 1.",)
    assert drawing.notes == notes


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
