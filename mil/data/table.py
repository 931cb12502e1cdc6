"""The study's table: one row per slide, read and checked."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from features.columns.spelling import plain_header
from features.progress import Notify
from features.slides.names import slide_name
from mil.data.alike import check_labels
from mil.data.case import Row
from mil.data.headers import COHORT, COHORT_ELSE, first_column, match_columns, matches_any
from mil.data.names import NUMBER, check_spelling, find_column, matching
from mil.data.parts import FOLDS, check_columns, check_parts, note_codes
from mil.data.patients import check_patients, group_cases
from mil.data.reading import AS_WRITTEN, TableReading
from mil.data.sheet import Sheet, read_sheet, with_decimal_points
from mil.data.spoilt import check_written
from mil.data.unusable import note_unusable
from mil.data.values import doubtful_word, read_number, without_missing
from mil.errors import CohortError

TRAIN = ("", "train", "training", "development")  # what column split may say
TEST = ("test", "testing", "external", "held-out", "holdout")


def read_table(
    path: Path, reading: TableReading = AS_WRITTEN, notify: Notify | None = None
) -> tuple[Row, ...]:
    """Read a cohort table with at least case and slide: CSV with commas, semicolons or tabs, or a workbook.

    Args:
        path: of the table.
        reading: what its names and words mean.
        notify: called with what was read otherwise than as plain CSV.

    Raises:
        CohortError: a column is missing, a field is empty or malformed, a slide comes twice, or two cases are
            of one patient.
    """
    sheet = read_sheet(path)
    sheet = _without_twins(sheet)
    columns = _match_columns(path, sheet.header)
    remarks = [*_check_parts(path, sheet, columns), *_note_unusable(path, sheet, columns)]
    names = [name for key, name in columns.items() if key != "mpp"]
    sheet = with_decimal_points(sheet, set(sheet.header) - {*names})
    doubts = _check_doubtful(path, sheet, columns, reading)
    blank = _blank_missing(sheet, columns, reading)
    rows = [
        _parse_row(path, number, columns, cells, {name: blank[name][i] for name in columns})
        for i, (number, cells) in enumerate(sheet.lines)
    ]
    further = rows[0].other if rows else ()
    known = tuple(c for n in reading.known_at_diagnosis if (c := find_column(n, further)))
    rows = [replace(row, known_at_diagnosis=known) for row in rows] if known else rows
    if reading.case_from:
        cases = group_cases(rows, reading.case_from, str(path))
        rows = [replace(row, case=case) for row, case in zip(rows, cases, strict=True)]
    for name in ("case", "slide", "label"):
        meant = reading.label_is if name == "label" else ()
        check_written(str(path), name, (getattr(row, name) for row in rows), meant)
    _check_rows(path, rows)
    remarks += check_labels(str(path), (row.label for row in rows))
    if notify:
        for note in (*sheet.notes, *doubts, *remarks):
            notify(note)
    return tuple(rows)


def _check_parts(path: Path, sheet: Sheet, columns: Mapping[str, str]) -> list[str]:
    """Refuse a column that tells training from test rows under another name, where split says nothing.

    Remarks on columns that may do so.
    """
    if "split" in columns and any(line[columns["split"]] for _, line in sheet.lines):
        return []
    own = {columns[name] for name in columns if name not in ("slide", "site")}
    names = {columns[name]: name for name in ("slide", "site") if name in columns}
    cells = {
        names.get(column, column): [line[column] for _, line in sheet.lines]
        for column in sheet.header
        if column not in own
    }
    check_columns(str(path), cells, [number for number, _ in sheet.lines], to_judge=True)
    return note_codes(path.name, cells)


def _note_unusable(path: Path, sheet: Sheet, columns: Mapping[str, str]) -> list[str]:
    """Remarks on rows that a further column says are not to be used."""
    cells = {
        column: [line[column] for _, line in sheet.lines]
        for column in sheet.header
        if column not in columns.values()
    }
    return note_unusable(path.name, cells, [line[columns["slide"]] for _, line in sheet.lines])


def _check_known(path: Path, rows: Sequence[Row], reading: TableReading) -> None:
    """Refuse names of columns known at diagnosis that the table lacks; one of new cases may lack them.

    Raises:
        CohortError: naming the column.
    """
    further = list(rows[0].other)
    for name in reading.known_at_diagnosis:
        if find_column(name, further) is None:
            raise CohortError(
                f"{path}: no column {name!r}, which known_at_diagnosis names; it has "
                f"{', '.join(further) or 'no further columns'}. Correct the name."
            )


def _check_doubtful(
    path: Path, sheet: Sheet, columns: Mapping[str, str], reading: TableReading
) -> list[str]:
    """Refuse labels that are read as missing and may mean negative; notes on further columns of that kind.

    Raises:
        CohortError: naming the column.
    """
    notes = []
    for column in sheet.header:
        cells = [line[column] for _, line in sheet.lines]
        is_label = column == columns.get("label")
        if column in columns.values() and not is_label:
            continue
        meant = reading.label_is if is_label else ()
        if (doubt := doubtful_word(cells, meant, of_labels=is_label)) is None:
            continue
        word, beside = doubt
        what = f"{path}: column {column!r} holds {word!r} beside {beside!r}"
        if is_label:
            raise CohortError(
                f"{what}: a label of its own, such as negative, or a word for one that is not known. Set "
                f"label_is to {word!r} if it is a label; leave these cells empty if it is not known."
            )
        notes.append(f"{what}: it is read as missing. Write negative there if that is meant.")
    return notes


def split_train_test(rows: Sequence[Row]) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """(training rows, rows kept for external validation), by column split: ``TRAIN`` or ``TEST``.

    Raises:
        CohortError: another word stands in the column, or a case has rows of both kinds; or there is no such
            column and another one seems to be it.
    """
    check_parts(rows)
    return _split(rows)


def _split(rows: Sequence[Row]) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
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


def rows_to_judge(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows that are kept for external validation, or all if none are.

    Raises:
        CohortError: as ``split_train_test``; another column may say that all rows are for testing.
    """
    check_parts(rows, to_judge=True)
    training, test = _split(rows)
    return test or training


