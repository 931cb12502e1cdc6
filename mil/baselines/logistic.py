"""Multinomial logistic regression with an L2 penalty, for classes."""

from collections.abc import Sequence

import numpy as np

from mil.baselines.nested_cv import Floats, Ints, inner_folds
from mil.baselines.ridge import COSTS, USUAL_COST, LinearFit, span_of
from mil.heads.head import Training


def solve_logistic(rows: Floats, training: Training) -> LinearFit:
    """The fit on all training slides, rows (slides, E), by the cost that inner folds choose."""
    cost = choose_cost(rows, training)
    ((weight, bias),) = fit_logistic(rows, training.labels, training.weights, [cost])
    return LinearFit(weight, bias, cost)


def choose_cost(rows: Floats, training: Training) -> float:
    """The cost of the lowest log loss on the test cases of inner folds; the usual one without folds."""
    folds = inner_folds(training)
    if not folds:
        return USUAL_COST
    losses = np.zeros(len(COSTS))
    for train, test in folds:
        fits = fit_logistic(rows[train], training.labels[train], training.weights[train], COSTS)
        for i, (weight, bias) in enumerate(fits):
            logits = rows[test] @ weight.T + bias
            log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
            truth = np.take_along_axis(log_p, training.labels[test, None], axis=1)[:, 0]
            losses[i] -= training.weights[test] @ truth
    return COSTS[int(np.argmin(losses))]


def fit_logistic(
    rows: Floats, labels: Ints, weights: Floats, costs: Sequence[float]
) -> list[tuple[Floats, Floats]]:
    """(weight (C, E), bias (C,)) for each cost, on rows in their own units.

    Args:
        rows: (n, E).
        labels: (n,); every class is among them.
        weights: (n,).
        costs: what a row's loss counts against half the squared length of the weights.
    """
    from sklearn.linear_model import LogisticRegression

    span = span_of(rows, weights)
    fits = []
    for cost in costs:
        model = LogisticRegression(C=cost, tol=1e-6, max_iter=10_000)
        model.fit(span.rows, labels, sample_weight=weights)
        coefficients, bias = model.coef_, model.intercept_
        if len(bias) == 1:  # scikit-learn reports only the second of two classes
            coefficients = np.vstack([0 * coefficients, coefficients])
            bias = np.append(0.0, bias)
        weight = span.weight(coefficients)
        fits.append((weight, bias - weight @ span.centre))
    return fits
