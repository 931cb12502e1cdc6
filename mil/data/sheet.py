"""Tables as spreadsheets, registries and portals write them: a header, and lines of cells."""

import csv
import importlib
import io
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mil.data.values import has_decimal_commas, pointed_thousands, with_points
from mil.errors import CohortError

DELIMITERS = ",;\t"  # spreadsheets of many countries write semicolons
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)  # of Excel, before the header
WORKBOOK, OLD_WORKBOOK = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"
UTF16 = (b"\xff\xfe", b"\xfe\xff")
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")  # in no text
SAVE_AS = "Save it as CSV UTF-8."
LINE = re.compile(r"[^\r\n]*(\r\n|\r|\n)?")
NAMED = 5

Line = tuple[int, list[str]]


@dataclass(frozen=True)
class Sheet:
    """The content of a table.

    Attributes:
        path: of the file.
        header: names of the columns, each once.
        lines: (line number in the file, cells by column), without blank lines.
        delimiter: between the cells; empty in a workbook.
        notes: what was read otherwise than as plain CSV.
    """

    path: Path
    header: tuple[str, ...]
    lines: tuple[tuple[int, dict[str, str]], ...]
    delimiter: str
    notes: tuple[str, ...] = ()


def read_sheet(path: Path, *, exact: bool = False) -> Sheet:
    """Read CSV with commas, semicolons or tabs, or the first sheet of an Excel workbook.

    Comments (#) and ``sep=`` before the header, and columns without name and content, are skipped. A file
    that is not UTF-8 is taken as Windows-1252, with a note.

    Args:
        path: of the table.
        exact: keep blanks around cells.

    Raises:
        CohortError: there is no such file, it is no table, a column comes twice, or a line is longer or
            shorter than the header.
    """
    content = _content(path)
    notes: list[str] = []
    if content.startswith(WORKBOOK):
        lines, delimiter = _workbook_lines(path), ""
    else:
        lines, delimiter = _text_lines(path, _decode(path, content, notes))
    if not lines:
        raise CohortError(f"{path}: the table is empty. It needs a header and a row below it.")
    if not exact:
        lines = [(number, [cell.strip() for cell in line]) for number, line in lines]
    header, rows = _drop_empty_columns(lines)
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise CohortError(f"{path}: column {repeated[0]!r} comes twice. Rename one.")
    for number, fields in rows:
        if len(fields) != len(header):
            raise CohortError(
                f"{path}, line {number}: {len(fields)} fields under {len(header)} columns. "
                "Quote fields that hold commas."
            )
    cells = tuple((number, dict(zip(header, line, strict=True))) for number, line in rows)
    return Sheet(path, tuple(header), cells, delimiter, tuple(notes))


def with_decimal_points(sheet: Sheet, columns: Collection[str]) -> Sheet:
    """The table with decimal points, and nothing between thousands, in the columns that hold numbers.

    Raises:
        CohortError: a comma, or a point in a table with semicolons, may separate decimals or thousands.
    """
    pointed = {}
    decimal = sheet.delimiter not in (",", "")
    commas = any(has_decimal_commas([line[name] for _, line in sheet.lines]) for name in columns)
    for name in columns:
        cells = [line[name] for _, line in sheet.lines]
        thousands = pointed_thousands(cells) if sheet.delimiter == ";" else []
        if thousands and not commas:
            raise _two_meanings(sheet, name, cells, thousands, "point")
        cells = [c.replace(".", "") if i in thousands else c for i, c in enumerate(cells)]
        pointed[name], unclear = with_points(cells, commas_are_decimal=decimal)
        if unclear:
            raise _two_meanings(sheet, name, cells, unclear, "comma")
    lines = (
        (number, line | {name: cells[i] for name, cells in pointed.items()})
        for i, (number, line) in enumerate(sheet.lines)
    )
    return replace(sheet, lines=tuple(lines))


def _two_meanings(
    sheet: Sheet, column: str, cells: Sequence[str], places: Sequence[int], sign: str
) -> CohortError:
    listed = ", ".join(f"{cells[i]!r} (line {sheet.lines[i][0]})" for i in places[:NAMED])
    return CohortError(
        f"{sheet.path}: in column {column!r} a {sign} may separate decimals or thousands: {listed}. Write "
        "numbers with a decimal point and nothing between thousands."
    )


