"""Table 1: who the cases are, class by class, and how far the classes differ before any model is fitted."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from features.summary import listed
from mil.data.values import Numbers, read_numbers, without_missing
from mil.evaluation.arrays import Floats
from mil.evaluation.rank_tests import kruskal_wallis, mann_whitney

RESAMPLES = 9999
MOST_LEVELS = 12  # of a column in words; more are names rather than groups


@dataclass(frozen=True)
class Variable:
    """One column of the cohort table.

    Attributes:
        name: the column.
        unit: content of the cells, as ``median (quartiles)`` or ``cases (%)``.
        levels: (name of the level or empty, one text for all cases and one per class).
        missing: cases without a value.
        p: of a test that the classes do not differ; None where it is undefined.
        test: its name.
        smd: the largest standardised mean difference between two classes; None where undefined.
    """

    name: str
    unit: str
    levels: tuple[tuple[str, tuple[str, ...]], ...]
    missing: int
    p: float | None
    test: str
    smd: float | None


def table_one(cohort: pd.DataFrame, classes: Sequence[str]) -> tuple[Variable, ...]:
    """Describe every column but case and label, over all cases and by class.

    Numbers: median and quartiles, Mann-Whitney for two classes and Kruskal-Wallis for more, standardised
    difference of means (Austin 2009, doi:10.1002/sim.3697). Words: cases and share, Fisher's exact test
    (for larger tables by drawing), the multinomial standardised difference (Yang & Dalton 2012, SAS Global
    Forum 335). Two numbers, as 0 and 1, are words.
    Columns with one value, or another word for each case, are left out.

    Args:
        cohort: one row per case, with ``case`` and ``label``.
        classes: their order.
    """
    label = cohort["label"].astype(str).to_numpy()
    groups = [label == name for name in classes]
    variables = []
    for name in cohort.columns.drop(["case", "label"]):
        cells = without_missing(list(cohort[name].astype(str)))
        column = pd.Series(cells, dtype=object).replace("", None)
        known = column.notna().to_numpy()
        numbers = read_numbers(cells)
        if column.nunique() < 2:
            continue
        if numbers and column.nunique() > 2:
            values = np.array(numbers.values, dtype=np.float64)
            remark = _describe_inexact(cells, numbers)
            variables.append(_describe_numbers(str(name), values, groups, remark))
        elif column.nunique() <= min(MOST_LEVELS, known.sum() - 1):
            variables.append(
                _describe_categories(str(name), column.astype(object).to_numpy(), known, groups)
            )
    return tuple(variables)


def _describe_inexact(cells: Sequence[str], numbers: Numbers) -> str:
    """Which cells of a column of numbers are none, and which are limits."""
    odd, limits = ({cells[i]: None for i in places} for places in (numbers.odd, numbers.limits))
    return f"; no numbers: {listed([*odd])}" * bool(
        odd
    ) + f"; at the limit: {listed([*limits])}" * bool(limits)


def _describe_numbers(
    name: str, values: Floats, groups: Sequence[np.ndarray], remark: str = ""
) -> Variable:
    known = np.isfinite(values)
    parts = [values[group & known] for group in groups]
    filled = [part for part in parts if len(part)]
    p, test = None, "none"
    if len(filled) == 2:
        p, test = mann_whitney(filled[0], filled[1]), "Mann-Whitney"
    elif len(filled) > 2:
        p, test = kruskal_wallis(filled), "Kruskal-Wallis"
    texts = tuple(_quartiles(part) for part in (values[known], *parts))
    return Variable(
        name=name,
        unit=f"median (quartiles){remark}",
        levels=(("", texts),),
        missing=int((~known).sum()),
        p=p,
        test=test,
        smd=_largest([_smd_numbers(a, b) for a, b in _pairs(parts)]),
    )


def _describe_categories(
    name: str, values: np.ndarray, known: np.ndarray, groups: Sequence[np.ndarray]
) -> Variable:
    levels = sorted({str(value) for value in values[known]})
    counts = np.array(
        [[int(np.sum(group & known & (values == level))) for group in groups] for level in levels]
    )  # (levels, classes)
    filled = counts[:, counts.sum(axis=0) > 0]
    p, test = None, "none"
    if filled.shape[1] > 1:
        p, test = _fisher(filled)
    sums = np.concatenate([[counts.sum()], counts.sum(axis=0)])
    rows = [
        (level, tuple(_share(int(k), int(n)) for k, n in zip((row.sum(), *row), sums, strict=True)))
        for level, row in zip(levels, counts, strict=True)
    ]
    return Variable(
        name=name,
        unit="cases (%)",
        levels=tuple(rows),
        missing=int((~known).sum()),
        p=p,
        test=test,
        smd=_largest([_smd_words(a, b) for a, b in _pairs(list(counts.T))]),
    )


def _fisher(counts: np.ndarray) -> tuple[float, str]:
    from scipy import stats  # takes half a second to load, which tables of numbers save

    if counts.shape == (2, 2):
        return float(stats.fisher_exact(counts).pvalue), "Fisher exact"
    drawn = stats.MonteCarloMethod(n_resamples=RESAMPLES, rng=np.random.default_rng(0))
    return float(stats.fisher_exact(counts, method=drawn).pvalue), "Fisher, drawn"


def _smd_numbers(first: Floats, second: Floats) -> float | None:
    if min(len(first), len(second)) < 2:
        return None
    spread = np.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 2)
    return float(abs(first.mean() - second.mean()) / spread) if spread > 0 else None


def _smd_words(first: np.ndarray, second: np.ndarray) -> float | None:
    """The Mahalanobis distance of two vectors of shares, their covariances averaged."""
    if not (first.sum() and second.sum()):
        return None
    p, q = first[1:] / first.sum(), second[1:] / second.sum()
    covariance = (np.diag(p) - np.outer(p, p) + np.diag(q) - np.outer(q, q)) / 2
    if np.linalg.matrix_rank(covariance) < len(p):
        return None  # a level that one class has alone, or none has
    return float(np.sqrt((p - q) @ np.linalg.solve(covariance, p - q)))


def _pairs(parts: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(a, b) for i, a in enumerate(parts) for b in parts[i + 1 :]]


def _largest(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _quartiles(values: Floats) -> str:
    if not len(values):
        return "\N{EN DASH}"
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:.4g} ({low:.4g} to {high:.4g})"


def _share(count: int, total: int) -> str:
    return f"{count} ({100 * count / total:.0f})" if total else "\N{EN DASH}"
