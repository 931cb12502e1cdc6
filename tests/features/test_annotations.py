import gzip
import json

import pytest
from making import box_ring, feature, write_geojson

from features.annotations import (
    annotation_sha256,
    excluded_region,
    find_annotation,
    read_annotations,
    region,
)
from features.errors import AnnotationError

SQUARE = box_ring(0, 0, 10, 10)


def read(tmp_path, document, name="s.geojson"):
    path = tmp_path / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return read_annotations(path)


def one(tmp_path, item):
    (annotation,) = read(tmp_path, [item])
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
    (annotation,) = read(tmp_path, wrap(feature(SQUARE, name="core")))
    assert (annotation.class_names, annotation.name) == (("Tumor",), "core")
    assert annotation.polygon.area == 100


def test_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "s.geojson"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps([feature(SQUARE)]).encode())
    assert len(read_annotations(path)) == 1


def test_compressed_file_is_read(tmp_path):
    path = tmp_path / "s.geojson.gz"
    path.write_bytes(gzip.compress(json.dumps([feature(SQUARE)]).encode()))
    assert read_annotations(path)[0].polygon.area == 100


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


def test_bow_tie_keeps_both_wings(tmp_path):
    bow = [[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]
    polygon = one(tmp_path, feature(bow)).polygon
    assert polygon.is_valid
    assert polygon.area == pytest.approx(50)


def test_spike_is_shorn(tmp_path):
    spike = [[0, 0], [10, 0], [10, 10], [5, 10], [5, 30], [5, 10], [0, 10], [0, 0]]
    polygon = one(tmp_path, feature(spike)).polygon
    assert polygon.geom_type == "Polygon"
    assert polygon.bounds == (0, 0, 10, 10)


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
    assert read(tmp_path, [item, feature(SQUARE)])[0].polygon.area == 100
    assert read(tmp_path, [item]) == ()


@pytest.mark.parametrize("kind", ["detection", "cell", "tile", "root", "tmaCore"])
@pytest.mark.parametrize("key", ["objectType", "object_type"])
def test_objects_qupath_made_are_passed_over(tmp_path, kind, key):
    item = feature(SQUARE)
    item["properties"] = {key: kind, "classification": {"name": "Tumor"}}
    assert read(tmp_path, [item]) == ()


def test_detection_with_a_broken_outline_is_no_hindrance(tmp_path):
    assert read(tmp_path, [feature([[0, 0]], objectType="detection")]) == ()


@pytest.mark.parametrize("number", ["NaN", '"NaN"', "Infinity"])
def test_measurements_may_be_not_a_number(tmp_path, number):
    text = json.dumps([feature(SQUARE, measurements={"Circularity": 1234})])
    assert len(read(tmp_path, text.replace("1234", number))) == 1


def test_key_written_twice_is_read(tmp_path):
    text = json.dumps([feature(SQUARE, metadata={"a": "b"})])
    assert len(read(tmp_path, text.replace('"metadata"', '"metadata": {}, "metadata"'))) == 1


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


@pytest.mark.parametrize("damage", [slice(0, 4), slice(15, 25), slice(-8, None)])
def test_damaged_compressed_file_is_refused(tmp_path, damage):
    path = tmp_path / "s.geojson.gz"
    raw = bytearray(gzip.compress(json.dumps([feature(SQUARE)] * 50).encode(), mtime=0))
    raw[damage] = b"\xff" * len(raw[damage])
    path.write_bytes(raw)
    with pytest.raises(AnnotationError, match="cannot be read as GeoJSON"):
        read_annotations(path)


def test_cut_compressed_file_is_refused(tmp_path):
    path = tmp_path / "s.geojson.gz"
    path.write_bytes(gzip.compress(json.dumps([feature(SQUARE)] * 50).encode())[:60])
    with pytest.raises(AnnotationError, match="cannot be read as GeoJSON"):
        read_annotations(path)


def test_missing_file_is_an_annotation_error(tmp_path):
    with pytest.raises(AnnotationError, match="cannot be read"):
        read_annotations(tmp_path / "none.geojson")


def test_overlapping_annotations_count_once(tmp_path):
    held = read(tmp_path, [feature(SQUARE), feature(box_ring(5, 0, 15, 10))])
    assert region(held, ["Tumor"], source="s").area == 150


def test_derived_class_counts_with_its_base(tmp_path):
    held = read(tmp_path, [feature(SQUARE, classification={"names": ["Tumor", "Positive"]})])
    assert region(held, ["Tumor"], source="s").area == 100


def test_base_class_does_not_count_as_the_derived_one(tmp_path):
    derived = feature(SQUARE, classification={"names": ["Tumor", "Positive"]})
    base = feature(box_ring(50, 0, 51, 1), classification="Tumor")
    held = read(tmp_path, [derived, base])
    assert region(held, ["tumor: positive"], source="s").area == 100


@pytest.mark.parametrize("wanted", ["tumor", " TUMOR ", "Tumor"])
def test_letter_case_and_blanks_do_not_matter(tmp_path, wanted):
    held = read(tmp_path, [feature(SQUARE, classification="Tumor ")])
    assert region(held, [wanted], source="s").area == 100


def test_several_classes_are_united(tmp_path):
    held = read(tmp_path, [feature(SQUARE), feature(box_ring(20, 0, 21, 1), classification="Bone")])
    assert region(held, ["Tumor", "Bone"], source="s").area == 101


def test_unclassified_is_never_tumour(tmp_path):
    held = read(tmp_path, [feature(SQUARE, classification=None, name="Tumor")])
    with pytest.raises(AnnotationError, match=r"\(unclassified\) x1"):
        region(held, ["Tumor"], source="s.geojson")


@pytest.mark.parametrize("wanted", ["Tumour", "tumour", "TUMOUR"])
@pytest.mark.parametrize("held", ["Tumor", "TUMOR"])
def test_missing_class_gives_the_counts_and_the_nearest_name(tmp_path, wanted, held):
    items = [feature(SQUARE, classification=name) for name in (held, held, "Stroma")]
    with pytest.raises(AnnotationError) as caught:
        region(read(tmp_path, items), [wanted], source="s.geojson")
    message = str(caught.value)
    assert "s.geojson: no annotation of class" in message
    assert f"{held} x2, Stroma x1" in message
    assert f"Did you mean --class '{held}'?" in message


def test_empty_file_lacks_the_class(tmp_path):
    with pytest.raises(AnnotationError, match="it holds nothing"):
        region(read(tmp_path, []), ["Tumor"], source="s")


def test_excluded_classes_are_united(tmp_path):
    items = [
        feature(SQUARE),
        feature(box_ring(0, 0, 2, 2), classification="Ignore*"),
        feature(box_ring(1, 0, 3, 2), classification="ignore*"),
    ]
    held = read(tmp_path, items)
    assert excluded_region(held, ["Ignore*"]).area == 6
    assert (region(held, ["Tumor"], source="s") - excluded_region(held, ["Ignore*"])).area == 94


def test_nothing_excluded_is_an_empty_region(tmp_path):
    assert excluded_region(read(tmp_path, [feature(SQUARE)]), ["Ignore*"]).is_empty


@pytest.mark.parametrize(
    "name",
    ["a.b.geojson", "a.b.json", "a.b.geojson.gz", "a.b.svs.geojson", "a.b.svs.json"],
)
def test_annotation_is_found_by_slide_or_slide_file(tmp_path, name):
    write_geojson(tmp_path / name)
    assert find_annotation(tmp_path, "a.b.svs", "a.b") == tmp_path / name


def test_annotation_of_a_longer_name_is_another_slides(tmp_path):
    write_geojson(tmp_path / "a.b.geojson")
    with pytest.raises(AnnotationError, match=r"^a: .*as a\.geojson.*--annotations"):
        find_annotation(tmp_path, "a.svs", "a")


def test_fingerprint_changes_with_the_annotation(tmp_path):
    one = write_geojson(tmp_path / "a.geojson", feature(SQUARE))
    other = write_geojson(tmp_path / "b.geojson", feature(box_ring(0, 0, 10, 11)))
    assert annotation_sha256(one) != annotation_sha256(other)
