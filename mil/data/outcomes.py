"""Follow-up of the cases: the time until the event, or until observation ended without one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mil.data.case import Case, Row
from mil.data.values import is_missing, read_number
from mil.errors import CohortError

EVENT, CENSORED = (
    "event",
    "censored",
)  # labels of cases with follow-up; folds are stratified by them
EVENT_WORDS = {
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

    def __getitem__(self, selection: NDArray[np.int64] | NDArray[np.bool_]) -> "Outcomes":
        """The outcomes of some cases."""
        return Outcomes(self.time[selection], self.event[selection])

    def __len__(self) -> int:
        return len(self.time)


def outcomes_of(cases: Sequence[Case | Row]) -> Outcomes:
    """The outcomes of cases with follow-up."""
    return Outcomes(
        np.array([case.time for case in cases], dtype=np.float64),
        np.array([case.label == EVENT for case in cases], dtype=np.bool_),
    )


def with_outcomes(
    rows: Sequence[Row], time: str, event: str, *, source: str = "the table"
) -> tuple[Row, ...]:
    """Rows whose label is ``event`` or ``censored``, with the time; empty where either is missing.

    Both columns leave ``other``, so that no clinical model reads them; the table's own label joins it.

    Args:
        rows: as ``read_table`` returns them.
        time: the column of times.
        event: the column that says whether the event happened: 1 or 0, yes or no, dead or alive.
        source: the table, for messages.

    Raises:
        CohortError: a column is missing, a cell cannot be read, or the rows of a case differ.
    """
    for parameter, column in (("time", time), ("event", event)):
        if rows and column not in rows[0].other:
            columns = ", ".join(rows[0].other) or "none"
            raise CohortError(
                f"{source} has no column {column!r}; beside case and slide it has {columns}. Set "
                f"{parameter} to the name of the column."
            )
    labelled = tuple(_add_outcome(row, time, event, source) for row in rows)
    if not any(row.label for row in labelled):
        raise CohortError(f"{source}: no case has both {time} and {event}. Fill them in.")
    first: dict[str, Row] = {}
    for row in labelled:
        earlier = first.setdefault(row.case, row)
        if (earlier.label, earlier.time) != (row.label, row.time):
            raise CohortError(
                f"{source}: case {row.case!r} has two outcomes, on lines {earlier.line} and {row.line}. A "
                "case has one outcome; correct the table."
            )
    return labelled


def _add_outcome(row: Row, time: str, event: str, source: str) -> Row:
    other = {name: value for name, value in row.other.items() if name not in (time, event)}
    if row.label:
        other["label"] = row.label
    outcome = _parse_outcome(row.line, row.other, time, event, source)
    if outcome is None:
        return replace(row, label="", other=other)
    return replace(row, label=EVENT if outcome[1] else CENSORED, time=outcome[0], other=other)


def _parse_outcome(
    line: int, cells: Mapping[str, str], time: str, event: str, source: str
) -> tuple[float, bool] | None:
    if is_missing(cells[time]) or is_missing(cells[event]):
        return None
    duration, observed = read_number(cells[time]), EVENT_WORDS.get(cells[event].casefold())
    if not 0 <= duration < math.inf:
        raise CohortError(
            f"{source}, line {line}: {time} is {cells[time]!r}; a time is a number from 0. Leave it empty "
            "if it is not known."
        )
    if observed is None:
        raise CohortError(
            f"{source}, line {line}: {event} is {cells[event]!r}. Write 1 where the event happened and 0 "
            "where the case was censored."
        )
    return duration, observed
