"""A dose is in gray, at the places that its file states, and nothing where it does not reach."""

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from features.errors import VolumeError
from features.volumes.contours import Mask
from features.volumes.dose import read_dose
from features.volumes.grid import resample, share_beyond
from features.volumes.volume import Grid
from tests.small_series import dose

STORED = np.random.default_rng(8).integers(0, 2**31, (4, 5, 6), np.uint32)
SCALING = 1.4e-9


def written(path, **options):
    return dose(path / "rd.dcm", STORED, scaling=SCALING, origin_mm=(-3, 4, 10), **options)


def refusal(path, **options):
    with pytest.raises(VolumeError) as caught:
        read_dose(path, **options)
    assert path.name in str(caught.value)
    return str(caught.value)


def test_stored_numbers_times_their_scaling_are_gray(tmp_path):
    volume = read_dose(written(tmp_path))
    assert np.array_equal(volume.values, (STORED * np.float64(SCALING)).astype(np.float32))
    assert volume.modality == "RTDOSE"
    assert volume.spacing_mm == pytest.approx((2, 2, 2))
    assert volume.origin_mm == pytest.approx((-3, 4, 10))


@pytest.mark.parametrize("syntax", [DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_ways_of_writing_a_dose(tmp_path, syntax):
    usual = read_dose(written(tmp_path)).values
    assert np.array_equal(read_dose(written(tmp_path, syntax=syntax)).values, usual)


@pytest.mark.parametrize(
    ("offsets", "first_z"),
    [
        ([0, 3, 6, 9], 10),  # relative
        ([10, 13, 16, 19], 10),  # absolute
        ([0, -3, -6, -9], 1),  # towards the feet
        ([10, 7, 4, 1], 1),
    ],
)
def test_planes_are_sorted_whatever_their_offsets(tmp_path, offsets, first_z):
    volume = read_dose(written(tmp_path, offsets=offsets))
    wanted = (STORED * SCALING).astype(np.float32)
    assert np.allclose(volume.values, wanted if offsets[1] > offsets[0] else wanted[::-1])
    assert volume.spacing_mm == pytest.approx((2, 2, 3))
    assert volume.origin_mm == pytest.approx((-3, 4, first_z))


@pytest.mark.parametrize(
    ("orientation", "flips", "origin"),
    [
        ((-1, 0, 0, 0, -1, 0), (1, 2), (-13, -4, 10)),  # prone
        ((1, 0, 0, 0, -1, 0), (0, 1), (-3, -4, 1)),  # the normal runs to the feet
        ((-1, 0, 0, 0, 1, 0), (0, 2), (-13, 4, 1)),
    ],
)
def test_offsets_run_along_the_normal_of_the_planes(tmp_path, orientation, flips, origin):
    volume = read_dose(written(tmp_path, orientation=orientation, offsets=[0, 3, 6, 9]))
    wanted = np.flip((STORED * SCALING).astype(np.float32), flips)
    assert np.allclose(volume.values, wanted)
    assert volume.origin_mm == pytest.approx(origin)
    absolute = [10, 13, 16, 19] if orientation[0] * orientation[4] > 0 else [10, 7, 4, 1]
    again = read_dose(written(tmp_path, orientation=orientation, offsets=absolute))
    assert np.array_equal(again.values, volume.values)
    assert again.origin_mm == pytest.approx(origin)


def test_a_sagittal_grid(tmp_path):
    path = written(tmp_path, orientation=(0, 1, 0, 0, 0, -1), offsets=[0, 3, 6, 9])
    volume = read_dose(path)
    assert volume.values.shape == (5, 6, 4)
    assert volume.spacing_mm == pytest.approx((3, 2, 2))
    assert volume.values[4, 2, 3] == pytest.approx(STORED[0, 0, 2] * SCALING)


def test_planes_that_are_not_even_are_interpolated_and_noted(tmp_path):
    volume = read_dose(written(tmp_path, offsets=[0, 2, 4, 8]))
    wanted = (STORED * SCALING).astype(np.float32)
    assert np.allclose(volume.values[:3], wanted[:3])
    assert np.allclose(volume.values[3], (wanted[2] + wanted[3]) / 2)
    assert np.allclose(volume.values[4], wanted[3])
    assert volume.notes == ("planes 2.00 to 4.00 mm apart, interpolated every 2.00 mm",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: setattr(f, "DoseUnits", "RELATIVE"), "is RELATIVE, not in GY"),
        (lambda f: delattr(f, "DoseUnits"), "without a unit"),
        (lambda f: delattr(f, "DoseGridScaling"), "DoseGridScaling, without which its values are no dose"),
        (lambda f: setattr(f, "DoseGridScaling", 0), "DoseGridScaling is 0"),
        (lambda f: setattr(f, "DoseType", "ERROR"), "difference of two doses"),
        (lambda f: setattr(f, "DoseSummationType", "BEAM"), "part of the plan"),
        (lambda f: setattr(f, "DoseSummationType", "FRACTION"), "part of the plan"),
        (lambda f: setattr(f, "Modality", "CT"), "is no dose of radiotherapy, but CT"),
        (lambda f: delattr(f, "GridFrameOffsetVector"), "has no GridFrameOffsetVector"),
        (lambda f: setattr(f, "GridFrameOffsetVector", [0, 3, 6]), "is not 4 numbers"),
        (lambda f: setattr(f, "GridFrameOffsetVector", [5, 7, 9, 11]), "begins with 5 mm"),
        (lambda f: setattr(f, "GridFrameOffsetVector", [0, 3, 3, 6]), "two planes lie at one place"),
        (lambda f: delattr(f, "ImagePositionPatient"), "has no ImagePositionPatient"),
        (lambda f: setattr(f, "PixelData", f.PixelData[:60]), "cannot be decoded"),
    ],
)  # fmt: skip
def test_what_is_no_dose_in_gray_is_refused(tmp_path, change, words):
    assert words in refusal(written(tmp_path, change=change))


