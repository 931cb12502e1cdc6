"""Which files of a folder are slides, by which names, and what else lies there."""

import struct

import pytest

from features.errors import AnnotationMissing, InputError, SlideError
from features.extraction.jobs import SlideJob, jobs_of_paths, jobs_of_rows
from features.regions.annotations import find_annotation
from features.slides.dicom import (
    other_modality,
    read_elements,
    series_files,
    transfer_syntax_kind,
)
from features.slides.find import find_slides, leftovers, slides_in
from features.slides.names import short_name
from features.slides.pixels import open_handle
from tests.small_series import dataset, save

EXPLICIT, IMPLICIT_UID = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2"


def element(group, number, kind, value, *, implicit=False):
    value = value + b"\0" * (len(value) % 2)
    head = struct.pack("<HH", group, number)
    if implicit:
        return head + struct.pack("<I", len(value)) + value
    if kind in (b"OB", b"SQ", b"UN"):
        return head + kind + b"\0\0" + struct.pack("<I", len(value)) + value
    return head + kind + struct.pack("<H", len(value)) + value


def dicom(path, series, *, syntax=EXPLICIT):
    """The head of a DICOM file, with a nested sequence of unknown length before the series."""
    implicit = syntax == IMPLICIT_UID
    inner = element(0x0008, 0x1155, b"UI", b"1.2.3", implicit=implicit)
    undefined = struct.pack("<I", 0xFFFFFFFF)
    nested = (
        struct.pack("<HH", 0x0008, 0x1115)
        + (b"" if implicit else b"SQ\0\0")
        + undefined
        + struct.pack("<HH", 0xFFFE, 0xE000) + undefined
        + inner
        + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
        + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\0" * 128
        + b"DICM"
        + element(0x0002, 0x0010, b"UI", syntax.encode())
        + element(0x0008, 0x0060, b"CS", b"SM", implicit=implicit)
        + nested
        + element(0x0020, 0x000D, b"UI", b"1.9", implicit=implicit)
        + element(0x0020, 0x000E, b"UI", series.encode(), implicit=implicit)
    )
    return path


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT_UID])
def test_the_series_is_read_past_nested_sequences(tmp_path, syntax):
    found = read_elements(dicom(tmp_path / "a.dcm", "1.2.77", syntax=syntax))
    assert found[0x0020, 0x000E] == "1.2.77"
    assert found[0x0002, 0x0010] == syntax


@pytest.mark.parametrize("length", [0, 100, 131, 140, 180, 200])
def test_a_stump_of_a_dicom_file_is_a_slide_of_its_own(tmp_path, length):
    path = dicom(tmp_path / "a.dcm", "1.2.77")
    path.write_bytes(path.read_bytes()[:length])
    assert series_files(path) == (path,)


def test_a_series_is_one_slide_with_the_name_of_its_folder(tmp_path):
    for name in ("7.dcm", "12.dcm", "9.dcm"):
        dicom(tmp_path / "site-2" / "case-05" / name, "1.2.5")
    (job,) = jobs_of_paths([tmp_path])
    assert job.slide == "case-05"
    assert [path.name for path in job.files] == ["12.dcm", "7.dcm", "9.dcm"]
    assert jobs_of_paths([tmp_path / "site-2" / "case-05"])[0].slide == "case-05"
    globbed = sorted((tmp_path / "site-2" / "case-05").glob("*.dcm"))
    assert [job.files for job in jobs_of_paths(globbed)] == [job.files]
    for named in ("case-05", "site-2/case-05", "9", "site-2/case-05/9"):
        assert slides_in(tmp_path)[named] == (job.files[0],)


def test_two_series_in_one_folder_are_two_slides(tmp_path):
    for name, series in (("a.dcm", "1"), ("b.dcm", "1"), ("c.dcm", "2")):
        dicom(tmp_path / name, series)
    assert sorted(job.slide for job in jobs_of_paths([tmp_path])) == ["a", "c"]


def test_the_way_pixels_are_stored_is_named(tmp_path):
    stored = dicom(tmp_path / "a.dcm", "1", syntax="1.2.840.10008.1.2.4.201")
    assert transfer_syntax_kind(stored) == "HTJ2K pixels (1.2.840.10008.1.2.4.201)"
    assert transfer_syntax_kind(dicom(tmp_path / "b.dcm", "1")) == ""


BESIDE = [
    "._a.tif", ".DS_Store", "Thumbs.db", "desktop.ini", "@eaDir/a.tif/SYNO.tif", "__MACOSX/._a.tif",
    ".Trash-1000/files/old.svs", "$RECYCLE.BIN/x.tif", "~$b.tif", ".hidden.ndpi", "#recycle/c.tif",
]  # fmt: skip


