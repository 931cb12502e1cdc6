"""Design matrices: from columns of text to the rows of a regression."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mil.data.values import number_in, read_numbers, without_missing
from mil.evaluation.arrays import Floats

Table = Mapping[str, Sequence[str]]  # values of n cases by column


@dataclass(frozen=True, kw_only=True)
class Term:
    """One column of the design matrix.

    Attributes:
        column: name of the column in the table.
        level: category that it is 1 for; empty for a numeric column, which keeps its unit.
        reference: most frequent category, for which all terms of the column are 0.
        middle: median of a numeric column, which replaces missing values.
        unit: of a numeric column whose cells have one.
    """

    column: str
    level: str = ""
    reference: str = ""
    middle: float = 0.0
    unit: str = ""

    @property
    def name(self) -> str:
        """Name for people: ``age``, or ``sex: female`` for a category."""
        return f"{self.column}: {self.level}" if self.level else self.column

    def encode(self, value: str) -> float:
        """The number that stands for a field of the table."""
        if self.level:
            return float(value == self.level)
        numeric = number_in(value, self.unit)
        return numeric if math.isfinite(numeric) else self.middle


@dataclass(frozen=True)
class Design:
    """Encoding of columns as rows, fitted on the cases that a regression is fitted on."""

    terms: tuple[Term, ...]

    def rows(self, table: Table) -> Floats:
        """Design matrix (n, K) of n cases."""
        n_cases = len(next(iter(table.values())))
        columns = [[term.encode(value) for value in table[term.column]] for term in self.terms]
        return np.array(columns, dtype=np.float64).reshape(len(columns), n_cases).T


def fit_design(table: Table) -> Design:
    """Fit the terms of all columns; constant columns and those that are unique to each case have none."""
    terms: list[Term] = []
    for column, values in table.items():
        filled = [value for value in without_missing(values) if value]
        if numbers := read_numbers(values):
            finite = [value for value in numbers.values if math.isfinite(value)]
            if len(set(finite)) > 1:
                middle = float(np.median(finite))
                terms.append(Term(column=column, middle=middle, unit=numbers.unit))
            continue
        if not filled:
            continue
        counts = Counter(sorted(filled))
        if len(counts) == len(filled) > 2:
            continue
        [(reference, _), *others] = counts.most_common()
        terms += [Term(column=column, level=word, reference=reference) for word, _ in others]
    return Design(tuple(terms))
