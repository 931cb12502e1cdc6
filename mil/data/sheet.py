"""Tables as spreadsheets, registries and portals write them: a header, and lines of cells."""

import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from mil.data.headers import n_known
from mil.data.separators import signs_of, with_points
from mil.data.workbook import MOST_TITLES, SAVE_AS, WORKBOOK, Line, read_workbook
from mil.errors import CohortError

DELIMITERS = ",;\t|"  # spreadsheets of many countries write semicolons
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)  # of Excel, before the header
OLD_WORKBOOK = b"\xd0\xcf\x11\xe0"
UTF16 = (b"\xff\xfe", b"\xfe\xff")
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")  # in no text
TEXT_MARK = re.compile(r'="(.*)"|\'([\d=+@-].*)', re.DOTALL)  # Excel: ="007", '007
LINE = re.compile(r"[^\r\n]*(\r\n|\r|\n)?")
NAMED = 5


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
    """Read CSV with commas, semicolons, tabs or bars, or a sheet of an Excel workbook.

    Comments (#), a title and ``sep=`` before the header, columns without name and content, and marks that a
    cell is text (``="007"``) are skipped. A file that is not UTF-8 is taken as Windows-1252, with a note, and
    so are lines that end before the last columns, where several do.

    Args:
        path: of the table.
        exact: keep blanks around cells and marks of text, as in a table of our own.

    Raises:
        CohortError: there is no such file, it is no table, a column comes twice, or a line is longer than the
            header, or the only one that is shorter.
    """
    content = _content(path)
    notes: list[str] = []
    if content.startswith(WORKBOOK):
        lines, delimiter = read_workbook(path, notes), ""
    else:
        lines, delimiter = _text_lines(path, _decode(path, content, notes))
    if not lines:
        raise CohortError(f"{path}: the table is empty. It needs a header and a row below it.")
    if not exact:
        lines = [(number, [cell.strip() for cell in line]) for number, line in lines]
    lines = _without_title(path, lines, notes)
    header, rows = _drop_empty_columns(lines if exact else _without_marks(lines))
    rows = _fill_short_lines(path, len(header), rows, notes)
    header, rows = _without_copies(path, header, rows, notes)
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise CohortError(f"{path}: column {repeated[0]!r} comes twice. Rename one.")
    for number, fields in rows:
        if len(fields) != len(header):
            raise CohortError(_describe_length(path, number, len(fields), len(header), delimiter))
    cells = tuple((number, dict(zip(header, line, strict=True))) for number, line in rows)
    return Sheet(path, tuple(header), cells, delimiter, tuple(notes))


def _without_title(path: Path, lines: list[Line], notes: list[str]) -> list[Line]:
    """The lines from the header on: a line with a single cell above it is a title.

    So are lines above one that holds names of columns, where they hold none.
    """
    n_titles = 0
    while len(lines) > n_titles + 1 and (
        sum(map(bool, lines[n_titles][1])) == 1 < sum(map(bool, lines[n_titles + 1][1]))
    ):
        n_titles += 1
    n_names = [n_known(row) for _, row in lines[:MOST_TITLES]]
    if max(n_names) > 1 and not any(n_names[: n_names.index(max(n_names))]):
        n_titles = n_names.index(max(n_names))
    for number, row in lines[:n_titles]:
        notes.append(
            f"{path.name}: line {number}, {' '.join(filter(None, row))!r}, was read as a title above the "
            "header."
        )
    lines = lines[n_titles:]
    names = lines[0][1]
    n_words = len(names[0].split()) if len(names) == 1 else 0
    if n_words > 1 < len(lines) and all(len(" ".join(row).split()) == n_words for _, row in lines):
        raise CohortError(
            f"{path}: the columns seem to be separated by blanks ({names[0]!r}). Separate them by commas, "
            "semicolons or tabs."
        )
    return lines


def _without_marks(lines: Sequence[Line]) -> list[Line]:
    """The lines without the marks by which Excel keeps a cell as text, as in ="007" and '007."""
    marked = [match for _, row in lines[1:] for match in map(TEXT_MARK.fullmatch, row) if match]
    width = max(len(row) for _, row in lines)
    columns = ([row[i] for _, row in lines[1:] if i < len(row) and row[i]] for i in range(width))
    # An apostrophe before a letter is a mark where all cells of a column have it: 's-Hertogenbosch.
    quoted = [bool(cells) and all(cell.startswith("'") for cell in cells) for cells in columns]
    if not marked and not any(quoted):
        return list(lines)

    def bare(cell: str, i: int) -> str:
        match = TEXT_MARK.fullmatch(cell)
        if match:
            return match.group(1) if match.group(1) is not None else match.group(2)
        return cell.removeprefix("'") if quoted[i] else cell

    return [(number, [bare(cell, i) for i, cell in enumerate(row)]) for number, row in lines]


