"""Tests of whether groups of numbers lie at the same place, by ranks.

The numbers are those of SciPy, whose statistics take every report half a second to load.
"""

from collections.abc import Sequence

import numpy as np

from mil.distributions import chi2, norm, rankdata
from mil.evaluation.arrays import Floats

EXACT_UP_TO = 8  # numbers of the smaller group


def mann_whitney(first: Floats, second: Floats) -> float:
    """Two-sided p value that two groups lie apart (H. Mann, D. Whitney, Ann Math Stat 1947).

    Exact for a small group without ties; else by the normal distribution, with a correction for continuity.
    """
    n, m = sorted((len(first), len(second)))
    ranks = rankdata(np.concatenate([first, second]))
    u = float(ranks[: len(first)].sum()) - len(first) * (len(first) + 1) / 2
    largest = max(u, n * m - u)
    ties = _tied(ranks)
    if n <= EXACT_UP_TO and ties == 0:
        ways = _ways(n, m)
        p = 2 * float(ways[int(largest) :].sum() / ways.sum())
    else:
        variance = n * m / 12 * (n + m + 1 - ties / ((n + m) * (n + m - 1)))
        with np.errstate(divide="ignore"):  # no variance where all numbers are equal: p is 1
            z = (largest - n * m / 2 - 0.5) / np.sqrt(variance)
        p = 2 * float(norm.sf(z))
    return min(1.0, p)


def kruskal_wallis(groups: Sequence[Floats]) -> float:
    """P value that several groups lie apart (W. Kruskal, W. Wallis, JASA 1952), corrected for ties.

    NaN where all numbers are equal.
    """
    ranks = rankdata(np.concatenate(groups))
    n = len(ranks)
    parts = np.split(ranks, np.cumsum([len(group) for group in groups])[:-1])
    between = sum(float(part.sum()) ** 2 / len(part) for part in parts)
    h = 12 / (n * (n + 1)) * between - 3 * (n + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(chi2.sf(np.float64(h) / (1 - _tied(ranks) / (n**3 - n)), len(groups) - 1))


def _tied(ranks: Floats) -> float:
    """The sum of t^3 - t over groups of t equal numbers."""
    _, counts = np.unique(ranks, return_counts=True)
    return float((counts.astype(float) ** 3 - counts).sum())


def _ways(n: int, m: int) -> Floats:
    """(n m + 1,) orders of n and m numbers by their U: the coefficients of the Gaussian binomial."""
    ways = np.zeros(n * m + 1)
    ways[0] = 1
    for i in range(1, n + 1):
        for u in range(n * m, m + i - 1, -1):  # times 1 - q^(m + i)
            ways[u] -= ways[u - m - i]
        for u in range(i, n * m + 1):  # over 1 - q^i
            ways[u] += ways[u - i]
    return ways
