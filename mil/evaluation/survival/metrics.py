"""Numbers from times, events and risks, one per case; nothing here fits a model.

Everywhere: time (n,) until the event or the end of observation, event (n,) True where it was seen, risk (n,)
larger for an earlier event. Among equal times events come before the end of observation. What is
weighted by the inverse probability of being observed takes it from the same cases' own Kaplan-Meier curve
of censoring.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit
from scipy.stats import chi2, norm

from mil.evaluation.arrays import Bools, Floats, Ints
from mil.evaluation.intervals import Interval, wilson


@dataclass(frozen=True, eq=False)
class Curve:
    """Kaplan-Meier's estimate of the probability of no event (JASA 1958, 53:457).

    Attributes:
        time: (T,) distinct times at which an event or an end of observation lies, ascending.
        survival: (T,) from each of these times on.
        low: (T,) 95 % limits by Greenwood's variance on the log-log scale; NaN where undefined.
        high: (T,)
        censored: (T,) cases whose observation ends at each time.
    """

    time: Floats
    survival: Floats
    low: Floats
    high: Floats
    censored: Ints

    def at(self, times: Floats) -> Floats:
        """The estimate at any times; 1 before the first."""
        found: Floats = np.append(1.0, self.survival)[
            np.searchsorted(self.time, times, side="right")
        ]
        return found

    def before(self, times: Floats) -> Floats:
        """The estimate just before any times."""
        found: Floats = np.append(1.0, self.survival)[
            np.searchsorted(self.time, times, side="left")
        ]
        return found

    def median(self) -> float | None:
        """The first time by which half have had their event; None where it is not reached."""
        below = np.flatnonzero(self.survival <= 0.5)
        return float(self.time[below[0]]) if len(below) else None


def kaplan_meier(time: Floats, event: Bools) -> Curve:
    """The curve of some cases."""
    at, place = np.unique(time, return_inverse=True)
    deaths = np.bincount(place, weights=event, minlength=len(at))
    left = np.bincount(place, minlength=len(at))
    observed = len(time) - np.concatenate([[0], np.cumsum(left)[:-1]])
    survival = np.cumprod(1 - deaths / observed)
    with np.errstate(divide="ignore", invalid="ignore"):
        greenwood = np.cumsum(deaths / (observed * (observed - deaths)))
        log = np.log(survival)
        half = norm.isf(0.025) * np.sqrt(greenwood) / np.abs(log)
        low, high = np.exp(log * np.exp(half)), np.exp(log * np.exp(-half))
    known = (survival > 0) & (survival < 1)
    return Curve(
        at,
        survival,
        np.where(known, low, np.where(survival == 1, 1.0, np.nan)),
        np.where(known, high, np.where(survival == 1, 1.0, np.nan)),
        (left - deaths).astype(np.int64),
    )


def censoring(time: Floats, event: Bools) -> Curve:
    """The probability of still being observed; at a tie the event comes first and leaves the risk set."""
    # Events are set just before their time, so that the ends of observation meet a set without them.
    order = np.unique(time)
    shifted = 2 * np.searchsorted(order, time) + (~event)
    held = kaplan_meier(shifted.astype(np.float64), ~event)
    last = np.searchsorted(held.time, 2 * np.arange(len(order)) + 1, side="right") - 1
    survival = held.survival[last]
    nothing = np.full(len(order), np.nan)
    return Curve(order, survival, nothing, nothing, np.zeros(len(order), dtype=np.int64))


def median_follow_up(time: Floats, event: Bools) -> float | None:
    """How long half would have been observed had none had its event; None where that is not reached.

    Kaplan-Meier's curve with the roles of event and censoring exchanged (M. Schemper, T. Smith, A note on
    quantifying follow-up in studies of failure time, Control Clin Trials 1996, 17:343).
    """
    return censoring(time, event).median()


def number_at_risk(time: Floats, at: Floats) -> Ints:
    """(T,) cases that are still observed at each time, without event before it."""
    found: Ints = len(time) - np.searchsorted(np.sort(time), at, side="left")
    return found


@dataclass(frozen=True)
class LogRank:
    """Mantel's test that groups have one hazard (Cancer Chemother Rep 1966, 50:163)."""

    statistic: float
    df: int
    p: float


def log_rank(time: Floats, event: Bools, group: Ints) -> LogRank | None:
    """Compare the hazards of groups; None where there is one group only, or no event to compare by.

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
    """Events that the cases ``inside`` (n,) would have at everybody's hazard, as the log-rank test has it."""
    met = np.unique(time[event], return_counts=True)
    return float(sum(d * inside[time >= t].mean() for t, d in zip(*met, strict=True)))


def harrell_c(time: Floats, event: Bools, risk: Floats) -> float | None:
    """Share of comparable pairs whose earlier event has the higher risk, ties of risk counting half.

    A pair is comparable where the one with the shorter time had its event (F. Harrell et al., JAMA 1982).
    None where no pair is.
    """
    before, higher = _pairs(time, event, risk)
    return float((before * higher).sum() / before.sum()) if before.any() else None


def misordered(time: Floats, event: Bools, risk: Floats) -> tuple[Floats, Ints]:
    """(n,) comparable pairs of each case that are ranked wrongly, ties of risk a half; (n,) all of them.

    The share of their sums is 1 - C of Harrell.
    """
    before, higher = _pairs(time, event, risk)
    wrong = before * (1 - higher)
    return wrong.sum(axis=0) + wrong.sum(axis=1), before.sum(axis=0) + before.sum(axis=1)


