"""Real sarcomas and a real treatment: values, masks and doses against references made elsewhere."""

import numpy as np
import pytest

from features.volumes.contours import mask_of_contours
from features.volumes.dose import read_dose
from features.volumes.grid import resample, share_beyond
from features.volumes.region_maps import read_region_map
from features.volumes.series import read_volume, scan_folder
from features.volumes.structures import choose_region, read_regions, read_structure
from features.volumes.volume import Grid

pytestmark = pytest.mark.realdata
SERIES = [(case, kind) for case in ("STS_025", "STS_008") for kind in ("CT", "MR_T1", "PET")]


@pytest.fixture(scope="module")
def folder(realdata):
    if not (realdata / "volumes").is_dir():
        pytest.skip(f"the real volumes are not at {realdata / 'volumes'}")
    return realdata / "volumes"


@pytest.mark.parametrize(("case", "kind"), SERIES)
def test_a_structure_set_gives_the_reference_mask_to_the_voxel(folder, case, kind):
    volume = read_volume(folder / "sts" / case / kind)
    mask = read_structure(folder / "sts" / case / f"{kind}-RTSTRUCT.dcm", "GTV_Mass", volume)
    reference = read_region_map(folder / "sts" / case / f"{kind}_mask.nii.gz", volume)
    assert reference.notes == ()
    assert (mask.values != reference.values).sum() == 0


@pytest.mark.parametrize(("case", "kind"), SERIES)
def test_dicom_and_nifti_of_one_series_are_equal(folder, case, kind):
    dicom = read_volume(folder / "sts" / case / kind)
    nifti = read_volume(folder / "sts-nifti" / case / f"{kind}_image.nii.gz")
    assert dicom.grid.is_same_as(nifti.grid)
    assert np.abs(dicom.values - nifti.values).max() <= (1e-6 if kind == "PET" else 0)


def test_modalities_of_a_patient_agree_on_a_shared_grid_whatever_their_files(folder):
    dicom = [read_volume(folder / "sts" / "STS_025" / kind) for kind in ("MR_T1", "CT")]
    nifti = [
        read_volume(folder / "sts-nifti" / "STS_025" / f"{kind}_image.nii.gz")
        for kind in ("MR_T1", "CT")
    ]
    moved = [resample(ct, t1.grid).values for t1, ct in (dicom, nifti)]
    assert np.array_equal(*moved)


def test_a_double_oblique_series_keeps_its_direction(folder):
    volume = read_volume(folder / "oriented")
    wanted = [[0.954, 0.279, -0.109], [-0.208, 0.880, 0.427], [0.215, -0.384, 0.898]]
    assert np.abs(volume.direction - wanted).max() < 1e-3
    assert volume.spacing_mm == pytest.approx((2.5, 3.5, 4.5), abs=1e-3)
    assert volume.values.shape == (3, 50, 100)


@pytest.mark.parametrize(("name", "slices"), [("brain1", 7), ("brain2", 3)])
def test_slices_with_tumour(folder, name, slices):
    image = read_volume(folder / f"pyradiomics_{name}_image.nrrd")
    mask = read_region_map(folder / f"pyradiomics_{name}_label.nrrd", image)
    assert mask.values.any(axis=(1, 2)).sum() == slices


def grid_of(contours, spacing_mm):
    """A grid of fine pixels on the planes of contours."""
    points = np.concatenate(contours)
    planes = np.unique(np.round([contour[:, 2].mean() for contour in contours], 3))
    step = float(np.median(np.diff(planes)))
    low, high = points[:, :2].min(axis=0) - 2, points[:, :2].max(axis=0) + 2
    columns, rows = np.ceil((high - low) / spacing_mm).astype(int).tolist()
    count = round(float(planes[-1] - planes[0]) / step) + 1
    origin = (float(low[0]), float(low[1]), float(planes[0]))
    return Grid((count, rows, columns), (spacing_mm, spacing_mm, step), origin, np.eye(3))


@pytest.fixture(scope="module")
def treatment(folder):
    """The dose, and the regions of its structure set."""
    place = folder / "radiotherapy"
    return read_dose(place / "rtdose.dcm"), read_regions(place / "rtss.dcm")


@pytest.mark.parametrize(
    ("name", "mean_percent", "volume_cc", "tolerance"),
    [
        ("Heart", 4.625, 437.5, 0.005),
        ("Lt Lung", 0.9093 / 0.14, 2008.9, 0.005),
        ("Tumor Bed", 14.291 / 0.14, 12.8, 0.005),
        ("Tumor Bed Block", 14.265 / 0.14, 62.9, 0.005),
        ("Breast", 5.614 / 0.14, None, 0.01),
    ],
)
def test_mean_doses_are_those_of_the_planning_system(
    treatment, name, mean_percent, volume_cc, tolerance
):
    """On pixels of a quarter of the dose grid; the system prints means in per cent of 14 Gy."""
    dose, regions = treatment
    region = choose_region(regions, name, "rtss.dcm")
    mask = mask_of_contours(region.contours, grid_of(region.contours, 2.5 / 4), name)
    mean_gy = float(resample(dose, mask.grid).values[mask.values].mean())
    assert mean_gy == pytest.approx(mean_percent * 0.14, rel=tolerance)
    assert share_beyond(mask, dose.grid) == 0
    if volume_cc:
        assert mask.volume_ml == pytest.approx(volume_cc, rel=0.03)


def test_a_real_dose_is_deflated_and_in_gray(treatment):
    dose, _ = treatment
    assert dose.values.shape == (98, 129, 194)
    assert dose.values.max() == pytest.approx(14.680764)


def test_files_of_a_treatment_and_a_slice_at_the_last_plane_of_dose(folder, treatment):
    listed = scan_folder(folder / "radiotherapy")
    assert [len(part) for part in (listed.series, listed.structure_sets, listed.doses)] == [1, 1, 1]
    assert [kind for _, kind in listed.others] == ["RTPLAN"]
    ct = read_volume(folder / "radiotherapy")
    dose, _ = treatment
    assert dose.origin_mm[2] + 97 * 3 == pytest.approx(ct.origin_mm[2])
    assert resample(dose, ct.grid).values.max() > 0


def test_an_empty_region_of_a_real_plan_is_named(folder):
    ct = read_volume(folder / "radiotherapy")
    with pytest.raises(Exception, match="region 'Areola' is empty"):
        read_structure(folder / "radiotherapy" / "rtss.dcm", "areola", ct)
    with pytest.raises(Exception, match=r"Heart'.*contours lie beyond the slices"):
        read_structure(folder / "radiotherapy" / "rtss.dcm", "Heart", ct)
