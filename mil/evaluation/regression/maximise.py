"""Newton's steps to the top of a likelihood, and how it is seen that there is none.

Coefficients are turned and scaled so that the information is the identity where all are 0: no unit of a
column and no angle between two matters then. Where a column parts the cases, the likelihood rises without end
along some direction, and only there the information falls to nothing on the way (A. Albert, J. Anderson, On
the existence of maximum likelihood estimates in logistic regression models, Biometrika 1984, 71:1; M. Bryson,
M. Johnson, The incidence of monotone likelihood in the Cox model, Technometrics 1981, 23:381).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mil.errors import FitError
from mil.evaluation.arrays import Bools, Floats

STEPS, HALVINGS = 200, 30
LONGEST = 5.0  # that a coefficient moves in one step, in its standard errors where all are 0
CONVERGED = 1e-8  # a step, likewise
SLACK = 1e-10  # by which rounding may lower the value, as a share of it
COLLAPSED = 1e-9  # information along a direction, as a share of what it was where all are 0
ALIKE = 1e-11  # of the largest eigenvalue: columns that differ by less say the same


class Derivatives(NamedTuple):
    """Of a log likelihood: its value, gradient (K,), and the information (K, K)."""

    value: float
    gradient: Floats
    information: Floats


class Eigenbasis(NamedTuple):
    """From turned coefficients back to those of columns.

    Attributes:
        back: (K, R) whose columns are the turned directions; the information along them is the identity.
        unknown: (K,) columns whose coefficient any number may be, as of two that say the same.
    """

    back: Floats
    unknown: Bools

    def covariance(self, information: Floats) -> Floats:
        """(K, K) of an information (R, R); without end for what is unknown."""
        found: Floats = self.back @ np.linalg.inv(information) @ self.back.T
        found[np.diag(self.unknown)] = np.inf
        return found


def eigenbasis(information: Floats) -> Eigenbasis:
    """The turn that makes an information (K, K) of standardised columns the identity."""
    lengths, axes = np.linalg.eigh(information)
    known = lengths > ALIKE * lengths.max(initial=0)
    unknown = (axes[:, ~known] ** 2).sum(axis=1) > 1e-6
    return Eigenbasis(axes[:, known] / np.sqrt(lengths[known]), unknown)


def standardised(rows: Floats) -> tuple[Floats, Floats, Floats]:
    """(n, K) rows of mean 0 and spread 1, the mean (K,) and the spread; a constant one becomes 0."""
    varies = np.ptp(rows, axis=0) > 0
    centre, spread = rows.mean(axis=0), np.where(varies, rows.std(axis=0), 1.0)
    return np.where(varies, (rows - centre) / spread, 0.0), centre, spread


def half_log_determinant(information: Floats) -> float:
    """What Firth's penalty adds; without end below 0 where rounding leaves no determinant."""
    sign, logarithm = np.linalg.slogdet(information)
    return 0.5 * float(logarithm) if sign > 0 else -np.inf


def maximise(at: Callable[[Floats], Derivatives], size: int) -> tuple[Floats, Derivatives]:
    """The top of a log likelihood of turned coefficients, (size,), and the derivatives there.

    Raises:
        FitError: there is none.
    """
    beta = np.zeros(size)
    here = at(beta)
    for _step in range(STEPS):
        step = np.linalg.solve(here.information, here.gradient)
        step *= min(1.0, LONGEST / max(float(np.abs(step).max(initial=0)), 1e-300))
        there = at(beta + step)
        for _half in range(HALVINGS):
            rises = there.value >= here.value - SLACK * abs(here.value)
            if rises and float(there.gradient @ step) >= -0.5 * float(here.gradient @ step):
                break  # no further beyond the ridge than half as steep as before it
            step /= 2
            there = at(beta + step)
        beta, here = beta + step, there
        if np.linalg.eigvalsh(here.information).min(initial=1) < COLLAPSED:
            break
        if float(np.abs(step).max(initial=0)) < CONVERGED:
            return beta, here
    raise FitError(
        "The likelihood rises without end: a column parts the cases. Use Firth's penalty, or fewer columns."
    )
