"""Regions of a structure set by name, in the frame of reference of the image, as systems write them."""

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from features.errors import AnnotationError
from features.volumes.jobs import SeriesFiles, VolumeJob
from features.volumes.recipe import VolumeRecipe
from features.volumes.series import read_volume
from features.volumes.structures import choose_region, read_regions, read_structure
from tests.small_series import FRAME, SERIES, contour, series, structure_set

VALUES = np.zeros((6, 20, 24), np.int16)
SQUARE = np.array([(-7.25, 23.5, 11), (-1.25, 23.5, 11), (-1.25, 29.5, 11), (-7.25, 29.5, 11)])


@pytest.fixture
def volume(tmp_path):
    return read_volume(series(tmp_path / "series", VALUES))


def refusal(path, name, volume, **options):
    with pytest.raises(AnnotationError) as caught:
        read_structure(path, name, volume, **options)
    assert path.name in str(caught.value)
    return str(caught.value)


def test_a_region_lies_on_its_slice(tmp_path, volume):
    mask = read_structure(structure_set(tmp_path / "rs.dcm", {"GTV": [SQUARE]}), "GTV", volume)
    assert np.argwhere(mask.values).min(axis=0).tolist() == [2, 4, 2]
    assert np.argwhere(mask.values).max(axis=0).tolist() == [2, 9, 5]
    assert (mask.name, mask.notes) == ("GTV", ())
    assert mask.volume_ml == pytest.approx(24 * 4.5 / 1000)


NAMES = ("GTV Mass", "GTV_Edema", "gtv-boost", "CTV", "CTV", "Liver")


@pytest.fixture
def named(tmp_path):
    def rename(file):
        for roi, name in zip(file.StructureSetROISequence, NAMES, strict=True):
            roi.ROIName = name

    regions = {str(number): [SQUARE] for number in range(len(NAMES))}
    return structure_set(tmp_path / "names.dcm", regions, change=rename)


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("GTV Mass", "GTV Mass"),
        ("gtv_mass", "GTV Mass"),
        ("GTVmass ", "GTV Mass"),
        ("*edema", "GTV_Edema"),
        ("GTV-Boost", "gtv-boost"),
        ("LIVER", "Liver"),
    ],
)
def test_a_name_is_exact_or_fits_one_alone(named, name, chosen):
    assert choose_region(read_regions(named), name, "a").name == chosen


def test_another_name_that_is_taken_is_noted(tmp_path, volume):
    path = structure_set(tmp_path / "rs.dcm", {"GTV_Edema": [SQUARE], "GTVn": [SQUARE]})
    mask = read_structure(path, "GTV", volume)
    assert mask.name == "GTV_Edema"
    assert mask.notes == ("the region 'GTV_Edema' is taken for 'GTV'",)
    alone = structure_set(tmp_path / "one.dcm", {"Mass 3": [SQUARE]})
    assert read_structure(alone, "*", volume).notes == ()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("GTV", "3 regions fit 'GTV': 'GTV Mass' (1 contours, number 1), 'GTV_Edema'"),
        ("GTV*", "3 regions fit"),
        ("CTV", "2 regions fit 'CTV': 'CTV' (1 contours, number 4), 'CTV' (1 contours, number 5)"),
        ("PTV", "has no region 'PTV'. It has 'GTV Mass' (1 contours), 'GTV_Edema' (1 contours)"),
        ("Live", "has no region 'Live'"),
        ("", "has no region ''"),
    ],
)
def test_a_name_that_fits_none_or_several_lists_them(named, volume, name, words):
    assert words in refusal(named, name, volume)


def test_numbers_join_names_and_contours_whatever_their_order(tmp_path, volume):
    def shuffle(file):
        for roi, number in zip(file.StructureSetROISequence, (7, 3), strict=True):
            roi.ROINumber = number
        for item, number in zip(file.ROIContourSequence, (3, 7), strict=True):
            item.ReferencedROINumber = number
            item.ContourSequence[0].ContourData[2::3] = ["14.0" if number == 7 else "8.0"] * 4

    path = structure_set(tmp_path / "rs.dcm", {"A": [SQUARE], "B": [SQUARE]}, change=shuffle)
    for name, place in (("A", 3), ("B", 1)):
        assert read_structure(path, name, volume).values.any(axis=(1, 2)).argmax() == place


