"""The study's table: one row per slide, read and checked."""

import csv
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from features.slides.slide import slide_name
from mil.data.case import Row
from mil.data.names import matching, normalised
from mil.data.values import delimiter_in, is_missing, read_number
from mil.errors import CohortError

ALIASES = {
    "case": ("case", "case_id", "patient", "patient_id"),
    "slide": ("slide", "slide_id", "filename"),
    "label": ("label",),
    "site": ("site",),
    "mpp": ("mpp",),
    "split": ("split",),
}
TRAIN = ("", "train", "training", "development")  # what column split may say
TEST = ("test", "testing", "external", "held-out", "holdout")


def read_table(path: Path) -> tuple[Row, ...]:
    """Read a cohort table with at least case and slide: CSV with commas, semicolons or tabs.

    Raises:
        CohortError: a column is missing, a field is empty or malformed, or a slide comes twice.
    """
    lines = _read_lines(path)
    if not lines:
        raise CohortError(f"{path}: the table is empty. Give a header with case, slide and label.")
    header = [name.strip() for name in lines[0][1]]
    columns = _match_columns(path, header)
    rows = []
    for number, fields in lines[1:]:
        if len(fields) != len(header):
            raise CohortError(
                f"{path}, line {number}: {len(fields)} fields under {len(header)} columns. "
                "Quote fields that hold commas."
            )
        cells = dict(zip(header, map(str.strip, fields), strict=True))
        rows.append(_parse_row(path, number, columns, cells))
    _check_rows(path, rows)
    return tuple(rows)


def split_train_test(rows: Sequence[Row]) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """(training rows, rows kept for external validation), by column split: ``TRAIN`` or ``TEST``.

    Raises:
        CohortError: another word stands in the column, or a case has rows of both kinds.
    """
    for row in rows:
        if row.split.casefold() not in TRAIN + TEST:
            raise CohortError(
                f"Line {row.line} of the table, slide {row.slide!r}: split is {row.split!r}. Write train, or "
                "nothing, for cases to train on and test for cases kept for external validation. Folds are "
                "drawn by cross-validation: a validation set of your own is written train."
            )
    test = tuple(row for row in rows if row.split.casefold() in TEST)
    test_slides = {row.slide for row in test}
    training = tuple(row for row in rows if row.slide not in test_slides)
    if both := matching((row.case for row in training), (row.case for row in test)):
        raise CohortError(
            f"Case {both[0]!r} has slides with split=test and slides without. All slides of a case belong to "
            "the same part; correct the table."
        )
    return training, test


def training_rows(path: Path, notify: Callable[[str], None] | None = None) -> tuple[Row, ...]:
    """The rows of a table that may be trained on.

    Args:
        path: of the table.
        notify: called with the number of cases that are kept for external validation, if there are any.

    Raises:
        CohortError: as ``read_table``, or every row is kept for external validation.
    """
    rows, test = split_train_test(read_table(path))
    if not rows:
        raise CohortError(
            f"{path}: every row has split=test, so no case is left to train on. Change column split."
        )
    if notify and (n_cases := len({row.case for row in test})):
        cases = "1 case" if n_cases == 1 else f"{n_cases} cases"
        notify(f"{cases} of {path.name} with split=test: kept for external validation.")
    return rows


def _read_lines(path: Path) -> list[tuple[int, list[str]]]:
    """(line number, fields) of every line that is not blank."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            delimiter = delimiter_in(file.readline())
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter)
            return [(reader.line_num, line) for line in reader if any(map(str.strip, line))]
    except FileNotFoundError as error:
        raise CohortError(f"{path}: there is no such table. Give its path.") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CohortError(
            f"{path}: cannot be read as a table ({error}). Save it as CSV UTF-8."
        ) from error


def _match_columns(path: Path, header: Sequence[str]) -> dict[str, str]:
    """Our column names to those of the file."""
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise CohortError(f"{path}: column {repeated[0]!r} comes twice. Rename one.")
    columns = {}
    for name, aliases in ALIASES.items():
        matches = [column for column in header if column.lower() in aliases]
        if len(matches) > 1:
            raise CohortError(
                f"{path}: columns {matches[0]!r} and {matches[1]!r} both mean {name}. Remove one."
            )
        if matches:
            columns[name] = matches[0]
    for name in ("case", "slide"):
        if name not in columns:
            raise CohortError(
                f"{path}: no column {name}; it has {', '.join(header)}. Name one {name} (or "
                f"{', '.join(ALIASES[name][1:])})."
            )
    return columns


def _parse_row(path: Path, line: int, columns: Mapping[str, str], cells: Mapping[str, str]) -> Row:
    values = {name: cells[column] for name, column in columns.items()}
    # A split is read as it stands: an unknown word there must not make a training case.
    values = {
        name: "" if is_missing(value) and name != "split" else value
        for name, value in values.items()
    }
    for name in ("case", "slide"):
        if not values[name]:
            raise CohortError(
                f"{path}, line {line}: {name} is empty or {cells[columns[name]]!r}, which means that it is "
                "missing. Fill it in."
            )
    mpp = read_number(values["mpp"]) if values.get("mpp") else None
    if mpp is not None and not 0 < mpp < math.inf:
        raise CohortError(
            f"{path}, line {line}: mpp is {values['mpp']!r}; micrometres per pixel are a number "
            "such as 0.25. Leave it empty to take the slide's own."
        )
    return Row(
        line=line,
        case=values["case"],
        slide=slide_name(values["slide"]),
        label=values.get("label", ""),
        site=values.get("site", ""),
        mpp=mpp,
        split=values.get("split", ""),
        other={name: value for name, value in cells.items() if name not in columns.values()},
    )


def _check_rows(path: Path, rows: Sequence[Row]) -> None:
    """A slide comes once; a case has one label and one site; one name has one spelling."""
    if not rows:
        raise CohortError(f"{path}: a header but no rows. Give one row per slide.")
    for name in ("case", "label", "site"):
        _check_spelling(path, name, (getattr(row, name) for row in rows))
    slides: dict[str, Row] = {}
    cases: dict[str, Row] = {}
    for row in rows:
        first = slides.setdefault(row.slide, row)
        if first is not row:
            raise CohortError(
                f"{path}: slide {row.slide!r} comes on lines {first.line} and {row.line}. Keep one."
            )
        first = cases.setdefault(row.case, row)
        for name in ("label", "site"):
            if getattr(first, name) != getattr(row, name):
                raise CohortError(
                    f"{path}: case {row.case!r} has {name} {getattr(first, name)!r} on line "
                    f"{first.line} and {getattr(row, name)!r} on line {row.line}. A case has one "
                    f"{name}; correct the table."
                )


def _check_spelling(path: Path, column: str, names: Iterable[str]) -> None:
    """Refuse names that differ only in capitals, spaces, dashes or dots: one name written twice."""
    spellings: dict[str, str] = {}
    for name in names:
        twin = spellings.setdefault(normalised(name), name)
        if twin != name:
            raise CohortError(
                f"{path}: {column} {twin!r} and {name!r} differ in spelling only. Write them alike if they "
                "are the same, or make the difference plain."
            )
