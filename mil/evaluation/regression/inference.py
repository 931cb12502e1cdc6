"""Confidence limits and p values of coefficients: Wald's, or by the profile of a penalised likelihood.

Under Firth's penalty the likelihood is so asymmetric that Wald's limits and p are misleading. The limits are
then those of the profile penalised likelihood, and p is that of the penalised likelihood ratio test
(G. Heinze, M. Schemper, Biometrics 2001, 57:114, for Cox regression; Stat Med 2002, 21:2409, for logistic
regression).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from mil.distributions import chi2, norm
from mil.errors import FitError
from mil.evaluation.arrays import Bools, Floats
from mil.evaluation.regression.maximise import Derivatives, maximise

LEVEL = 0.05
DOUBLINGS = 12  # of the distance from the estimate in which a limit is searched
FLOOR = -1e12  # in place of a likelihood of minus infinity


@dataclass(frozen=True, eq=False)
class Inference:
    """Limits and p values of coefficients.

    Attributes:
        low: (K,) lower 95 % limits; minus infinity where a limit does not exist.
        high: (K,) upper 95 % limits; infinity where a limit does not exist.
        p: (K,) two-sided p values.
    """

    low: Floats
    high: Floats
    p: Floats


def wald(coefficients: Floats, errors: Floats) -> Inference:
    """Wald's limits and p values from coefficients (K,) and their standard errors (K,)."""
    half = float(norm.isf(LEVEL / 2)) * errors
    p: Floats = 2 * norm.sf(np.abs(coefficients / errors))
    return Inference(coefficients - half, coefficients + half, p)


@dataclass(frozen=True, eq=False)
class Profile:
    """A penalised log likelihood of rotated coefficients at its maximum.

    Attributes:
        at: the log likelihood and its derivatives at rotated coefficients (R,).
        rotated: (R,) the maximum.
        top: the derivatives at the maximum.
        contrasts: (K, R) such that ``contrasts @ rotated`` are the coefficients of the columns.
        unknown: (K,) True where a coefficient is not identified.
    """

    at: Callable[[Floats], Derivatives]
    rotated: Floats
    top: Derivatives
    contrasts: Floats
    unknown: Bools

    def inference(self) -> Inference:
        """Profile limits, and p values of the penalised likelihood ratio test."""
        columns = zip(self.contrasts, self.unknown, strict=True)
        rows = [
            (-np.inf, np.inf, 1.0) if unknown else self._column(contrast)
            for contrast, unknown in columns
        ]
        low, high, p = np.array(rows, dtype=np.float64).reshape(-1, 3).T
        return Inference(low, high, p)

    def _column(self, contrast: Floats) -> tuple[float, float, float]:
        estimate = float(contrast @ self.rotated)
        error = float(np.sqrt(contrast @ np.linalg.solve(self.top.information, contrast)))
        ratio = 2 * (self.top.value - self._constrained(contrast, 0.0))
        p = float(chi2.sf(max(ratio, 0.0), 1))
        return self._limit(contrast, estimate, -error), self._limit(contrast, estimate, error), p

    def _limit(self, contrast: Floats, estimate: float, step: float) -> float:
        """Where the profile falls by half the quantile, in the direction of the step."""
        threshold = self.top.value - float(chi2.isf(LEVEL, 1)) / 2

        def excess(value: float) -> float:
            return self._constrained(contrast, value) - threshold

        near = estimate
        for doubling in range(DOUBLINGS):
            far = estimate + step * 2.0**doubling
            if excess(far) < 0:
                return float(brentq(excess, near, far, xtol=1e-9, rtol=1e-12))
            near = far
        return float(np.copysign(np.inf, step))

    def _constrained(self, contrast: Floats, value: float) -> float:
        """The highest log likelihood where a coefficient is fixed at a value."""
        # Start along the direction in which the other coefficients follow to first order.
        direction = np.linalg.solve(self.top.information, contrast)
        direction = direction / (contrast @ direction)
        fixed = self.rotated + direction * (value - contrast @ self.rotated)
        free = np.linalg.svd(contrast[None])[2][1:].T  # (R, R - 1), orthogonal to the contrast

        def constrained(moved: Floats) -> Derivatives:
            full = self.at(fixed + free @ moved)
            return Derivatives(
                max(full.value, FLOOR), free.T @ full.gradient, free.T @ full.information @ free
            )

        if free.shape[1] == 0:
            return constrained(np.zeros(0)).value
        try:
            return maximise(constrained, free.shape[1])[1].value
        except (FitError, np.linalg.LinAlgError):
            return FLOOR  # the information is singular: the likelihood is as low as can be