def test_an_empty_region_is_named_and_one_of_two_equal_names_may_be_empty(tmp_path, volume):
    def change(file):
        del file.ROIContourSequence[0].ContourSequence  # no contours
        del file.ROIContourSequence[1]  # no item at all
        file.StructureSetROISequence[2].ROIName = "Areola"

    regions = {"Areola": [SQUARE], "Heart": [SQUARE], "x": [SQUARE]}
    path = structure_set(tmp_path / "rs.dcm", regions, change=change)
    assert read_structure(path, "Areola", volume).values.any()
    assert "region 'Heart' is empty: no closed contour" in refusal(path, "Heart", volume)


def test_points_and_open_contours_are_no_area(tmp_path, volume):
    path = structure_set(tmp_path / "p.dcm", {"Iso": [SQUARE[:1]]}, kind="POINT")
    assert "is empty: no closed contour, but 1 of kind POINT" in refusal(path, "Iso", volume)

    def open_one(file):
        file.ROIContourSequence[0].ContourSequence.append(contour(SQUARE, "OPEN_PLANAR"))

    path = structure_set(tmp_path / "o.dcm", {"GTV": [SQUARE]}, change=open_one)
    mask = read_structure(path, "GTV", volume)
    assert mask.notes == ("1 contours of kind OPEN_PLANAR left out",)


@pytest.mark.parametrize("kind", ["CLOSED_PLANAR", "CLOSEDPLANAR_XOR", ""])
def test_holes_of_every_kind_of_area(tmp_path, volume, kind):
    hole = SQUARE.mean(axis=0) + (SQUARE - SQUARE.mean(axis=0)) / 2
    path = structure_set(tmp_path / "rs.dcm", {"GTV": [SQUARE, hole]}, kind=kind)
    mask = read_structure(path, "GTV", volume)
    assert mask.values.sum() == 24 - 6 or "are holes" in mask.notes[0]
    assert not mask.values[2, 6, 3]


def test_another_frame_of_reference_is_refused(tmp_path, volume):
    path = structure_set(tmp_path / "rs.dcm", {"GTV": [SQUARE]}, frame="1.2.3.4")
    message = refusal(path, "GTV", volume)
    assert "1.2.3.4" in message
    assert FRAME in message
    mask = read_structure(path, "GTV", volume, allow=["frame"])
    assert mask.values.any()
    assert "taken as the image's" in mask.notes[0]


def unnamed(*, roi=True, reference=True, own=True):
    def change(file):
        if roi:
            del file.StructureSetROISequence[0].ReferencedFrameOfReferenceUID
        if reference:
            del file.ReferencedFrameOfReferenceSequence
        if own:
            del file.FrameOfReferenceUID

    return change


@pytest.mark.parametrize(
    "left",
    [{"reference": False, "own": False}, {"reference": False}, {"roi": False}, {"own": False}],
)
def test_the_frame_may_be_named_in_any_place(tmp_path, volume, left):
    path = structure_set(tmp_path / "rs.dcm", {"GTV": [SQUARE]}, change=unnamed(**left))
    assert read_structure(path, "GTV", volume).values.any()
    other = structure_set(
        tmp_path / "o.dcm", {"GTV": [SQUARE]}, frame="1.2.3.4", change=unnamed(**left)
    )
    assert "another frame of reference" in refusal(other, "GTV", volume)


def test_an_unnamed_frame_is_that_of_the_series_it_refers_to(tmp_path, volume):
    def nameless(file):
        del file.StructureSetROISequence[0].ReferencedFrameOfReferenceUID
        del file.FrameOfReferenceUID
        file.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = ""

    path = structure_set(tmp_path / "a.dcm", {"GTV": [SQUARE]}, change=nameless)
    assert read_structure(path, "GTV", volume).values.any()
    path = structure_set(
        tmp_path / "b.dcm", {"GTV": [SQUARE]}, series_uid=SERIES + ".1", change=nameless
    )
    assert "is unknown, as the structure set names none" in refusal(path, "GTV", volume)


def test_an_image_without_a_frame_needs_a_word(tmp_path, volume):
    from dataclasses import replace

    converted = replace(volume, frame_of_reference="", series="")
    path = structure_set(tmp_path / "rs.dcm", {"GTV": [SQUARE]})
    assert "as the image names none" in refusal(path, "GTV", converted)
    assert read_structure(path, "GTV", converted, allow=["frame"]).values.any()


@pytest.mark.parametrize(
    ("data", "words"),
    [(["1", "2", "3", "4"], "4 coordinates"), (["1", "2", "nan"] * 3, "damaged"), (["a"] * 9, "no number")],
)  # fmt: skip
def test_damaged_contours_are_named(tmp_path, volume, data, words):
    path = structure_set(tmp_path / "rs.dcm", {"GTV": [SQUARE]})
    stored = "\\".join(f"{value:.6f}" for value in SQUARE.ravel()).encode()
    content, new = path.read_bytes(), "\\".join(data).encode()
    start = content.index(stored) - 4
    length = int.from_bytes(content[start + 2 : start + 4], "little")
    new = new.ljust(length)
    path.write_bytes(content[: start + 4] + new + content[start + 4 + length :])
    message = refusal(path, "GTV", volume)
    assert "'GTV'" in message
    assert words in message or "no number" in message