def test_one_plane_of_dose_is_as_thick_as_it_says(tmp_path):
    def thick(file):
        file.SliceThickness = 2.5

    path = dose(tmp_path / "rd.dcm", STORED[:1], scaling=SCALING, change=thick)
    volume = read_dose(path)
    assert volume.spacing_mm == pytest.approx((2, 2, 2.5))
    assert volume.notes == ("one plane of dose, 2.5 mm thick",)
    thin = dose(tmp_path / "thin.dcm", STORED[:1], scaling=SCALING)
    assert "one plane of dose and no SliceThickness" in refusal(thin)


def test_a_part_of_a_plan_on_request(tmp_path):
    path = written(tmp_path, change=lambda f: setattr(f, "DoseSummationType", "BEAM"))
    assert read_dose(path, allow=["part"]).facts["summation"] == "BEAM"


def test_histograms_of_the_planning_system_are_not_read(tmp_path):
    def add(file):
        histogram = Dataset()
        histogram.DVHData, histogram.DoseUnits, histogram.DVHDoseScaling = [1, 100], "GY", 77
        file.DVHSequence = Sequence([histogram])

    volume = read_dose(written(tmp_path, change=add))
    assert volume.values.max() == pytest.approx(STORED.max() * SCALING)


def test_beyond_the_grid_there_is_no_dose_and_the_share_is_known(tmp_path):
    volume = read_dose(dose(tmp_path / "rd.dcm", np.full((4, 5, 6), 100, np.uint32)))
    # Slices round the last plane, at 6 mm, of planes 2 mm apart: less than half a voxel more counts.
    grid = Grid((4, 2, 2), (2.0, 2.0, 0.9), (2.0, 2.0, 5.0), np.eye(3))
    placed = resample(volume, grid)
    assert np.allclose(placed.values[:3], 1)
    assert (placed.values[3] == 0).all()
    assert share_beyond(Mask(np.ones(grid.shape, bool), grid), volume.grid) == pytest.approx(0.25)
    beside = Grid((1, 2, 2), (2.0, 2.0, 1.0), (2.0, 2.0, 50.0), np.eye(3))
    with pytest.raises(
        VolumeError,
        match=r"RTDOSE does not overlap the target grid, from which it is 43\.0 mm away",
    ):
        resample(volume, beside)


@pytest.mark.parametrize(("highest", "noted"), [(70, False), (7000, True)])
def test_a_dose_that_no_beam_gives_is_noted(tmp_path, highest, noted):
    stored = np.array([[[0, 50], [90, 100]]] * 2, np.uint32)
    volume = read_dose(dose(tmp_path / "rd.dcm", stored, scaling=highest / 100))
    assert (
        "the highest dose is 7,000 Gy: check its unit, which may be cGy" in volume.notes
    ) is noted
