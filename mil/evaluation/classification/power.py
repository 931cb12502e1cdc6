"""What a number of cases can show of the difference between two models."""

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

GAIN, WORSE_ONLY, LEVEL, WANTED = 0.15, 0.05, 0.05, 0.8


@dataclass(frozen=True)
class Power:
    """What so many cases can show.

    Attributes:
        n: cases.
        gain: a true difference in accuracy.
        found: share of studies in which exact McNemar finds it at .05.
        needed: the difference found in four of five studies; None if none is.
        cases_needed: cases for which gain is found in four of five studies.
    """

    n: int
    gain: float
    found: float
    needed: float | None
    cases_needed: int

    def __str__(self) -> str:
        points, share = round(100 * self.gain), 100 * self.found
        more = f"; one of {100 * self.needed:.0f} points in 80 %" if self.needed is not None else ""
        return (
            f"At {self.n} cases a true difference of {points} points is found in {share:.0f} % of studies"
            f"{more}. For {points} points in 80 % it takes {self.cases_needed} cases."
        )


def power(n: int, gain: float = GAIN) -> Power:
    """What exact McNemar at .05 finds with n cases, where the worse model alone is right on 5 %.

    Raises:
        ValueError: gain outside [0.01, 0.9]: no number of cases finds nothing, and more cannot be.
    """
    if not 0.01 <= gain <= 1 - 2 * WORSE_ONLY:
        raise ValueError(f"gain lies in [0.01, 0.9]; got {gain}. For 15 points write 0.15.")
    highest = 100 - round(200 * WORSE_ONLY)  # beyond, the shares would add up to more than 1
    points = bisect_left(
        range(1, highest + 1), WANTED, key=lambda each: mcnemar_power(n, each / 100)
    )
    cases = 2
    while mcnemar_power(cases, gain) < WANTED:
        cases *= 2
    needed = bisect_left(range(cases), WANTED, key=lambda each: mcnemar_power(each, gain))
    found = mcnemar_power(n, gain)
    return Power(n, gain, found, (points + 1) / 100 if points < highest else None, needed)


def mcnemar_power(n: int, gain: float, worse_only: float = WORSE_ONLY) -> float:
    """How often exact McNemar finds at .05 that a model is better by ``gain``.

    Args:
        n: cases.
        gain: true difference in accuracy.
        worse_only: true share of cases that only the worse model calls rightly; the better alone
            calls worse_only + gain.
    """
    differing = 2 * worse_only + gain
    discordant = np.arange(n + 1)
    # p <= .05 where the smaller count is at most the largest k with 2 P(X <= k) <= .05.
    most = np.asarray(binom.ppf(LEVEL / 2, discordant, 0.5))
    most = most - (binom.cdf(most, discordant, 0.5) > LEVEL / 2)
    share = (worse_only + gain) / differing
    few = binom.cdf(most, discordant, share)
    many = binom.sf(discordant - most - 1, discordant, share)
    rejects = np.where(most >= 0, few + many, 0.0)
    return float(np.sum(binom.pmf(discordant, n, differing) * rejects))