def training_rows(
    path: Path, notify: Notify | None = None, reading: TableReading = AS_WRITTEN
) -> tuple[Row, ...]:
    """The rows of a table that may be trained on.

    Args:
        path: of the table.
        notify: called with the number of cases that are kept for external validation, if there are any, and
            with what was read otherwise than as plain CSV.
        reading: what its names and words mean.

    Raises:
        CohortError: as ``read_table``, or every row is kept for external validation.
    """
    rows, test = split_train_test(read_table(path, reading, notify))
    _check_known(path, (*rows, *test), reading)
    if not rows:
        raise CohortError(
            f"{path}: every row has split=test, so no case is left to train on. Change column split."
        )
    if notify and (n_cases := len({row.case for row in test})):
        cases = "1 case" if n_cases == 1 else f"{n_cases} cases"
        notify(f"{cases} of {path.name} with split=test: kept for external validation.")
    if notify and (folds := _own_folds(rows)):
        notify(f"{path.name}: column {folds} is not read; folds are drawn anew.")
    n_blank = sum(not row.split for row in rows)
    if notify and n_blank and not test and n_blank < len(rows):
        notify(
            f"{path.name}: column split is empty in {n_blank} rows and says train in {len(rows) - n_blank}; "
            "all of them are trained on. Write test in those that are not to be."
        )
    return rows


def _own_folds(rows: Sequence[Row]) -> str:
    """A further column that numbers folds; empty without one."""
    names = [name for name in rows[0].other if FOLDS.fullmatch(plain_header(name))]
    return next((name for name in names if len({row.other[name] for row in rows}) > 1), "")


