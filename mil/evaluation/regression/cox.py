"""Cox regression, and survival over time from it.

Ties by Efron (JASA 1977, 72:557). A penalty keeps the fit finite with few cases: ridge, or Firth's, which
also reduces the bias (G. Heinze, M. Schemper, A Solution to the Problem of Monotone Likelihood in Cox
Regression, Biometrics 2001).
"""

from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from mil.errors import FitError
from mil.evaluation.arrays import Bools, Floats
from mil.evaluation.regression.inference import Inference, Profile, wald
from mil.evaluation.regression.maximise import (
    Derivatives,
    eigenbasis,
    half_log_determinant,
    maximise,
    standardised,
)


@dataclass(frozen=True, eq=False)
class CoxFit:
    """A fit of Cox regression.

    Attributes:
        coefficients: (K,) log hazard ratio per unit of each column.
        covariance: (K, K) inverse information at the fit; infinite where a coefficient is not identified.
        log_likelihood: partial log likelihood without the penalty.
        profile: the penalised likelihood, for limits and p values under Firth's penalty; else None.
    """

    coefficients: Floats
    covariance: Floats
    log_likelihood: float
    profile: Profile | None = None

    @property
    def errors(self) -> Floats:
        """Standard errors (K,)."""
        errors: Floats = np.sqrt(np.diag(self.covariance))
        return errors

    @cached_property
    def inference(self) -> Inference:
        """Limits and p values: profile likelihood under Firth's penalty, else Wald's."""
        return self.profile.inference() if self.profile else wald(self.coefficients, self.errors)


def fit_cox(
    rows: Floats, time: Floats, event: Bools, *, ridge: float = 0.0, firth: bool = False
) -> CoxFit:
    """Maximise the partial likelihood by Newton's method.

    Args:
        rows: (n, K) columns.
        time: (n,) time of the event or of censoring.
        event: (n,) True where the event was observed.
        ridge: weight of the penalty ``ridge / 2 * |coefficients|^2``.
        firth: add Firth's penalty, half the log determinant of the information.

    Raises:
        FitError: no event, or the maximum likelihood estimate does not exist.
    """
    if not event.any():
        raise FitError("Cox regression needs an event; got none. Add cases, or longer follow-up.")
    scaled, _, spread = standardised(rows)
    if ridge:  # the penalty is of coefficients per unit
        scaled, spread = rows - rows.mean(axis=0), np.ones(rows.shape[1])
    sets = _risk_sets(time, event)
    start = _derivatives(scaled, event, sets, np.zeros(len(rows))).information
    basis = eigenbasis(start + ridge * np.eye(len(start)))
    weight = ridge * basis.back.T @ basis.back
    at = partial(_penalised, scaled @ basis.back, event, sets, weight, firth=firth)
    rotated, top = maximise(at, len(weight))
    contrasts = basis.back / spread[:, None]
    return CoxFit(
        basis.back @ rotated / spread,
        basis.covariance(top.information) / np.outer(spread, spread),
        _log_likelihood(event, sets, scaled @ basis.back @ rotated),
        Profile(at, rotated, top, contrasts, basis.unknown) if firth else None,
    )


def partial_likelihood(risk: Floats, time: Floats, event: Bools) -> float:
    """Efron's log partial likelihood of log hazard ratios (n,)."""
    return _log_likelihood(event, _risk_sets(time, event), risk)


@dataclass(frozen=True, eq=False)
class Baseline:
    """Cumulative hazard of a case of log hazard ratio 0, a step function (Breslow 1974, Biometrics 30:89).

    Attributes:
        time: (E,) distinct event times, ascending.
        hazard: (E,) cumulative hazard from that time on.
    """

    time: Floats
    hazard: Floats

    def survival(self, risk: Floats, at: Floats) -> Floats:
        """Probability (n, T) of no event until ``at`` (T,) for log hazard ratios (n,)."""
        place = np.searchsorted(self.time, at, side="right")
        hazard = np.concatenate([[0.0], self.hazard])[place]  # (T,)
        with np.errstate(divide="ignore"):
            log_hazard = np.log(hazard)
        survival: Floats = np.exp(-np.exp(np.minimum(log_hazard + risk[:, None], 50.0)))
        return survival


def breslow(risk: Floats, time: Floats, event: Bools) -> Baseline:
    """Breslow's baseline of cases with log hazard ratios (n,)."""
    at, deaths = np.unique(time[event], return_counts=True)
    observed = np.array([np.logaddexp.reduce(risk[time >= t]) for t in at])
    return Baseline(at, np.cumsum(deaths * np.exp(-observed)))


def _penalised(
    rows: Floats, event: Bools, sets: Floats, weight: Floats, beta: Floats, *, firth: bool
) -> Derivatives:
    """Derivatives of the penalised partial likelihood; ``weight`` (K, K) is the ridge penalty's matrix."""
    value, gradient, information = _derivatives(rows, event, sets, rows @ beta)
    if firth:
        value += half_log_determinant(information)
        gradient = gradient + _firth_gradient(rows, sets, beta, information)
    pull = weight @ beta
    return Derivatives(value - 0.5 * float(pull @ beta), gradient - pull, information + weight)


def _derivatives(rows: Floats, event: Bools, sets: Floats, risk: Floats) -> Derivatives:
    """Derivatives of Efron's partial likelihood."""
    shares, totals = _shares(sets, risk)
    means = shares @ rows  # (E, K)
    return Derivatives(
        float(risk[event].sum() - totals.sum()),
        rows[event].sum(axis=0) - means.sum(axis=0),
        (rows * shares.sum(axis=0)[:, None]).T @ rows - means.T @ means,
    )


def _log_likelihood(event: Bools, sets: Floats, risk: Floats) -> float:
    """Efron's log partial likelihood."""
    return float(risk[event].sum() - _shares(sets, risk)[1].sum())


def _shares(sets: Floats, risk: Floats) -> tuple[Floats, Floats]:
    """Share (E, n) of each case in the hazard of each event's risk set, and the log of that hazard (E,)."""
    # Shifted within each risk set, so that no set's hazards all round to 0.
    highest = np.where(sets > 0, risk, -np.inf).max(axis=1, keepdims=True)
    weights = sets * np.exp(np.minimum(risk - highest, 0))
    totals = weights.sum(axis=1, keepdims=True)
    return weights / totals, (np.log(totals) + highest)[:, 0]


def _risk_sets(time: Floats, event: Bools) -> Floats:
    """Risk sets (E, n) by Efron: the l-th of d tied events counts the tied cases with weight 1 - l / d."""
    at, deaths = np.unique(time[event], return_counts=True)
    left = np.concatenate([np.arange(count) / count for count in deaths])
    at = np.repeat(at, deaths)[:, None]
    sets: Floats = (time >= at) - left[:, None] * ((time == at) & event)
    return sets


def _firth_gradient(rows: Floats, sets: Floats, beta: Floats, information: Floats) -> Floats:
    """Gradient (K,) of half the logarithm of the information's determinant.

    It is half the trace of the inverse information times the information's derivative, the third central
    moment of the rows in each risk set.
    """
    inverse = np.linalg.pinv(information)
    gradient = np.zeros(len(beta))
    for share in _shares(sets, rows @ beta)[0]:
        away = rows - share @ rows
        lengths = np.einsum("nk,kl,nl->n", away, inverse, away)
        gradient += 0.5 * (share * lengths) @ away
    return gradient
