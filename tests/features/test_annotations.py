"""A slide's annotation file is found by its name and read by its content."""

import gzip
import json
import zipfile

import pytest
from making import box_ring, feature, write_geojson

from features.errors import AnnotationError
from features.regions.annotations import (
    FORMATS,
    SUFFIXES,
    annotation_sha256,
    find_annotation,
    read_annotations,
)

SQUARE = box_ring(0, 0, 10, 10)
GEOJSON = json.dumps([feature(SQUARE)])
ASAP = (
    "<ASAP_Annotations><Annotations><Annotation Name='a' Type='Polygon' PartOfGroup='Tumor'>"
    "<Coordinates><Coordinate Order='0' X='0' Y='0'/><Coordinate Order='1' X='10' Y='0'/>"
    "<Coordinate Order='2' X='10' Y='10'/></Coordinates></Annotation></Annotations></ASAP_Annotations>"
)


@pytest.mark.parametrize("stem", ["a.b", "a.b.svs"])
@pytest.mark.parametrize("suffix", [*SUFFIXES, ".GeoJSON", ".XML", ".Json.GZ"])
def test_annotation_is_matched_by_slide_or_slide_file(tmp_path, stem, suffix):
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
    with pytest.raises(AnnotationError, match=r"^a: .*as a\.geojson.*leave annotations unset"):
        find_annotation(tmp_path, "a.svs", "a")


def test_fingerprint_changes_with_the_annotation(tmp_path):
    one = write_geojson(tmp_path / "a.geojson", feature(SQUARE))
    other = write_geojson(tmp_path / "b.geojson", feature(box_ring(0, 0, 10, 11)))
    assert annotation_sha256(one) != annotation_sha256(other)


@pytest.mark.parametrize("name", ["s.geojson", "s.json", "s.xml", "s.zip", "s.txt", "s"])
@pytest.mark.parametrize(("text", "area"), [(GEOJSON, 100), (ASAP, 50)], ids=["geojson", "asap"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_format_is_known_by_the_content_whatever_the_suffix(tmp_path, name, text, area, encoding):
    if name == "s.zip":
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("export", text.encode(encoding))
    else:
        (tmp_path / name).write_bytes(text.encode(encoding))
    assert read_annotations(tmp_path / name).region(["Tumor"]).area == area


@pytest.mark.parametrize("blanks", [0, 1, 40_000])
def test_format_is_known_behind_blanks_and_comments(tmp_path, blanks):
    path = tmp_path / "s"
    path.write_text(" \n" * blanks + GEOJSON)
    assert read_annotations(path).histogram() == {"Tumor": 1}
    path.write_text(f"<?xml version='1.0'?><!-- {'x' * blanks} --><?keep this?>" + ASAP)
    assert read_annotations(path).histogram() == {"Tumor": 1}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"case,slide\n",
        b"\x89PNG\r\n",
        b"\xff\xfe",
        b"<annotation><object><polygon/></object></annotation>",
        b"<annotations><version>1.1</version><image/></annotations>",
        gzip.compress(GEOJSON.encode()),
    ],
)
@pytest.mark.parametrize("name", ["s.geojson", "s.xml"])
def test_unknown_format_is_refused_with_those_that_can_be_read(tmp_path, content, name):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(AnnotationError) as caught:
        read_annotations(path)
    message = str(caught.value)
    assert message.startswith(f"{name}: not an annotation file in a known format.")
    formats = f"{', '.join(form.name for form in FORMATS)}."
    assert formats in message
    assert "File > Export objects as GeoJSON" in message


IMAGESCOPE = (
    "<Annotations><Annotation><Regions><Region><Vertices><{}/></Vertices></Region></Regions>"
)
FOREIGN = [
    f"{IMAGESCOPE.format(vertex)}</Annotation></Annotations>"
    for vertex in ("Vertex X='1' Y='2'", "V X='1'")
] + ["<annotations><ndpviewstate/></annotations>", "<Annotations><Annotation/></Annotations>"]


@pytest.mark.parametrize("text", [GEOJSON, ASAP, *FOREIGN])
def test_no_file_is_of_two_formats(text):
    assert sum(form.recognises(bytearray(text.encode())) for form in FORMATS) == 1


def test_only_asap_says_which_frame_its_coordinates_are_in(tmp_path):
    (tmp_path / "s.json").write_text(ASAP)
    (tmp_path / "s.xml").write_text(GEOJSON)
    assert read_annotations(tmp_path / "s.json").origin == "level0"
    assert read_annotations(tmp_path / "s.xml").origin == "auto"
