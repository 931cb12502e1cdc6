"""What DICOM calls a modality, by the names that studies use."""

import pytest

from features.volumes.naming import dicom_modality, named_modalities, sequence_name


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("PT", "PT"), ("FDG_PET", "PT"), ("SUVbw", "PT"), ("CECT", "CT"), ("NCCT", "CT"), ("HRCT", "CT"),
        ("PlanDose", "RTDOSE"), ("T1_PT", ""), ("T1 post CT", ""), ("T2w", ""), ("CT_PET", ""), ("image", ""),
        ("PETCT", ""), ("SPECT/CT", ""), ("ct1", ""), ("Mask_CT2", ""), ("CT3", "CT"), ("PET2", "PT"),
        ("T1c", ""), ("T1Gd", ""), ("cT1", ""),
    ],
)  # fmt: skip
def test_a_name_says_which_modality_it_is_or_none(name, modality):
    assert dicom_modality(name) == modality


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("FDG-CT", ("CT", "PT")), ("ptct", ("CT", "PT")), ("CT2", ("MR", "CT")),
        ("CT_Dose", ("CT", "RTDOSE")), ("T1ce", ()), ("T1CT1", ()), ("CTA", ("CT",)), ("ct", ("CT",)),
    ],
)  # fmt: skip
def test_a_name_that_may_mean_two_modalities_is_known_as_such(name, kinds):
    assert named_modalities(name) == kinds


@pytest.mark.parametrize(
    ("description", "name"),
    [
        ("ax T1c", "T1CE"), ("CT1 3D", "T1CE"), ("t1gd", "T1CE"), ("T1wCE", "T1CE"), ("T1FSGd tra", "T1CEFS"),
        ("ceT2", "T2CE"), ("T2FS", "T2FS"), ("t2wfs cor", "T2FS"), ("T1 tra", "T1"), ("T1w", "T1"),
        ("T12 spine", "MR"), ("T1c+", "T1CE"), ("T1 mapping", "T1map"), ("T2*", "T2star"), ("ct12", "MR"),
    ],
)  # fmt: skip
def test_contrast_and_fat_are_read_where_they_are_written_into_the_weighting(description, name):
    assert sequence_name("MR", description) == name
