"""Proportional hazards: the fit, and survival over time from it. Numbers only, no torch.

Ties by Efron (JASA 1977, 72:557). A penalty keeps the fit finite where cases are few: ridge, or Firth's,
which also halves the bias (G. Heinze, M. Schemper, A Solution to the Problem of Monotone Likelihood in Cox
Regression, Biometrics 2001).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from mil.errors import FitError
from mil.evaluation.metrics import Bools, Floats

STEPS, HALVINGS = 200, 30
LONGEST = 5.0  # that a coefficient, on standardised rows, moves in one step
CONVERGED = 1e-9
MONOTONE = 15.0  # spreads of a row times its coefficient beyond which a likelihood has no top


@dataclass(frozen=True, eq=False)
class CoxFit:
    """A fit of proportional hazards.

    Attributes:
        coefficients: (K,) log hazard ratio per unit of each column.
        covariance: (K, K) inverse of the information at the fit.
        log_likelihood: partial, without the penalty.
    """

    coefficients: Floats
    covariance: Floats
    log_likelihood: float

    @property
    def errors(self) -> Floats:
        """(K,) standard errors."""
        found: Floats = np.sqrt(np.diag(self.covariance))
        return found

    @property
    def p(self) -> Floats:
        """(K,) two-sided p values by Wald."""
        found: Floats = 2 * norm.sf(np.abs(self.coefficients / self.errors))
        return found


class _Derivatives(NamedTuple):
    """Log likelihood, its gradient (K,), and the information (K, K)."""

    value: float
    gradient: Floats
    information: Floats


def fit_cox(
    rows: Floats, time: Floats, event: Bools, *, ridge: float = 0.0, firth: bool = False
) -> CoxFit:
    """Maximise the partial likelihood by Newton's steps.

    Args:
        rows: (n, K).
        time: (n,).
        event: (n,) bool.
        ridge: half of it times the squared length of the coefficients is taken off.
        firth: half the logarithm of the information's determinant is added.

    Raises:
        FitError: no event, or the likelihood rises without end: some column parts the cases.
    """
    if not event.any():
        raise FitError("A Cox model needs an event. Add cases, or observe them for longer.")
    centre, spread = rows.mean(axis=0), rows.std(axis=0)
    spread = np.where((spread > 0) & (ridge == 0), spread, 1.0)  # a ridge weighs rows as they are
    scaled = (rows - centre) / spread
    penalty = np.full(rows.shape[1], ridge)
    beta = np.zeros(rows.shape[1])
    value, at = _penalised(scaled, time, event, beta, penalty, firth=firth)
    for _step in range(STEPS):
        gradient = at.gradient - penalty * beta
        if firth:
            gradient = gradient + _firth_gradient(scaled, time, event, beta, at.information)
        step = _solve(at.information + np.diag(penalty), gradient)
        step *= min(1.0, LONGEST / max(float(np.abs(step).max(initial=0)), 1e-300))
        for _half in range(HALVINGS):
            new, there = _penalised(scaled, time, event, beta + step, penalty, firth=firth)
            if new >= value - CONVERGED * abs(value):
                break
            step /= 2
        beta, value, at = beta + step, new, there
        if float(np.abs(step).max(initial=0)) < 1e-7:
            break
    else:
        raise FitError("The Cox model found no end. Use fewer columns.")
    if not (ridge or firth) and float(np.abs(beta).max(initial=0)) > MONOTONE:
        raise FitError(
            "The Cox likelihood rises without end: a column parts those with events from the rest. Use "
            "Firth's penalty, or leave the column out."
        )
    covariance = _solve(at.information + np.diag(penalty), np.eye(len(beta)))
    return CoxFit(beta / spread, covariance / np.outer(spread, spread), at.value)


def partial_likelihood(risk: Floats, time: Floats, event: Bools) -> float:
    """Efron's log partial likelihood of log hazard ratios (n,)."""
    return _derivatives(np.empty((len(risk), 0)), time, event, risk).value


@dataclass(frozen=True, eq=False)
class Baseline:
    """The cumulative hazard of a case at risk 0, a step function (Breslow 1974, Biometrics 30:89).

    Attributes:
        time: (E,) distinct times of events, ascending.
        hazard: (E,) cumulative, from each of these times on.
    """

    time: Floats
    hazard: Floats

    def survival(self, risk: Floats, at: Floats) -> Floats:
        """(n, T) probability of no event until ``at`` (T,), of cases of log hazard ratios (n,)."""
        place = np.searchsorted(self.time, at, side="right")
        hazard = np.concatenate([[0.0], self.hazard])[place]  # (T,)
        with np.errstate(divide="ignore"):
            log_hazard = np.log(hazard)
        found: Floats = np.exp(-np.exp(np.minimum(log_hazard + risk[:, None], 50.0)))
        return found


def breslow(risk: Floats, time: Floats, event: Bools) -> Baseline:
    """The baseline of cases of log hazard ratios (n,)."""
    at, deaths = np.unique(time[event], return_counts=True)
    observed = np.array([np.logaddexp.reduce(risk[time >= t]) for t in at])
    return Baseline(at, np.cumsum(deaths * np.exp(-observed)))


def _penalised(
    rows: Floats, time: Floats, event: Bools, beta: Floats, penalty: Floats, *, firth: bool
) -> tuple[float, _Derivatives]:
    at = _derivatives(rows, time, event, rows @ beta)
    value = at.value - 0.5 * float(penalty @ beta**2)
    if firth:
        sign, logarithm = np.linalg.slogdet(at.information)
        value = value + 0.5 * float(logarithm) if sign > 0 else -np.inf
    return value, at


def _derivatives(rows: Floats, time: Floats, event: Bools, risk: Floats) -> _Derivatives:
    """Of Efron's partial likelihood."""
    weights = _risk_sets(time, event) * np.exp(risk - risk.max())  # (E, n)
    totals = weights.sum(axis=1)
    weights = weights / totals[:, None]
    means = weights @ rows  # (E, K)
    return _Derivatives(
        float(risk[event].sum() - np.log(totals).sum() - event.sum() * risk.max()),
        rows[event].sum(axis=0) - means.sum(axis=0),
        (rows * weights.sum(axis=0)[:, None]).T @ rows - means.T @ means,
    )


def _risk_sets(time: Floats, event: Bools) -> Floats:
    """(E, n) who each event is compared with: the l-th of d tied ones meets these less l/d of their share."""
    sets = []
    for t in np.unique(time[event]):
        tied = (time == t) & event
        left = np.arange(tied.sum()) / tied.sum()
        sets.append((time >= t) - left[:, None] * tied)
    return np.concatenate(sets)


def _firth_gradient(
    rows: Floats, time: Floats, event: Bools, beta: Floats, information: Floats
) -> Floats:
    """Gradient (K,) of half the logarithm of the information's determinant.

    Half the trace of the inverse information times its derivative, which is the third central moment of
    the rows in each risk set.
    """
    inverse = _solve(information, np.eye(len(beta)))
    risk = rows @ beta
    gradient = np.zeros(len(beta))
    for weight in _risk_sets(time, event) * np.exp(risk - risk.max()):
        share = weight / weight.sum()
        away = rows - share @ rows
        lengths = np.einsum("nk,kl,nl->n", away, inverse, away)
        gradient += 0.5 * (share * lengths) @ away
    return gradient


def _solve(matrix: Floats, right: Floats) -> Floats:
    """The solution of least length, so that a column that says nothing gets 0."""
    return np.asarray(np.linalg.lstsq(matrix, right, rcond=1e-12)[0], dtype=np.float64)
