"""Paired tests, and the adjustment of their p values. They know numbers, not models."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from mil.distributions import binomial_tail, chi2, student
from mil.evaluation.arrays import Bools, Floats
from mil.evaluation.display import UNDEFINED, format_p

EXACT_UP_TO = 12  # cases; up to here all 4,096 sign changes are tried, beyond it 9,999 are drawn
DRAWS, SEED = 9999, 0


@dataclass(frozen=True)
class Difference:
    """First minus second with 95 % limits, the p value, and p adjusted over all pairs."""

    value: float
    low: float
    high: float
    p: float
    p_holm: float


@dataclass(frozen=True)
class Cochran:
    """Cochran's Q test that several models are right equally often."""

    models: int
    q: float
    p: float


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided p value of the exact McNemar test from the two discordant counts."""
    fewer, more = sorted((only_first, only_second))
    # P(X <= fewer) is P(X > more - 1), since both outcomes are as likely.
    return min(1.0, 2 * binomial_tail(more - 1, fewer + more, 0.5))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979, Scand J Stat 6:65), in the order of the input."""
    adjusted, running = [1.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda index: p[index])):
        running = max(running, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = running
    return adjusted


def permutation_tests(differences: Floats) -> list[float]:
    """Two-sided p values of mean differences by sign flips.

    Swapping two models' predictions of a case flips the sign of its difference. All flips are tried for
    few cases; otherwise 9,999 are drawn, and the observed one is counted among them
    (Phipson & Smyth 2010, doi:10.2202/1544-6115.1585).

    Args:
        differences: (pairs, n) difference in the score of each case.
    """
    n = differences.shape[1]
    if n <= EXACT_UP_TO:
        signs = np.array(list(product((1.0, -1.0), repeat=n)))
        extra = 0
    else:
        signs = np.random.default_rng(SEED).choice((1.0, -1.0), size=(DRAWS, n))
        extra = 1
    observed = np.abs(differences.sum(axis=1))
    drawn = np.abs(signs @ differences.T)
    # Equal sums may differ in the last bits by the order of addition.
    reaching = (drawn >= observed - 1e-9 * np.abs(differences).sum(axis=1)).sum(axis=0)
    return [float(p) for p in (reaching + extra) / (len(signs) + extra)]


def corrected_t(differences: Floats, test_to_train: float) -> float | None:
    """Two-sided p value of Nadeau and Bengio's corrected resampled t test.

    Args:
        differences: (J,) difference in accuracy of each fold.
        test_to_train: ratio of test cases to training cases of a fold.

    Returns:
        The p value; None where all folds differ by the same amount, so that the t statistic is infinite.
    """
    mean, variance, folds = differences.mean(), differences.var(ddof=1), len(differences)
    if not variance > 1e-24:
        return 1.0 if abs(mean) < 1e-12 else None
    t = mean / math.sqrt(variance * (1 / folds + test_to_train))
    return float(2 * student.sf(abs(t), folds - 1))


def cochran_q(right: Bools) -> Cochran:
    """Cochran 1950 (doi:10.1093/biomet/37.3-4.256); for two models McNemar without correction.

    Args:
        right: (n, k) whether each of k models is right on each case.
    """
    k = right.shape[1]
    of_model, of_case = right.sum(axis=0), right.sum(axis=1)
    apart = float((of_case * (k - of_case)).sum())
    q = (k - 1) * k * float(((of_model - of_model.mean()) ** 2).sum()) / apart if apart else 0.0
    return Cochran(k, q, float(chi2.sf(q, k - 1)))


def format_difference(difference: Difference | None, digits: int = 2) -> tuple[str, str]:
    """A difference with its limits, and its adjusted p, as text."""
    if difference is None:
        return UNDEFINED, ""
    value, low, high = (
        f"{number:+.{digits}f}" for number in (difference.value, difference.low, difference.high)
    )
    return f"{value} ({low} to {high})", format_p(difference.p_holm)


def flatten(fields: Mapping[str, object]) -> dict[str, object]:
    """The fields of a pair in one level: ``auc.value`` becomes ``auc_value``."""
    flat: dict[str, object] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            flat |= {f"{name}_{inner}": part for inner, part in value.items()}
        else:
            flat[name] = value
    return flat
