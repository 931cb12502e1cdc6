"""What became of a case: the time until its event, or until it was last seen without one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mil.data.cohort import Row, number
from mil.errors import CohortError

EVENT, CENSORED = (
    "event",
    "censored",
)  # the labels of a survival cohort, by which folds are stratified
MISSING = ("", "?", "-", "na", "n/a", "#n/a", "nan", "unknown", "[not available]", "[unknown]")
WORDS = {
    **dict.fromkeys(("1", "1.0", "true", "yes", "dead", "event"), True),
    **dict.fromkeys(("0", "0.0", "false", "no", "alive", "censored"), False),
}


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Times and events of n cases, or of as many slides.

    Attributes:
        time: (n,) until the event or the end of observation, 0 or more.
        event: (n,) bool, False where the case was censored.
    """

    time: NDArray[np.float64]
    event: NDArray[np.bool_]

    def __getitem__(self, which: NDArray[np.int64] | NDArray[np.bool_]) -> "Outcomes":
        """Those of some cases."""
        return Outcomes(self.time[which], self.event[which])

    def __len__(self) -> int:
        return len(self.time)


def with_outcomes(
    rows: Sequence[Row], time: str, event: str, *, source: str = "the table"
) -> tuple[Row, ...]:
    """Rows whose label is ``event`` or ``censored``, with the time; the label is empty where either lacks.

    Both columns leave the further ones, so that no clinical model reads them; a class joins these.

    Args:
        rows: of ``read_table``.
        time: the column of times.
        event: the column that says whether the event happened: 1 or 0, yes or no, dead or alive.
        source: the table, for messages.

    Raises:
        CohortError: a column is missing, a field cannot be read, or the rows of a case differ.
    """
    for name in (time, event):
        if rows and name not in rows[0].other:
            there = ", ".join(rows[0].other) or "none"
            raise CohortError(
                f"{source} has no column {name!r}; beside case and slide it has {there}. Name the columns "
                "with --time and --event."
            )
    told = tuple(_with_outcome(row, time, event, source) for row in rows)
    if not any(row.label for row in told):
        raise CohortError(f"{source}: no case has both {time} and {event}. Fill them in.")
    first: dict[str, Row] = {}
    for row in told:
        known = first.setdefault(row.case, row)
        if (known.label, known.time) != (row.label, row.time):
            raise CohortError(
                f"{source}: case {row.case!r} has two outcomes, on lines {known.line} and {row.line}. An "
                "outcome is the case's; mend the table."
            )
    return told


def _with_outcome(row: Row, time: str, event: str, source: str) -> Row:
    other = {name: value for name, value in row.other.items() if name not in (time, event)}
    if row.label:
        other["label"] = row.label
    told = _read(row.line, row.other, time, event, source)
    if told is None:
        return replace(row, label="", other=other)
    return replace(row, label=EVENT if told[1] else CENSORED, time=told[0], other=other)


def _read(
    line: int, fields: Mapping[str, str], time: str, event: str, source: str
) -> tuple[float, bool] | None:
    if fields[time].casefold() in MISSING or fields[event].casefold() in MISSING:
        return None
    at, happened = number(fields[time]), WORDS.get(fields[event].casefold())
    if not 0 <= at < math.inf:
        raise CohortError(
            f"{source}, line {line}: {time} is {fields[time]!r}; a time is a number from 0. Leave it empty "
            "if it is not known."
        )
    if happened is None:
        raise CohortError(
            f"{source}, line {line}: {event} is {fields[event]!r}. Write 1 where the event happened and 0 "
            "where the case was censored."
        )
    return at, happened