def reserved_rows(path: Path, reading: TableReading = AS_WRITTEN) -> tuple[Row, ...]:
    """The rows of a table that are kept for external validation.

    Raises:
        CohortError: as ``read_table``.
    """
    return split_train_test(read_table(path, reading))[1]


def _without_twins(sheet: Sheet) -> Sheet:
    """The sheet without columns that say what another of the same meaning says, with a note."""
    notes, dropped = list(sheet.notes), set[str]()
    for name, aliases in COHORT.items():
        first, *others = [c for c in sheet.header if matches_any(c, aliases)] or [""]
        read = slide_name if name == "slide" else str.strip
        for column in others:
            pairs = {(read(line[first]), read(line[column])) for _, line in sheet.lines}
            if name == "case" and (patient := _coarser(first, column, pairs)):
                raise CohortError(
                    f"{sheet.path}: columns {first!r} and {column!r} both mean case. Keep {patient!r}, which "
                    "joins several of the other and seems to name the patient, and rename the other."
                )
            if all(one == other for one, other in pairs):
                dropped.add(column)
                notes.append(
                    f"{sheet.path.name}: column {column!r} says the same as {first!r}; read once."
                )
    lines = tuple(
        (n, {c: cell for c, cell in line.items() if c not in dropped}) for n, line in sheet.lines
    )
    header = tuple(column for column in sheet.header if column not in dropped)
    return replace(sheet, header=header, lines=lines, notes=tuple(notes)) if dropped else sheet


def _coarser(first: str, second: str, pairs: Collection[tuple[str, str]]) -> str:
    """The column of which each value stands for one or more of the other's; empty if neither does so."""
    n_first, n_second = (len({pair[i] for pair in pairs}) for i in range(2))
    if n_first == n_second or len(pairs) != max(n_first, n_second):
        return ""
    return first if n_first < n_second else second


def _match_columns(path: Path, header: Sequence[str]) -> dict[str, str]:
    """Our column names to those of the file."""
    columns = match_columns(path, header, COHORT)
    for name, aliases in COHORT_ELSE.items():
        if name not in columns and (other := first_column(header, aliases)):
            columns[name] = other
    for name in ("case", "slide"):
        if name not in columns:
            raise CohortError(
                f"{path}: no column {name}; it has {', '.join(header)}. Name one {name} (or "
                f"{', '.join(COHORT[name][1:])})."
            )
    return columns


def _blank_missing(
    sheet: Sheet, columns: Mapping[str, str], reading: TableReading
) -> dict[str, list[str]]:
    """The cells of our columns, empty where they are missing."""
    cells = {name: [line[column] for _, line in sheet.lines] for name, column in columns.items()}
    # A split is read as it stands: an unknown word there must not make a training case.
    return {
        name: values
        if name == "split"
        else without_missing(values, reading.label_is if name == "label" else ())
        for name, values in cells.items()
    }


def _parse_row(
    path: Path,
    line: int,
    columns: Mapping[str, str],
    cells: Mapping[str, str],
    values: Mapping[str, str],
) -> Row:
    """One row; the values are those of our columns, empty where they are missing."""
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
        unread="" if values.get("label") else cells.get(columns.get("label", ""), "").strip(),
        site=values.get("site", ""),
        mpp=mpp,
        split=values.get("split", ""),
        other={name: value for name, value in cells.items() if name not in columns.values()},
    )


def _check_rows(path: Path, rows: Sequence[Row]) -> None:
    """A slide comes once; a case has one label, site and patient; one name has one spelling."""
    if not rows:
        raise CohortError(f"{path}: a header but no rows. Give one row per slide.")
    for name in ("case", "label", "site"):
        check_spelling(str(path), name, (getattr(row, name) for row in rows))
    numbered = (row.slide for row in rows if NUMBER.fullmatch(row.slide))
    check_spelling(str(path), "slide", numbered)
    check_patients(str(path), rows)
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
