"""Differences of two survival models over the same cases: in Harrell's C, and in integrated Brier score."""

import math
from collections.abc import Sequence
from itertools import product

import numpy as np

from mil.distributions import rankdata, student
from mil.evaluation.arrays import Bools, Floats
from mil.evaluation.paired_tests import Difference, permutation_tests
from mil.evaluation.survival.metrics import brier_errors
from mil.evaluation.survival.predictions import CaseRisks

LEVEL, POWER = 0.05, 0.8


def harrell_difference(
    first: Sequence[CaseRisks], second: Sequence[CaseRisks]
) -> Difference | None:
    """Difference in Harrell's C of two models over the same cases.

    The limits come from the influence of each case on the difference (infinitesimal jackknife, as L. Kang et
    al., Stat Med 2015, 34:685) and Student's t on events - 1 degrees of freedom. p comes from swapping the
    two models' ranks case by case. Risks are replaced by their ranks within model and repeat, because two
    models' risks need not have the same scale, and C reads only their order.

    Of 20 to 40 cases, 1,000 cohorts each, models of equal and of different quality, 1 and 3 repeats, 4 to 20
    events (benchmarks.survival_comparison): the limits hold the true difference in .934 to .991; without a
    difference p is at most .05 in .028 to .064.

    Returns:
        None where no two cases are comparable or there are fewer than two events; p_holm is p.
    """
    comparable = _comparable(first[0])
    if not comparable.any() or first[0].event.sum() < 2:
        return None
    values = [_mean_c(comparable, repeats) for repeats in (first, second)]
    value = values[0] - values[1]
    half = _standard_error(comparable, first, second) * _quantile(first[0], LEVEL / 2)
    p = permutation_tests(_swap_terms(comparable, first, second)[None])[0]
    return Difference(value, max(-1.0, value - half), min(1.0, value + half), p, p)


def ibs_difference(
    first: Sequence[CaseRisks], second: Sequence[CaseRisks], horizons: Floats
) -> Difference | None:
    """Difference in integrated Brier score of two models over the same cases; p_holm is p.

    Predicted survival is a probability in both models, so that the curves themselves are swapped. The
    weights for censoring are taken as known. None for a single case.
    """
    terms = _ibs_cases(first, horizons) - _ibs_cases(second, horizons)
    n, value = len(terms), float(terms.mean())
    if n < 2:
        return None
    half = float(student.isf(LEVEL / 2, n - 1) * terms.std(ddof=1) / math.sqrt(n))
    p = permutation_tests(terms[None])[0]
    return Difference(value, value - half, value + half, p, p)


def detectable_difference(first: Sequence[CaseRisks], second: Sequence[CaseRisks]) -> float | None:
    """True difference in C that a test at .05 finds in about 80 % of studies like this one.

    It depends on the standard error of the difference alone, not on the difference found. None where that
    error is 0 or cannot be estimated.
    """
    comparable = _comparable(first[0])
    if not comparable.any() or first[0].event.sum() < 2:
        return None
    error = _standard_error(comparable, first, second)
    both = _quantile(first[0], LEVEL / 2) + _quantile(first[0], 1 - POWER)
    return both * error if error > 0 else None


def _comparable(risks: CaseRisks) -> Bools:
    """(n, n) whether i's event came before j left; among equal times events come first."""
    time, event = risks.time, risks.event
    earlier = (time[:, None] < time) | ((time[:, None] == time) & ~event)
    comparable: Bools = event[:, None] & earlier
    return comparable


def _wins(first: Floats, second: Floats) -> Floats:
    """(n, n) 1 where i of the first is higher than j of the second, a half where they tie."""
    higher: Floats = (first[:, None] > second) + 0.5 * (first[:, None] == second)
    return higher


def _mean_c(comparable: Bools, repeats: Sequence[CaseRisks]) -> float:
    values = [_wins(one.risk, one.risk)[comparable].mean() for one in repeats]
    return float(np.mean(values))


def _influence(comparable: Bools, repeats: Sequence[CaseRisks]) -> Floats:
    """(n,) what each case adds to C beyond its mean, averaged over repeats."""
    terms = []
    for one in repeats:
        wins = _wins(one.risk, one.risk)
        away = comparable * (wins - wins[comparable].mean())
        terms.append((away.sum(axis=0) + away.sum(axis=1)) / comparable.sum())
    return np.asarray(np.mean(terms, axis=0))


def _standard_error(
    comparable: Bools, first: Sequence[CaseRisks], second: Sequence[CaseRisks]
) -> float:
    influence = _influence(comparable, first) - _influence(comparable, second)
    influence = np.where(np.abs(influence) < 1e-12, 0.0, influence)  # equal ranks, other rounding
    n = len(influence)
    return float(np.sqrt((influence**2).sum() * n / (n - 1)))


def _quantile(risks: CaseRisks, tail: float) -> float:
    return float(student.isf(tail, int(risks.event.sum()) - 1))


def _swap_terms(
    comparable: Bools, first: Sequence[CaseRisks], second: Sequence[CaseRisks]
) -> Floats:
    """(n,) terms whose sum is the difference in C; swapping the ranks of a case changes its term's sign.

    With s_i = 1 where case i keeps its models and -1 where they are swapped, the difference in wins of a
    pair is D (s_i + s_j) / 2 + E (s_i - s_j) / 2. D is first against first minus second against second, E
    first against second minus second against first. This is linear in s, so that no swap needs a new C.
    With several repeats the terms are means over them: repeat by repeat where both models have equally
    many, which share their folds, else over all pairs of repeats.
    """
    ranks = [[rankdata(one.risk) for one in repeats] for repeats in (first, second)]
    alike = len(first) == len(second)
    terms = []
    for a, b in zip(*ranks, strict=True) if alike else product(*ranks):
        within = comparable * (_wins(a, a) - _wins(b, b))
        across = comparable * (_wins(a, b) - _wins(b, a))
        both = within.sum(axis=0) + within.sum(axis=1)
        terms.append((both + across.sum(axis=1) - across.sum(axis=0)) / 2)
    return np.asarray(np.mean(terms, axis=0) / comparable.sum())


def _ibs_cases(repeats: Sequence[CaseRisks], horizons: Floats) -> Floats:
    """(n,) what each case contributes to the integrated Brier score, averaged over repeats."""
    span = horizons[-1] - horizons[0]
    errors = [
        np.trapezoid(brier_errors(one.time, one.event, one.survival, horizons), horizons, axis=1)
        for one in repeats
    ]
    return np.asarray(np.mean(errors, axis=0) / span)
