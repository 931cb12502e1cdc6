"""Sheets of Excel workbooks, as their CSV would be: the sheet that holds the table, and what it shows.

A workbook hides what a CSV has not: further sheets, rows behind a filter, cells that are merged, formulas
whose values nobody has computed, and zeros that only a number's format adds.
"""

import importlib
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from features.columns.spelling import plain_header
from features.summary import listed
from mil.data.headers import n_known
from mil.errors import CohortError

SAVE_AS = "Save it as CSV UTF-8."
WORKBOOK = b"PK\x03\x04"
MOST_TITLES = 6  # lines in which the header is looked for
ZEROS = re.compile(r"0{2,}")  # the format of 7 that shows 0007
FORMULA = re.compile(rb"<f[ />]")

Line = tuple[int, list[str]]


def read_workbook(path: Path, notes: list[str]) -> list[Line]:
    """The lines of the sheet that holds the table.

    Hidden sheets and empty ones are passed over. Of several, the one with the most names of columns is read,
    with a note that names the others.

    Args:
        path: of the workbook.
        notes: receives what was read otherwise than as it lies there.

    Raises:
        CohortError: it cannot be read, two sheets hold tables of the same columns, or formulas have no value.
    """
    try:
        openpyxl: Any = importlib.import_module("openpyxl")
    except ImportError as error:
        raise CohortError(
            f"{path} is an Excel workbook. {SAVE_AS} (With the package openpyxl its sheet is read.)"
        ) from error
    try:
        book = openpyxl.load_workbook(path, data_only=True)
        formulas = openpyxl.load_workbook(path) if _has_formulas(path) else None
        sheets = {sheet.title: sheet for sheet in _shown(book.worksheets)}
        lines = {title: own for title, sheet in sheets.items() if (own := _lines(sheet))}
    except Exception as error:  # a zip of something else: openpyxl raises many kinds
        raise CohortError(f"{path}: cannot be read as a workbook ({error!r}). {SAVE_AS}") from error
    if not lines:
        return []
    title = _sheet_of_table(path, lines, notes)
    if formulas:
        _check_computed(path, sheets[title], formulas[title])
    _note_rows(path, sheets[title], lines[title], notes)
    return lines[title]


def _shown(sheets: Sequence[Any]) -> list[Any]:
    """The sheets that Excel shows; all where it shows none."""
    return [sheet for sheet in sheets if sheet.sheet_state == "visible"] or list(sheets)


def _has_formulas(path: Path) -> bool:
    """Whether a sheet holds one: its text tells this faster than a second look at all cells."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.startswith("xl/worksheets/")]
        return any(FORMULA.search(archive.read(name)) for name in names)


def _lines(sheet: Any) -> list[Line]:
    """The lines with content; a cell that is merged with those below it stands in each of their rows."""
    lines = [[_cell_text(cell) for cell in row] for row in sheet.iter_rows()]
    for merged in _merged_rows(sheet):
        rows = lines[merged.min_row - 1 : merged.max_row]
        for row in rows:
            row[merged.min_col - 1] = rows[0][merged.min_col - 1]
    return [(number, line) for number, line in enumerate(lines, 1) if any(line)]


def _merged_rows(sheet: Any) -> list[Any]:
    """The ranges of merged cells that take several rows, and do not name a column."""
    return [
        merged
        for merged in sheet.merged_cells.ranges
        if merged.max_row > merged.min_row
        and not n_known([_cell_text(sheet.cell(merged.min_row, merged.min_col))])
    ]


def _cell_text(cell: Any) -> str:
    """A cell as its CSV would have it: whole numbers without .0 and as they show, dates without an hour."""
    value, shown = cell.value, cell.number_format
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).removesuffix(" 00:00:00").strip()
    return text.zfill(len(shown)) if ZEROS.fullmatch(shown) and text.isdigit() else text


def _sheet_of_table(path: Path, sheets: Mapping[str, Sequence[Line]], notes: list[str]) -> str:
    """The name of the sheet with the table.

    Raises:
        CohortError: another sheet has the same columns.
    """
    headers = {
        name: max((row for _, row in lines[:MOST_TITLES]), key=n_known)
        for name, lines in sheets.items()
    }
    columns = {name: {*map(plain_header, row)} - {""} for name, row in headers.items()}
    best = max(headers, key=lambda name: n_known(headers[name]))
    others = [name for name in sheets if name != best]
    same = [name for name in others if n_known(headers[name]) and columns[name] == columns[best]]
    if same:
        raise CohortError(
            f"{path}: the sheets {listed([best, *same])} hold tables of the same columns. Put all rows into "
            "one sheet, or save the sheet that counts as CSV UTF-8."
        )
    if others:
        notes.append(f"{path.name}: the sheet {best!r} was read, and not {listed(others)}.")
    return best


def _check_computed(path: Path, values: Any, formulas: Any) -> None:
    """Refuse a sheet none of whose formulas has a value, as programs write them that do not compute.

    Raises:
        CohortError: naming some of the cells.
    """
    cells = [cell for row in formulas.iter_rows() for cell in row if cell.data_type == "f"]
    if cells and all(values[cell.coordinate].value is None for cell in cells):
        raise CohortError(
            f"{path}: the formulas of the sheet {formulas.title!r} have no values "
            f"({listed([cell.coordinate for cell in cells])}): a program wrote them that does not compute. "
            "Open the workbook in Excel and save it there."
        )


def _note_rows(path: Path, sheet: Any, lines: Sequence[Line], notes: list[str]) -> None:
    """Remark on rows that are hidden, and on cells that are merged."""
    hidden = [str(number) for number, _ in lines if sheet.row_dimensions[number].hidden]
    if hidden:
        notes.append(
            f"{path.name}: rows that a filter hides, or that are hidden by hand, were read too (row "
            f"{listed(hidden)}). Delete them if they are not of the study."
        )
    merged = sorted(str(one) for one in _merged_rows(sheet))
    if merged:
        notes.append(
            f"{path.name}: cells that are merged over several rows ({listed(merged)}) were read as the same "
            "in each of them."
        )
