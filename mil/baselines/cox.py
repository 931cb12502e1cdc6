"""Cox regression with an L2 penalty, for times until an event."""

from collections.abc import Sequence

import numpy as np

from mil.baselines.nested_cv import Floats, Ints, inner_folds
from mil.baselines.ridge import COSTS, USUAL_COST, LinearFit, span_of
from mil.data.outcomes import Outcomes
from mil.evaluation.regression.cox import fit_cox, partial_likelihood
from mil.heads.head import Training


def solve_cox(
    rows: Floats, training: Training, costs: Sequence[float] = COSTS, usual: float = USUAL_COST
) -> LinearFit:
    """The fit by the cost of the highest cross-validated partial likelihood; one logit, the risk.

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
    case_rows = np.zeros((len(first), rows.shape[1]))
    np.add.at(case_rows, case, rows)
    case_rows /= np.bincount(case)[:, None]
    outcomes = Outcomes(training.time[first], training.labels[first] > 0)
    cost = usual
    if folds := inner_folds(training):
        trains = [np.unique(case[fold.train]) for fold in folds]
        gains = [_likelihood_gain(case_rows, outcomes, trains, candidate) for candidate in costs]
        cost = costs[int(np.argmax(gains))]
    return LinearFit(_fit_weight(case_rows, outcomes, cost)[None], np.zeros(1), cost)


def _likelihood_gain(
    rows: Floats, outcomes: Outcomes, trains: Sequence[Ints], cost: float
) -> float:
    """Sum over folds of the likelihood of all cases minus that of the fold's training cases."""
    gain = 0.0
    for train in trains:
        risk = rows @ _fit_weight(rows[train], outcomes[train], cost)
        gain += partial_likelihood(risk, outcomes.time, outcomes.event)
        gain -= partial_likelihood(risk[train], outcomes.time[train], outcomes.event[train])
    return gain


def _fit_weight(rows: Floats, outcomes: Outcomes, cost: float) -> Floats:
    """Weights (E,) on rows (n, E) in their own units."""
    span = span_of(rows, np.ones(len(rows)))
    fitted = fit_cox(span.rows, outcomes.time, outcomes.event, ridge=1 / cost)
    return span.weight(fitted.coefficients)
