"""From columns of text to the rows of a regression whose coefficients a reader can use."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mil.baselines.encoding import MISSING
from mil.data.cohort import number
from mil.evaluation.arrays import Floats

Table = Mapping[str, Sequence[str]]  # column to the values of n cases


@dataclass(frozen=True, kw_only=True)
class Term:
    """One number of a row.

    Attributes:
        column: of the table.
        level: the word that it is 1 for; empty for a column of numbers, which keeps its unit.
        reference: the most frequent word, for which all terms of the column are 0.
        middle: the median of numbers, in place of a missing one.
    """

    column: str
    level: str = ""
    reference: str = ""
    middle: float = 0.0

    @property
    def name(self) -> str:
        """To be shown: ``age``, or ``sex: female`` where the others are the reference."""
        return f"{self.column}: {self.level}" if self.level else self.column

    def of(self, value: str) -> float:
        """The number of a field."""
        if self.level:
            return float(value == self.level)
        held = number(value)
        return held if math.isfinite(held) else self.middle


@dataclass(frozen=True)
class Design:
    """How columns become rows; fitted on the cases that a regression is fitted on."""

    terms: tuple[Term, ...]

    def rows(self, table: Table) -> Floats:
        """(n, K) of n cases."""
        n_cases = len(next(iter(table.values())))
        columns = [[term.of(value) for value in table[term.column]] for term in self.terms]
        return np.array(columns, dtype=np.float64).reshape(len(columns), n_cases).T


def fit_design(table: Table) -> Design:
    """The terms of all columns; one that says the same of every case, or another word of each, has none."""
    terms: list[Term] = []
    for column, values in table.items():
        held = [value for value in values if value.casefold() not in MISSING]
        numbers = [number(value) for value in held]
        if all(map(math.isfinite, numbers)):
            if len(set(numbers)) > 1:
                terms.append(Term(column=column, middle=float(np.median(numbers))))
            continue
        counts = Counter(sorted(held))
        if len(counts) == len(held) > 2:
            continue
        [(reference, _), *others] = counts.most_common()
        terms += [Term(column=column, level=word, reference=reference) for word, _ in others]
    return Design(tuple(terms))
