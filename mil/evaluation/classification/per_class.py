"""What a model achieved for each class, and whether guessing could do as well."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy.stats import binom

from mil.evaluation.arrays import Floats, Ints
from mil.evaluation.bootstrap import bca, case_weights, leave_one_out
from mil.evaluation.classification import metrics
from mil.evaluation.intervals import (
    Estimate,
    Interval,
    exact,
    logit_delong_macro_auc,
    newcombe_auc,
    predictive_value,
    wilson,
    wilson_continuity,
)
from mil.evaluation.predictions import CaseScores

INTERVALS = {"exact": exact, "wilson": wilson, "wilson-cc": wilson_continuity}
RESAMPLES, SEED = 2000, 0


@dataclass(frozen=True)
class Proportion(Estimate):
    """A share of cases: k of n, both averaged over repeats."""

    k: float = 0.0
    n: float = 0.0


@dataclass(frozen=True)
class PredictiveValues:
    """What a call is worth where the class is as frequent as stated."""

    prevalence: float
    ppv: Estimate
    npv: Estimate


@dataclass(frozen=True)
class ClassResult:
    """One class against the rest.

    Attributes:
        name: of the class.
        n: its cases.
        sensitivity: share of its cases called so.
        specificity: share of the other cases not called so.
        ppv: share of the cases called so that are of it, at the cohort's own prevalence.
        npv: share of the cases not called so that are not of it, likewise.
        at_prevalence: both at the prevalence stated, if one was.
        auc: one against the rest, Newcombe's interval.
        auc_delong: the same AUC, DeLong's interval on the logit scale.
        average_precision: one against the rest; without skill it is the prevalence.
    """

    name: str
    n: int
    sensitivity: Proportion
    specificity: Proportion
    ppv: Proportion
    npv: Proportion
    at_prevalence: PredictiveValues | None
    auc: Estimate
    auc_delong: Estimate
    average_precision: Estimate

    def to_json(self) -> dict[str, object]:
        """The fields as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Spread:
    """A number over the repeats: what reshuffling and reseeding move, not what other cases would."""

    mean: float
    sd: float | None
    least: float
    most: float


def class_results(
    repeats: Sequence[CaseScores],
    classes: Sequence[str],
    precisions: Sequence[Estimate],
    interval: str = "exact",
    prevalence: Mapping[str, float] | None = None,
) -> tuple[ClassResult, ...]:
    """Judge each class against the rest; numbers and counts are means over the repeats.

    Args:
        repeats: of one model over the same cases.
        classes: names, in the order of the probabilities.
        precisions: of each class, from ``average_precisions``.
        interval: of the shares, a key of ``INTERVALS``.
        prevalence: of classes where the test is to be used.
    """
    truth = repeats[0].truth
    counts = np.mean([metrics.confusion(each.truth, each.p) for each in repeats], axis=0)
    found = []
    for index, name in enumerate(classes):
        hits = counts[index, index]
        called, own, total = counts[:, index].sum(), counts[index].sum(), counts.sum()
        clears = total - own - called + hits
        auc, auc_delong = _class_auc(repeats, index)
        share = (prevalence or {}).get(name)
        found.append(
            ClassResult(
                name=name,
                n=int(np.sum(truth == index)),
                sensitivity=proportion(hits, own, f"no case of {name}", interval),
                specificity=proportion(
                    clears, total - own, f"no case that is not {name}", interval
                ),
                ppv=proportion(hits, called, f"no case was called {name}", interval),
                npv=proportion(clears, total - called, f"every case was called {name}", interval),
                at_prevalence=None
                if share is None or not 0 < own < total
                else _at((hits, own), (clears, total - own), share),
                auc=auc,
                auc_delong=auc_delong,
                average_precision=precisions[index],
            )
        )
    return tuple(found)


def proportion(k: float, n: float, undefined: str, interval: str = "exact") -> Proportion:
    """K of n with its interval; undefined, for the reason given, where n is 0."""
    k, n = float(min(k, n)), float(n)  # means over repeats may differ in the last bit
    if n == 0:
        return Proportion(None, None, None, "none", f"undefined: {undefined}", k, n)
    found = INTERVALS[interval](k, n)
    return Proportion(k / n, found.low, found.high, found.method, "", k, n)


