"""Columns by their names: one room for every kind of table."""

import re
from pathlib import Path

import pytest

from mil.data.headers import (
    COHORT,
    PREDICTIONS,
    RADIOMICS,
    SERIES,
    first_column,
    match_columns,
    unique_columns,
)
from mil.data.table import read_table
from mil.errors import CohortError, RunError

REPO = Path(__file__).parents[3]
KINDS = {"cohort": COHORT, "series": SERIES, "predictions": PREDICTIONS}


@pytest.mark.parametrize("kind", KINDS)
def test_every_name_is_known_in_any_spelling_and_means_one_thing(kind):
    names = KINDS[kind]
    aliases = [alias for several in names.values() for alias in several]
    assert len(aliases) == len(set(aliases))
    for name, several in names.items():
        for alias in several:
            spelt = alias.replace("_", " ").upper()
            assert match_columns("t.csv", ["x", spelt], names) == {name: spelt}


def test_columns_come_in_the_order_of_the_names():
    header = ["Label", "split", "note", "Slide.ID", "PATIENT"]
    columns = match_columns("t.csv", header, COHORT)
    assert list(columns.items()) == [
        ("case", "PATIENT"), ("slide", "Slide.ID"), ("label", "Label"), ("split", "split"),
    ]  # fmt: skip


def test_two_columns_of_one_meaning_are_refused():
    with pytest.raises(
        RunError, match=r"^t\.csv: columns 'file' and 'Image' both mean path\. Remove one"
    ):
        match_columns("t.csv", ["file", "Image"], SERIES, RunError)
    with pytest.raises(CohortError, match="'a' and 'b' both mean n"):
        unique_columns("t.csv", [("n", "a"), ("m", "c"), ("n", "b")])


def test_where_a_tool_writes_several_the_first_name_counts():
    assert first_column(["ID", "Subject", "note"], RADIOMICS["case"]) == "Subject"
    assert first_column(["note"], RADIOMICS["case"]) is None


def test_of_the_names_of_registries_that_of_the_patient_counts(tmp_path):
    path = tmp_path / "cohort.csv"
    path.write_text("submitter_id,case_submitter_id,slide,label\ns-1,p-1,a,LMS\ns-2,p-2,b,SS\n")
    assert [row.case for row in read_table(path)] == ["p-1", "p-2"]


# Names of columns that are compared as a header is: elsewhere only those of a single, stated column.
MATCHED = re.compile(r"plain_header\(\w*alias")


def test_names_of_columns_are_matched_in_one_room():
    files = [
        path.relative_to(REPO).as_posix()
        for path in sorted((REPO / "mil").rglob("*.py"))
        if MATCHED.search(path.read_text(encoding="utf-8"))
    ]
    assert files == ["mil/data/headers.py"]