def test_what_is_no_structure_set_is_named(tmp_path, volume):
    assert "is no structure set" in refusal(tmp_path / "series" / "000.dcm", "GTV", volume)


def test_a_contour_that_rises_is_refused_with_its_mm(tmp_path, volume):
    rising = SQUARE + np.array([[0, 0, 0], [0, 0, 0], [0, 0, 4.0], [0, 0, 4.0]])
    path = structure_set(tmp_path / "rs.dcm", {"GTV": [rising]})
    assert "rises by 4.00 mm" in refusal(path, "GTV", volume)


def test_a_structure_set_of_several_frames(tmp_path, volume):
    """Each region names its own; one that does not has none."""

    def change(file):
        second = Dataset()
        second.FrameOfReferenceUID = "1.2.3.4"
        references = [*file.ReferencedFrameOfReferenceSequence, second]
        file.ReferencedFrameOfReferenceSequence = Sequence(references)
        file.StructureSetROISequence[1].ReferencedFrameOfReferenceUID = "1.2.3.4"

    path = structure_set(tmp_path / "rs.dcm", {"A": [SQUARE], "B": [SQUARE]}, change=change)
    assert read_structure(path, "A", volume).values.any()
    assert "another frame of reference" in refusal(path, "B", volume)


def test_an_image_in_the_same_frame_shows_the_same_place(tmp_path, volume):
    """Contours drawn on one series, read on another of other steps and other order."""
    path = structure_set(tmp_path / "rs.dcm", {"GTV": [SQUARE, SQUARE + np.array([0, 0, 3])]})
    fine = read_volume(
        series(
            tmp_path / "fine", np.zeros((20, 50, 40), np.int16), spacing_mm=(0.5, 0.5, 1.5),
            origin_mm=(10, 20, 30), orientation=(-1, 0, 0, 0, 1, 0), SeriesInstanceUID="1.9",
        )
    )  # fmt: skip
    mask = read_structure(path, "GTV", fine, allow=["sparse"])
    places = mask.grid.to_mm(np.argwhere(mask.values)[:, ::-1].astype(float))
    assert places.min(axis=0) == pytest.approx((-7.0, 23.5, 12.0 - 0.75), abs=0.8)
    assert places.max(axis=0) == pytest.approx((-1.5, 29.0, 14.0), abs=0.8)


def test_contours_with_an_offset_are_refused(tmp_path, volume):
    def shift(file):
        file.ROIContourSequence[0].ContourSequence[0].ContourOffsetVector = [0, 0, 3.0]

    path = structure_set(tmp_path / "rs.dcm", {"GTV": [SQUARE]}, change=shift)
    assert r"0.0\0.0\3.0 mm beside its points" in refusal(path, "GTV", volume)


def test_names_in_other_scripts(tmp_path, volume):
    def name(file):
        file.SpecificCharacterSet = "ISO_IR 192"
        file.StructureSetROISequence[0].ROIName = "Tumör links"

    path = structure_set(tmp_path / "rs.dcm", {"x": [SQUARE]}, change=name)
    assert read_structure(path, "tumör_LINKS", volume).name == "Tumör links"


def job(tmp_path, mask, roi="GTV"):
    files = SeriesFiles(path=tmp_path / "series", mask=mask, roi=roi)
    return VolumeJob(name="a", case="a", modalities={"T1": files})


def test_what_a_recipe_allows_reaches_the_outlines(tmp_path, volume):
    far = SQUARE + np.array([0, 0, 9.0])
    path = structure_set(tmp_path / "rs.dcm", {"GTV": [SQUARE, far]}, frame="1.2.3")
    with pytest.raises(AnnotationError, match="another frame of reference"):
        job(tmp_path, path).read(VolumeRecipe(channels=("T1",)))
    _, gappy = job(tmp_path, path).read(VolumeRecipe(channels=("T1",), allow=("frame",)))
    assert "allow=sparse" in gappy.notes[1]
    both = VolumeRecipe(channels=("T1",), allow=("frame", "sparse"))
    _, whole = job(tmp_path, path).read(both)
    assert [mask.values.any(axis=(1, 2)).sum() for mask in (gappy, whole)] == [2, 4]
