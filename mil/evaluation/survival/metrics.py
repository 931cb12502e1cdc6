"""Survival metrics from times, events and risks.

Throughout: time (n,) is that of the event or of censoring, event (n,) is True where the event was observed,
risk (n,) is larger for an earlier event. At equal times events come before censoring. Inverse probability of
censoring weights come from the Kaplan-Meier curve of censoring of the same cases.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from mil.distributions import chi2, norm
from mil.evaluation.arrays import Bools, Floats, Ints
from mil.evaluation.intervals import Interval, wilson

Z_95 = float(norm.isf(0.025))


@dataclass(frozen=True, eq=False)
class Curve:
    """Kaplan-Meier curve (JASA 1958, 53:457).

    Attributes:
        time: (T,) distinct times of events and censoring, ascending.
        survival: (T,) probability of no event, from that time on.
        low: (T,) lower 95 % limit by Greenwood's variance on the log-log scale; NaN where undefined.
        high: (T,) upper limit.
        censored: (T,) cases censored at that time.
    """

    time: Floats
    survival: Floats
    low: Floats
    high: Floats
    censored: Ints

    def at(self, times: Floats) -> Floats:
        """The curve at any times; 1 before the first."""
        values: Floats = np.append(1.0, self.survival)[
            np.searchsorted(self.time, times, side="right")
        ]
        return values

    def before(self, times: Floats) -> Floats:
        """The curve just before any times."""
        values: Floats = np.append(1.0, self.survival)[
            np.searchsorted(self.time, times, side="left")
        ]
        return values

    def median(self) -> float | None:
        """Median time to the event; None where it is not reached."""
        below = np.flatnonzero(self.survival <= 0.5)
        return float(self.time[below[0]]) if len(below) else None


def kaplan_meier(time: Floats, event: Bools) -> Curve:
    """The Kaplan-Meier curve of cases."""
    at, place = np.unique(time, return_inverse=True)
    deaths = np.bincount(place, weights=event, minlength=len(at))
    left = np.bincount(place, minlength=len(at))
    observed = len(time) - np.concatenate([[0], np.cumsum(left)[:-1]])
    survival = np.cumprod(1 - deaths / observed)
    with np.errstate(divide="ignore", invalid="ignore"):
        greenwood = np.cumsum(deaths / (observed * (observed - deaths)))
        log = np.log(survival)
        half = Z_95 * np.sqrt(greenwood) / np.abs(log)
        low, high = np.exp(log * np.exp(half)), np.exp(log * np.exp(-half))
    known = (survival > 0) & (survival < 1)
    return Curve(
        at,
        survival,
        np.where(known, low, np.where(survival == 1, 1.0, np.nan)),
        np.where(known, high, np.where(survival == 1, 1.0, np.nan)),
        (left - deaths).astype(np.int64),
    )


def survival_until(time: Floats, event: Bools, horizon: float) -> float:
    """The Kaplan-Meier curve at one time alone: a quarter of the work, for bootstraps."""
    at, deaths = np.unique(time[event & (time <= horizon)], return_counts=True)
    if not len(at):
        return 1.0
    observed = len(time) - np.searchsorted(np.sort(time), at)
    return float(np.cumprod(1 - deaths / observed)[-1])


def censoring(time: Floats, event: Bools) -> Curve:
    """Kaplan-Meier curve of censoring; at a tie events come first and leave the risk set."""
    # Events are moved just before their time, so that they are not at risk of censoring at that time.
    order = np.unique(time)
    shifted = 2 * np.searchsorted(order, time) + (~event)
    curve = kaplan_meier(shifted.astype(np.float64), ~event)
    last = np.searchsorted(curve.time, 2 * np.arange(len(order)) + 1, side="right") - 1
    survival = curve.survival[last]
    nothing = np.full(len(order), np.nan)
    return Curve(order, survival, nothing, nothing, np.zeros(len(order), dtype=np.int64))


def median_follow_up(time: Floats, event: Bools) -> float | None:
    """Median follow-up by the reverse Kaplan-Meier curve; None where it is not reached.

    M. Schemper, T. Smith, A note on quantifying follow-up in studies of failure time, Control Clin Trials
    1996, 17:343.
    """
    return censoring(time, event).median()


def number_at_risk(time: Floats, at: Floats) -> Ints:
    """Number at risk (T,): cases still under observation and without event before each time."""
    counts: Ints = len(time) - np.searchsorted(np.sort(time), at, side="left")
    return counts


@dataclass(frozen=True)
class LogRank:
    """Mantel's log-rank test that groups have the same hazard (Cancer Chemother Rep 1966, 50:163)."""

    statistic: float
    df: int
    p: float


