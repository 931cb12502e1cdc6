"""The table of survival metrics. To add one, write a function of ``ModelRisks`` and add a row."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mil.evaluation.arrays import Bools, Floats
from mil.evaluation.intervals import Estimate
from mil.evaluation.metric import Metric
from mil.evaluation.survival.metrics import (
    harrell_c,
    harrell_interval,
    integrated_brier,
    kaplan_meier,
    mean_dynamic_auc,
    uno_c,
)
from mil.evaluation.survival.predictions import CaseRisks

NOT_COMPARABLE = "undefined: no two cases can be compared"


@dataclass(frozen=True, eq=False)
class ModelRisks:
    """Predictions of one model for the same cases in each repeat.

    Attributes:
        repeats: one entry per repeat.
        horizons: (T,) times at which survival is predicted.
    """

    repeats: tuple[CaseRisks, ...]
    horizons: Floats

    @property
    def time(self) -> Floats:
        """(n,) times; the same in every repeat."""
        return self.repeats[0].time

    @property
    def event(self) -> Bools:
        """(n,) True where the event was observed."""
        return self.repeats[0].event

    @property
    def constant(self) -> bool:
        """Whether every case has the same risk, in every repeat."""
        return all(np.ptp(risks.risk) == 0 for risks in self.repeats)

    def per_repeat(self, metric: Callable[[CaseRisks], float | None]) -> tuple[float | None, ...]:
        """Value of a metric in each repeat."""
        return tuple(metric(risks) for risks in self.repeats)


def harrell(scores: ModelRisks) -> Estimate:
    """Harrell's C, with the interval of the repeat nearest the mean, laid around the mean."""
    values = harrell_per_repeat(scores)
    mean = _mean_estimate(values)
    if mean.value is None:
        return mean
    if scores.constant:
        return Estimate(mean.value, None, None, "none", "every case has the same risk")
    distances = [abs((value or 0.0) - mean.value) for value in values]
    nearest = scores.repeats[int(np.argmin(distances))]
    interval = harrell_interval(scores.time, scores.event, nearest.risk, mean.value)
    return Estimate(mean.value, interval.low, interval.high, interval.method)


def uno(scores: ModelRisks) -> Estimate:
    """Uno's C until the last horizon, which does not depend on the censoring distribution."""
    last = float(scores.horizons[-1])
    return _mean_estimate(
        scores.per_repeat(lambda risks: uno_c(risks.time, risks.event, risks.risk, last))
    )


def dynamic_auc(scores: ModelRisks) -> Estimate:
    """Time-dependent AUC, averaged over the horizons."""
    at = scores.horizons
    return _mean_estimate(
        scores.per_repeat(lambda risks: mean_dynamic_auc(risks.time, risks.event, risks.risk, at))
    )


def ibs(scores: ModelRisks) -> Estimate:
    """Integrated Brier score; smaller is better."""
    at = scores.horizons
    if not scores.repeats[0].survival.size:
        return Estimate(
            None, None, None, "none", "undefined: no survival curves (columns s_<time>)"
        )
    return _mean_estimate(
        scores.per_repeat(
            lambda risks: integrated_brier(risks.time, risks.event, risks.survival, at)
        )
    )


def _guess_ibs(scores: ModelRisks) -> float:
    """Integrated Brier score of the Kaplan-Meier curve of all cases, given to each case."""
    curve = kaplan_meier(scores.time, scores.event).at(scores.horizons)
    survival = np.tile(curve, (len(scores.time), 1))
    return integrated_brier(scores.time, scores.event, survival, scores.horizons)


def harrell_per_repeat(scores: ModelRisks) -> tuple[float | None, ...]:
    """Harrell's C of each repeat; None where no two cases can be compared."""
    return scores.per_repeat(lambda risks: harrell_c(risks.time, risks.event, risks.risk))


def _mean_estimate(values: tuple[float | None, ...]) -> Estimate:
    """The mean over repeats, without limits."""
    defined = [value for value in values if value is not None]
    if not defined:
        return Estimate(None, None, None, "none", NOT_COMPARABLE)
    return Estimate(float(np.mean(defined)), None, None, "none")


METRICS: tuple[Metric[ModelRisks], ...] = (
    Metric(
        "harrell",
        "Harrell C",
        harrell,
        guess=lambda _: 0.5,
        shown="summary",
        no_interval="",
        page_label="Harrell's C",
    ),
    Metric(
        "uno",
        "Uno C",
        uno,
        guess=lambda _: 0.5,
        shown="summary",
        interval=False,
        page_label="Uno's C",
    ),
    Metric("auc", "AUC(t)", dynamic_auc, guess=lambda _: 0.5, shown="summary", interval=False),
    Metric("ibs", "IBS", ibs, guess=_guess_ibs, shown="summary", digits=3, interval=False),
)