def harrell_interval(time: Floats, event: Bools, risk: Floats, c: float | None = None) -> Interval:
    """95 % interval of Harrell's C on the logit scale; Wilson's over the events where it has no variance.

    The variance is that of a ratio of U-statistics, by the influence of each case. Coverage at nominal .95
    and true C .5 to .88, half of the cases censored, 1,500 cohorts each: 20 cases .931-.953, 40 .927-.946,
    100 .937-.949; percentile bootstrap of cases, 150 cohorts each, .90-.955.
    Of Cox models of 8 columns of noise, scored through 5 folds of 40 cases, it holds .5 in .835 of 200.

    Args:
        time: (n,).
        event: (n,).
        risk: (n,).
        c: where the interval is laid; the C of these cases if not given.

    Raises:
        ValueError: no pair is comparable.
    """
    before, higher = _pairs(time, event, risk)
    total = before.sum()
    if not total:
        raise ValueError("no pair of cases is comparable")
    found = float((before * higher).sum() / total)
    c = found if c is None else c
    away = before * (higher - found)
    influence = (away.sum(axis=0) + away.sum(axis=1)) / total
    n = len(time)
    variance = float((influence**2).sum()) * n / (n - 1)
    if not (variance > 0 and 0 < c < 1):
        held = wilson(c * event.sum(), float(event.sum()))
        return Interval(held.low, held.high, "Wilson over events")
    half = float(norm.isf(0.025)) * np.sqrt(variance) / (c * (1 - c))
    return Interval(
        float(expit(logit(c) - half)), float(expit(logit(c) + half)), "influence, logit scale"
    )


def uno_c(time: Floats, event: Bools, risk: Floats, until: float) -> float | None:
    """Harrell's C until a time, each pair weighted so that it does not depend on who was censored.

    H. Uno et al., On the C-statistics for evaluating overall adequacy of risk prediction procedures with
    censored survival data, Stat Med 2011, 30:1105. None where no pair is comparable.
    """
    before, higher = _pairs(time, event, risk)
    held = censoring(time, event).before(time)  # (n,), above 0 for every event
    weight = np.where(event & (time < until), 1 / np.where(event, held, 1.0) ** 2, 0.0)
    before = before * weight[:, None]
    return float((before * higher).sum() / before.sum()) if before.any() else None


def dynamic_auc(time: Floats, event: Bools, risk: Floats, at: Floats) -> Floats:
    """(T,) AUC of the risk for who has had the event by each time, against who is without it then.

    Cumulative cases and dynamic controls (H. Hung, C. Chiang, Can J Stat 2010, 38:8); cases are weighted
    by the inverse probability of being observed. NaN where one of the groups is empty.
    """
    weight = np.where(event, 1 / np.where(event, censoring(time, event).before(time), 1.0), 0.0)
    higher = _higher(risk)
    found = np.full(len(at), np.nan)
    for place, t in enumerate(at):
        case, control = weight * (time <= t), time > t
        if case.any() and control.any():
            found[place] = case @ higher[:, control].mean(axis=1) / case.sum()
    return found


def mean_dynamic_auc(time: Floats, event: Bools, risk: Floats, at: Floats) -> float | None:
    """The same averaged over times, each weighing what survival falls by until it from the one before."""
    each = dynamic_auc(time, event, risk, at)
    curve = kaplan_meier(time, event)
    falls = -np.diff(np.append(1.0, curve.at(at)))
    known = np.isfinite(each) & (falls > 0)
    return float(falls[known] @ each[known] / falls[known].sum()) if known.any() else None


def brier(time: Floats, event: Bools, survival: Floats, at: Floats) -> Floats:
    """(T,) mean of ``brier_errors`` over the cases."""
    mean: Floats = brier_errors(time, event, survival, at).mean(axis=0)
    return mean


def brier_errors(time: Floats, event: Bools, survival: Floats, at: Floats) -> Floats:
    """(n, T) squared error of each case's survival probability, weighted for censoring.

    E. Graf et al., Assessment and comparison of prognostic classification schemes for survival data, Stat
    Med 1999, 18:2529.

    Args:
        time: (n,).
        event: (n,).
        survival: (n, T) predicted.
        at: (T,) before the last time that a case was observed.
    """
    held = censoring(time, event)
    of_case = np.where(event, held.before(time), 1.0)[:, None]  # (n, 1)
    of_time = held.at(at)  # (T,)
    gone = (time[:, None] <= at) & event[:, None]
    there = time[:, None] > at
    # Where none is observed any more there is nothing to weigh.
    weights = there / np.where(there.any(axis=0), of_time, 1.0)
    errors: Floats = gone * survival**2 / of_case + weights * (1 - survival) ** 2
    return errors


def integrated_brier(time: Floats, event: Bools, survival: Floats, at: Floats) -> float:
    """The Brier score averaged over the span of times (T,) by trapezoids; arguments as of ``brier``."""
    each = brier(time, event, survival, at)
    return float(np.trapezoid(each, at) / (at[-1] - at[0]))


def _pairs(time: Floats, event: Bools, risk: Floats) -> tuple[Bools, Floats]:
    """(n, n) whether i's event came before j left; 1 where i's risk is higher, a half where it ties."""
    before = event[:, None] & ((time[:, None] < time) | ((time[:, None] == time) & ~event))
    return before, _higher(risk)


def _higher(risk: Floats) -> Floats:
    higher: Floats = (risk[:, None] > risk) + 0.5 * (risk[:, None] == risk)
    return higher
