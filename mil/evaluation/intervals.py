"""Confidence intervals that hold their level at a handful of cases per class.

They state the sampling error of cases only, not that out-of-fold predictions share training cases; the
spread over repeats shows part of that. For models of pure noise in 5-fold cross-validation they contain
.5 in .85 to .91 of 200 cohorts (benchmarks.intervals, part noise).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from mil.distributions import beta, norm, student
from mil.evaluation.arrays import Floats, Ints


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % confidence limits; None where undefined, with the reason in the note."""

    value: float | None
    low: float | None
    high: float | None
    method: str
    note: str = ""


@dataclass(frozen=True)
class Interval:
    """Two-sided confidence limits and the name of their method."""

    low: float
    high: float
    method: str


def wilson(successes: float, n: float, confidence: float = 0.95) -> Interval:
    """Score interval of a proportion (Wilson 1927, J Am Stat Assoc 22:209).

    Args:
        successes: in [0, n]; need not be whole, as a mean count over repeats is not.
        n: trials, > 0; need not be whole, as an effective number is not.
        confidence: in (0, 1).

    Raises:
        ValueError: n or successes out of range.
    """
    _check_share(successes, n)
    z2 = normal_quantile(confidence) ** 2
    share = successes / n
    middle = share + z2 / (2 * n)
    half = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n)))
    low, high = (middle - half) / (1 + z2 / n), (middle + half) / (1 + z2 / n)
    # At 0 of n and n of n one limit is exact; rounding would leave 1e-17 of it.
    return Interval(
        0.0 if successes == 0 else float(low), 1.0 if successes == n else float(high), "Wilson"
    )


def wilson_continuity(successes: float, n: float, confidence: float = 0.95) -> Interval:
    """Wilson's interval with continuity correction, R's prop.test (Newcombe 1998, method 4).

    Args:
        successes: in [0, n]; need not be whole.
        n: trials, > 0.
        confidence: in (0, 1).

    Raises:
        ValueError: n or successes out of range.
    """
    _check_share(successes, n)
    z = normal_quantile(confidence)
    share = successes / n

    def lower(at: float) -> float:
        root = z * z - 2 - 1 / n + 4 * at * (n * (1 - at) + 1)
        return max(0.0, float(2 * n * at + z * z - 1 - z * np.sqrt(root)) / (2 * (n + z * z)))

    low = lower(share) if successes > 0 else 0.0
    high = 1 - lower(1 - share) if successes < n else 1.0
    return Interval(float(low), float(high), "Wilson with continuity correction")


def exact(successes: float, n: float, confidence: float = 0.95) -> Interval:
    """Clopper-Pearson interval of a proportion: never below its level, and wider for it.

    Args:
        successes: in [0, n]; between whole counts it is interpolated by the beta distribution.
        n: trials, > 0.
        confidence: in (0, 1).

    Raises:
        ValueError: n or successes out of range.
    """
    _check_share(successes, n)
    tail = norm.sf(normal_quantile(confidence))
    low = beta.ppf(tail, successes, n - successes + 1) if successes > 0 else 0.0
    high = beta.isf(tail, successes + 1, n - successes) if successes < n else 1.0
    return Interval(float(low), float(high), "Clopper-Pearson")


def predictive_value(
    hits: tuple[float, float],
    clears: tuple[float, float],
    prevalence: float,
    confidence: float = 0.95,
) -> tuple[float, Interval]:
    """Positive predictive value at a stated prevalence, by Bayes' rule.

    The limits are those of the ratio of two shares, sensitivity and false alarms, from Wilson's limits
    of each (Donner & Zou 2012, doi:10.1177/0962280210383082). Exact coverage at nominal .95, both shares
    .5 to .95: 10 + 10 cases .914 or more, .948 on average; 5 + 15 .935, .950; 25 + 25 .935, .953.
    The adjusted logit interval (Mercaldo 2007) falls to .60 there. For the negative predictive value
    give (clears, hits, 1 - prevalence).

    Args:
        hits: cases of the class that are called so, and all cases of the class.
        clears: other cases that are not called so, and all other cases.
        prevalence: prevalence of the class, in (0, 1).
        confidence: in (0, 1).

    Returns:
        The value, nan where the class is never called, and its limits.
    """
    misses = clears[1] - clears[0]
    sensitivity, false_alarms = hits[0] / hits[1], misses / clears[1]
    least, most = wilson(*hits, confidence), wilson(misses, clears[1], confidence)
    both = sensitivity * false_alarms
    x, y = least.low * (2 * sensitivity - least.low), most.high * (2 * false_alarms - most.high)
    low = x / (both + np.sqrt(both**2 - x * y)) if x > 0 else 0.0
    x, y = least.high * (2 * sensitivity - least.high), most.low * (2 * false_alarms - most.low)
    high = (both + np.sqrt(both**2 - x * y)) / y if y > 0 else np.inf
    odds = prevalence / (1 - prevalence)
    ratio = (
        sensitivity / false_alarms if false_alarms > 0 else np.inf if sensitivity > 0 else np.nan
    )
    value, low, high = (1 - 1 / (1 + odds * number) for number in (ratio, low, high))
    return float(value), Interval(float(low), float(high), "ratio of Wilson limits")


def _check_share(successes: float, n: float) -> None:
    if not (n > 0 and 0 <= successes <= n):
        raise ValueError(f"Need 0 <= successes <= n and n > 0; got {successes} of {n}.")