def log_rank(time: Floats, event: Bools, group: Ints) -> LogRank | None:
    """Compare the hazards of groups; None where there is only one group, or no event.

    Args:
        time: (n,).
        event: (n,).
        group: (n,) any integers.
    """
    _, of = np.unique(group, return_inverse=True)
    n_groups = int(of.max()) + 1
    excess, variance = np.zeros(n_groups), np.zeros((n_groups, n_groups))
    for t in np.unique(time[event]):
        observed = np.bincount(of[time >= t], minlength=n_groups).astype(np.float64)
        met = np.bincount(of[(time == t) & event], minlength=n_groups)
        n, d = observed.sum(), met.sum()
        share = observed / n
        excess += met - d * share
        if n > 1:
            spread = np.diag(share) - np.outer(share, share)
            variance += spread * d * (n - d) / (n - 1)
    rank = int(np.linalg.matrix_rank(variance)) if n_groups > 1 else 0
    if rank == 0:
        return None
    statistic = float(excess @ np.linalg.pinv(variance) @ excess)
    return LogRank(statistic, rank, float(chi2.sf(statistic, rank)))


def expected_events(time: Floats, event: Bools, inside: Bools) -> float:
    """Expected events of the cases ``inside`` (n,) under a common hazard, as in the log-rank test."""
    met = np.unique(time[event], return_counts=True)
    return float(sum(d * inside[time >= t].mean() for t, d in zip(*met, strict=True)))


def harrell_c(time: Floats, event: Bools, risk: Floats) -> float | None:
    """Harrell's C: share of comparable pairs whose earlier event has the higher risk, ties counting half.

    A pair is comparable where the case with the shorter time had the event (F. Harrell et al., JAMA 1982).
    None where no pair is comparable.
    """
    before, higher = _pairs(time, event, risk)
    return float((before * higher).sum() / before.sum()) if before.any() else None


def misordered(time: Floats, event: Bools, risk: Floats) -> tuple[Floats, Ints]:
    """Misordered pairs of each case (n,), ties counting half, and its comparable pairs (n,).

    The ratio of their sums is 1 - Harrell's C.
    """
    before, higher = _pairs(time, event, risk)
    wrong = before * (1 - higher)
    return wrong.sum(axis=0) + wrong.sum(axis=1), before.sum(axis=0) + before.sum(axis=1)


def harrell_interval(time: Floats, event: Bools, risk: Floats, c: float | None = None) -> Interval:
    """95 % interval of Harrell's C on the logit scale; Wilson's over the events where the variance is 0.

    The variance is that of a ratio of U-statistics, from the influence of each case. Coverage at nominal .95
    and true C .5 to .88, half of the cases censored, 1,500 cohorts each: 20 cases .931-.953, 40 .927-.946,
    100 .937-.949; percentile bootstrap of cases, 150 cohorts each, .90-.955.
    For Cox models of 8 noise columns in 5-fold cross-validation of 40 cases it contains .5 in .835 of 200
    cohorts.

    Args:
        time: (n,).
        event: (n,).
        risk: (n,).
        c: value that the interval is laid around; the C of these cases by default.

    Raises:
        ValueError: no pair is comparable.
    """
    before, higher = _pairs(time, event, risk)
    total = before.sum()
    if not total:
        raise ValueError("no pair of cases is comparable")
    own_c = float((before * higher).sum() / total)
    c = own_c if c is None else c
    away = before * (higher - own_c)
    influence = (away.sum(axis=0) + away.sum(axis=1)) / total
    n = len(time)
    variance = float((influence**2).sum()) * n / (n - 1)
    if not (variance > 0 and 0 < c < 1):
        interval = wilson(c * event.sum(), float(event.sum()))
        return Interval(interval.low, interval.high, "Wilson over events")
    half = float(norm.isf(0.025)) * np.sqrt(variance) / (c * (1 - c))
    return Interval(
        float(expit(logit(c) - half)), float(expit(logit(c) + half)), "influence, logit scale"
    )


