"""Files that are packed, cut or bombs; what is in them is the business of test_annotations."""

import gzip
import json
import zipfile
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from making import box_ring, feature

from features.errors import AnnotationError
from features.files import unpack as module
from features.regions.annotations import read_annotations

SQUARE = box_ring(0, 0, 10, 10)


def zipped(path, *entries, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("suffix", [".geojson.gz", ".json.gz", ".GeoJSON.GZ"])
def test_gzipped_file_is_read(tmp_path, suffix):
    path = tmp_path / f"s{suffix}"
    path.write_bytes(gzip.compress(json.dumps([feature(SQUARE)]).encode()))
    assert read_annotations(path).histogram() == {"Tumor": 1}


@pytest.mark.parametrize(
    "beside", [[], [("folder/", "")], [("__MACOSX/._s.geojson", "\0"), ("folder/", "")]]
)
@pytest.mark.parametrize("suffix", [".zip", ".ZIP"])
def test_zip_of_one_file_is_read(tmp_path, beside, suffix):
    text = json.dumps([feature(SQUARE)])
    path = zipped(tmp_path / f"s{suffix}", ("folder/s.geojson", text), *beside)
    assert read_annotations(path).histogram() == {"Tumor": 1}


@pytest.mark.parametrize("count", [0, 2])
def test_zip_of_none_or_several_files_is_refused(tmp_path, count):
    entries = [(f"{i}.geojson", json.dumps([feature(SQUARE)])) for i in range(count)]
    path = zipped(tmp_path / "s.zip", *entries)
    with pytest.raises(AnnotationError, match=rf"^s\.zip: contains {count} files.*Unpack it"):
        read_annotations(path)


@pytest.mark.parametrize("suffix", [".json", ".json.gz", ".zip"])
def test_bomb_is_stopped_at_the_limit(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(module, "LARGEST_BYTES", 3 << 20)
    path, content = tmp_path / f"s{suffix}", json.dumps([feature(SQUARE)]).encode()
    for blanks, bomb in ((1 << 20, False), (8 << 20, True)):
        raw = content + b" " * blanks
        if suffix == ".zip":
            zipped(path, ("s.geojson", raw))
        else:
            path.write_bytes(gzip.compress(raw) if suffix.endswith("gz") else raw)
        if bomb:
            with pytest.raises(AnnotationError, match=r"more than .* GiB .*without detections"):
                read_annotations(path)
        else:
            assert read_annotations(path).histogram() == {"Tumor": 1}


def test_zip_with_a_password_is_refused(tmp_path):
    path = zipped(tmp_path / "s.zip", ("s.geojson", "[]"))
    raw = bytearray(path.read_bytes())
    raw[6] |= 1  # encrypted, says the entry
    raw[raw.index(b"PK\x01\x02") + 8] |= 1  # and so does the directory
    path.write_bytes(raw)
    with pytest.raises(AnnotationError, match=r"password.*unpack"):
        read_annotations(path)


@given(st.data())
def test_damaged_zip_is_an_annotation_error_or_read(tmp_path_factory, data):
    text = json.dumps([feature(SQUARE)])
    method = data.draw(st.sampled_from([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))
    path = zipped(tmp_path_factory.mktemp("z") / "s.zip", ("s.geojson", text), method=method)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    with suppress(AnnotationError):
        read_annotations(path)


def test_zip_with_spoilt_lzma_is_refused(tmp_path):
    text = json.dumps([feature(SQUARE)] * 50)
    path = zipped(tmp_path / "s.zip", ("s.geojson", text), method=zipfile.ZIP_LZMA)
    raw = bytearray(path.read_bytes())
    raw[60:90] = b"\xff" * 30
    path.write_bytes(raw)
    with pytest.raises(AnnotationError, match=r"cannot be read .*unpack"):
        read_annotations(path)


@pytest.mark.parametrize("damage", [slice(0, 4), slice(15, 25), slice(-8, None)])
def test_damaged_compressed_file_is_refused(tmp_path, damage):
    path = tmp_path / "s.geojson.gz"
    raw = bytearray(gzip.compress(json.dumps([feature(SQUARE)] * 50).encode(), mtime=0))
    raw[damage] = b"\xff" * len(raw[damage])
    path.write_bytes(raw)
    with pytest.raises(AnnotationError, match=r"cannot be read .*Export"):
        read_annotations(path)


def test_cut_compressed_file_is_refused(tmp_path):
    path = tmp_path / "s.geojson.gz"
    path.write_bytes(gzip.compress(json.dumps([feature(SQUARE)] * 50).encode())[:60])
    with pytest.raises(AnnotationError, match=r"cannot be read .*Export"):
        read_annotations(path)


def test_missing_file_is_an_annotation_error(tmp_path):
    with pytest.raises(AnnotationError, match=r"cannot be read .*Export"):
        read_annotations(tmp_path / "none.geojson")
    with pytest.raises(AnnotationError, match=r"cannot be read .*Export"):
        read_annotations(tmp_path / "null\0.geojson")
