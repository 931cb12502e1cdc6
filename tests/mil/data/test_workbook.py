"""Workbooks: the sheet with the table, and what it shows, is read; what it hides is told."""

import sys
import zipfile
from collections import defaultdict
from datetime import datetime
from types import SimpleNamespace

import pytest

from mil.data.case import Row
from mil.data.sheet import read_sheet
from mil.data.table import read_table
from mil.errors import CohortError

ROWS = [("Case ID", "Slide", "Label"), ("p1", "a1", "LMS"), ("p2", "b1", "SS")]


class Sheet:
    """As openpyxl has it: cells that know their place and format, merged ranges, and hidden rows."""

    def __init__(self, title, rows, *, state="visible", merged=(), hidden=(), formats=None):
        self.title, self.sheet_state = title, state
        self.merged_cells = SimpleNamespace(ranges=[Range(*one) for one in merged])
        self.row_dimensions = defaultdict(lambda: SimpleNamespace(hidden=False))
        for row in hidden:
            self.row_dimensions[row] = SimpleNamespace(hidden=True)
        self.rows = [
            [
                SimpleNamespace(
                    value=value,
                    coordinate=f"{'ABCDEFG'[column]}{line}",
                    number_format=(formats or {}).get(column, "General"),
                    data_type="f" if str(value).startswith("=") else "s",
                )
                for column, value in enumerate(row)
            ]
            for line, row in enumerate(rows, 1)
        ]

    def iter_rows(self):
        return iter(self.rows)

    def cell(self, row, column):
        return self.rows[row - 1][column - 1]

    def __getitem__(self, coordinate):
        return next(cell for row in self.rows for cell in row if cell.coordinate == coordinate)


class Range:
    def __init__(self, min_col, min_row, max_col, max_row):
        self.min_col, self.min_row, self.max_col, self.max_row = min_col, min_row, max_col, max_row

    def __str__(self):
        return f"{'-ABCDEFG'[self.min_col]}{self.min_row}:{'-ABCDEFG'[self.max_col]}{self.max_row}"


class Book:
    def __init__(self, sheets):
        self.worksheets = sheets

    def __getitem__(self, title):
        return next(sheet for sheet in self.worksheets if sheet.title == title)


@pytest.fixture
def workbook(tmp_path, monkeypatch):
    """Write a workbook of sheets; of its formulas, if it has some, the values are given first."""

    def write(*sheets, formulas=None):
        def load(_path, *, data_only=False):
            return Book(sheets if data_only else formulas)

        monkeypatch.setitem(sys.modules, "openpyxl", SimpleNamespace(load_workbook=load))
        path = tmp_path / "cohort.xlsx"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("xl/worksheets/sheet1.xml", "<c><f>1</f></c>" if formulas else "<c/>")
        return path

    return write


def test_a_sheet_is_read_as_its_csv(workbook):
    """Whole numbers have no .0, and a date no hour; zeros that a format shows are there."""
    rows = [
        ("Case ID", "Slide", "Label", "age", "seen", None),
        (7.0, "s1", "LMS", 61.0, datetime(2020, 5, 1), None),
        (None, None, None, None, None, None),
        (18, "s2.svs", "SS", 4.5, None, None),
    ]
    path = workbook(Sheet("one", rows, formats={0: "0000"}))
    assert read_table(path) == (
        Row(
            line=2, case="0007", slide="s1", label="LMS", other={"age": "61", "seen": "2020-05-01"}
        ),
        Row(line=4, case="0018", slide="s2", label="SS", other={"age": "4.5", "seen": ""}),
    )


def test_of_several_sheets_the_one_with_the_table_is_read(workbook):
    words = Sheet("Legend", [("Label", "is the diagnosis"), ("LMS", "leiomyosarcoma")])
    old = Sheet("Old", [*ROWS[:1], ("p1", "a1", "SS")], state="hidden")
    path = workbook(old, words, Sheet("empty", [(None,)]), Sheet("Cases", ROWS))
    assert [row.label for row in read_table(path)] == ["LMS", "SS"]
    assert read_sheet(path).notes == ("cohort.xlsx: the sheet 'Cases' was read, and not Legend.",)


def test_two_sheets_of_the_same_columns_are_refused(workbook):
    path = workbook(
        Sheet("Ulm", ROWS), Sheet("Graz", [("case_id", "slide", "label"), ("x", "y", "z")])
    )
    with pytest.raises(CohortError, match="the sheets Ulm, Graz hold tables of the same columns"):
        read_table(path)


def test_what_is_merged_stands_in_every_row(workbook):
    rows = [("case", "slide", "site"), ("p1", "a", "Ulm"), (None, "b", None), ("p2", "c", None)]
    merged = [(1, 2, 1, 3), (3, 2, 3, 4)]
    path = workbook(Sheet("one", rows, merged=merged))
    assert [(row.case, row.site) for row in read_table(path)] == [("p1", "Ulm")] * 2 + [
        ("p2", "Ulm")
    ]
    assert "merged over several rows (A2:A3, C2:C4)" in read_sheet(path).notes[0]


def test_cells_merged_within_a_row_are_no_others(workbook):
    rows = [("case", "slide", "size", "site"), ("p1", "a", "Ulm", None), ("p2", "b", 3, "Graz")]
    path = workbook(Sheet("one", rows, merged=[(3, 2, 4, 2)]))
    assert [row.site for row in read_table(path)] == ["", "Graz"]
    assert not read_sheet(path).notes


def test_merged_names_of_columns_are_not_repeated(workbook):
    rows = [("case", "slide", "size"), (None, None, None), ("p1", "a", 4.5), ("p2", "c", 3)]
    path = workbook(Sheet("one", rows, merged=[(1, 1, 1, 2), (2, 1, 2, 2)]))
    assert [row.case for row in read_table(path)] == ["p1", "p2"]
    assert not read_sheet(path).notes


def test_hidden_rows_are_told(workbook):
    path = workbook(Sheet("one", ROWS, hidden=[3, 9]))
    assert "were read too (row 3). Delete them" in read_sheet(path).notes[0]


def test_formulas_without_values_are_refused(workbook):
    header = ("case", "slide", "age")
    none = Sheet("one", [header, ("p1", "a", None), ("p2", "b", None)])
    formulas = [Sheet("one", [header, ("p1", "a", "=9*7"), ("p2", "b", "=8*7")])]
    with pytest.raises(CohortError, match=r"formulas of the sheet 'one' have no values \(C2, C3\)"):
        read_table(workbook(none, formulas=formulas))
    some = Sheet("one", [header, ("p1", "a", 63), ("p2", "b", None)])  # ="" is a value, too
    assert [row.other["age"] for row in read_table(workbook(some, formulas=formulas))] == ["63", ""]
