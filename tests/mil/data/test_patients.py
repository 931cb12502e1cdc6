"""Blocks of one patient are noted in the notations of laboratories, and other cases are not."""

import pytest

from mil.data.names import patient_of
from mil.data.patients import note_blocks

PAIRS = {
    "P{}-S01-A1": "P{}-S02-A1",
    "ks{}_pre": "ks{}_post",
    "L{}-Biopsie": "L{}-Resektat",
    "N0{}_prim": "N0{}_rec",
    "fall{}_block3": "fall{}_block11",
    "case{}-slide 1": "case{}-slide 2",
    "21-40{}0_C1_HE": "21-40{}0_C4_HE",
    "H19.7{}12-II-1": "H19.7{}12-III-1",
    "R2{}(1)": "R2{}(2)",
    "T3{}#1": "T3{}#4",
    "Huber{} FFPE": "Huber{} frozen",
    "2-Case-{}": "1-Case-{}",
}


@pytest.mark.parametrize("first", PAIRS)
def test_blocks_are_noted_patient_by_patient(first):
    names = [name.format(i) for i in (4, 5, 6) for name in (first, PAIRS[first])]
    text = note_blocks(names)
    assert text.startswith("6 cases look like blocks of 3: ")
    for i in (4, 5, 6):
        assert ", ".join(sorted([first.format(i), PAIRS[first].format(i)])) in text


@pytest.mark.parametrize(
    "names",
    [
        [f"S1-P{i}" for i in range(4, 9)],
        [f"study_sample{i}" for i in range(4, 9)],
        [f"P{i}-S01" for i in range(4, 9)],
        [f"C{i}-S0{i % 2}-A1" for i in range(4, 9)],
        [f"P{i}-S0{i % 2}-A1" for i in range(4, 9)],
        [f"21-40{i}0_HE" for i in range(4, 9)],
        [f"2019_10{i}_A" for i in range(4, 9)],
        [f"{year}-{i}" for year in (2017, 2022) for i in range(4, 9)],
        [f"block_{i}" for i in range(4, 9)],
        ["liver_met", "lung_met", "P4_pre", "P5_post"],
        ["Case-A", "Case-B", "Premet", "Post"],
        [f"E21-{i}" for i in range(1, 41)],
        [f"E21/{i}" for i in range(2, 30, 4)],
        [f"K{year}-{i}" for year in (2018, 2021, 2022) for i in range(1, 13)],
        ["5-1", "5-2", "5-3"],
        [f"0{hospital}-{i:02}" for hospital in (1, 2, 4) for i in range(1, 16)],
        [f"Linz1-c{i:02}" for i in range(1, 15)],
        [f"E21-{i}-A1" for i in range(1, 15)],
        ["E20-1", "E20-14", "E21-3", "E18-7"],
    ],
)
def test_cases_of_a_site_a_year_or_a_stain_are_no_blocks(names):
    assert note_blocks(names) == ""


@pytest.mark.parametrize(
    "names",
    [
        [f"P{i}-{block}" for i in range(1, 11) for block in range(1, 6)],
        [f"{i}.{block}" for i in range(4, 9) for block in (1, 2)],
        [f"Q{i}-1" for i in range(8, 19)] + ["Q8-2"],
        [f"Case-{i}-A{block}" for i in range(3, 6) for block in (12, 25)],
        [f"E21-{i}-{block}" for i in range(120, 126) for block in "AB"],
    ],
)
def test_blocks_with_numbers_alone_are_noted(names):
    assert " look like blocks of " in note_blocks(names)


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("TCGA-XE-AAOB-01Z", "TCGA-XE-AAOB"), ("tcga.3h.ab3k", "TCGA-3H-AB3K"),
        ("TCGA-IB-7887", "TCGA-IB-7887"), ("TCGAXEAAOB01Z", "TCGA-XE-AAOB"), ("TCGA-UC-CASE-4", ""),
        ("TCGA-UC-PATH", ""), ("GTEX-CASE-2", ""), ("GTEX-WFON-0226", "GTEX-WFON"), ("TCGAUCCASE", ""),
    ],
)  # fmt: skip
def test_a_word_in_the_place_of_a_patient_is_no_barcode(name, patient):
    assert patient_of(name) == patient


def test_patients_of_a_programme_are_no_blocks():
    assert note_blocks(["TCGA-43-A474", "TCGA-43-A475", "GTEX-1117F", "GTEX-1117G"]) == ""


def test_left_and_right_among_many_letters_are_no_sides():
    assert note_blocks([f"case {letter}" for letter in "ABCDEFGHIJKLMNOPQRS"]) == ""
    assert "case L, case R" in note_blocks(["case L", "case R", "other 7"])
