"""Stratified bootstrap intervals: cases are resampled within each class, with all their slides and repeats.

A statistic is a function from weights (B, n), how often each case counts, to B numbers, so that all
resamples are one matrix product. Where all resamples agree there is no interval: errors that no case
shows cannot be drawn.
"""

import numpy as np
from scipy.stats import norm

from mil.evaluation.arrays import Floats, Ints
from mil.evaluation.intervals import Interval


def case_weights(truth: Ints, resamples: int, seed: int) -> Floats:
    """How often each case is drawn; the number of cases per class is fixed.

    Args:
        truth: (n,) class indices.
        resamples: number of resamples, B.
        seed: seed of the draws.

    Returns:
        (B, n) counts.
    """
    rng = np.random.default_rng(seed)
    weights = np.zeros((resamples, len(truth)))
    for name in np.unique(truth):
        members = np.flatnonzero(truth == name)
        weights[:, members] = rng.multinomial(
            len(members), np.full(len(members), 1 / len(members)), resamples
        )
    return weights


def leave_one_out(n: int) -> Floats:
    """Weights (n, n) that leave out one case per row."""
    return 1 - np.eye(n)


def percentile(replicates: Floats, confidence: float = 0.95) -> Interval | None:
    """Percentile interval of the resamples; None where they all agree or one is undefined."""
    if not np.ptp(replicates) > 0:  # also nan
        return None
    low, high = np.quantile(replicates, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high), "case bootstrap, percentile")


def bca(
    value: float, replicates: Floats, left_out: Floats, truth: Ints, confidence: float = 0.95
) -> Interval | None:
    """Bias-corrected and accelerated interval of stratified samples (Efron 1987; Davison & Hinkley 5.4).

    Args:
        value: the statistic on all cases.
        replicates: (B,) the statistic on each resample.
        left_out: (n,) the statistic without each case; ignored for a class with one case.
        truth: (n,) class indices.
        confidence: in (0, 1).

    Returns:
        The interval; the percentile interval where ``value`` lies outside all resamples; None as in
        ``percentile``.
    """
    simple = percentile(replicates, confidence)
    below = (np.mean(replicates < value) + np.mean(replicates <= value)) / 2
    if simple is None or not 0 < below < 1:
        return simple
    cubes = squares = 0.0
    for group in np.unique(truth):
        class_values = left_out[truth == group]
        if len(class_values) > 1:
            influence = (
                (len(class_values) - 1) * (class_values.mean() - class_values) / len(class_values)
            )
            cubes, squares = cubes + np.sum(influence**3), squares + np.sum(influence**2)
    acceleration = cubes / (6 * squares**1.5) if squares > 0 else 0.0
    bias = norm.ppf(below)
    z = bias + norm.ppf([(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = np.quantile(replicates, norm.cdf(bias + z / (1 - acceleration * z)))
    return Interval(float(low), float(high), "case bootstrap, BCa")