def uno_c(time: Floats, event: Bools, risk: Floats, until: float) -> float | None:
    """Uno's C until a time, weighted so that it does not depend on the censoring distribution.

    H. Uno et al., On the C-statistics for evaluating overall adequacy of risk prediction procedures with
    censored survival data, Stat Med 2011, 30:1105. None where no pair is comparable.
    """
    before, higher = _pairs(time, event, risk)
    observed = censoring(time, event).before(time)  # (n,), above 0 for every event
    weight = np.where(event & (time < until), 1 / np.where(event, observed, 1.0) ** 2, 0.0)
    before = before * weight[:, None]
    return float((before * higher).sum() / before.sum()) if before.any() else None


def dynamic_auc(time: Floats, event: Bools, risk: Floats, at: Floats) -> Floats:
    """Time-dependent AUC (T,): cases with the event by each time against those still without it.

    Cumulative cases and dynamic controls (H. Hung, C. Chiang, Can J Stat 2010, 38:8), with inverse
    probability of censoring weights. NaN where one of the groups is empty.
    """
    weight = np.where(event, 1 / np.where(event, censoring(time, event).before(time), 1.0), 0.0)
    higher = _higher(risk)
    aucs = np.full(len(at), np.nan)
    for place, t in enumerate(at):
        case, control = weight * (time <= t), time > t
        if case.any() and control.any():
            aucs[place] = case @ higher[:, control].mean(axis=1) / case.sum()
    return aucs


def mean_dynamic_auc(time: Floats, event: Bools, risk: Floats, at: Floats) -> float | None:
    """Time-dependent AUC averaged over times, weighted by the fall of survival before each time."""
    aucs = dynamic_auc(time, event, risk, at)
    curve = kaplan_meier(time, event)
    falls = -np.diff(np.append(1.0, curve.at(at)))
    known = np.isfinite(aucs) & (falls > 0)
    return float(falls[known] @ aucs[known] / falls[known].sum()) if known.any() else None


def brier(time: Floats, event: Bools, survival: Floats, at: Floats) -> Floats:
    """Brier score (T,): the mean of ``brier_errors`` over the cases."""
    mean: Floats = brier_errors(time, event, survival, at).mean(axis=0)
    return mean


def brier_errors(time: Floats, event: Bools, survival: Floats, at: Floats) -> Floats:
    """Squared errors (n, T) of the survival probabilities, weighted for censoring.

    E. Graf et al., Assessment and comparison of prognostic classification schemes for survival data, Stat
    Med 1999, 18:2529.

    Args:
        time: (n,).
        event: (n,).
        survival: (n, T) predicted probability of no event.
        at: (T,) times before the end of the last observation.
    """
    observed = censoring(time, event)
    of_case = np.where(event, observed.before(time), 1.0)[:, None]  # (n, 1)
    of_time = observed.at(at)  # (T,)
    had_event = (time[:, None] <= at) & event[:, None]
    still_observed = time[:, None] > at
    # Where no case is under observation the weight has no effect.
    weights = still_observed / np.where(still_observed.any(axis=0), of_time, 1.0)
    errors: Floats = had_event * survival**2 / of_case + weights * (1 - survival) ** 2
    return errors


def integrated_brier(time: Floats, event: Bools, survival: Floats, at: Floats) -> float:
    """Brier score averaged over the span of times (T,) by the trapezoidal rule; arguments as in ``brier``."""
    errors = brier(time, event, survival, at)
    return float(np.trapezoid(errors, at) / (at[-1] - at[0]))


def _pairs(time: Floats, event: Bools, risk: Floats) -> tuple[Bools, Floats]:
    """Comparable pairs (n, n), and 1 where the risk of i is higher than that of j, 0.5 where they tie."""
    before = event[:, None] & ((time[:, None] < time) | ((time[:, None] == time) & ~event))
    return before, _higher(risk)


def _higher(risk: Floats) -> Floats:
    higher: Floats = (risk[:, None] > risk) + 0.5 * (risk[:, None] == risk)
    return higher