def test_files_of_the_system_are_no_slides(tmp_path):
    for name in ("a.tif", "inside/b.svs", *BESIDE):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    assert set(find_slides(tmp_path)) == {"a", "b", "inside/b"}
    assert leftovers(tmp_path).hidden == len(BESIDE)


def test_every_other_file_is_accounted_for(tmp_path):
    for name in (
        "a.tif",
        "b.qptiff",
        "c.VSI",
        "d.tif.part",
        "e.svs.crdownload",
        "f.csv",
        "g.csv",
        "README",
    ):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "gone.svs").symlink_to(tmp_path / "nowhere.svs")
    (tmp_path / "m.mrxs").write_bytes(b"x")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "Data0000.dat").write_bytes(b"x")
    rest = leftovers(tmp_path)
    assert [path.name for path in rest.unread] == ["b.qptiff", "c.VSI"]
    assert [path.name for path in rest.broken_links] == ["gone.svs"]
    assert [path.name for path in rest.partial] == ["d.tif.part", "e.svs.crdownload"]
    assert dict(rest.other) == {".csv": 2, "without suffix": 1}
    assert str(rest) == ".csv (2), without suffix (1)"


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("a.ome", "a"),
        ("x/a.ome", "x/a"),
        ("a.svs", "a"),
        ("a.b", "a.b"),
        ("a", "a"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_a_second_ending_is_no_part_of_the_name(name, short):
    assert short_name(name) == short


@pytest.mark.parametrize(
    ("slide_file", "slide", "annotation"),
    [
        ("a.ome.tif", "a.ome", "a.geojson"),
        ("a.ome.tif", "a.ome", "a.ome.geojson"),
        ("a.ome.tiff", "a.ome", "a.ome.tiff.geojson"),
        ("a.svs.tif", "a.svs", "a.geojson"),
        ("b.tif", "b", "b.tif.geojson"),
    ],
)
def test_annotations_are_found_by_either_name(tmp_path, slide_file, slide, annotation):
    (tmp_path / annotation).write_text("{}")
    assert find_annotation(tmp_path, slide_file, slide).name == annotation


def test_the_exact_name_goes_before_the_short_one(tmp_path):
    for name in ("a.geojson", "a.ome.geojson"):
        (tmp_path / name).write_text("{}")
    assert find_annotation(tmp_path, "a.ome.tif", "a.ome").name == "a.ome.geojson"


def test_near_names_are_offered(tmp_path):
    (tmp_path / "case-07-s1.geojson").write_text("{}")
    with pytest.raises(AnnotationMissing, match=r"Did you mean case-07-s1\.geojson\?"):
        find_annotation(tmp_path, "case-7-s1.svs", "case-7-s1")
    for name in ("case-07-s1.tif", "case-08-s1.tif"):
        (tmp_path / name).write_bytes(b"x")

    class Row:
        mpp, case = None, "x"

        def __init__(self, slide):
            self.slide = slide

    jobs = jobs_of_rows([Row("case-08-s1"), Row("case-7-s1")], tmp_path)
    assert jobs[0].near == ""
    assert "case-07-s1" in jobs[1].near
    assert isinstance(jobs[0], SlideJob)


def test_a_table_may_name_a_slide_without_its_second_ending(tmp_path):
    (tmp_path / "a.ome.tif").write_bytes(b"x")
    assert slides_in(tmp_path)["a"] == slides_in(tmp_path)["a.ome"] == (tmp_path / "a.ome.tif",)
    (tmp_path / "a.tif").write_bytes(b"x")
    assert slides_in(tmp_path)["a"] == (tmp_path / "a.tif",)


@pytest.mark.parametrize("modality", ["CT", "PT", "RTDOSE"])
def test_dicom_of_another_modality_is_named(tmp_path, modality):
    path = tmp_path / "0001.dcm"
    save(dataset(path, modality))
    assert other_modality(path) == modality
    with pytest.raises(SlideError, match=f"it is DICOM of modality {modality}, no slide"):
        open_handle(path)
    save(dataset(tmp_path / "slide.dcm", "SM"))
    assert other_modality(tmp_path / "slide.dcm") == ""


def test_dicom_files_without_an_ending_are_named(tmp_path):
    (tmp_path / "DISK1").mkdir()
    for name in ("IM7", "IM8"):
        save(dataset(tmp_path / "DISK1" / name, "SM"))
    (tmp_path / "README").write_text("words")
    with pytest.raises(InputError, match=r"without an ending are DICOM \(IM7, IM8\)"):
        jobs_of_paths([tmp_path])
