"""Calibration of predicted survival: do as many cases survive as the model predicts?

Out-of-fold predictions come from several fits, so that this judges the way of fitting rather than one model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from scipy.optimize import brentq

from mil.distributions import chi2
from mil.errors import FitError
from mil.evaluation.arrays import Bools, Floats, Ints
from mil.evaluation.display import Table, format_estimate
from mil.evaluation.intervals import Estimate, wilson
from mil.evaluation.regression.cox import fit_cox, partial_likelihood
from mil.evaluation.survival.metrics import survival_until
from mil.evaluation.survival.predictions import CaseRisks

NEAREST = 1e-12  # distance of survival from 0 and 1 before a logarithm
CASES_PER_GROUP, EVENTS_PER_GROUP, MOST_GROUPS = 10, 5, 4
FEWEST_CASES = 8  # below, one group
FEW_EVENTS = 10
CONFIDENCE = 0.95
MEANING = (
    "Right predictions have a difference of 0, a ratio of 1 and a slope of 1. Ratio above 1: more events "
    "than predicted. Slope below 1: predictions too extreme."
)
EFFECTIVE, POISSON, RATIO_TEST = "Wilson, effective n", "Poisson", "likelihood ratio"


@dataclass(frozen=True)
class RiskGroup:
    """Cases of similar predicted survival until one horizon.

    Attributes:
        predicted: mean predicted survival.
        observed: Kaplan-Meier's estimate; None where no case was followed for so long.
        low: 95 % limits of observed; None likewise.
        high: likewise.
        n: cases.
        events: events until the horizon.
        followed: cases still observed beyond the horizon.
    """

    predicted: float
    observed: float | None
    low: float | None
    high: float | None
    n: int
    events: int
    followed: int


@dataclass(frozen=True)
class HorizonCalibration:
    """Risk groups at one horizon, from the lowest predicted survival to the highest."""

    horizon: float
    groups: tuple[RiskGroup, ...]


@dataclass(frozen=True)
class SurvivalCalibration:
    """How far predicted survival can be believed.

    Attributes:
        events: events of all cases.
        middle: the horizon of difference, ratio and slope.
        difference: calibration in the large: observed minus mean predicted survival of all cases until the
            middle horizon; above 0 the model is too pessimistic. Limits are those of the observed survival.
        ratio: observed over expected events until the middle horizon; above 1 the model is too optimistic.
            Each case is expected to have as many events as its cumulative hazard over its own follow-up.
        slope: Cox regression of the outcome on the log of the predicted cumulative hazard until the middle
            horizon; below 1 predictions are too extreme.
        horizons: observed against predicted survival in risk groups of the first repeat, the middle horizon
            among them; one group where the model gives every case the same risk.
        note: what so few events cannot show; empty where there are 10 or more.
    """

    events: int
    middle: float
    difference: Estimate
    ratio: Estimate
    slope: Estimate
    horizons: tuple[HorizonCalibration, ...]
    note: str

    def to_json(self) -> dict[str, object]:
        """The fields as plain values."""
        return asdict(self)

    @property
    def middle_groups(self) -> tuple[RiskGroup, ...]:
        """The risk groups at the middle horizon."""
        return next(at.groups for at in self.horizons if at.horizon == self.middle)

    def estimates(self) -> dict[str, Estimate]:
        """The numbers that describe all cases, by name."""
        return {"difference": self.difference, "ratio": self.ratio, "slope": self.slope}


def calibrate_survival(repeats: Sequence[CaseRisks], horizons: Floats) -> SurvivalCalibration:
    """Judge the predicted survival of one model; numbers are means over repeats.

    Coverage at nominal .95 where predictions are right, 20 to 100 cases, a third to two thirds of them with
    an event, 400 cohorts each (benchmarks.survival_calibration): difference .948 or more, ratio .940 or more,
    slope .930 or more, observed survival of a group .948 or more.

    Args:
        repeats: predictions of the model for the same cases.
        horizons: (T,) times at which survival is predicted, ascending.
    """
    # Sums of floats depend on their layout; so a table gives the same bytes in memory and from its file.
    repeats = [replace(one, survival=np.ascontiguousarray(one.survival)) for one in repeats]
    first, last = repeats[0], len(horizons) - 1
    middle = last // 2
    places = dict.fromkeys((last // 4, middle, round(last * 3 / 4)))
    shown = first.survival
    if all(
        np.ptp(one.risk) == 0 for one in repeats
    ):  # differences between folds tell no cases apart
        shown = np.tile(shown.mean(axis=0), (len(shown), 1))
    events = int(first.event.sum())
    return SurvivalCalibration(
        events=events,
        middle=float(horizons[middle]),
        difference=_difference(repeats, middle, float(horizons[middle])),
        ratio=_ratio(repeats, horizons[: middle + 1]),
        slope=_slope(repeats, middle),
        horizons=tuple(
            HorizonCalibration(
                float(horizons[place]),
                risk_groups(first.time, first.event, shown[:, place], float(horizons[place])),
            )
            for place in places
        ),
        note=_note(events, len(first.time)),
    )


def risk_groups(
    time: Floats, event: Bools, survival: Floats, horizon: float
) -> tuple[RiskGroup, ...]:
    """Observed against predicted survival in two to four groups of about as many cases.

    There are as many groups as leave about 10 cases and 5 events to each, but two at least; one below 8
    cases. Cases of equal prediction stay together, so that there may be fewer.

    Args:
        time: (n,) time of the event or of censoring.
        event: (n,) True where the event was observed.
        survival: (n,) predicted until the horizon.
        horizon: a time.
    """
    group = _group_of(survival, int(event.sum()))
    groups = []
    for index in range(int(group.max()) + 1):
        inside = group == index
        observed = observed_survival(time[inside], event[inside], horizon)
        groups.append(
            RiskGroup(
                predicted=float(survival[inside].mean()),
                observed=observed.value,
                low=observed.low,
                high=observed.high,
                n=int(inside.sum()),
                events=int((event & (time <= horizon))[inside].sum()),
                followed=int((time > horizon)[inside].sum()),
            )
        )
    return tuple(groups)


def observed_survival(time: Floats, event: Bools, horizon: float) -> Estimate:
    """Kaplan-Meier's estimate until a horizon, with limits that stay honest for a handful of cases.

    Wilson's interval of as many cases as would leave the number followed to the horizon at the observed
    survival (F. Dorey, E. Korn, Stat Med 1987, 6:679); where every case had its event, of the number of
    events.

    Args:
        time: (n,) time of the event or of censoring.
        event: (n,) True where the event was observed.
        horizon: a time.

    Returns:
        No value where no case is followed to the horizon although some had no event.
    """
    survival = survival_until(time, event, horizon)
    followed = int((time >= horizon).sum())
    if survival > 0 and not followed:
        return Estimate(None, None, None, "none", "undefined: no case is followed to the horizon")
    effective = followed / survival if survival > 0 else float(event.sum())
    interval = wilson(survival * effective, effective, CONFIDENCE)
    return Estimate(survival, interval.low, interval.high, EFFECTIVE)


def poisson_limits(events: int) -> tuple[float, float]:
    """Exact 95 % limits of the mean of a Poisson count (F. Garwood, Biometrika 1936, 28:437)."""
    tail = (1 - CONFIDENCE) / 2
    low = float(chi2.ppf(tail, 2 * events)) / 2 if events else 0.0
    return low, float(chi2.isf(tail, 2 * events + 2)) / 2


def expected_hazard(time: Floats, survival: Floats, horizons: Floats) -> Floats:
    """(n,) predicted cumulative hazard of each case until its time, or until the last horizon before that.

    Between horizons the hazard is constant, and survival is 1 at time 0.

    Args:
        time: (n,) time of the event or of censoring.
        survival: (n, T) predicted.
        horizons: (T,) ascending, above 0.
    """
    hazard = -np.log(np.maximum(survival, NEAREST))
    grid = np.append(0.0, horizons)
    return np.array(
        [np.interp(t, grid, np.append(0.0, own)) for t, own in zip(time, hazard, strict=True)]
    )


def calibration_slope(linear: Floats, time: Floats, event: Bools) -> Estimate:
    """Coefficient of a linear predictor in a Cox regression, with limits by the likelihood ratio.

    Args:
        linear: (n,) log hazard, or log cumulative hazard.
        time: (n,) time of the event or of censoring.
        event: (n,) True where the event was observed.
    """
    if not event.any():
        return Estimate(None, None, None, "none", "undefined: no event")
    if np.ptp(linear) < 1e-9:
        return Estimate(None, None, None, "none", "undefined: every case has the same prediction")
    try:
        fit = fit_cox(linear[:, None], time, event)
    except FitError:
        note = "undefined: the predictions order these events without an error, or all wrongly"
        return Estimate(None, None, None, "none", note)
    value, error = float(fit.coefficients[0]), float(fit.errors[0])
    if not np.isfinite(error):  # the likelihood is flat
        note = "undefined: no other case was observed when an event came"
        return Estimate(None, None, None, "none", note)
    top = partial_likelihood(value * linear, time, event)
    critical = float(chi2.ppf(CONFIDENCE, 1))

    def excess(slope: float) -> float:
        return 2 * (top - partial_likelihood(slope * linear, time, event)) - critical

    low, high = (_root(excess, value, sign * error) for sign in (-1.0, 1.0))
    note = "" if low is not None and high is not None else "no limit on one side"
    return Estimate(value, low, high, RATIO_TEST, note)


def calibration_tables(models: Mapping[str, SurvivalCalibration], unit: str) -> list[Table]:
    """The numbers of each model as text, then its groups of cases at the middle horizon.

    Args:
        models: by name, of the same cases; none where no survival is predicted.
        unit: of time.
    """
    if not models:
        return []
    first = next(iter(models.values()))
    numbers = [
        [model, *(format_estimate(e, no_interval="") for e in calibration.estimates().values())]
        for model, calibration in models.items()
    ]
    return [
        Table(
            f"Calibration of predicted survival until {first.middle:.4g} {unit}:",
            ["model", "observed - predicted", "events, observed/expected", "slope"],
            numbers,
            [MEANING, *([first.note] if first.note else [])],
        ),
        Table(
            f"Survival until {first.middle:.4g} {unit} in groups of cases of similar prediction:",
            ["model", "cases", "events", "predicted", "observed (Kaplan-Meier)"],
            [
                [model, *row]
                for model, calibration in models.items()
                for row in map(_describe_group, calibration.middle_groups)
            ],
        ),
    ]


def _describe_group(group: RiskGroup) -> list[str]:
    observed = Estimate(group.observed, group.low, group.high, EFFECTIVE)
    counts = [str(group.n), str(group.events)]
    return [*counts, f"{group.predicted:.2f}", format_estimate(observed)]


def _root(excess: Callable[[float], float], start: float, step: float) -> float | None:
    """Where the likelihood ratio becomes significant in the direction of step; None where it never does."""
    for _ in range(12):
        if excess(start + step) > 0:
            return float(brentq(excess, start, start + step, xtol=1e-10))
        step *= 2
    return None


def _group_of(survival: Floats, events: int) -> Ints:
    """(n,) group of each case, 0 for the lowest predicted survival; equal predictions share a group."""
    n = len(survival)
    count = int(np.clip(min(n // CASES_PER_GROUP, events // EVENTS_PER_GROUP), 2, MOST_GROUPS))
    if n < FEWEST_CASES:
        count = 1
    cuts = np.sort(survival)[[round(n * k / count) for k in range(1, count)]]
    group = np.searchsorted(cuts, survival, side="right")
    return np.unique(group, return_inverse=True)[1].astype(np.int64)


def _difference(repeats: Sequence[CaseRisks], place: int, horizon: float) -> Estimate:
    predicted = float(np.mean([one.survival[:, place].mean() for one in repeats]))
    observed = observed_survival(repeats[0].time, repeats[0].event, horizon)
    if observed.value is None or observed.low is None or observed.high is None:
        return observed
    return Estimate(
        observed.value - predicted, observed.low - predicted, observed.high - predicted, EFFECTIVE
    )


def _ratio(repeats: Sequence[CaseRisks], horizons: Floats) -> Estimate:
    time, event, until = repeats[0].time, repeats[0].event, float(horizons[-1])
    events = int((event & (time <= until)).sum())
    hazards = [
        expected_hazard(np.minimum(time, until), one.survival[:, : len(horizons)], horizons).sum()
        for one in repeats
    ]
    expected = float(np.mean(hazards))
    if not expected > 0:
        return Estimate(None, None, None, "none", "undefined: no event is predicted")
    low, high = poisson_limits(events)
    note = f"{events} observed, {expected:.1f} expected"
    return Estimate(events / expected, low / expected, high / expected, POISSON, note)


def _slope(repeats: Sequence[CaseRisks], place: int) -> Estimate:
    """The mean of the repeats' slopes and of their limits."""
    if all(np.ptp(one.risk) == 0 for one in repeats):
        return Estimate(None, None, None, "none", "undefined: every case has the same risk")
    slopes = [
        calibration_slope(_log_hazard(one.survival[:, place]), one.time, one.event)
        for one in repeats
    ]
    if undefined := [slope for slope in slopes if slope.value is None]:
        return undefined[0]
    note = next((slope.note for slope in slopes if slope.note), "")
    value, low, high = (
        _mean([getattr(slope, name) for slope in slopes]) for name in ("value", "low", "high")
    )
    return Estimate(value, low, high, RATIO_TEST, note)


def _log_hazard(survival: Floats) -> Floats:
    """Log of the cumulative hazard."""
    hazard: Floats = np.log(-np.log(np.clip(survival, NEAREST, 1 - NEAREST)))
    return hazard


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _note(events: int, n: int) -> str:
    if events >= FEW_EVENTS:
        return ""
    return (
        f"{events} event{'s' * (events != 1)} among {n} cases: limits so wide that only gross "
        "miscalibration can be seen."
    )
