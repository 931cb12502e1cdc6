"""Nomograms: points for each column, and the probability of their sum.

The column with the largest range of effects on the linear predictor spans 100 points; the others are scaled
alike (F. Harrell, Regression Modeling
Strategies, 2nd ed., 2015, section 5.4).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from features.files.tables import write_table
from mil.errors import FitError
from mil.evaluation.arrays import Floats
from mil.evaluation.regression.design import Table, Term
from mil.evaluation.regression.models import Regression

MOST = 100.0  # points of the column with the largest range
SHARES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
N_MARKS = 6


@dataclass(frozen=True)
class PointScale:
    """The points of one column.

    Attributes:
        column: its name.
        marks: pairs of value and points; numeric columns have round values between the extremes.
    """

    column: str
    marks: tuple[tuple[str, float], ...]


@dataclass(frozen=True, eq=False)
class Nomogram:
    """Scales of points, and the probability of a total.

    Attributes:
        scales: one per column.
        regression: the regression it was made from.
        unit: linear predictor per point.
        origin: linear predictor at 0 points.
        horizon: in Cox regression, the time before which an event counts.
        n_cases: number of cases that the regression was fitted on.
    """

    scales: tuple[PointScale, ...]
    regression: Regression
    unit: float
    origin: float
    horizon: float | None
    n_cases: int

    @property
    def most(self) -> float:
        """The largest total of points."""
        return sum(max(points for _, points in scale.marks) for scale in self.scales)

    def points(self, case: Mapping[str, str]) -> float:
        """The total of points of a case."""
        linear = self.regression.linear({name: [value] for name, value in case.items()})
        return float((linear[0] - self.origin) / self.unit)

    def probability(self, total: Floats) -> Floats:
        """Probabilities (n,) of totals (n,)."""
        return self.regression.probability(self.origin + self.unit * total, self.horizon)

    def readings(self) -> tuple[tuple[float, float], ...]:
        """Pairs of total and probability, at the round probabilities that the scales can reach."""
        totals = np.linspace(0, self.most, 2001)
        reached = self.probability(totals)
        inside = [share for share in SHARES if reached[0] <= share <= reached[-1]]
        return tuple((float(np.interp(share, reached, totals)), share) for share in inside)


def make_nomogram(regression: Regression, table: Table, horizon: float | None = None) -> Nomogram:
    """Make the scales of a regression over the values of the cases it was fitted on.

    Args:
        regression: a regression on at least one column that varies.
        table: values of n cases by column.
        horizon: in Cox regression, the time before which an event counts.

    Raises:
        FitError: no term has an effect, or the horizon does not suit the kind of regression.
    """
    if (regression.baseline is None) != (horizon is None):
        raise FitError(
            "A Cox regression needs a horizon, and a logistic one has none. Set horizon for survival only."
        )
    of_column: dict[str, list[tuple[Term, float]]] = {}
    for term, coefficient in zip(regression.design.terms, regression.coefficients, strict=True):
        of_column.setdefault(term.column, []).append((term, float(coefficient)))
    effects = {name: _effects(terms, table[name]) for name, terms in of_column.items()}
    spans = [max(e.values()) - min(e.values()) for e in effects.values()]
    if not spans or max(spans) == 0:
        raise FitError("No column has an effect. Choose columns that vary with the outcome.")
    unit = max(spans) / MOST
    scales = tuple(
        PointScale(
            name, tuple((value, (e - min(effect.values())) / unit) for value, e in effect.items())
        )
        for name, effect in effects.items()
    )
    origin = regression.intercept + sum(min(effect.values()) for effect in effects.values())
    n_cases = len(next(iter(table.values())))
    return Nomogram(scales, regression, unit, origin, horizon, n_cases)


def write_nomogram(path: Path, nomogram: Nomogram) -> None:
    """Write the points of each value and the probability of each total as CSV."""
    rows = [
        [scale.column, value, f"{points:.1f}"]
        for scale in nomogram.scales
        for value, points in scale.marks
    ]
    rows += [
        ["(probability)", f"{share:g}", f"{total:.1f}"] for total, share in nomogram.readings()
    ]
    write_table(path, ["column", "value", "points"], rows)


def _effects(terms: list[tuple[Term, float]], values: Sequence[str]) -> dict[str, float]:
    """Effect on the linear predictor by value to be marked."""
    first, coefficient = terms[0]
    if first.level:
        return {first.reference: 0.0} | {term.level: c for term, c in terms}
    numbers = [first.encode(value) for value in values]
    return {f"{mark:g}": coefficient * mark for mark in round_marks(min(numbers), max(numbers))}


def round_marks(low: float, high: float) -> list[float]:
    """About six round numbers that span both ends."""
    step = 10 ** math.floor(math.log10((high - low) / N_MARKS))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (m * step) <= N_MARKS)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [float(f"{k * step:.10g}") for k in range(first, last + 1)]
