"""Names of one patient are recognised in any spelling and in any barcode, and others never mixed up."""

import pytest

from mil.data.names import check_spelling, matching, patient_of
from mil.errors import CohortError


def test_names_are_found_in_any_spelling():
    assert matching(["case-02", "case-01", "case-1", "case-10"], ["Case_01", "CASE 02"]) == [
        "case-01",
        "case-02",
        "case-1",
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [("1-12", "11-2"), ("-1", "1"), ("P1-12", "P11-2"), ("case-12", "case-1"), ("P-100", "P-10"),
     ("03f2", "3f02"), ("v2.005", "v2.05"), ("B20-1000", "B2-1000"), ("S.2.01", "S.2.1")],
)  # fmt: skip
def test_other_names_are_kept_apart(one, other):
    assert matching([one], [other]) == []
    check_spelling("t.csv", "case", [one, other])


@pytest.mark.parametrize(
    ("one", "other"), [("F4", "F004"), ("pat_012", "Pat-12"), ("06-b", "6b"), ("ks-0", "KS00")]
)
def test_zeros_before_a_number_make_no_other_case(one, other):
    assert matching([one], [other]) == [one]
    with pytest.raises(CohortError, match=f"case '{one}' and '{other}' differ in spelling only"):
        check_spelling("t.csv", "case", [one, other])


@pytest.mark.parametrize(
    ("one", "other", "patient"),
    [
        ("TCGA-FX-A3NJ-01Z-00-DX1", "tcga-fx-a3nj-01A-02-TS2.svs", "TCGA-FX-A3NJ"),
        ("TCGA-FX-A3NJ", "TCGA FX A3NJ 01Z 2", "TCGA-FX-A3NJ"),
        ("TCGA-FX-A3NJ", "TCGA\N{EN DASH}FX\N{EN DASH}A3NJ\N{EN DASH}01A", "TCGA-FX-A3NJ"),
        ("TCGAFXA3NJDX2", "sarc_TCGA.FX.A3NJ.01", "TCGA-FX-A3NJ"),
        ("slides/C3N-02190-21.svs", "C3N_02190", "C3N-02190"),
        ("P-0012345-T02-IM6", "GENIE-MSK-P-0012345-T01-IM3", "P-0012345"),
        ("GENIE-VICC-101416-unk-1", "GENIE_VICC_101416", "VICC-101416"),
        ("MMRF_1021_2_BM", "MMRF-1021", "MMRF-1021"),
        ("HCM-BROD-0213-C71-85A", "HCM-BROD-0213", "HCM-BROD-0213"),
        ("BLGSP-71-06-00012-01A", "BLGSP-71-06-00012-99A", "BLGSP-71-06-00012"),
        ("GTEX-13PL6-0826", "GTEX-13PL6", "GTEX-13PL6"),
    ],
)
def test_barcodes_are_compared_by_their_patient(one, other, patient):
    assert patient_of(one) == patient_of(other) == patient
    assert matching([one], [other]) == [one]
    assert matching([other], [one]) == [other]


@pytest.mark.parametrize(
    ("one", "other"),
    [("TCGA-FX-A3NJ-01Z", "TCGA-FX-A3NK-01Z"), ("C3L-00104-21", "C3N-00104-21"),
     ("P-0012345-T01-IM6", "P-0012346-T01-IM6"), ("P-0012345-1", "P-0012345-2"),
     ("GENIE-DFCI-000013", "GENIE-VICC-000013"), ("TCGA-like-12", "TCGA-like-13"),
     ("XTCGA-FX-A3NJ-1", "XTCGA-FX-A3NJ-2"), ("TCGA-FX-A3NJ7-1", "TCGA-FX-A3NJ7-2")],
)  # fmt: skip
def test_patients_of_a_programme_are_told_apart(one, other):
    assert matching([one], [other]) == []


def test_patients_of_a_site_are_numbered_behind_a_dot():
    names = [f"3.{number}" for number in range(1, 13)]
    check_spelling("t.csv", "case", names)
    assert matching(["3.10"], ["3.1"]) == []
    assert matching(["3.0", "03"], ["3"]) == ["03", "3.0"]


@pytest.mark.parametrize(
    "labels",
    [
        ("I-II", "III"),
        ("A/B", "AB"),
        ("pT1a-b", "pT1ab"),
        ("grade I+II", "grade III"),
        ("II/III", "IIIII"),
    ],
)
def test_a_sign_between_grades_counts_in_labels(labels):
    check_spelling("t.csv", "label", labels)


@pytest.mark.parametrize(
    "labels",
    [("I-II", "I/II"), ("T-cell", "T cell"), ("well-diff", "well diff"), ("I - II", "I-II")],
)
def test_labels_that_differ_in_spelling_only_are_refused(labels):
    with pytest.raises(CohortError, match="differ in spelling only"):
        check_spelling("t.csv", "label", labels)
