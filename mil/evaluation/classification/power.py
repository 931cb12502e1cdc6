"""Statistical power of the paired comparison of two models."""

from bisect import bisect_left
from dataclasses import asdict, dataclass

import numpy as np
from scipy import special

GAIN, WORSE_ONLY, LEVEL, POWER = 0.15, 0.05, 0.05, 0.8


@dataclass(frozen=True)
class Power:
    """Power of exact McNemar at .05 with a number of cases.

    Attributes:
        n: cases.
        gain: a true difference in accuracy.
        power: share of studies in which exact McNemar detects it at .05.
        needed: the smallest difference detected with 80 % power; None where there is none.
        cases_needed: cases with which ``gain`` is detected with 80 % power.
    """

    n: int
    gain: float
    power: float
    needed: float | None
    cases_needed: int

    def __str__(self) -> str:
        points, share = round(100 * self.gain), 100 * self.power
        more = f", one of {100 * self.needed:.0f} points in 80 %" if self.needed is not None else ""
        return (
            f"With {self.n} cases a true difference in accuracy of {points} percentage points is found in "
            f"{share:.0f} % of studies{more}. To find {points} points in 80 % takes {self.cases_needed} "
            "cases."
        )

    def to_json(self) -> dict[str, object]:
        """The fields as plain values; the power is called ``found``."""
        return {"found" if name == "power" else name: value for name, value in asdict(self).items()}


def power(n: int, gain: float = GAIN) -> Power:
    """Power with n cases, where the worse model alone is right on 5 % of them.

    Raises:
        ValueError: gain outside [0.01, 0.9]; no number of cases detects less, and more is impossible.
    """
    if not 0.01 <= gain <= 1 - 2 * WORSE_ONLY:
        raise ValueError(f"gain must lie in [0.01, 0.9]; got {gain}. For 15 points set it to 0.15.")
    highest = 100 - round(200 * WORSE_ONLY)  # beyond, the shares would add up to more than 1
    points = bisect_left(
        range(1, highest + 1), POWER, key=lambda percent: mcnemar_power(n, percent / 100)
    )
    cases = 2
    while mcnemar_power(cases, gain) < POWER:
        cases *= 2
    needed = bisect_left(range(cases), POWER, key=lambda size: mcnemar_power(size, gain))
    share = mcnemar_power(n, gain)
    return Power(n, gain, share, (points + 1) / 100 if points < highest else None, needed)


def mcnemar_power(n: int, gain: float, worse_only: float = WORSE_ONLY) -> float:
    """Power of exact McNemar at .05 for a model that is better by ``gain``.

    Args:
        n: cases.
        gain: true difference in accuracy.
        worse_only: true share of cases that only the worse model classifies correctly; for the better
            model the share is worse_only + gain.
    """
    differing = 2 * worse_only + gain
    discordant = np.arange(n + 1)
    # p <= .05 where the smaller count is at most the largest k with 2 P(X <= k) <= .05.
    most = np.ceil(np.nan_to_num(special.bdtrik(LEVEL / 2, discordant, 0.5)))
    for _ in range(2):  # the inverse may be rounded up
        most = most - (special.bdtr(most, discordant, 0.5) > LEVEL / 2)
    share = (worse_only + gain) / differing
    few = special.bdtr(most, discordant, share)
    many = special.bdtrc(discordant - most - 1, discordant, share)
    rejects = np.where(most >= 0, few + many, 0.0)
    log_ways = -np.log(n + 1) - special.betaln(n - discordant + 1, discordant + 1)
    log_p = special.xlogy(discordant, differing) + special.xlog1py(n - discordant, -differing)
    return float(np.sum(np.exp(log_ways + log_p) * rejects))
