"""Columns of a table that are no facts beside the outcome: names, row numbers, the outcome itself."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from features.columns.names import ID_NAMES, ROW_NAMES, is_follow_up
from features.columns.spelling import plain_header, without_accents
from features.summary import listed
from mil.data.alike import alike_words
from mil.data.case import Case, Row, has_follow_up
from mil.data.following import ENOUGH, parts_times, ranks_with, tells_event
from mil.data.mixed_units import find_mixed_units, find_strays
from mil.data.outcomes import EVENT
from mil.data.spoilt import code_among
from mil.data.values import Numbers, read_number, read_numbers, without_missing

SENTINELS = frozenset((-1, -9, -99, -999, -9999, 88, 99, 777, 888, 999, 8888, 9999, 99999))
OLDEST = 120
AGE = re.compile(  # without accents
    r"(?:patients?|patienten|pat)?(?:ages?(?:[([]?(?:at|in|y|yr|years|dx|diagnosis|au|ala|en|ans).*)?"
    r"|alter(?:[([]?(?:bei|in|jahre).*)?|edad(?:[([]?(?:al|en|anos).*)?|eta(?:[([]?(?:alla|in|anni).*)?"
    r"|idade(?:[([]?(?:ao|no|na|em|anos).*)?|leeftijd(?:[([]?(?:bij|in|jaar|op).*)?"
    r"|alder(?:[([]?(?:vid|ved|i|ar).*)?|wiek(?:[([]?(?:w|lat|przy|pacjenta).*)?"
    r"|vek|ika|yas|varsta|eletkor|возраст|ηλικια|年龄|年齢|年齡|나이|연령)"
)
UNITS_BESIDE = "millimetres beside centimetres, shares beside percentages"
FAR = 4  # times the largest other number


@dataclass(frozen=True)
class Telling:
    """A column that says what only the outcome, or the order of the table, can say.

    Attributes:
        column: its name.
        reason: what it does, after the column's name in a sentence.
        numbers_rows: it says which case this is, and nothing of the outcome.
    """

    column: str
    reason: str
    numbers_rows: bool = False

    def __str__(self) -> str:
        return f"{self.column} {self.reason}"


def telling_columns(cases: Sequence[Case | Row], names: Iterable[str]) -> tuple[Telling, ...]:
    """Columns that must not explain an outcome: made from it, known only afterwards, or names of rows.

    Of cases with follow-up: columns with the order of the times, that tell the events, or that registries
    fill in afterwards, unless they are declared to be known at diagnosis. Of classes: the labels in other
    words, one for each. A column of numbers in a row that is declared, or is an age, numbers no rows.

    Args:
        cases: with their outcomes.
        names: of columns of theirs.
    """
    telling = []
    for name in names:
        cells = without_missing([case.other.get(name, "") for case in cases])
        reason = _reason(name, cells, cases)
        declared = bool(cases) and name in cases[0].known_at_diagnosis
        if reason:
            telling.append(Telling(name, reason))
        elif numbers_rows(name, [cell for cell in cells if cell], declared=declared):
            telling.append(Telling(name, "numbers or names the cases", numbers_rows=True))
    return tuple(telling)


def note_calendar(cases: Sequence[Case | Row], names: Iterable[str]) -> list[str]:
    """A remark on columns that follow the time of observation, as the calendar does; none without any.

    Args:
        cases: with their outcomes.
        names: of columns of theirs that are none of ``telling_columns``.
    """
    timed = [case for case in cases if case.time is not None]
    time = np.array([case.time for case in timed], dtype=np.float64)
    event = np.array([case.label == EVENT for case in timed])
    following = []
    for name in names if timed else ():
        cells = without_missing([case.other.get(name, "") for case in timed])
        filled = ["filled" if cell else "" for cell in cells]
        if ranks_with(cells, time, event, or_calendar=True) or any(
            parts_times(kinds, time, event, or_calendar=True) for kinds in (cells, filled)
        ):
            following.append(name)
    if not following:
        return []
    columns = "Column" if len(following) == 1 else "Columns"
    return [
        f"{columns} {listed(following)}: in the order of the times of observation, as is whatever changed "
        "over the years of a study, such as a scanner. If one was made from the follow-up, no model may read "
        "it: leave it out of the columns to read."
    ]


def note_declared(cases: Sequence[Case | Row]) -> list[str]:
    """A remark on columns that count as known at diagnosis because the study says so; none without any."""
    names = cases[0].known_at_diagnosis if cases else ()
    if not names:
        return []
    undeclared = [replace(case, known_at_diagnosis=()) for case in cases]
    looks = {found.column: found.reason for found in telling_columns(undeclared, names)}
    listing = "; ".join(
        f"{name}, which otherwise {looks[name]}" if name in looks else name for name in names
    )
    return [
        f"Declared to be known when a case is diagnosed: {listing}. If one was filled in later, whatever "
        "reads it knows the outcome."
    ]


def odd_cells(rows: Sequence[Row | Case], names: Iterable[str] | None = None) -> list[str]:
    """Columns of numbers but for a few cells, which are missing, or limits; one sentence for each.

    Args:
        rows: of a table, or cases.
        names: of the columns to look at; all if not given.
    """
    notes: list[str] = []
    for name in (rows[0].other if names is None else names) if rows else ():
        cells = [row.other[name] for row in rows]
        if column := read_numbers(cells):
            notes += _note_inexact(name, column, cells, rows)
        if pair := alike_words(cells):
            notes.append(
                f"Column {name} holds {pair[0]!r} and {pair[1]!r}, which {pair[2]} and count as two. Write "
                "them alike if they are the same."
            )
        if column and (note := _note_far(name, column, cells, rows)):
            notes.append(note)
    return notes


def _note_inexact(
    name: str, column: Numbers, cells: Sequence[str], rows: Sequence[Row | Case]
) -> Iterator[str]:
    """Remarks on cells of a column of numbers that are none, or say more or less than one."""
    if column.odd:
        odd = listed([f"{cells[i]!r} ({_name_of(rows[i])})" for i in column.odd])
        yield (
            f"Column {name} holds numbers but for {odd}, which count as missing. Correct them in the "
            "table, or write words in every cell."
        )
    if column.limits:
        limits = listed([f"{cells[i]!r} ({_name_of(rows[i])})" for i in column.limits])
        first = column.limits[0]
        yield (
            f"Column {name} holds {limits}, which say more or less than a number: each counts as that "
            f"number, {cells[first]!r} as {column.values[first]:g}."
        )


def _note_far(name: str, column: Numbers, cells: Sequence[str], rows: Sequence[Row | Case]) -> str:
    """A remark on numbers that are a code, no age, or in another unit than the others; empty without any."""
    if codes := sentinels(column.values):
        coded = listed([f"{cells[i]} ({_name_of(rows[i])})" for i in codes])
        return (
            f"Column {name} holds {coded}, far from its other numbers: often a code "
            "for a missing value. Leave these cells empty if it is one."
        )
    return _note_ages(name, column, rows) or _note_units(f"Column {name}", column.values, rows)


def _note_units(
    what: str, values: Sequence[float], rows: Sequence[Row | Case], units: str = UNITS_BESIDE
) -> str:
    """A remark on numbers that seem to be in another unit than the others; empty without any.

    A case with several slides has one number.
    """
    first = {_case_of(row): i for i, row in reversed([*enumerate(rows)])}
    places = sorted(first.values())
    numbers = [values[i] for i in places]
    mixed = find_mixed_units(numbers)
    far = mixed.places if mixed else find_strays(numbers)
    if not far:
        return ""
    listing = listed([f"{numbers[i]:g} ({_name_of(rows[places[i]])})" for i in far])
    others = [v for i, v in enumerate(numbers) if i not in far and math.isfinite(v)]
    text = f"{what} holds {listing}, beside numbers from {min(others):g} to {max(others):g}"
    if mixed is None:
        return f"{text}: perhaps a slip of typing, or no value. Correct these cells or empty them if so."
    times = f"{mixed.factor} times the scale" if mixed.larger else f"1/{mixed.factor} of the scale"
    return (
        f"{text}: perhaps at {times}, as {units}, or a slip of typing. Correct these cells if so."
    )


def _note_ages(name: str, column: Numbers, rows: Sequence[Row | Case]) -> str:
    """A remark on ages beyond a human life beside others; empty without any."""
    known = [v for v in column.values if math.isfinite(v)]
    odd = [i for i, v in enumerate(column.values) if not 0 <= v <= OLDEST and math.isfinite(v)]
    if not is_age(name) or not 0 < len(odd) < len(known):
        return ""
    listing = listed([f"{column.values[i]:g} ({_name_of(rows[i])})" for i in odd])
    return f"Column {name} holds {listing}, which is no age in years as the others are. Correct these cells."


def is_age(name: str) -> bool:
    """Whether a column is an age by its name, in one of the languages of Europe or East Asia."""
    return AGE.fullmatch(without_accents(plain_header(name))) is not None


def note_times(rows: Sequence[Row | Case]) -> list[str]:
    """A remark on times that look like a code for a missing value, or another unit; none of other cases."""
    timed = [row for row in rows if row.time is not None]
    times = [row.time for row in timed if row.time is not None]
    codes = sentinels(times)
    if not codes:
        units = _note_units("The column of times", times, timed, "days beside months")
        return [units] if units else []
    cases = listed([_name_of(timed[i]) for i in codes])
    return [
        f"The time of {cases} is {timed[codes[0]].time:g}, far from all others: often a code for a missing "
        "value. Leave it empty if it is one."
    ]


def sentinels(values: Sequence[float]) -> list[int]:
    """Places of numbers that stand for a missing value in many tables, and far from the others: 999, -9.

    An age of 99 among ages is none.
    """
    if code := code_among({f"{v:g}" for v in values if math.isfinite(v)}):
        return [i for i, v in enumerate(values) if v == float(code)]
    codes = {i: v for i, v in enumerate(values) if v in SENTINELS}
    others = [v for i, v in enumerate(values) if i not in codes and math.isfinite(v)]
    if not codes or len(others) < len(codes):
        return []
    low, high = min(others), max(others)
    return [i for i, v in codes.items() if (v < 0 <= low) or (v > 0 and v >= FAR * max(high, 1))]


def _case_of(row: Row | Case) -> str:
    return row.case if isinstance(row, Row) else row.name


def _name_of(row: Row | Case) -> str:
    return f"line {row.line}" if isinstance(row, Row) else row.name


def _reason(name: str, cells: Sequence[str], cases: Sequence[Case | Row]) -> str:
    """How a column says the outcome; empty where it does not."""
    if not has_follow_up(cases):
        labels = [case.label for case in cases]
        return "says the outcome in other words" if _is_recoded(cells, labels) else ""
    if name in cases[0].known_at_diagnosis:
        return ""
    if is_follow_up(name):
        return "is known only from the follow-up"
    known = [i for i, case in enumerate(cases) if case.time is not None]
    cells = [cells[i] for i in known]
    time = np.array([cases[i].time for i in known], dtype=np.float64)
    event = np.array([cases[i].label == EVENT for i in known])
    if ranks_with(cells, time, event):
        return "has the order of the follow-up times"
    filled = ["filled" if cell else "" for cell in cells]
    if any(parts_times(kinds, time, event) for kinds in (cells, filled)):
        return "separates the cases by their follow-up times"
    return "tells the events" if tells_event(cells, event) else ""


def numbers_rows(name: str, present: Sequence[str], *, declared: bool = False) -> bool:
    """Whether a column names each case, or counts the rows; an age, or what is declared, counts none."""
    distinct = len(set(present)) == len(present) > 1
    if not distinct:
        return False
    if plain_header(name) in ROW_NAMES or ID_NAMES.fullmatch(name.strip()):
        return True
    if declared or is_age(name):
        return False
    numbers = [read_number(cell) for cell in present]
    if len(numbers) < ENOUGH or not all(n.is_integer() for n in numbers):
        return False
    steps = np.diff(numbers)
    counts_on = bool(np.all(steps == steps[0]))
    return counts_on or (max(numbers) - min(numbers) == len(numbers) - 1 and min(numbers) in (0, 1))


def _is_recoded(cells: Sequence[str], labels: Sequence[str]) -> bool:
    """Whether each label has one word of its own, in two cases or more."""
    pairs = Counter(zip(cells, labels, strict=True))
    distinct = {label for _, label in pairs}
    one_to_one = len(pairs) == len(distinct) == len({cell for cell, _ in pairs}) > 1
    return one_to_one and "" not in {cell for cell, _ in pairs} and min(pairs.values()) > 1
