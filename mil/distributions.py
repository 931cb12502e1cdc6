"""Distributions and ranks for intervals and tests.

Importing ``scipy.stats`` takes every command half a second. The numbers are those of ``scipy.stats`` to the
last digit, which has them from the same functions.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special


class norm:
    """The standard normal distribution."""

    @staticmethod
    def ppf(p: Any) -> Any:
        """The quantile."""
        return special.ndtri(p)

    @staticmethod
    def sf(z: Any) -> Any:
        """The upper tail."""
        return special.ndtr(-z)

    @staticmethod
    def isf(p: Any) -> Any:
        """The quantile of the upper tail."""
        return -special.ndtri(p)


class student:
    """Student's t distribution with ``df`` degrees of freedom."""

    @staticmethod
    def sf(t: Any, df: Any) -> Any:
        """The upper tail."""
        return special.stdtr(df, -t)

    @staticmethod
    def isf(p: Any, df: Any) -> Any:
        """The quantile of the upper tail."""
        return -special.stdtrit(df, p)


class chi2:
    """The chi-squared distribution with ``df`` degrees of freedom."""

    @staticmethod
    def ppf(p: Any, df: Any) -> Any:
        """The quantile."""
        return 2 * special.gammaincinv(df / 2, p)

    @staticmethod
    def sf(x: Any, df: Any) -> Any:
        """The upper tail."""
        return special.chdtrc(df, np.maximum(x, 0))

    @staticmethod
    def isf(p: Any, df: Any) -> Any:
        """The quantile of the upper tail."""
        return special.chdtri(df, p)


class beta:
    """The beta distribution."""

    @staticmethod
    def ppf(p: Any, a: Any, b: Any) -> Any:
        """The quantile."""
        return special.betaincinv(a, b, p)

    @staticmethod
    def isf(p: Any, a: Any, b: Any) -> Any:
        """The quantile of the upper tail."""
        return special.betainccinv(a, b, p)


def binomial_tail(k: int, n: int, p: float) -> float:
    """The probability of more than ``k`` of ``n``."""
    return 1.0 if k < 0 else 0.0 if k >= n else float(special.betainc(k + 1, n - k, p))


def rankdata(values: Any) -> NDArray[np.float64]:
    """The rank of each value (n,) from 1, or within its column (n, d); equal values share their mean rank."""
    values = np.asarray(values)
    if values.ndim > 1:
        return np.stack([rankdata(column) for column in values.T], axis=1)
    if values.dtype.kind == "f" and np.isnan(values).any():
        return np.full(values.shape, np.nan)
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks
