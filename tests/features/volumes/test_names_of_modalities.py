"""What DICOM calls a modality, by the names that studies use."""

import pytest

from features.volumes.naming import dicom_modality


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("PT", "PT"), ("FDG_PET", "PT"), ("SUVbw", "PT"), ("CECT", "CT"), ("NCCT", "CT"), ("HRCT", "CT"),
        ("PlanDose", "RTDOSE"), ("T1_PT", ""), ("T1 post CT", ""), ("T2w", ""), ("CT_PET", ""), ("image", ""),
    ],
)  # fmt: skip
def test_a_name_says_which_modality_it_is_or_none(name, modality):
    assert dicom_modality(name) == modality
