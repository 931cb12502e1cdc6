"""Metrics of ordered grades, and nothing about their uncertainty.

Everywhere: grades are indices 0 to K - 1 in their order, truth and grade are (n,) indices, p is (n, K)
probabilities, and counts is (..., K, K) cases, rows the true grade, columns the predicted one.
"""

import numpy as np

from mil.evaluation.arrays import Floats, Ints

_TINY = 1e-300  # divides 0 by what would be 0
HALF = 0.5 - 1e-9  # means of probabilities that add up to exactly a half differ in the last bits


def median_grade(p: Floats) -> Ints:
    """(n,) predicted grade: the median of the predicted distribution, the lower of two medians.

    No other grade has a smaller expected absolute error under p. The most probable grade would minimise the
    expected number of misses instead, however far they are off.
    """
    grade: Ints = np.argmax(np.cumsum(p, axis=1) >= HALF * p.sum(axis=1, keepdims=True), axis=1)
    return grade


def expected_grade(p: Floats) -> Floats:
    """(n,) mean of the predicted distribution, in grades from 0."""
    mean: Floats = p @ np.arange(p.shape[1]) / p.sum(axis=1)
    return mean


def ranked_confusion(truth: Ints, grade: Ints, n_grades: int) -> Floats:
    """(K, K) cases; rows are the true grade, columns the predicted one, both in their order."""
    counts = np.zeros((n_grades, n_grades))
    np.add.at(counts, (truth, grade), 1)
    return counts


def distances(n_grades: int) -> Floats:
    """(K, K) how many grades apart."""
    steps = np.arange(n_grades, dtype=np.float64)
    return np.abs(steps[:, None] - steps)


def quadratic_kappa(counts: Floats) -> Floats:
    """(...,) weighted kappa with squared distances (J. Cohen, Psychol Bull 1968, 70:213)."""
    return _weighted_kappa(counts, distances(counts.shape[-1]) ** 2)


def linear_kappa(counts: Floats) -> Floats:
    """(...,) weighted kappa with distances."""
    return _weighted_kappa(counts, distances(counts.shape[-1]))


def mean_absolute_error(counts: Floats) -> Floats:
    """(...,) mean distance of the predicted from the true grade, in grades."""
    return np.asarray(
        (counts * distances(counts.shape[-1])).sum(axis=(-2, -1)) / counts.sum(axis=(-2, -1))
    )


def mean_error(counts: Floats) -> Floats:
    """(...,) mean of predicted minus true grade; above 0 where the model grades too high."""
    steps = np.arange(counts.shape[-1], dtype=np.float64)
    return np.asarray(
        (counts * (steps - steps[:, None])).sum(axis=(-2, -1)) / counts.sum(axis=(-2, -1))
    )


def exact_accuracy(counts: Floats) -> Floats:
    """(...,) share of cases whose grade is predicted exactly."""
    return within(counts, 0)


def within_one(counts: Floats) -> Floats:
    """(...,) share of cases whose grade is missed by one at most."""
    return within(counts, 1)


def within(counts: Floats, steps: int) -> Floats:
    """(...,) share of cases whose grade is missed by ``steps`` at most."""
    near = distances(counts.shape[-1]) <= steps
    return np.asarray((counts * near).sum(axis=(-2, -1)) / counts.sum(axis=(-2, -1)))


def somers_d(truth: Ints, score: Floats) -> float | None:
    """Somers' D of a score given the true grade: excess of concordant over discordant pairs of cases.

    Pairs of different true grade count; a tie of the score is neither. For two grades it is 2 AUC - 1. None
    where all cases have one grade. (R. Somers, Am Sociol Rev 1962, 27:799.)

    Args:
        truth: (n,) true grades.
        score: (n,) larger for a higher grade, as the expected grade is.
    """
    order = np.sign(truth[:, None] - truth)
    pairs = float(np.abs(order).sum())
    if not pairs:
        return None
    return float((order * np.sign(score[:, None] - score)).sum() / pairs)


def _weighted_kappa(counts: Floats, weights: Floats) -> Floats:
    """1 - observed / expected disagreement; 0 where truth and predictions are one and the same grade."""
    rows, columns = counts.sum(axis=-1), counts.sum(axis=-2)
    observed = (counts * weights).sum(axis=(-2, -1))
    expected = np.einsum("...i,ij,...j->...", rows, weights, columns) / rows.sum(axis=-1)
    return np.asarray(np.where(expected > 0, 1 - observed / np.maximum(expected, _TINY), 0.0))
