"""Plain regressions on columns of the table, for nomograms and clinical models: logistic, or Cox.

Where a column parts the cases the likelihood has no top; the fit is then Firth's (D. Firth, Bias reduction of
maximum likelihood estimates, Biometrika 1993; G. Heinze, M. Schemper, A solution to the problem of
separation in logistic regression, Stat Med 2002, 21:2409).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.special import expit, log_expit
from scipy.stats import chi2

from mil.data.outcomes import Outcomes
from mil.errors import FitError
from mil.evaluation.arrays import Bools, Floats
from mil.evaluation.regression.cox import Baseline, breslow, fit_cox, partial_likelihood
from mil.evaluation.regression.design import Design, Table, fit_design
from mil.evaluation.regression.maximise import (
    Derivatives,
    eigenbasis,
    half_log_determinant,
    maximise,
    standardised,
)

ENTER, STAY = 0.10, 0.05  # p of a column alone, then beside the others that entered

Truth = Bools | Outcomes


@dataclass(frozen=True, eq=False)
class Regression:
    """A regression on columns.

    Attributes:
        design: how columns become numbers.
        coefficients: (K,) log odds or log hazard ratios.
        errors: (K,) standard errors; infinite where the others say the same.
        intercept: of log odds; of a Cox regression what makes the mean case 0.
        baseline: of a Cox regression, the hazard of a case whose linear predictor is 0.
        log_likelihood: without a penalty.
        penalty: ``none`` or ``Firth``.
    """

    design: Design
    coefficients: Floats
    errors: Floats
    intercept: float
    baseline: Baseline | None
    log_likelihood: float
    penalty: str

    def linear(self, table: Table) -> Floats:
        """(n,) log odds, or log hazard ratios to the mean case."""
        found: Floats = self.intercept + self.design.rows(table) @ self.coefficients
        return found

    def probability(self, linear: Floats, horizon: float | None = None) -> Floats:
        """(n,) of the class, or of the event until the horizon.

        Raises:
            FitError: a Cox regression without a horizon.
        """
        if self.baseline is None:
            odds: Floats = expit(linear)
            return odds
        if horizon is None:
            raise FitError("A probability of survival needs a time. Give a horizon.")
        found: Floats = 1 - self.baseline.survival(linear, np.array([horizon]))[:, 0]
        return found


def fit_regression(table: Table, truth: Truth, design: Design | None = None) -> Regression:
    """Fit the columns of a table, without a penalty where that has a top, else with Firth's.

    Args:
        table: column to the values of n cases.
        truth: (n,) bool of a class, or the outcomes.
        design: of these columns; fitted if not given.

    Raises:
        FitError: one class or no event only.
    """
    design = design or fit_design(table)
    rows = design.rows(table)
    if isinstance(truth, Outcomes):
        return _cox(design, rows, truth)
    if truth.all() or not truth.any():
        raise FitError("A logistic regression needs cases of both classes.")
    try:
        return _logistic(design, rows, truth, firth=False)
    except FitError:
        return _logistic(design, rows, truth, firth=True)


def select_columns(table: Table, truth: Truth) -> tuple[str, ...]:
    """Columns with p below .10 alone; the least of them dropped until each has p below .05 beside the rest.

    By likelihood ratio, a column with all its terms; as in two steps the clinical models of the radiology
    literature are made. To be called on training cases only: what is selected on all is not judged by them.
    """
    kept = {
        name: values for name, values in table.items() if _p_of({name: values}, {}, truth) < ENTER
    }
    while kept:
        p = {name: _p_of(kept, _without(kept, name), truth) for name in kept}
        worst = max(reversed(p), key=p.__getitem__)
        if p[worst] < STAY:
            break
        kept = _without(kept, worst)
    return tuple(kept)


def _without(table: Table, name: str) -> dict[str, Sequence[str]]:
    return {other: values for other, values in table.items() if other != name}


def _p_of(larger: Table, smaller: Table, truth: Truth) -> float:
    """Of the likelihood ratio of two nested sets of columns; 1 where the larger has no further term."""
    n_terms = len(fit_design(larger).terms) - len(fit_design(smaller).terms)
    if n_terms == 0:
        return 1.0
    gain = fit_regression(larger, truth).log_likelihood - _likelihood(smaller, truth)
    return float(chi2.sf(max(0.0, 2 * gain), n_terms))


def _likelihood(table: Table, truth: Truth) -> float:
    if fit_design(table).terms:
        return fit_regression(table, truth).log_likelihood
    if isinstance(truth, Outcomes):
        return partial_likelihood(np.zeros(len(truth)), truth.time, truth.event)
    share = truth.mean()
    return float(len(truth) * (share * np.log(share) + (1 - share) * np.log(1 - share)))


def _cox(design: Design, rows: Floats, outcomes: Outcomes) -> Regression:
    try:
        fitted, penalty = fit_cox(rows, outcomes.time, outcomes.event), "none"
    except FitError:
        fitted, penalty = fit_cox(rows, outcomes.time, outcomes.event, firth=True), "Firth"
    risk = rows @ fitted.coefficients
    centre = float(risk.mean())
    return Regression(
        design,
        fitted.coefficients,
        fitted.errors,
        -centre,
        breslow(risk - centre, outcomes.time, outcomes.event),
        fitted.log_likelihood,
        penalty,
    )


def _logistic(design: Design, rows: Floats, truth: Bools, *, firth: bool) -> Regression:
    """Firth's adds half the logarithm of the information's determinant.

    Raises:
        FitError: the likelihood has no top.
    """
    scaled, centre, spread = standardised(rows)
    x = np.column_stack([np.ones(len(rows)), scaled])  # (n, 1 + K)
    turn = eigenbasis(x.T @ x / 4)
    across = x @ turn.back
    found, top = maximise(partial(_derivatives, across, truth, firth=firth), across.shape[1])
    beta = turn.back @ found
    coefficients = beta[1:] / spread
    return Regression(
        design,
        coefficients,
        np.sqrt(np.diag(turn.covariance(top.information)))[1:] / spread,
        float(beta[0] - coefficients @ centre),
        None,
        _derivatives(across, truth, found, firth=False).value,
        "Firth" if firth else "none",
    )


def _derivatives(x: Floats, truth: Bools, beta: Floats, *, firth: bool) -> Derivatives:
    """Of the log likelihood, with Firth's penalty if asked."""
    linear = x @ beta
    p = expit(linear)
    value = float(np.where(truth, log_expit(linear), log_expit(-linear)).sum())
    residual = truth - p
    weighted = x * np.sqrt(p * expit(-linear))[:, None]
    information: Floats = weighted.T @ weighted
    if firth:
        value += half_log_determinant(information)
        leverage = np.einsum("nk,kl,nl->n", weighted, np.linalg.pinv(information), weighted)
        residual = residual + leverage * (0.5 - p)
    return Derivatives(value, x.T @ residual, information)
