"""Cells of a table of predictions: read as text, refused or parsed with their column named."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mil.data.headers import FOLLOW_UP, first_column, match_columns
from mil.data.outcomes import reversed_event
from mil.data.sheet import Sheet, read_sheet, with_decimal_points
from mil.data.values import is_missing
from mil.errors import CohortError, PredictionsError

KEYS = ("model", "repeat", "fold", "case", "slide")


def read_text_table(path: Path) -> pd.DataFrame:
    """A table of text cells.

    Raises:
        PredictionsError: the file cannot be read.
    """
    if not path.exists():
        raise PredictionsError(f"{path}: no such run or table of predictions. Check the path.")
    try:
        sheet = read_sheet(path, exact=True)
        sheet = with_decimal_points(sheet, set(sheet.header) - {*KEYS, "label"})
    except CohortError as error:
        raise PredictionsError(
            f"{path} cannot be read as a table of predictions: {error}"
        ) from error
    names = _own_names(path, sheet.header)
    _check_events(sheet, names)
    columns = [names.get(name, name) for name in sheet.header]
    return pd.DataFrame(
        [list(cells.values()) for _, cells in sheet.lines], columns=columns, dtype=str
    )


def _own_names(path: Path, header: Sequence[str]) -> dict[str, str]:
    """Our names of the columns of follow-up and risk that another tool wrote; none in other tables.

    Raises:
        PredictionsError: two columns hold the same.
    """
    if {*FOLLOW_UP} <= set(header) or first_column(header, FOLLOW_UP["risk"]) is None:
        return {}
    theirs = match_columns(path, header, FOLLOW_UP, PredictionsError)
    return {column: name for name, column in theirs.items()} if len(theirs) == 3 else {}


def _check_events(sheet: Sheet, names: Mapping[str, str]) -> None:
    """Refuse events of another tool that may mean the opposite.

    Raises:
        PredictionsError: naming the column.
    """
    for column in (column for column, name in names.items() if name == "event"):
        if why := reversed_event(column, [cells[column] for _, cells in sheet.lines]):
            raise PredictionsError(
                f"{sheet.path}: column {column}: {why}. Write words, such as dead and alive, or a column "
                "event with 1 where the event happened and 0 where the case was censored."
            )


def parse_numbers(table: pd.DataFrame, integers: Sequence[str], floats: Sequence[str]) -> None:
    """Turn columns of text into numbers, in place, by Python's own parser: floats keep their last bit.

    Raises:
        PredictionsError: naming the column.
    """
    for name in (*integers, *floats):
        table[name] = parse_column(table[name], int if name in integers else float)


def parse_column(
    cells: "pd.Series[str]", number: type[int] | type[float], kind: str = "numbers"
) -> "pd.Series[Any]":
    """The numbers of a column of text; ``kind`` is what a message calls them.

    Raises:
        PredictionsError: naming the column and the first cell that holds none.
    """
    try:
        return cells.map(number)
    except ValueError as error:
        odd = next(cell for cell in cells if not _reads_as(cell, number))
        what = "which means that it is missing" if is_missing(odd) else "which is none"
        raise PredictionsError(
            f"column {cells.name} must hold {kind}; got {odd!r}, {what}. Correct the cell, or leave the case "
            "out."
        ) from error


def _reads_as(cell: str, number: type[int] | type[float]) -> bool:
    try:
        number(cell)
    except ValueError:
        return False
    return True


def check_text(table: pd.DataFrame, name: str) -> None:
    """Refuse cells that are empty or no text.

    Raises:
        PredictionsError: naming the column and a cell.
    """
    if bad := [value for value in table[name] if not (isinstance(value, str) and value)]:
        raise PredictionsError(
            f"Column {name} must hold text; got {bad[0]!r}. Fill it in, and read it as text, so that 007 and "
            "NA stay what they are."
        )


def require_columns(table: pd.DataFrame, names: Sequence[str]) -> None:
    """Refuse a table that lacks columns, or has one twice.

    Raises:
        PredictionsError: naming them.
    """
    if missing := [name for name in names if name not in table.columns]:
        raise PredictionsError(
            f"Predictions lack {first_few(missing)}; got columns {first_few(table.columns, 12)}. "
            "Add what is missing."
        )
    if repeated := table.columns[table.columns.duplicated()].tolist():
        raise PredictionsError(
            f"Predictions hold column {first_few(repeated)} twice. Rename or drop one."
        )


def locate(table: pd.DataFrame, row: int) -> str:
    """A row of the table in words."""
    cells = table.iloc[row]
    return f"Model '{cells['model']}', repeat {cells['repeat']}, slide '{cells['slide']}'"


def first_few(names: Iterable[object], limit: int = 5) -> str:
    """The first few of a collection, for a message."""
    texts = [str(name) for name in names]
    return ", ".join(texts[:limit]) + (f" and {len(texts) - limit} more" if texts[limit:] else "")
