"""From logits to a risk and to survival over time; fitted on the training cases of one fit.

A risk is measured from the median training case: above 0 is the high-risk half. So risks of different folds
can stand in one table, although the Cox loss leaves the level of each fit open, and no fold reveals by its
level how many events it has trained on.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.special import log_expit
from torch import Tensor
from torch.nn.functional import logsigmoid

from mil.data.outcomes import Outcomes
from mil.errors import FitError
from mil.evaluation.arrays import Bools, Floats, Ints
from mil.evaluation.regression.cox import Baseline, breslow
from mil.evaluation.survival.predictions import PREFIX, horizon_of
from mil.learning.readout import Readout


class RiskModel(Readout):
    """Logits as a risk and a survival curve."""

    unit: ClassVar[str] = "risk"
    same_scale: ClassVar[bool] = False  # a risk is measured from the fit's own training cases

    @property
    def classes(self) -> tuple[str, ...]:
        """The one score."""
        return ("risk",)

    @property
    def answer_names(self) -> tuple[str, ...]:
        """The risk."""
        return ("risk",)

    @abstractmethod
    def risk(self, logits: Floats) -> Floats:
        """(n,) risks of logits (n, C); 0 is that of the median training case."""

    @abstractmethod
    def survival(self, logits: Floats, times: Floats) -> Floats:
        """(n, T) probability of no event until each time, of logits (n, C)."""

    def answer(self, logits: Tensor, columns: Sequence[str] = ()) -> dict[str, float]:
        """The risk, and survival in those of the columns that are ``s_<time>``."""
        row = logits.double().numpy()[None]
        curve = [name for name in columns if name.startswith(PREFIX)]
        survival = self.survival(row, np.array([horizon_of(name) for name in curve]))[0]
        values = dict(zip(curve, map(float, survival), strict=True))
        return {"risk": float(self.risk(row)[0]), **values}

    def verdict(self, answer: Mapping[str, float]) -> str:
        """The half of the training cases whose risk this is."""
        return "high risk" if answer["risk"] > 0 else "low risk"

    def index(self, logits: Tensor) -> int:
        """The one score."""
        del logits
        return 0

    def answer_of(self, logits: Tensor, target: int) -> Tensor:
        """The risk."""
        return self.score(logits, target)


@dataclass(frozen=True, kw_only=True)
class HazardRatio(RiskModel):
    """One logit, the log hazard ratio.

    Attributes:
        centre: the logit of the median training case.
        time: (E,) distinct times of training events.
        hazard: (E,) cumulative hazard of a case at the centre.
    """

    outputs: ClassVar[tuple[str, ...]] = ("risk",)  # type: ignore[misc]
    linear: ClassVar[bool] = True
    centre: float
    time: tuple[float, ...]
    hazard: tuple[float, ...]

    def risk(self, logits: Floats) -> Floats:
        """(n,) log hazard ratio to the median training case, of logits (n, 1)."""
        difference: Floats = logits[:, 0] - self.centre
        return difference

    def survival(self, logits: Floats, times: Floats) -> Floats:
        """(n, T) probability of no event until each time."""
        baseline = Baseline(np.array(self.time), np.array(self.hazard))
        return baseline.survival(self.risk(logits), times)

    def score(self, logits: Tensor, target: int) -> Tensor:
        """The log hazard ratio to the median training case."""
        del target
        return logits[..., 0] - self.centre

    def to_json(self) -> dict[str, Any]:
        """As a card holds it."""
        return {"kind": "cox", **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class IntervalHazards(RiskModel):
    """One logit per interval, that of its hazard (M. Gensheimer, B. Narasimhan, PeerJ 2019).

    Attributes:
        centre: the risk of the median training case.
        cuts: (K,) end of each interval; an event at a cut belongs to the interval before it.
    """

    linear: ClassVar[bool] = False
    centre: float
    cuts: tuple[float, ...]

    @property
    def outputs(self) -> tuple[str, ...]:  # type: ignore[override]
        """One per interval."""
        return tuple(f"to {cut:g}" for cut in self.cuts)

    def risk(self, logits: Floats) -> Floats:
        """(n,) how much lower the mean survival at the cuts is than that of the median training case."""
        lower: Floats = -np.exp(_log_survival(logits)).mean(axis=1) - self.centre
        return lower

    def survival(self, logits: Floats, times: Floats) -> Floats:
        """(n, T) probability of no event until each time: a constant rate within an interval, none after."""
        ends = np.concatenate([[0.0], self.cuts])
        logs = np.concatenate([np.zeros((len(logits), 1)), _log_survival(logits)], axis=1)
        curves: Floats = np.exp(np.stack([np.interp(times, ends, row) for row in logs]))
        return curves

    def score(self, logits: Tensor, target: int) -> Tensor:
        """The risk; not linear in the logits."""
        del target
        return -logsigmoid(-logits).cumsum(dim=-1).exp().mean(dim=-1) - self.centre

    def to_json(self) -> dict[str, Any]:
        """As a card holds it."""
        return {"kind": "discrete", **asdict(self)}


def risk_model_from_json(card: Mapping[str, Any]) -> RiskModel:
    """A risk model as ``to_json`` wrote it."""
    if card["kind"] == "discrete":
        return IntervalHazards(centre=card["centre"], cuts=tuple(card["cuts"]))
    return HazardRatio(
        centre=card["centre"], time=tuple(card["time"]), hazard=tuple(card["hazard"])
    )


def fit_hazard_ratio(logits: Floats, outcomes: Outcomes) -> HazardRatio:
    """The risk model of training cases with these logits (n, 1)."""
    centre = float(np.median(logits[:, 0]))
    baseline = breslow(logits[:, 0] - centre, outcomes.time, outcomes.event)
    return HazardRatio(
        centre=centre,
        time=tuple(map(float, baseline.time)),
        hazard=tuple(map(float, baseline.hazard)),
    )


def fit_interval_hazards(cuts: Floats, logits: Floats) -> IntervalHazards:
    """The risk model of training cases with these logits (n, K)."""
    at_zero = IntervalHazards(centre=0.0, cuts=tuple(map(float, cuts)))
    return IntervalHazards(centre=float(np.median(at_zero.risk(logits))), cuts=at_zero.cuts)


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
            "intervals, or the cox loss."
        )
    return cuts


def interval_index(outcomes: Outcomes, cuts: Floats) -> Ints:
    """(n,) the interval of each event, or the last that a censored case survived; -1 for none.

    Cases observed beyond the last cut have survived all.
    """
    survived = np.searchsorted(cuts, outcomes.time, side="right") - 1
    interval = np.searchsorted(cuts, outcomes.time, side="left")
    index: Ints = np.where(event_observed(outcomes, cuts), interval, survived)
    return index


def event_observed(outcomes: Outcomes, cuts: Floats) -> Bools:
    """(n,) whether the event was observed within the intervals."""
    observed: Bools = outcomes.event & (outcomes.time <= cuts[-1])
    return observed


def _log_survival(logits: Floats) -> Floats:
    """(n, K) log probability of no event until the end of each interval."""
    logs: Floats = np.cumsum(log_expit(-logits), axis=1)
    return logs
