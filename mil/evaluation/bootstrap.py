"""Intervals by drawing whole cases anew within each class; a case takes its slides and repeats along.

A statistic here is a function of weights (B, n), how often each case counts, to B numbers, so that
all resamples are one matrix product. What no case shows cannot be drawn: where all resamples agree
there is no interval.
"""

import numpy as np
from scipy.stats import norm

from mil.evaluation.arrays import Floats, Ints
from mil.evaluation.intervals import Interval


def case_weights(truth: Ints, resamples: int, seed: int) -> Floats:
    """How often each case is drawn; classes keep their numbers of cases.

    Args:
        truth: (n,) class indices.
        resamples: B.
        seed: of the draws.

    Returns:
        (B, n) counts.
    """
    rng = np.random.default_rng(seed)
    weights = np.zeros((resamples, len(truth)))
    for name in np.unique(truth):
        own = np.flatnonzero(truth == name)
        weights[:, own] = rng.multinomial(len(own), np.full(len(own), 1 / len(own)), resamples)
    return weights


def leave_one_out(n: int) -> Floats:
    """(n, n) weights that leave out each case in turn."""
    return 1 - np.eye(n)


def percentile(replicates: Floats, confidence: float = 0.95) -> Interval | None:
    """The middle share of the resamples; None where they all agree or one is undefined."""
    if not np.ptp(replicates) > 0:  # also nan
        return None
    low, high = np.quantile(replicates, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high), "case bootstrap, percentile")


def bca(
    value: float, replicates: Floats, left_out: Floats, truth: Ints, confidence: float = 0.95
) -> Interval | None:
    """Bias-corrected and accelerated interval of stratified samples (Efron 1987; Davison & Hinkley 5.4).

    Args:
        value: the statistic of all cases.
        replicates: (B,) of the resamples.
        left_out: (n,) of all cases but one; not read for a class with one case.
        truth: (n,) class indices.
        confidence: in (0, 1).

    Returns:
        The interval; that of percentiles where value lies outside all resamples, None as there.
    """
    found = percentile(replicates, confidence)
    below = (np.mean(replicates < value) + np.mean(replicates <= value)) / 2
    if found is None or not 0 < below < 1:
        return found
    cubes = squares = 0.0
    for name in np.unique(truth):
        own = left_out[truth == name]
        if len(own) > 1:
            influence = (len(own) - 1) * (own.mean() - own) / len(own)
            cubes, squares = cubes + np.sum(influence**3), squares + np.sum(influence**2)
    acceleration = cubes / (6 * squares**1.5) if squares > 0 else 0.0
    bias = norm.ppf(below)
    z = bias + norm.ppf([(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = np.quantile(replicates, norm.cdf(bias + z / (1 - acceleration * z)))
    return Interval(float(low), float(high), "case bootstrap, BCa")
