"""From logits to a risk and to survival over time; fitted on the training cases of one fit.

A risk is measured from the median training case: above 0 is the high-risk half. So risks of different folds
can stand in one table, though the Cox loss leaves each fit's level open, and no fold says by its level
how many events it has trained on.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import log_expit

from mil.data.outcomes import Outcomes
from mil.errors import FitError
from mil.evaluation.arrays import Bools, Floats, Ints
from mil.evaluation.regression.cox import Baseline, breslow


@dataclass(frozen=True, kw_only=True)
class HazardRatio:
    """Of one logit, the log hazard ratio.

    Attributes:
        centre: the median training case's.
        time: (E,) distinct times of training events.
        hazard: (E,) cumulative hazard of a case at the centre.
    """

    centre: float
    time: tuple[float, ...]
    hazard: tuple[float, ...]

    def risk(self, logits: Floats) -> Floats:
        """(n,) log hazard ratio to the median training case, of logits (n, 1)."""
        found: Floats = logits[:, 0] - self.centre
        return found

    def survival(self, logits: Floats, at: Floats) -> Floats:
        """(n, T) probability of no event until each time."""
        return Baseline(np.array(self.time), np.array(self.hazard)).survival(self.risk(logits), at)

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"kind": "cox", **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Of a logit for each interval, that of its hazard (M. Gensheimer, B. Narasimhan, PeerJ 2019).

    Attributes:
        centre: the median training case's risk.
        cuts: (K,) where each interval ends; events at a cut belong to the interval before it.
    """

    centre: float
    cuts: tuple[float, ...]

    def risk(self, logits: Floats) -> Floats:
        """(n,) how much lower the mean survival at the cuts is than the median training case's."""
        found: Floats = -np.exp(_log_survival(logits)).mean(axis=1) - self.centre
        return found

    def survival(self, logits: Floats, at: Floats) -> Floats:
        """(n, T) probability of no event until each time: a constant rate within an interval, none after."""
        ends = np.concatenate([[0.0], self.cuts])
        logs = np.concatenate([np.zeros((len(logits), 1)), _log_survival(logits)], axis=1)
        found: Floats = np.exp(np.stack([np.interp(at, ends, row) for row in logs]))
        return found

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"kind": "discrete", **asdict(self)}


Timeline = HazardRatio | Intervals


def timeline_from_json(held: Mapping[str, Any]) -> Timeline:
    """A timeline as ``to_json`` wrote it."""
    if held["kind"] == "discrete":
        return Intervals(centre=held["centre"], cuts=tuple(held["cuts"]))
    return HazardRatio(
        centre=held["centre"], time=tuple(held["time"]), hazard=tuple(held["hazard"])
    )


def hazard_ratio(logits: Floats, outcomes: Outcomes) -> HazardRatio:
    """The timeline of training cases with these logits (n, 1)."""
    centre = float(np.median(logits[:, 0]))
    found = breslow(logits[:, 0] - centre, outcomes.time, outcomes.event)
    return HazardRatio(
        centre=centre, time=tuple(map(float, found.time)), hazard=tuple(map(float, found.hazard))
    )


def centred(cuts: Floats, logits: Floats) -> Intervals:
    """The timeline of training cases with these logits (n, K)."""
    level = Intervals(centre=0.0, cuts=tuple(map(float, cuts)))
    return Intervals(centre=float(np.median(level.risk(logits))), cuts=level.cuts)


def interval_cuts(outcomes: Outcomes, count: int) -> Floats:
    """(K,) ends of intervals with as many events in each; the last is the time of the last event.

    Raises:
        FitError: the events have too few distinct times.
    """
    times = outcomes.time[outcomes.event]
    cuts = np.unique(np.quantile(times, np.arange(1, count + 1) / count, method="inverted_cdf"))
    if len(cuts) < count or cuts[0] <= 0:
        raise FitError(
            f"{len(np.unique(times))} distinct times of events do not fill {count} intervals. Use fewer "
            "--intervals, or the cox loss."
        )
    return cuts


def interval_of(outcomes: Outcomes, cuts: Floats) -> Ints:
    """(n,) the interval of each event, or the last that a censored case survived; -1 for none.

    Cases observed beyond the last cut have survived all.
    """
    survived = np.searchsorted(cuts, outcomes.time, side="right") - 1
    met = np.searchsorted(cuts, outcomes.time, side="left")
    found: Ints = np.where(happened(outcomes, cuts), met, survived)
    return found


def happened(outcomes: Outcomes, cuts: Floats) -> Bools:
    """(n,) whether the event was seen within the intervals."""
    found: Bools = outcomes.event & (outcomes.time <= cuts[-1])
    return found


def _log_survival(logits: Floats) -> Floats:
    """(n, K) log probability of no event until the end of each interval."""
    found: Floats = np.cumsum(log_expit(-logits), axis=1)
    return found