def _content(path: Path) -> bytes:
    if path.is_dir():
        raise CohortError(
            f"{path} is a folder, not a table. Give the table first, then the folder of bags."
        )
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise CohortError(f"{path}: there is no such table. Give its path.") from error
    except OSError as error:
        raise CohortError(f"{path}: cannot be read ({error}). Make it readable.") from error


def _decode(path: Path, content: bytes, notes: list[str]) -> str:
    if content.startswith(OLD_WORKBOOK):
        raise CohortError(f"{path} is an Excel workbook of an old format. {SAVE_AS}")
    try:
        text = content.decode("utf-16" if content.startswith(UTF16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        try:
            text = content.decode("cp1252")
        except UnicodeDecodeError:
            raise CohortError(f"{path}: cannot be read as text ({error}). {SAVE_AS}") from error
        notes.append(
            f"{path.name} is not UTF-8; it was read as Windows-1252. If a name looks wrong, save the table "
            "as CSV UTF-8."
        )
    if control := CONTROL.search(text):
        raise CohortError(
            f"{path}: cannot be read as a table: it is no text (it holds {control.group()!r}). {SAVE_AS}"
        )
    return text


def _text_lines(path: Path, text: str) -> tuple[list[Line], str]:
    """The lines with content, and what separates their cells."""
    rest, first = text, 0
    while _is_comment(line := _first_line(rest)):
        rest, first = rest[len(line) :], first + 1
    if stated := SEPARATOR_LINE.fullmatch(line.strip()):
        rest, first = rest[len(line) :], first + 1
    header = next((line for line in rest.splitlines() if line.strip(" ,;\t")), "")
    delimiter = stated.group(1) if stated else delimiter_in(header)
    try:
        reader = csv.reader(io.StringIO(rest, newline=""), delimiter=delimiter)
        lines = [(first + reader.line_num, line) for line in reader if any(map(str.strip, line))]
    except csv.Error as error:
        raise CohortError(f"{path}: cannot be read as a table ({error}). {SAVE_AS}") from error
    return lines, delimiter


def _first_line(text: str) -> str:
    """With its end."""
    return LINE.match(text).group()  # type: ignore[union-attr]


def _is_comment(line: str) -> bool:
    """Whether a line before the header is a remark, as in tables of cBioPortal; ``#`` may name a column."""
    text = line.strip().strip('"')
    return text.startswith("#") and text.rstrip(DELIMITERS)[1:2] not in (*DELIMITERS, "")


def _workbook_lines(path: Path) -> list[Line]:
    try:
        openpyxl: Any = importlib.import_module("openpyxl")
    except ImportError as error:
        raise CohortError(
            f"{path} is an Excel workbook. {SAVE_AS} (With the package openpyxl its first sheet is read.)"
        ) from error
    try:
        workbook = openpyxl.load_workbook(path, read_only=True, data_only=True)
        rows = list(workbook.worksheets[0].iter_rows(values_only=True))
    except Exception as error:  # a zip of something else: openpyxl raises many kinds
        raise CohortError(f"{path}: cannot be read as a workbook ({error!r}). {SAVE_AS}") from error
    lines = [(number, [_cell_text(cell) for cell in row]) for number, row in enumerate(rows, 1)]
    return [(number, line) for number, line in lines if any(line)]


def _cell_text(cell: object) -> str:
    """A cell of a workbook as its CSV would have it: whole numbers without .0, dates without an hour."""
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).removesuffix(" 00:00:00").strip()


def _drop_empty_columns(lines: Sequence[Line]) -> tuple[list[str], list[Line]]:
    """The header and the rows without columns that have neither a name nor a cell."""
    header, rows = lines[0][1], list(lines[1:])
    width = len(header)
    while rows and any(len(row) > width and not row[-1] for _, row in rows):
        rows = [(n, row[:-1] if len(row) > width and not row[-1] else row) for n, row in rows]
    columns = [
        i
        for i, name in enumerate(header)
        if name or any(i < len(row) and row[i] for _, row in rows)
    ]
    dropped = set(range(width)) - set(columns)
    names = [header[i] or f"column {i + 1}" for i in columns]
    return names, [(n, [c for i, c in enumerate(row) if i not in dropped]) for n, row in rows]


def delimiter_in(header: str) -> str:
    """The delimiter that occurs most often in a header."""
    return max(DELIMITERS, key=header.count)
