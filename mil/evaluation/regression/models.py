"""Logistic and Cox regression on clinical columns, for nomograms and clinical models.

Where the maximum likelihood estimate does not exist (separation), the fit uses Firth's penalty
(D. Firth, Bias reduction of maximum likelihood estimates, Biometrika 1993; G. Heinze, M. Schemper, A
solution to the problem of separation in logistic regression, Stat Med 2002, 21:2409).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from scipy.special import expit, log_expit

from mil.data.outcomes import Outcomes
from mil.distributions import chi2
from mil.errors import FitError
from mil.evaluation.arrays import Bools, Floats
from mil.evaluation.regression.cox import Baseline, breslow, fit_cox, partial_likelihood
from mil.evaluation.regression.design import Design, Table, fit_design
from mil.evaluation.regression.inference import Inference, Profile, wald
from mil.evaluation.regression.maximise import (
    Derivatives,
    eigenbasis,
    half_log_determinant,
    maximise,
    standardised,
)

ENTER, STAY = 0.10, 0.05  # p of a column alone, and beside the other selected columns

Truth = Bools | Outcomes


@dataclass(frozen=True, eq=False)
class Regression:
    """A regression on clinical columns.

    Attributes:
        design: encoding of the columns.
        coefficients: (K,) log odds ratios or log hazard ratios.
        errors: (K,) standard errors; infinite where a coefficient is not identified.
        intercept: log odds where all terms are 0; in Cox regression it centres the linear predictor.
        baseline: in Cox regression, the hazard of a case whose linear predictor is 0.
        log_likelihood: without the penalty.
        penalty: ``none`` or ``Firth``.
        profile: the penalised likelihood, for limits and p values under Firth's penalty; else None.
    """

    design: Design
    coefficients: Floats
    errors: Floats
    intercept: float
    baseline: Baseline | None
    log_likelihood: float
    penalty: str
    profile: Profile | None = None

    @cached_property
    def inference(self) -> Inference:
        """Limits and p values: profile likelihood under Firth's penalty, else Wald's."""
        return self.profile.inference() if self.profile else wald(self.coefficients, self.errors)

    def linear(self, table: Table) -> Floats:
        """Linear predictor (n,): log odds, or log hazard ratios to the mean case."""
        linear: Floats = self.intercept + self.design.rows(table) @ self.coefficients
        return linear

    def probability(self, linear: Floats, horizon: float | None = None) -> Floats:
        """Probability (n,) of the class, or of the event before the horizon.

        Raises:
            FitError: a Cox regression without a horizon.
        """
        if self.baseline is None:
            odds: Floats = expit(linear)
            return odds
        if horizon is None:
            raise FitError("A probability of survival needs a time; got none. Set horizon.")
        probability: Floats = 1 - self.baseline.survival(linear, np.array([horizon]))[:, 0]
        return probability


def fit_regression(table: Table, truth: Truth, design: Design | None = None) -> Regression:
    """Fit the columns of a table, with Firth's penalty where the maximum likelihood estimate does not exist.

    Args:
        table: values of n cases by column.
        truth: (n,) True for the class, or the outcomes.
        design: encoding of the columns; fitted by default.

    Raises:
        FitError: only one class, or no event.
    """
    design = design or fit_design(table)
    rows = design.rows(table)
    if isinstance(truth, Outcomes):
        return _cox(design, rows, truth)
    if truth.all() or not truth.any():
        raise FitError("Logistic regression needs cases of both classes; got one.")
    try:
        return _logistic(design, rows, truth, firth=False)
    except FitError:
        return _logistic(design, rows, truth, firth=True)


def select_columns(table: Table, truth: Truth) -> tuple[str, ...]:
    """Select columns in two steps: p below .10 alone, then backward elimination until all have p below .05.

    P values are from likelihood ratio tests of a column with all its terms. Call it on training cases only:
    cases that took part in the selection cannot judge the model.
    """
    selected = {
        name: values
        for name, values in table.items()
        if _likelihood_ratio_p({name: values}, {}, truth) < ENTER
    }
    while selected:
        p = {
            name: _likelihood_ratio_p(selected, _without(selected, name), truth)
            for name in selected
        }
        worst = max(reversed(p), key=p.__getitem__)
        if p[worst] < STAY:
            break
        selected = _without(selected, worst)
    return tuple(selected)


def _without(table: Table, name: str) -> dict[str, Sequence[str]]:
    return {other: values for other, values in table.items() if other != name}


def _likelihood_ratio_p(larger: Table, smaller: Table, truth: Truth) -> float:
    """Likelihood ratio test of two nested sets of columns; 1 where the larger has no further term."""
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
        fitted.profile,
    )


def _logistic(design: Design, rows: Floats, truth: Bools, *, firth: bool) -> Regression:
    """Fit by Newton's method.

    Raises:
        FitError: the maximum likelihood estimate does not exist.
    """
    scaled, centre, spread = standardised(rows)
    x = np.column_stack([np.ones(len(rows)), scaled])  # (n, 1 + K)
    basis = eigenbasis(x.T @ x / 4)
    across = x @ basis.back
    at = partial(_derivatives, across, truth, firth=firth)
    rotated, top = maximise(at, across.shape[1])
    beta = basis.back @ rotated
    coefficients = beta[1:] / spread
    return Regression(
        design,
        coefficients,
        np.sqrt(np.diag(basis.covariance(top.information)))[1:] / spread,
        float(beta[0] - coefficients @ centre),
        None,
        _derivatives(across, truth, rotated, firth=False).value,
        "Firth" if firth else "none",
        Profile(at, rotated, top, basis.back[1:] / spread[:, None], basis.unknown[1:])
        if firth
        else None,
    )


def _derivatives(x: Floats, truth: Bools, beta: Floats, *, firth: bool) -> Derivatives:
    """Derivatives of the log likelihood, with or without Firth's penalty."""
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