def p_no_better(correct: float, n: int, share: float) -> float:
    """How often guessing, right with this probability, is right on as many cases or more.

    Args:
        correct: cases called rightly; a mean over repeats is rounded down.
        n: cases.
        share: 1 / C for guessing, the largest class's share for always naming that class.
    """
    return float(binom.sf(math.floor(correct + 1e-9) - 1, n, share))


def average_precisions(truth: Ints, p: Sequence[Floats]) -> tuple[Estimate, ...]:
    """Average precision of each class against the rest, then their mean; BCa case bootstrap.

    The mean is over all classes, or that of class 1 where there are two, as with the AUC. At nominal
    .95 the interval covers .89 at 10 + 10 cases, .92 at 15 + 15 and .93 at 25 + 25: too narrow rather
    than too wide.

    Args:
        truth: (n,) class indices.
        p: (n, C) probabilities of each repeat.

    Returns:
        C estimates and, last, that of their mean; undefined where there is no case of the class, or no other.
    """
    n_classes = p[0].shape[1]
    weights = np.vstack(
        [np.ones(len(truth)), leave_one_out(len(truth)), case_weights(truth, RESAMPLES, SEED)]
    )
    # (C, 1 + n + B): of all cases, of all but each, of the resamples
    of_class = np.stack(
        [
            np.mean([metrics.average_precision(truth == k, q[:, k], weights) for q in p], axis=0)
            if (truth != k).any()
            else np.full(len(weights), np.nan)
            for k in range(n_classes)
        ]
    )
    macro = of_class[1] if n_classes == 2 else of_class.mean(axis=0)
    return tuple(_resampled(values, truth) for values in (*of_class, macro))


def spread(values: Sequence[float | None]) -> Spread | None:
    """Of one number per repeat; None where a repeat has none."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    sd = float(np.std(known, ddof=1)) if len(known) > 1 else None
    return Spread(float(np.mean(known)), sd, min(known), max(known))


def estimate(value: float, interval: Interval, note: str = "") -> Estimate:
    """A number and its interval as one."""
    return Estimate(float(value), interval.low, interval.high, interval.method, note)


def _at(hits: tuple[float, float], clears: tuple[float, float], share: float) -> PredictiveValues:
    return PredictiveValues(
        share,
        _predictive(predictive_value(hits, clears, share)),
        _predictive(predictive_value(clears, hits, 1 - share)),
    )


def _predictive(found: tuple[float, Interval]) -> Estimate:
    value, interval = found
    if math.isnan(value):
        return Estimate(None, None, None, "none", "undefined: never called")
    return estimate(value, interval)


def _class_auc(repeats: Sequence[CaseScores], index: int) -> tuple[Estimate, Estimate]:
    positive = repeats[0].truth == index
    if positive.all() or not positive.any():
        undefined = Estimate(None, None, None, "none", "undefined: needs cases of it and of others")
        return undefined, undefined
    n_pos, n_neg = int(positive.sum()), int((~positive).sum())
    truth = positive.astype(np.int64)
    scores = [np.stack([-each.p[:, index], each.p[:, index]], axis=1) for each in repeats]
    auc = float(np.mean([metrics.macro_auc(truth, each) for each in scores]))
    return (
        estimate(auc, newcombe_auc(auc, n_pos, n_neg)),
        estimate(auc, logit_delong_macro_auc(truth, scores)),
    )


def _resampled(values: Floats, truth: Ints) -> Estimate:
    value, left_out, replicates = values[0], values[1 : 1 + len(truth)], values[1 + len(truth) :]
    if math.isnan(value):
        return Estimate(None, None, None, "none", "undefined: needs cases of it and of others")
    found = bca(value, replicates, np.nan_to_num(left_out), truth)
    if found is None:
        note = "no interval: every resample of these cases gives the same"
        return Estimate(float(value), None, None, "none", note)
    return estimate(value, found)