def confusion_interval(
    metric: Callable[[Floats], Floats], counts: Floats, confidence: float = 0.95, draws: int = 2000
) -> Interval:
    """Credible interval of a metric of the confusion matrix, by drawing plausible matrices.

    Each row (the cases of one class by predicted class) is drawn from its Dirichlet posterior. The prior
    weighs one correct and one wrong case in all, shared evenly by the cells, so that 20 of 20 correct
    leaves room for errors that did not occur. The number of cases per class is fixed.

    Coverage at nominal .95 of macro F1, MCC and kappa, sensitivity .5 to .95, 500 to 1,000 cohorts each:
    2 x 10 .908-.955, 2 x 15 .933-.954, 3 x 10 .922-.949, 4 x 5 .874-.951, 3 + 5 + 8 + 14 .895-.944.
    The case bootstrap (percentile and BCa) falls to .60-.76 at sensitivity .95, because errors that did
    not occur cannot be drawn.

    Args:
        metric: from (..., C, C) counts, rows the truth, to (...,) numbers.
        counts: (C, C) cases; means over repeats need not be whole.
        confidence: in (0, 1).
        draws: number of matrices drawn, from a fixed seed.
    """
    size, per_class = len(counts), counts.sum(axis=1, keepdims=True)
    prior = np.where(np.eye(size) > 0, 1 / size, 1 / (size * (size - 1)))
    drawn = np.random.default_rng(0).standard_gamma(counts + prior, size=(draws, size, size))
    tail = (1 - confidence) / 2
    values = metric(per_class * drawn / np.maximum(drawn.sum(axis=-1, keepdims=True), 1e-300))
    low, high = np.quantile(values, [tail, 1 - tail])
    value = float(metric(counts))
    # The prior pulls the limits inwards; they must still contain the value itself.
    return Interval(min(float(low), value), max(float(high), value), "Dirichlet")


def balanced_accuracy_interval(
    balanced_accuracy: float, class_counts: Ints, confidence: float = 0.95
) -> Interval:
    """Wilson's interval with the effective number of cases K^2 / sum(1 / n_k).

    A mean of K independent proportions has variance sum(p_k (1 - p_k) / n_k) / K^2. Taking the
    mean for every p_k makes it Wilson's interval, errs on the wide side (p (1 - p) is concave), and gives
    the interval of the accuracy where all classes have equally many cases.

    Coverage at nominal .95, 40,000 cohorts each: 4 x 5 cases .935-1.00, 3 x 10 .930-.975, 2 x 5
    .916-.965 (as Wilson at n = 10), 2 x 10 .957, 5 + 45 .937-.962, 3 + 30 + 30 .915-.933. At 4 x 5
    and sensitivity .9 throughout: this .958, a case bootstrap within classes .879, per-class
    Wilson limits combined as squares .881.

    Args:
        balanced_accuracy: mean sensitivity of the classes that have a case.
        class_counts: (C,) cases per class; a class without a case is left out.
        confidence: in (0, 1).
    """
    return _wilson_of_mean(balanced_accuracy, class_counts[class_counts > 0], confidence)


def average_precision_interval(
    average_precision: float, positives: Ints, confidence: float = 0.95
) -> Interval:
    """Wilson's interval with the cases of the class, or the effective number of a mean over classes.

    An average precision is a mean over the cases of the class of numbers in [0, 1], whose variance is at
    most p (1 - p) / n; with this bound the interval errs on the wide side. Coverage at
    nominal .95, accuracy .7, .9 and guessing, 500 cohorts each: 10 + 10 cases .986-.996, 12 + 6 + 6
    .948-.994, 20 + 20 .988-.994, 4 x 5 .970-.988; the case bootstrap (BCa) .722-.938.

    Args:
        average_precision: of one class, or the mean over classes.
        positives: cases of the class, or (C,) of each of the classes averaged, all > 0.
        confidence: in (0, 1).
    """
    return _wilson_of_mean(average_precision, positives, confidence)


def _wilson_of_mean(mean: float, sizes: Ints, confidence: float) -> Interval:
    n = np.size(sizes) ** 2 / float(np.sum(1 / sizes))
    interval = wilson(mean * n, n, confidence)
    return Interval(interval.low, interval.high, "Wilson, effective n")


def bounded_mean_interval(values: Floats, most: float, confidence: float = 0.95) -> Interval:
    """Student's t on the logit scale for the mean of a few numbers within bounds.

    A quarter of a case at each bound is added (as Agresti & Coull 1998, Am Stat 52:119, add cases to a
    share), so that errors that did not occur still count. Coverage of the Brier score at nominal .95 in the
    settings of `average_precision_interval`: .948-.988; the case bootstrap (BCa) .834-.952.

    Args:
        values: (n,) numbers in [0, most], n >= 2.
        most: the upper bound.
        confidence: in (0, 1).
    """
    weights = np.append(np.ones(len(values)), [0.25, 0.25])
    padded = np.append(values, [0.0, most]) / most
    n, value = float(weights.sum()), float(np.mean(values))
    mean = float(weights @ padded) / n
    error = np.sqrt(float(weights @ (padded - mean) ** 2) / (n * (n - 1)))
    half = student.isf((1 - confidence) / 2, len(values) - 1) * error / (mean * (1 - mean))
    low, high = (float(most * expit(logit(mean) + step)) for step in (-half, half))
    # The added cases pull the limits inwards; they must still contain the value itself.
    return Interval(min(low, value), max(high, value), "t, logit scale, bounds added")


def normal_quantile(confidence: float) -> float:
    """The quantile of the normal distribution for two-sided limits.

    Raises:
        ValueError: the confidence is none.
    """
    if not 0 < confidence < 1:
        raise ValueError(
            f"confidence must lie in (0, 1); got {confidence}. For 95 % set it to 0.95."
        )
    return float(norm.ppf((1 + confidence) / 2))
