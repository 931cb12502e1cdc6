"""From the columns of the table to one row of numbers per case; learnt from training cases."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.columns.names import is_follow_up
from features.summary import listed
from mil.data.alike import alike_words
from mil.data.case import Case, Row, has_follow_up
from mil.data.columns import telling_columns
from mil.data.names import find_column
from mil.data.values import number_in, read_number, read_numbers, unclear_numbers, without_missing
from mil.errors import CohortError, FitError

REVEALED = 0.9  # share of the cases whose label a column may tell before it is remarked on


@dataclass(frozen=True, kw_only=True)
class Column:
    """How one column becomes numbers.

    Attributes:
        name: in the table's header.
        categories: words that have a number of their own, 1 where the word is there; any other word is 0
            throughout. Empty for a column of numbers.
        middle: the median of numbers, in place of a missing one.
        spread: their standard deviation, or 1.
        unit: of the numbers, where most cells have one.
    """

    name: str
    categories: tuple[str, ...] = ()
    middle: float = 0.0
    spread: float = 1.0
    unit: str = ""

    def encode(self, value: str) -> list[float]:
        """The categories, or a number in spreads from the middle and whether it is missing."""
        if self.categories:
            return [float(value == category) for category in self.categories]
        number = number_in(value, self.unit)
        return [(number - self.middle) / self.spread, 0.0] if math.isfinite(number) else [0.0, 1.0]


@dataclass(frozen=True, kw_only=True)
class ColumnEncoding:
    """How a case's columns become one row; fitted on training cases.

    Attributes:
        columns: those that are read.
        left_out: (column, reason) of those that are not.
    """

    columns: tuple[Column, ...]
    left_out: tuple[tuple[str, str], ...] = ()

    def row(self, name: str, other: Mapping[str, str]) -> NDArray[np.float32]:
        """(1, K) of what the table says of a case.

        Raises:
            CohortError: a column is missing.
        """
        absent = [column.name for column in self.columns if column.name not in other]
        if absent:
            raise CohortError(
                f"{name}: the clinical model reads {', '.join(absent)}, which no table gives. Give "
                "a cohort table that has this slide and these columns."
            )
        numbers = [value for column in self.columns for value in column.encode(other[column.name])]
        return np.array([numbers or [0.0]], dtype=np.float32)

    def to_json(self) -> dict[str, Any]:
        """The encoding as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "ColumnEncoding":
        """The encoding from what ``to_json`` returned."""
        columns = [
            Column(**{**column, "categories": tuple(column["categories"])})
            for column in fields["columns"]
        ]
        left_out = [(name, reason) for name, reason in fields["left_out"]]
        return cls(columns=tuple(columns), left_out=tuple(left_out))


def clinical_columns(cases: Sequence[Case], requested: Sequence[str]) -> tuple[str, ...]:
    """The columns to read: the requested ones, or all but those that are known only from the follow-up.

    Raises:
        CohortError: there is no such column, or slides of a case differ in it.
    """
    columns = list(cases[0].other)
    requested = [find_column(name, columns) or name for name in requested]
    unknown = [name for name in requested if name not in columns]
    if unknown:
        raise CohortError(
            f"No clinical column {unknown[0]!r} in the table; it has {', '.join(columns) or 'none'}. "
            "Set clinical to some of those."
        )
    known = cases[0].known_at_diagnosis
    names = tuple(requested) or tuple(n for n in columns if n in known or not is_follow_up(n))
    for case in cases:
        if differing := sorted({*names} & {*case.differing}):
            raise CohortError(
                f"Slides of case {case.name!r} differ in {differing[0]!r}. A clinical fact is the case's: "
                "correct the table, or set clinical to the columns to read."
            )
    return names


def fit_encoding(cases: Sequence[Case], requested: Sequence[str]) -> ColumnEncoding:
    """Learn from training cases how their columns become numbers.

    A column of numbers, but for a fifth of its values at most, is standardised; what is none or missing is
    the median. Of any other each word is a number of its own. A column that says the same of all cases, or
    another word of each, is left out; where none is left, as with a rare fact in a small fold, every case is
    alike.

    Raises:
        CohortError: of ``clinical_columns``.
    """
    columns, left_out = [], []
    for name in clinical_columns(cases, requested):
        fitted = _fit_column(name, [case.other[name] for case in cases])
        if isinstance(fitted, Column):
            columns.append(fitted)
        else:
            left_out.append((name, fitted))
    return ColumnEncoding(columns=tuple(columns), left_out=tuple(left_out))


