"""Follow-up of the cases: the time until the event, or until observation ended without one."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from features.columns.follow_up_words import NO_EVENT_HEADER, VITAL_HEADER
from mil.data.case import Case, Row
from mil.data.event_words import EITHER, EVENT_WORDS, fold_words
from mil.data.names import find_column
from mil.data.quantities import UNITS
from mil.data.values import FALSE_WORDS, TRUE_WORDS, doubtful_word, read_number, without_missing
from mil.errors import CohortError

EVENT, CENSORED = (
    "event",
    "censored",
)  # labels of cases with follow-up; folds are stratified by them
# A code before its word, as cBioPortal writes it (1:DECEASED), or 1 = dead, 0 (alive).
SIGNED = re.compile(r"[-\u2212\u2013]\s*\d")
OF_TIME = ("h", "d", "wk", "mo", "y")  # units, as quantities call them
CODED = re.compile(r"(\d)\s*[:=\u2013-]\s*(\S.*)|(\d)\s*\((.+)\)")


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
    if not rows:
        return ()
    time = require_column(rows, "time", time, source)
    event = require_column(rows, "event", event, source)
    _refuse_ones_and_twos(rows, event, source)
    _refuse_reversed(rows, event, source)
    _refuse_doubtful(rows, event, source)
    times, events = (without_missing([row.other[name] for row in rows]) for name in (time, event))
    _refuse_one_sided(rows, (time, event), source)
    labelled = tuple(
        _add_outcome(row, (time, times[i]), (event, events[i]), source)
        for i, row in enumerate(rows)
    )
    if not any(row.label for row in labelled):
        raise CohortError(f"{source}: no case has both {time} and {event}. Fill them in.")
    known = {row.case: row.time for row in labelled if row.time is not None}
    if len(known) > 1 and len({*known.values()}) == 1:
        raise CohortError(
            f"{source}: every case has the same {time}, {min(known.values()):g}, so that nothing says who "
            "lives longer. Check the column."
        )
    first: dict[str, Row] = {}
    for row in labelled:
        earlier = first.setdefault(row.case, row)
        if (earlier.label, earlier.time) != (row.label, row.time):
            raise CohortError(
                f"{source}: case {row.case!r} has two outcomes, on lines {earlier.line} and {row.line}. A "
                "case has one outcome; correct the table."
            )
    return labelled


def check_unit(column: str, time_unit: str, source: str) -> None:
    """Refuse a column of times that names another unit than the times are shown in.

    Args:
        column: of times.
        time_unit: that tables and figures name.
        source: the table, for messages.

    Raises:
        CohortError: naming both units.
    """
    shown = UNITS.get(time_unit.casefold().strip(), ("", 1))[0]
    words = [word for word in fold_words(column).split() if len(word) > 2]  # a t is no unit
    named = {UNITS[word][0]: word for word in words if word in UNITS and UNITS[word][0] in OF_TIME}
    if shown in OF_TIME and len(named) == 1 and shown not in named:
        word = next(iter(named.values()))
        raise CohortError(
            f"{source}: column {column} names {word}, and the times would be shown in {time_unit}. Set "
            f"time_unit to {word}, or rename the column if that is wrong."
        )


def _refuse_ones_and_twos(rows: Sequence[Row], event: str, source: str) -> None:
    """Refuse events coded as 1 and 2: some write 2 for the event, as R does, and some write 1."""
    cells = {row.other[event].strip().removesuffix(".0") for row in rows}
    if {"1", "2"} <= cells and "0" not in cells:
        raise CohortError(
            f"{source}: column {event} holds 1 and 2 and no 0. Some write 2 for the event and "
            "1 for none, some the other way round: write 1 where the event happened and 0 where the case was "
            "censored."
        )


def _refuse_doubtful(rows: Sequence[Row], event: str, source: str) -> None:
    """Refuse a dash, or none, where no other cell says that the event did not happen."""
    cells = [row.other[event].strip() for row in rows]
    read = [
        "yes" if read_event(cell) else "no" if read_event(cell) is False else cell for cell in cells
    ]
    doubt = None if "no" in read else doubtful_word(read)
    if doubt:
        raise CohortError(
            f"{source}: column {event} marks events but no censored case, and {doubt[0]!r} usually stands "
            "for a missing value. Write 0 where the case was censored, or leave the cell empty if it is "
            "not known."
        )


def require_column(rows: Sequence[Row], parameter: str, name: str, source: str) -> str:
    """The column of further columns that a parameter names, also where capitals and blanks differ.

    Raises:
        CohortError: there is no such column.
    """
    column = find_column(name, rows[0].other)
    if column is None:
        own = ["label"] if any(row.label for row in rows) else []
        columns = ", ".join([*own, *rows[0].other]) or "none"
        raise CohortError(
            f"{source} has no column {name!r}; beside case and slide it has {columns}. Set "
            f"{parameter} to the name of the column."
        )
    return column


def _add_outcome(row: Row, time: tuple[str, str], event: tuple[str, str], source: str) -> Row:
    """The row with its outcome; time and event are the column and the cell, empty where it is missing."""
    other = {name: value for name, value in row.other.items() if name not in (time[0], event[0])}
    if row.label:
        other["label"] = row.label
    if not (time[1] and event[1]):
        return replace(row, label="", unread="", other=other)
    duration, observed = read_number(time[1]), read_event(event[1])
    if not 0 <= duration < math.inf:
        raise CohortError(
            f"{source}, line {row.line}: {time[0]} is {time[1]!r}; a time is a number from 0. Leave it empty "
            "if it is not known."
        )
    if observed is None:
        meaning = EITHER.get(fold_words(event[1]), "")
        raise CohortError(
            f"{source}, line {row.line}: {event[0]} is {event[1]!r}. Write 1 where the event happened and 0 "
            f"where the case was censored.{meaning and f' {event[1]} is {meaning}.'}"
        )
    return replace(row, label=EVENT if observed else CENSORED, time=duration, other=other)


def read_event(cell: str) -> bool | None:
    """Whether the event was observed; None for another word, or a code that contradicts its word."""
    if coded := CODED.fullmatch(cell):
        code, word = coded[1] or coded[3], coded[2] or coded[4]
        happened = EVENT_WORDS.get(fold_words(word))
        if code not in "01":
            return happened
        by_code = code == "1"
        known = happened is not None or ":" in cell
        return by_code if known and happened in (None, by_code) else None
    if SIGNED.match(cell):  # -1 is no 1
        return None
    return EVENT_WORDS.get(cell.casefold(), EVENT_WORDS.get(fold_words(cell)))


def reversed_event(column: str, cells: Sequence[str]) -> str:
    """Why yes and no, or 1 and 0, in a column of events may mean the opposite; empty if nothing says so.

    Args:
        column: its name.
        cells: of the column.
    """
    words = {cell.strip().casefold() for cell in cells} - {""}
    if not words or not words <= TRUE_WORDS | FALSE_WORDS:
        return ""
    header = fold_words(column).replace(" ", "")
    example = sorted(words)[-1]
    if NO_EVENT_HEADER.fullmatch(header):
        return f"{example!r} under {column} says that the event did not happen"
    if VITAL_HEADER.fullmatch(header):
        return f"some registries write 1 for alive under {column} and some for dead"
    return ""


def _refuse_one_sided(rows: Sequence[Row], columns: tuple[str, str], source: str) -> None:
    """Refuse outcomes of which only the events are filled in, and times that are events.

    Args:
        rows: of the table.
        columns: of times and events.
        source: the table, for messages.
    """
    time, event = columns
    times = without_missing([row.other[time] for row in rows])
    happened = [read_event(row.other[event].strip()) for row in rows]
    n_blank = sum(
        bool(cell) and not row.other[event].strip() for cell, row in zip(times, rows, strict=True)
    )
    if n_blank > 1 and True in happened and False not in happened:
        raise CohortError(
            f"{source}: column {event} marks events but no censored case, and is empty in {n_blank} rows "
            f"that have a {time}. Write 0 where the case was censored; where that is not known, leave {time} "
            "empty, too."
        )
    censored = [t for t, it_happened in zip(times, happened, strict=True) if it_happened is False]
    if censored and not any(censored):
        raise CohortError(
            f"{source}: column {time} is empty in every case without the event. Their time is that until the "
            "end of observation, which registries write in another column, as days_to_last_follow_up: put "
            "both into one column."
        )
    if {read_number(cell) for cell in times if cell} == {0.0, 1.0}:
        raise CohortError(
            f"{source}: column {time} holds 0 and 1 alone, as a column of events does. Name the column of "
            "times."
        )


def _refuse_reversed(rows: Sequence[Row], event: str, source: str) -> None:
    """Refuse yes and no, or 1 and 0, where they may mean the opposite of an event."""
    if why := reversed_event(event, without_missing([row.other[event] for row in rows])):
        raise CohortError(
            f"{source}: column {event}: {why}. Write words, such as dead and alive, or a column of another "
            "name with 1 where the event happened and 0 where the case was censored."
        )
