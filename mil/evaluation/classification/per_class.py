"""Results of a model for each class against the rest, and tests against guessing."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mil.distributions import binomial_tail
from mil.evaluation.arrays import Floats, Ints
from mil.evaluation.auc_intervals import logit_delong_macro_auc, newcombe_auc
from mil.evaluation.classification import metrics
from mil.evaluation.classification.predictions import CaseScores
from mil.evaluation.intervals import (
    Estimate,
    Interval,
    average_precision_interval,
    exact,
    predictive_value,
    wilson,
    wilson_continuity,
)

INTERVALS = {"exact": exact, "wilson": wilson, "wilson-cc": wilson_continuity}


@dataclass(frozen=True)
class Proportion(Estimate):
    """A share of cases, k of n; both are means over repeats."""

    k: float = 0.0
    n: float = 0.0


@dataclass(frozen=True)
class PredictiveValues:
    """Predictive values at a stated prevalence of the class."""

    prevalence: float
    ppv: Estimate
    npv: Estimate


@dataclass(frozen=True)
class ClassResult:
    """One class against the rest.

    Attributes:
        name: name of the class.
        n: cases of the class.
        sensitivity: share of its cases that are called so.
        specificity: share of the other cases that are not called so.
        ppv: positive predictive value at the cohort's own prevalence.
        npv: negative predictive value at the cohort's own prevalence.
        at_prevalence: both at a stated prevalence; None where none is stated.
        auc: one-vs-rest AUC with Newcombe's interval.
        auc_delong: the same AUC with DeLong's interval on the logit scale.
        average_precision: one against the rest; the prevalence where there is no skill.
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
    """A metric over the repeats: the effect of reshuffling and reseeding, not of other cases."""

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
        repeats: predictions of one model for the same cases.
        classes: names, in the order of the probabilities.
        precisions: average precision of each class, from ``average_precisions``.
        interval: interval of the shares, a key of ``INTERVALS``.
        prevalence: prevalence of classes where the test is to be used.
    """
    truth = repeats[0].truth
    counts = np.mean([metrics.confusion(scores.truth, scores.p) for scores in repeats], axis=0)
    results = []
    for index, name in enumerate(classes):
        hits = counts[index, index]
        called, positives, total = counts[:, index].sum(), counts[index].sum(), counts.sum()
        clears = total - positives - called + hits
        auc, auc_delong = _class_auc(repeats, index)
        share = (prevalence or {}).get(name)
        results.append(
            ClassResult(
                name=name,
                n=int(np.sum(truth == index)),
                sensitivity=proportion(hits, positives, f"no case of {name}", interval),
                specificity=proportion(
                    clears, total - positives, f"no case that is not {name}", interval
                ),
                ppv=proportion(hits, called, f"no case was called {name}", interval),
                npv=proportion(clears, total - called, f"every case was called {name}", interval),
                at_prevalence=None
                if share is None or not 0 < positives < total
                else _predictive_values((hits, positives), (clears, total - positives), share),
                auc=auc,
                auc_delong=auc_delong,
                average_precision=precisions[index],
            )
        )
    return tuple(results)


def proportion(k: float, n: float, undefined: str, interval: str = "exact") -> Proportion:
    """The share k / n with its interval; where n is 0 undefined, with ``undefined`` as the reason."""
    k, n = float(min(k, n)), float(n)  # means over repeats may differ in the last bit
    if n == 0:
        return Proportion(None, None, None, "none", f"undefined: {undefined}", k, n)
    limits = INTERVALS[interval](k, n)
    return Proportion(k / n, limits.low, limits.high, limits.method, "", k, n)


def p_no_better(correct: float, n: int, share: float) -> float:
    """P value against guessing: the probability that guessing is right on as many cases or more.

    Args:
        correct: cases classified correctly; a mean over repeats is rounded down.
        n: cases.
        share: probability that a guess is right: 1 / C, or the share of the largest class.
    """
    return binomial_tail(math.floor(correct + 1e-9) - 1, n, share)


def average_precisions(truth: Ints, p: Sequence[Floats]) -> tuple[Estimate, ...]:
    """Average precision of each class against the rest, and their mean.

    For two classes the mean is that of class 1, as with the AUC. The intervals are those of
    ``average_precision_interval``.

    Args:
        truth: (n,) class indices.
        p: (n, C) probabilities of each repeat.

    Returns:
        C estimates and, last, their mean; undefined where the class has no case, or every case.
    """
    counts = np.bincount(truth, minlength=p[0].shape[1])
    values = [
        float(np.mean([metrics.average_precision(truth == k, q[:, k]) for q in p]))
        if 0 < n < len(truth)
        else math.nan
        for k, n in enumerate(counts)
    ]
    of_class = [_average_precision(value, n) for value, n in zip(values, counts, strict=True)]
    if len(counts) == 2:
        return (*of_class, of_class[1])
    return (*of_class, _average_precision(float(np.mean(values)), counts))


def spread(values: Sequence[float | None]) -> Spread | None:
    """The spread of one value per repeat; None where a repeat has none."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    sd = float(np.std(known, ddof=1)) if len(known) > 1 else None
    return Spread(float(np.mean(known)), sd, min(known), max(known))


def make_estimate(value: float, interval: Interval, note: str = "") -> Estimate:
    """A number and its interval as an ``Estimate``."""
    return Estimate(float(value), interval.low, interval.high, interval.method, note)


def _predictive_values(
    hits: tuple[float, float], clears: tuple[float, float], share: float
) -> PredictiveValues:
    return PredictiveValues(
        share,
        _predictive_value(predictive_value(hits, clears, share)),
        _predictive_value(predictive_value(clears, hits, 1 - share)),
    )


def _predictive_value(estimated: tuple[float, Interval]) -> Estimate:
    value, interval = estimated
    if math.isnan(value):
        return Estimate(None, None, None, "none", "undefined: never called")
    return make_estimate(value, interval)


def _class_auc(repeats: Sequence[CaseScores], index: int) -> tuple[Estimate, Estimate]:
    positive = repeats[0].truth == index
    if positive.all() or not positive.any():
        undefined = Estimate(None, None, None, "none", "undefined: needs cases of it and of others")
        return undefined, undefined
    n_pos, n_neg = int(positive.sum()), int((~positive).sum())
    truth = positive.astype(np.int64)
    columns = [scores.p[:, index] for scores in repeats]
    pairs = [np.stack([-column, column], axis=1) for column in columns]
    auc = float(np.mean([metrics.macro_auc(truth, pair) for pair in pairs]))
    return (
        make_estimate(auc, newcombe_auc(auc, n_pos, n_neg)),
        make_estimate(auc, logit_delong_macro_auc(truth, pairs)),
    )


def _average_precision(value: float, positives: Ints) -> Estimate:
    if math.isnan(value):
        return Estimate(None, None, None, "none", "undefined: needs cases of it and of others")
    return make_estimate(value, average_precision_interval(value, positives))
