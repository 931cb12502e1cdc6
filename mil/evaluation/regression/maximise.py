"""Newton's method for log likelihoods, which detects where the maximum likelihood estimate does not exist.

Coefficients are rotated and scaled so that the information at 0 is the identity; the fit then depends neither
on the units of columns nor on their correlation. Under complete or quasi-complete separation the likelihood
increases without bound along some direction, and the information along it falls to 0 (A. Albert,
J. Anderson, On the existence of maximum likelihood estimates in logistic regression models, Biometrika 1984,
71:1; M. Bryson, M. Johnson, The incidence of monotone likelihood in the Cox model, Technometrics 1981,
23:381).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mil.errors import FitError
from mil.evaluation.arrays import Bools, Floats

STEPS, HALVINGS = 200, 30
LONGEST = 5.0  # step of a coefficient, in its standard errors at 0
CONVERGED = 1e-8  # step of a converged fit, in the same unit
SLACK = 1e-10  # relative decrease of the value that rounding may cause
COLLAPSED = 1e-9  # information along a direction, relative to that at 0
ALIKE = 1e-11  # relative eigenvalue below which columns are collinear


class Derivatives(NamedTuple):
    """Value, gradient (K,) and information (K, K) of a log likelihood."""

    value: float
    gradient: Floats
    information: Floats


class Eigenbasis(NamedTuple):
    """Rotation between coefficients of columns and those in which the information at 0 is the identity.

    Attributes:
        back: (K, R) rotated directions as columns.
        unknown: (K,) True where a coefficient is not identified, as for two equal columns.
    """

    back: Floats
    unknown: Bools

    def covariance(self, information: Floats) -> Floats:
        """Covariance (K, K) from an information (R, R); infinite where a coefficient is not identified."""
        covariance: Floats = self.back @ np.linalg.inv(information) @ self.back.T
        covariance[np.diag(self.unknown)] = np.inf
        return covariance


def eigenbasis(information: Floats) -> Eigenbasis:
    """The rotation that makes an information (K, K) of standardised columns the identity."""
    lengths, axes = np.linalg.eigh(information)
    known = lengths > ALIKE * lengths.max(initial=0)
    unknown = (axes[:, ~known] ** 2).sum(axis=1) > 1e-6
    return Eigenbasis(axes[:, known] / np.sqrt(lengths[known]), unknown)


def standardised(rows: Floats) -> tuple[Floats, Floats, Floats]:
    """Rows (n, K) of mean 0 and standard deviation 1, the mean (K,) and the deviation; constants become 0."""
    varies = np.ptp(rows, axis=0) > 0
    centre, spread = rows.mean(axis=0), np.where(varies, rows.std(axis=0), 1.0)
    return np.where(varies, (rows - centre) / spread, 0.0), centre, spread


def half_log_determinant(information: Floats) -> float:
    """Firth's penalty; minus infinity where the information is numerically singular."""
    sign, logarithm = np.linalg.slogdet(information)
    return 0.5 * float(logarithm) if sign > 0 else -np.inf


def maximise(at: Callable[[Floats], Derivatives], size: int) -> tuple[Floats, Derivatives]:
    """The maximum (size,) of a log likelihood of rotated coefficients, and the derivatives at it.

    Raises:
        FitError: the maximum does not exist.
    """
    beta = np.zeros(size)
    current = at(beta)
    for _step in range(STEPS):
        step = np.linalg.solve(current.information, current.gradient)
        step *= min(1.0, LONGEST / max(float(np.abs(step).max(initial=0)), 1e-300))
        proposed = at(beta + step)
        for _half in range(HALVINGS):
            rises = proposed.value >= current.value - SLACK * abs(current.value)
            if rises and float(proposed.gradient @ step) >= -0.5 * float(current.gradient @ step):
                break  # beyond the maximum at most half as steep as before it
            step /= 2
            proposed = at(beta + step)
        beta, current = beta + step, proposed
        if np.linalg.eigvalsh(current.information).min(initial=1) < COLLAPSED:
            break
        if float(np.abs(step).max(initial=0)) < CONVERGED:
            return beta, current
    raise FitError(
        "The maximum likelihood estimate does not exist: a column separates the cases. "
        "Use Firth's penalty, or fewer columns."
    )
