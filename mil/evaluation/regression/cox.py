"""Proportional hazards: the fit, and survival over time from it. Numbers only, no torch.

Ties by Efron (JASA 1977, 72:557). A penalty keeps the fit finite where cases are few: ridge, or Firth's,
which also halves the bias (G. Heinze, M. Schemper, A Solution to the Problem of Monotone Likelihood in Cox
Regression, Biometrics 2001).
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.stats import norm

from mil.errors import FitError
from mil.evaluation.arrays import Bools, Floats
from mil.evaluation.regression.maximise import (
    Derivatives,
    eigenbasis,
    half_log_determinant,
    maximise,
    standardised,
)


@dataclass(frozen=True, eq=False)
class CoxFit:
    """A fit of proportional hazards.

    Attributes:
        coefficients: (K,) log hazard ratio per unit of each column.
        covariance: (K, K) inverse of the information at the fit; infinite where the others say the same.
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
    scaled, _, spread = standardised(rows)
    if ridge:  # it weighs rows as they are
        scaled, spread = rows - rows.mean(axis=0), np.ones(rows.shape[1])
    start = _derivatives(scaled, time, event, np.zeros(len(rows))).information
    turn = eigenbasis(start + ridge * np.eye(len(start)))
    weight = ridge * turn.back.T @ turn.back
    at = partial(_penalised, scaled @ turn.back, time, event, weight, firth=firth)
    found, top = maximise(at, len(weight))
    return CoxFit(
        turn.back @ found / spread,
        turn.covariance(top.information) / np.outer(spread, spread),
        partial_likelihood(scaled @ turn.back @ found, time, event),
    )


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
    rows: Floats, time: Floats, event: Bools, weight: Floats, beta: Floats, *, firth: bool
) -> Derivatives:
    """Less half the square of the coefficients in ``weight`` (K, K), and with Firth's penalty if asked."""
    value, gradient, information = _derivatives(rows, time, event, rows @ beta)
    if firth:
        value += half_log_determinant(information)
        gradient = gradient + _firth_gradient(rows, time, event, beta, information)
    pull = weight @ beta
    return Derivatives(value - 0.5 * float(pull @ beta), gradient - pull, information + weight)


def _derivatives(rows: Floats, time: Floats, event: Bools, risk: Floats) -> Derivatives:
    """Of Efron's partial likelihood."""
    shares, totals = _shares(time, event, risk)
    means = shares @ rows  # (E, K)
    return Derivatives(
        float(risk[event].sum() - totals.sum()),
        rows[event].sum(axis=0) - means.sum(axis=0),
        (rows * shares.sum(axis=0)[:, None]).T @ rows - means.T @ means,
    )


def _shares(time: Floats, event: Bools, risk: Floats) -> tuple[Floats, Floats]:
    """(E, n) each case's share of the hazard that an event is drawn from, and the logarithm of that (E,)."""
    sets = _risk_sets(time, event)
    # Of each set by itself, so that no set's hazards all round to 0.
    highest = np.where(sets > 0, risk, -np.inf).max(axis=1, keepdims=True)
    weights = sets * np.exp(np.minimum(risk - highest, 0))
    totals = weights.sum(axis=1, keepdims=True)
    return weights / totals, (np.log(totals) + highest)[:, 0]


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
    inverse = np.linalg.pinv(information)
    gradient = np.zeros(len(beta))
    for share in _shares(time, event, rows @ beta)[0]:
        away = rows - share @ rows
        lengths = np.einsum("nk,kl,nl->n", away, inverse, away)
        gradient += 0.5 * (share * lengths) @ away
    return gradient