def readable(cases: Sequence[Case], requested: Sequence[str]) -> ColumnEncoding:
    """What a clinical model could read of a whole cohort; each fold learns an encoding of its own.

    Raises:
        CohortError: of ``clinical_columns``; no column is named where cases have follow-up; or a column says
            what only the outcome can say.
        FitError: no column is left.
    """
    if not requested and has_follow_up(cases):
        raise CohortError(
            "Set clinical to the columns that the clinical model reads: a table with follow-up holds columns "
            f"that are known only afterwards. It has {', '.join(cases[0].other) or 'none'}."
        )
    check_telling(cases, clinical_columns(cases, requested))
    check_numbers(cases, clinical_columns(cases, requested) if requested else ())
    encoding = fit_encoding(cases, requested)
    if not encoding.columns:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in encoding.left_out)
        raise FitError(
            f"The table has no column the clinical model could read{f' ({reasons})' if reasons else ''}. Add "
            "one, such as age, or leave the model out."
        )
    return encoding


def check_telling(cases: Sequence[Case | Row], names: Sequence[str]) -> None:
    """Refuse columns that are made from the outcome, known only after it, or names of rows.

    Raises:
        CohortError: naming each with the reason.
    """
    telling = telling_columns(cases, names)
    if revealing := [column for column in telling if not column.numbers_rows]:
        listing = "; ".join(f"column {column}" for column in revealing)
        followed = has_follow_up(cases)
        raise CohortError(
            f"What reads these columns would know the outcome: {listing}. Set clinical to other columns."
            + " If one is known when a case is diagnosed, name it in known_at_diagnosis." * followed
        )
    if telling:
        listing = "; ".join(f"column {column}" for column in telling)
        raise CohortError(
            f"A row number or a name says nothing of a case: {listing}. Set clinical to other columns. If "
            "one of these is a measurement, call it by what it measures, and name it in known_at_diagnosis."
        )


def check_numbers(cases: Sequence[Case | Row], names: Sequence[str]) -> None:
    """Refuse columns that look like numbers and cannot be read as such, and words in two spellings.

    Each of these cells would become a category.

    Raises:
        CohortError: naming the column and its cells.
    """
    for name in names:
        if unclear := unclear_numbers([case.other[name] for case in cases]):
            reason, cells = unclear
            raise CohortError(
                f"Column {name} {reason}: {listed(list(dict.fromkeys(cells)))}. Write plain numbers, all in "
                "one unit, and leave a cell empty where none is known; or write words."
            )
        if pair := alike_words([case.other[name] for case in cases]):
            raise CohortError(
                f"Column {name} holds {pair[0]!r} and {pair[1]!r}, which {pair[2]}: each would "
                "be a category. Write them alike if they are the same, or make the difference plain."
            )


def revealing_columns(cases: Sequence[Case | Row], names: Sequence[str]) -> tuple[str, ...]:
    """Columns that say the label in other words, for nine cases of ten and by few values; or the time.

    What says no more than naming the largest class does is none of them, however large that is.
    """
    revealing = []
    labels = Counter(case.label for case in cases)
    for name in names:
        pairs = Counter((case.other[name], case.label) for case in cases)
        values = {value for value, _ in pairs}
        determined = sum(max(n for (v, _), n in pairs.items() if v == value) for value in values)
        few = len(values) <= 2 * len(labels) and determined >= REVEALED * len(cases)
        few = few and determined > max(labels.values())
        if few or _tells_time(cases, name):
            revealing.append(name)
    return tuple(revealing)


def describe_revealing(name: str, cases: Sequence[Case | Row]) -> str:
    """The remark on a column that says the outcome in other words.

    Args:
        name: of the column.
        cases: with their outcomes.
    """
    if has_follow_up(cases):
        return (
            f"Column {name} tells the time, or the event of nine cases in ten: it was probably filled in "
            "during the follow-up, after what is to be predicted. Set clinical to other columns."
        )
    return (
        f"Column {name} says the outcome in other words: whoever fills it in knows the outcome already. Set "
        "clinical to other columns."
    )


def _tells_time(cases: Sequence[Case | Row], name: str) -> bool:
    """Whether a column is the time of survival in nine of ten cases in which it is a number."""
    pairs = [(read_number(case.other[name]), case.time) for case in cases if case.time is not None]
    known = [value == time for value, time in pairs if math.isfinite(value)]
    return bool(known) and sum(known) >= REVEALED * len(known)


def _fit_column(name: str, values: Sequence[str]) -> Column | str:
    """How a column becomes numbers, or why it does not."""
    present = [value for value in without_missing(values) if value]
    distinct = sorted({*present})
    if not present or (len(distinct) == 1 and len(present) == len(values)):
        return "says the same of every case"
    if column := read_numbers(values):
        numbers = [value for value in column.values if math.isfinite(value)]
        middle, spread = float(np.median(numbers)), float(np.std(numbers)) or 1.0
        return Column(name=name, middle=middle, spread=spread, unit=column.unit)
    if unclear := unclear_numbers(values):
        return f"{unclear[0]}, as {listed(sorted({*unclear[1]}))}"
    if len(distinct) == len(present) > 2:
        return "says something else of every case"
    return Column(name=name, categories=tuple(distinct))
