"""A label map is a region of whole numbers on the image's grid, or moved to it with a note."""

import numpy as np
import pytest
import SimpleITK as sitk

from features.errors import AnnotationError
from features.volumes.region_maps import read_region_map
from features.volumes.series import read_volume
from tests.small_series import series

SHAPE = (6, 20, 24)


@pytest.fixture
def volume(tmp_path):
    return read_volume(series(tmp_path / "series", np.zeros(SHAPE, np.int16)))


def written(path, labels, origin=(-10.0, 20.0, 5.0), spacing=(1.5, 1.0, 3.0), orient=""):
    picture = sitk.GetImageFromArray(labels)
    picture.SetOrigin(origin)
    picture.SetSpacing(spacing)
    sitk.WriteImage(sitk.DICOMOrient(picture, orient) if orient else picture, str(path))
    return path


def labels(kind=np.uint8):
    values = np.zeros(SHAPE, kind)
    values[1:4, 4:12, 6:15] = 1
    return values


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_a_map_of_any_type_is_its_region(tmp_path, volume, kind, suffix):
    mask = read_region_map(written(tmp_path / f"m{suffix}", labels(kind)), volume)
    assert np.array_equal(mask.values, labels() > 0)
    assert mask.grid is volume.grid
    assert mask.notes == ()


def test_the_only_label_may_be_any_number(tmp_path, volume):
    mask = read_region_map(written(tmp_path / "m.nii", labels() * 255), volume)
    assert mask.values.sum() == labels().sum()
    assert mask.name == "m.nii, label 255"


def test_another_order_of_axes_is_the_same_region(tmp_path, volume):
    for orient in ("RAS", "SPL"):
        mask = read_region_map(written(tmp_path / "m.nii.gz", labels(), orient=orient), volume)
        assert np.array_equal(mask.values, labels() > 0)


def test_one_of_several_labels_is_asked_for(tmp_path, volume):
    values = labels(np.int16)
    values[5, 2:4, 2:4] = 3
    path = written(tmp_path / "m.nii.gz", values)
    with pytest.raises(AnnotationError, match=r"2 labels: 1 \(216 voxels\), 3 \(4 voxels\)"):
        read_region_map(path, volume)
    mask = read_region_map(path, volume, roi=3)
    assert mask.values.sum() == 4
    assert mask.notes == ("labels 1 left out",)
    with pytest.raises(AnnotationError, match=r"has no label 2\. It has 1 \(216"):
        read_region_map(path, volume, roi=2)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (labels(np.float32) * 0.7, r"values from 0 to 0\.7, which look like"),
        (labels() * 0, "is empty"),
    ],
)
def test_what_is_no_label_map_is_refused(tmp_path, volume, values, words):
    with pytest.raises(AnnotationError, match=words):
        read_region_map(written(tmp_path / "m.nii.gz", values), volume)
    with pytest.raises(AnnotationError, match="Convert a DICOM segmentation"):
        read_region_map(tmp_path / "series" / "000.dcm", volume)


def test_a_map_of_another_grid_is_moved_and_noted(tmp_path, volume):
    fine = np.repeat(labels(), 3, axis=0)
    path = written(tmp_path / "m.nii.gz", fine, origin=(-10, 20, 4), spacing=(1.5, 1.0, 1.0))
    mask = read_region_map(path, volume)
    assert np.array_equal(mask.values, labels() > 0)
    assert "moved from a grid of 24 x 20 x 18 voxels" in mask.notes[0]


@pytest.mark.parametrize(
    ("shape", "origin"),
    [
        (SHAPE, (500, 0, 0)),
        (SHAPE, (-10.0, 20.0, 8.0)),  # one slice too high: the same shape cannot be another grid
        (SHAPE, (10.0, -20.0, 5.0)),  # RAS written as LPS
        ((8, 20, 24), (500, 0, 0)),
    ],
)
def test_a_map_that_lost_its_place_is_an_error(tmp_path, volume, shape, origin):
    values = np.zeros(shape, np.uint8)
    values[1:4, 4:12, 6:15] = 1
    path = written(tmp_path / "m.nii.gz", values, origin=origin)
    with pytest.raises(AnnotationError, match="lies elsewhere than the image"):
        read_region_map(path, volume)


def test_a_map_that_reaches_beyond_the_image_is_an_error(tmp_path, volume):
    values = np.zeros((12, 20, 24), np.uint8)
    values[1:9, 4:12, 6:15] = 1
    with pytest.raises(AnnotationError, match="38% of the region lies beyond the image"):
        read_region_map(written(tmp_path / "m.nii.gz", values), volume)


def test_a_map_on_other_slices_keeps_the_volume_as_drawn(tmp_path, volume):
    thick = np.zeros((3, 20, 24), np.uint8)
    thick[1, 4:12, 6:15] = 1
    path = written(tmp_path / "m.nii.gz", thick, spacing=(1.5, 1.0, 6.0))
    mask = read_region_map(path, volume)
    assert mask.drawn_ml == pytest.approx(72 * 1.5 * 6 / 1000)
    assert "its volume changed by" in mask.notes[0]


@pytest.mark.parametrize(("inside", "noted"), [(0.95, True), (0.4, False)])
def test_a_map_that_is_nearly_all_inside_is_noted(tmp_path, volume, inside, noted):
    """As where 0 is the tumour, and 1 what lies round it."""
    values = np.zeros(volume.values.shape, np.uint8)
    values.ravel()[: round(inside * values.size)] = 1
    notes = read_region_map(written(tmp_path / "m.nii.gz", values), volume).notes
    assert notes == ("95% of the image is inside: is 0 what lies outside?",) * noted
