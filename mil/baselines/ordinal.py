"""Proportional-odds regression with an L2 penalty, for ordered outcomes such as a grade.

P. McCullagh, Regression models for ordinal data, J R Stat Soc B 1980: logit P(level > k) = beta x - theta_k,
with one slope for all levels and thresholds that rise with the level. Its likelihood is concave in both
(J. Pratt, Concavity of the log likelihood, JASA 1981).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from mil.baselines.nested_cv import Floats, Ints, inner_folds
from mil.baselines.ridge import COSTS, USUAL_COST, LinearFit, span_of
from mil.errors import FitError
from mil.heads.head import Training

STEPS, HALVINGS = 200, 50
CONVERGED = 1e-10  # expected gain of a Newton step, in units of the loss
SLACK = 1e-12  # relative increase of the loss that rounding may cause


class _Curvature(NamedTuple):
    """The log likelihood of each row in its upper and lower threshold minus the slope's part.

    Attributes:
        value: (n,).
        upper, lower: (n,) first derivatives.
        upper2, lower2, mixed: (n,) second derivatives.
    """

    value: Floats
    upper: Floats
    lower: Floats
    upper2: Floats
    lower2: Floats
    mixed: Floats


def solve_ordinal(
    rows: Floats, training: Training, costs: Sequence[float] = COSTS, usual: float = USUAL_COST
) -> LinearFit:
    """The fit by the cost of the lowest log loss on the test cases of inner folds.

    Logits are those of P(level > 0), P(level > 1), ...: one fewer than levels, and they never rise.

    Args:
        rows: (slides, E) as the head describes them.
        training: with labels 0, 1, ..., each of which some slide has.
        costs: what the loss counts against half the squared length of the weights.
        usual: the cost where no inner folds can be made.
    """
    cost = usual
    if folds := inner_folds(training):
        losses = np.zeros(len(costs))
        for train, test in folds:
            for i, candidate in enumerate(costs):
                weight, bias = fit_ordinal(
                    rows[train], training.labels[train], training.weights[train], candidate
                )
                log_p = level_log_probabilities(rows[test] @ weight.T + bias)
                truth = np.take_along_axis(log_p, training.labels[test, None], axis=1)[:, 0]
                losses[i] -= training.weights[test] @ truth
        cost = costs[int(np.argmin(losses))]
    return LinearFit(*fit_ordinal(rows, training.labels, training.weights, cost), cost)


def fit_ordinal(rows: Floats, labels: Ints, weights: Floats, cost: float) -> tuple[Floats, Floats]:
    """(weight (K - 1, E), bias (K - 1,)) of logit P(level > k), on rows in their own units.

    Args:
        rows: (n, E).
        labels: (n,) levels 0 to K - 1, each of them present.
        weights: (n,).
        cost: what a row's loss counts against half the squared length of the weights; the thresholds are
            not penalised.

    Raises:
        FitError: a level is absent, or there is only one.
    """
    counts = np.bincount(labels, weights)
    if len(counts) < 2 or (counts == 0).any():
        raise FitError(
            f"Ordered outcomes need a training case of every level, and two levels; got the levels "
            f"{', '.join(map(str, np.unique(labels)))}. Use fewer folds, or join levels."
        )
    span = span_of(rows, weights)
    slope, thresholds = _maximise(span.rows, labels, weights, cost)
    weight = np.tile(span.weight(slope), (len(thresholds), 1))
    return weight, -thresholds - weight @ span.centre


def level_log_probabilities(logits: Floats) -> Floats:
    """(n, K) log P(level) from cumulative logits (n, K - 1) that do not rise along a row."""
    ends = np.full((len(logits), 1), np.inf)
    above = np.hstack([ends, logits, -ends])  # logit P(level > k - 1), k = 0 ... K
    with np.errstate(divide="ignore", over="ignore"):
        # expit(u) - expit(l) = expit(u) expit(-l) (1 - exp(l - u)), which does not cancel
        gaps = np.log(-np.expm1(above[:, 1:] - above[:, :-1]))
    log_p: Floats = -np.logaddexp(0, -above[:, :-1]) - np.logaddexp(0, above[:, 1:]) + gaps
    return log_p


def _maximise(rows: Floats, labels: Ints, weights: Floats, cost: float) -> tuple[Floats, Floats]:
    """Slope (R,) and thresholds (K - 1,) of the penalised likelihood, by Newton steps that are halved."""
    below = np.cumsum(np.bincount(labels, weights))[:-1] / weights.sum()
    parameters = np.concatenate([np.zeros(rows.shape[1]), np.log(below / (1 - below))])
    loss, gradient, hessian = _loss(parameters, rows, labels, weights, cost)
    for _step in range(STEPS):
        step = np.linalg.solve(hessian, -gradient)
        if -float(gradient @ step) < CONVERGED:
            break
        for _half in range(HALVINGS):
            proposed = _loss(parameters + step, rows, labels, weights, cost)
            if proposed[0] <= loss + SLACK * abs(loss):
                break
            step /= 2
        parameters = parameters + step
        loss, gradient, hessian = proposed
    return parameters[: rows.shape[1]], parameters[rows.shape[1] :]


def _loss(
    parameters: Floats, rows: Floats, labels: Ints, weights: Floats, cost: float
) -> tuple[float, Floats, Floats]:
    """The penalised negative log likelihood with gradient and Hessian; infinite where thresholds fall."""
    n, size = rows.shape
    slope, thresholds = parameters[:size], parameters[size:]
    n_thresholds = len(thresholds)
    if (np.diff(thresholds) <= 0).any():
        return np.inf, np.zeros(0), np.zeros((0, 0))
    padded = np.concatenate([[-np.inf], thresholds, [np.inf]])
    score = rows @ slope
    parts = _curvature(padded[labels + 1] - score, padded[labels] - score)
    # Both ends of a row's interval as linear functions of all parameters, (n, R + K - 1).
    upper, lower = np.zeros((2, n, size + n_thresholds))
    upper[:, :size] = lower[:, :size] = -rows
    last, first = labels == n_thresholds, labels == 0
    upper[np.flatnonzero(~last), size + labels[~last]] = 1
    lower[np.flatnonzero(~first), size + labels[~first] - 1] = 1
    gradient = -(weights * parts.upper) @ upper - (weights * parts.lower) @ lower
    cross = upper.T @ ((weights * parts.mixed)[:, None] * lower)
    hessian = -(
        upper.T @ ((weights * parts.upper2)[:, None] * upper)
        + lower.T @ ((weights * parts.lower2)[:, None] * lower)
        + cross
        + cross.T
    )
    gradient[:size] += slope / cost
    hessian[np.arange(size), np.arange(size)] += 1 / cost
    return float(-weights @ parts.value + slope @ slope / cost / 2), gradient, hessian


def _curvature(upper: Floats, lower: Floats) -> _Curvature:
    """log(expit(upper) - expit(lower)) and its derivatives; an end may be infinite."""
    gap = upper - lower
    with np.errstate(over="ignore", invalid="ignore"):
        ratio = np.where(np.isinf(gap), 0.0, 1 / np.expm1(gap))  # exp(l) / (exp(u) - exp(l))
    value = -np.logaddexp(0, -upper) - np.logaddexp(0, lower) + np.log(-np.expm1(-gap))
    bend = ratio * (1 + ratio)
    return _Curvature(
        value=value,
        upper=expit(-upper) + ratio,
        lower=-expit(lower) - ratio,
        upper2=-expit(upper) * expit(-upper) - bend,
        lower2=-expit(lower) * expit(-lower) - bend,
        mixed=bend,
    )
