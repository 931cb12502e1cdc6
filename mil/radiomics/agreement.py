"""Agreement of readings: the intraclass correlation of one reading.

Source: Shrout and Fleiss, Psychological Bulletin 1979, 86:420 (ICC(2,1), ICC(3,1)).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Agreement:
    """Of every feature; NaN where all readings of all cases are equal.

    Attributes:
        icc2: (D,) ICC(2,1), of readers who stand for others: an offset between them counts as disagreement.
        icc3: (D,) ICC(3,1), of these readers: only the order and the distances of cases count.
    """

    icc2: NDArray[np.float64]
    icc3: NDArray[np.float64]


def intraclass_correlation(values: Floats) -> Agreement:
    """Both forms, from the mean squares of an analysis of variance by case and reading.

    Args:
        values: (n, k, D) of n >= 2 cases in k >= 2 readings.
    """
    n, k = values.shape[:2]
    assert n > 1, "one case has no variance"
    assert k > 1, "one reading agrees with itself"
    x = values.astype(np.float64)
    mean = x.mean(axis=(0, 1))
    by_case, by_reading = x.mean(axis=1) - mean, x.mean(axis=0) - mean
    rest = x - mean - by_case[:, None] - by_reading[None]
    cases = k * (by_case**2).sum(axis=0) / (n - 1)
    readings = n * (by_reading**2).sum(axis=0) / (k - 1)
    error = (rest**2).sum(axis=(0, 1)) / ((n - 1) * (k - 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        icc2 = (cases - error) / (cases + (k - 1) * error + k * (readings - error) / n)
        icc3 = (cases - error) / (cases + (k - 1) * error)
    flat = np.ptp(x, axis=(0, 1)) == 0
    return Agreement(np.where(flat, np.nan, icc2), np.where(flat, np.nan, icc3))
