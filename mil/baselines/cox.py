"""Ridge-penalised Cox regression on one row per case, for the heads that are solved."""

import numpy as np

from mil.baselines.nested_cv import Floats, inner_folds, standard_of
from mil.data.outcomes import Outcomes
from mil.evaluation.regression.cox import fit_cox, partial_likelihood
from mil.heads.head import Training


def solve_cox(
    rows: Floats, training: Training, costs: tuple[float, ...], usual: float
) -> tuple[Floats, float]:
    """(weight (1, E), cost): the cost of the highest cross-validated partial likelihood.

    P. Verweij, H. van Houwelingen, Cross-validation in survival analysis, Stat Med 1993: a fit on part of
    the cases is judged by what the others add to the likelihood of all.

    Args:
        rows: (slides, E) as the head describes them; a case's row is the mean of its slides'.
        training: with times.
        costs: to choose from; what the likelihood counts against half the squared length of the weights.
        usual: the cost where no inner folds can be made.
    """
    assert training.time is not None
    _, first, case = np.unique(training.cases, return_index=True, return_inverse=True)
    of_case = np.zeros((len(first), rows.shape[1]))
    np.add.at(of_case, case, rows)
    of_case /= np.bincount(case)[:, None]
    outcomes = Outcomes(training.time[first], training.labels[first] > 0)
    cost = usual
    if folds := inner_folds(training):
        kept = [np.unique(case[fold.train]) for fold in folds]
        gains = [_gain(of_case, outcomes, kept, each) for each in costs]
        cost = costs[int(np.argmax(gains))]
    return _weight(of_case, outcomes, cost)[None], cost


def _gain(
    rows: Floats,
    outcomes: Outcomes,
    kept: list[np.ndarray[tuple[int], np.dtype[np.int64]]],
    cost: float,
) -> float:
    """Sum over folds of the likelihood of all cases less that of those the fold has trained on."""
    gain = 0.0
    for train in kept:
        risk = rows @ _weight(rows[train], outcomes[train], cost)
        gain += partial_likelihood(risk, outcomes.time, outcomes.event)
        gain -= partial_likelihood(risk[train], outcomes.time[train], outcomes.event[train])
    return gain


def _weight(rows: Floats, outcomes: Outcomes, cost: float) -> Floats:
    """(E,) of rows (n, E) as they are given."""
    standard = standard_of(rows, np.ones(len(rows)))
    scale = standard.spread * np.sqrt(rows.shape[1])
    # Under an L2 penalty the weights lie in the span of the rows: n coordinates say what E do.
    turned, lengths, axes = np.linalg.svd((rows - standard.centre) / scale, full_matrices=False)
    fitted = fit_cox(turned * lengths, outcomes.time, outcomes.event, ridge=1 / cost)
    found: Floats = fitted.coefficients @ axes / scale
    return found
