"""Rows that a column says are not to be used are named; columns of that look that say nothing so are not."""

import pytest

from mil.data.table import read_table, training_rows
from mil.data.unusable import note_unusable, unusable_places


@pytest.mark.parametrize(
    ("column", "cells", "places"),
    [
        ("qc_pass", ["1", "0", "1", "1"], [1]),
        ("QC passed", ["yes", "yes", "no"], [2]),
        ("passed qc", ["TRUE", "FALSE", ""], [1]),
        ("usable", ["y", "n", "n", "y"], [1, 2]),
        ("not usable", ["no", "yes", ""], [1]),
        ("Keep", ["x", "", "n"], [2]),
        ("exclude", ["0", "0", "1"], [2]),
        ("Slide quality", ["good", "poor", "good"], [1]),
        ("QC", ["pass", "Fail", "pass", "pass"], [1]),
        ("qc_status", ["ok", "failed QC"], [1]),
        ("discarded", ["", "x", ""], [1]),
        ("consent", ["yes", "withdrawn", "yes"], [1]),
        ("Einwilligung", ["ja", "nein"], [1]),
        ("auswertbar", ["ja", "nein", "ja"], [1]),
        ("Qualität", ["gut", "schlecht"], [1]),
        ("qualité image", ["bonne", "insuffisante"], [1]),
        ("utilizable", ["sí", "no"], [1]),
        ("exclusion reason", ["", "too much necrosis", "none"], [1]),
        ("Ausschlussgrund", ["", "", ""], []),
        ("remark", ["seen twice", "excluded", "do not use"], [1, 2]),
        ("备注", ["", "排除"], [1]),
    ],
)  # fmt: skip
def test_rows_that_are_not_to_be_used_are_found(column, cells, places):
    assert unusable_places(column, cells) == places
    slides = [f"s{i}" for i in range(len(cells))]
    notes = note_unusable("t.csv", {column: cells, "age": ["60"] * len(cells)}, slides)
    assert len(notes) == bool(places)
    assert all(f"s{i} ({cells[i]})" in notes[0] for i in places)


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("qc_pass", ["1", "1", "1"]), ("quality", ["good", "fair"]), ("exclude", ["0", "0", ""]),
        ("margin", ["negative", "poor", "no"]), ("differentiation", ["poor", "good"]),
        ("treatment failed", ["yes", "no"]), ("drop foot", ["yes", "no"]), ("bad prognosis", ["no", "yes"]),
        ("heart failure", ["yes", "no"]), ("quality score", ["0", "1"]), ("pass number", ["1", "0"]),
        ("response", ["poor", "good"]), ("QC", ["0.91", "0.88"]), ("ok", ["", ""]),
        ("metastasis removed", ["no", "yes"]), ("exclusion reason", ["", "NA", "no"]),
    ],
)  # fmt: skip
def test_other_columns_are_left_alone(column, cells):
    assert unusable_places(column, cells) == []


def test_such_rows_are_named_when_a_table_is_read_also_beside_a_split(tmp_path):
    table, notes = tmp_path / "cohort.csv", []
    lines = [
        "case,slide,label,split,Excluded,qc",
        "p1,a.svs,x,train,no,ok",
        "p2,b.svs,y,train,yes,bad",
    ]
    table.write_text("\n".join(lines) + "\n")
    assert len(read_table(table, notify=notes.append)) == 2
    assert notes == [
        "cohort.csv: column 'Excluded' seems to say that 1 row is not to be used: b.svs (yes). The column is "
        "not heeded; remove such rows from the table if they should not be used.",
        "cohort.csv: column 'qc' seems to say that 1 row is not to be used: b.svs (bad). The column is "
        "not heeded; remove such rows from the table if they should not be used.",
    ]
    assert len(training_rows(table, notes.append)) == 2
    assert len(notes) == 4