def _fill_short_lines(path: Path, width: int, rows: Sequence[Line], notes: list[str]) -> list[Line]:
    """The rows with empty cells at the end, where spreadsheets leave these out of more than one."""
    short = [(number, row) for number, row in rows if 1 < len(row) < width]
    n_blank = sum(len(row) == width and not row[-1] for _, row in rows)
    if not short or len(short) + n_blank < 2:
        return list(rows)
    lines = "line" if len(short) == 1 else "lines"
    numbers = ", ".join(str(number) for number, _ in short[:NAMED])
    more = f" and {len(short) - NAMED} more" if len(short) > NAMED else ""
    notes.append(
        f"{path.name}, {lines} {numbers}{more}: fewer cells than columns; the last ones were read as empty."
    )
    return [
        (n, [*row, *[""] * (width - len(row))] if 1 < len(row) < width else row) for n, row in rows
    ]


def _without_copies(
    path: Path, header: list[str], rows: list[Line], notes: list[str]
) -> tuple[list[str], list[Line]]:
    """The table without columns that come again with the same cells."""
    if len({*header}) == len(header) or any(len(row) != len(header) for _, row in rows):
        return header, rows
    first = {name: header.index(name) for name in reversed(header)}
    copies = [
        i
        for i, name in enumerate(header)
        if first[name] != i and all(row[i] == row[first[name]] for _, row in rows)
    ]
    notes.extend(
        f"{path.name}: column {header[i]!r} comes twice with the same cells; read once."
        for i in copies
    )
    left = [i for i in range(len(header)) if i not in copies]
    return [header[i] for i in left], [(n, [row[i] for i in left]) for n, row in rows]


def _describe_length(path: Path, line: int, n_fields: int, width: int, delimiter: str) -> str:
    name = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}.get(
        delimiter, "delimiters"
    )
    remedy = (
        f"Quote fields that hold {name}."
        if n_fields > width
        else f"Complete it, with {name} for cells that are empty."
    )
    return f"{path}, line {line}: {n_fields} fields under {width} columns. {remedy}"


def with_decimal_points(sheet: Sheet, columns: Collection[str]) -> Sheet:
    """The table with decimal points, and nothing between thousands, in the columns that hold numbers.

    A note tells of numbers that could be read in two ways, had the other cells of their column not told.

    Raises:
        CohortError: a comma or a point may separate decimals or thousands.
    """
    cells = {
        name: [line[name] for _, line in sheet.lines] for name in sheet.header if name in columns
    }
    signs = signs_of(list(cells.values()), sheet.delimiter)
    notes = list(sheet.notes)
    read = {}
    for name, column in cells.items():
        pointed = with_points(column, signs)
        if pointed.unclear:
            raise _two_meanings(sheet, name, column, pointed.unclear, pointed.sign)
        if pointed.settled:
            first = pointed.settled[0]
            notes.append(
                f"{sheet.path.name}: in column {name!r} {column[first]!r} (line {sheet.lines[first][0]}) was "
                f"read as {pointed.cells[first]}, as the other cells of the column suggest. Write numbers "
                "with a decimal point and nothing between thousands if that is wrong."
            )
        read[name] = pointed.cells
    lines = (
        (number, line | {name: column[i] for name, column in read.items()})
        for i, (number, line) in enumerate(sheet.lines)
    )
    return replace(sheet, lines=tuple(lines), notes=tuple(notes))


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
    delimiter = stated.group(1) if stated else delimiter_in(_header_line(rest))
    try:
        reader = csv.reader(io.StringIO(rest, newline=""), delimiter=delimiter)
        lines = [(first + reader.line_num, line) for line in reader if any(map(str.strip, line))]
    except csv.Error as error:
        raise CohortError(f"{path}: cannot be read as a table ({error}). {SAVE_AS}") from error
    return lines, delimiter


def _header_line(text: str) -> str:
    """The line that holds the names of columns, below a title where there is one."""
    with_content = (line for line in text.splitlines() if line.strip(" ,;\t|"))
    lines = list(islice(with_content, MOST_TITLES)) or [""]
    names = [
        n_known(cell.strip().strip('"') for cell in line.split(delimiter_in(line)))
        for line in lines
    ]
    if max(names) > 1:
        return lines[names.index(max(names))]
    title, header = (*lines, "")[:2]
    # A title lacks what separates the cells below it, as in "Sarcomas, 2023" above "case;slide".
    is_title = title.count(delimiter_in(title)) < 2 and delimiter_in(title) not in header
    return header if is_title else title


def _first_line(text: str) -> str:
    """With its end."""
    return LINE.match(text).group()  # type: ignore[union-attr]


def _is_comment(line: str) -> bool:
    """Whether a line before the header is a remark, as in tables of cBioPortal; ``#`` may name a column."""
    text = line.strip().strip('"')
    return text.startswith("#") and text.rstrip(DELIMITERS)[1:2] not in (*DELIMITERS, "")


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
