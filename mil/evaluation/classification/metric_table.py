"""The table of classification metrics. To add one, write a function of ``ModelScores`` and add a row."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from mil.evaluation.arrays import Floats
from mil.evaluation.auc_intervals import logit_delong_macro_auc, newcombe_macro_auc, shared_variance
from mil.evaluation.classification import metrics
from mil.evaluation.classification.model_scores import ModelScores
from mil.evaluation.classification.per_class import make_estimate
from mil.evaluation.intervals import (
    Estimate,
    Interval,
    balanced_accuracy_interval,
    confusion_interval,
    wilson,
)
from mil.evaluation.metric import Metric


def accuracy(scores: ModelScores) -> Estimate:
    """Accuracy with Wilson's interval."""
    n = len(scores.truth)
    return make_estimate(scores.correct / n, wilson(scores.correct, n))


def balanced_accuracy(scores: ModelScores) -> Estimate:
    """Mean sensitivity of the classes that have a case."""
    value = float(
        np.mean([metrics.balanced_accuracy(scores.truth, p) for p in scores.probabilities])
    )
    interval = balanced_accuracy_interval(value, scores.counts)
    return make_estimate(value, interval, scores.absent_note)


def auc(scores: ModelScores) -> Estimate:
    """Macro one-vs-rest AUC of pooled cases with Newcombe's interval; for two classes that of class 1."""
    return _auc(scores, _newcombe)


def auc_delong(scores: ModelScores) -> Estimate:
    """The same AUC with DeLong's interval on the logit scale."""
    return _auc(scores, _delong)


def average_precision(scores: ModelScores) -> Estimate:
    """Macro average precision; for two classes that of class 1, as class 0 has another."""
    if scores.unranked and not scores.absent:
        return _undefined(scores.unranked)
    return scores.precisions[-1]


def confusion_estimate(metric: Callable[[Floats], Floats], scores: ModelScores) -> Estimate:
    """A metric of the confusion matrix: mean over repeats, with the interval of their mean matrix."""
    values = [value for value in _of_confusions(metric, scores) if value is not None]
    if not values:
        return _undefined("undefined: cases of one class only")
    mean = float(np.mean(values))
    interval = confusion_interval(metric, scores.confusion)
    shift = mean - float(metric(scores.confusion))
    low, high = max(-1.0, interval.low + shift), min(1.0, interval.high + shift)
    return make_estimate(mean, replace(interval, low=low, high=high), scores.absent_note)


def _auc(scores: ModelScores, interval: Callable[[ModelScores, float], Interval]) -> Estimate:
    if scores.unranked:
        return _undefined(scores.unranked)
    value = float(np.mean([metrics.macro_auc(scores.truth, p) for p in scores.probabilities]))
    return make_estimate(value, interval(scores, value))


def _newcombe(scores: ModelScores, value: float) -> Interval:
    shared = float(np.mean([shared_variance(scores.truth, p) for p in scores.probabilities]))
    return newcombe_macro_auc(value, scores.counts, shared)


def _delong(scores: ModelScores, value: float) -> Interval:  # noqa: ARG001
    return logit_delong_macro_auc(scores.truth, scores.probabilities)


def _undefined(note: str) -> Estimate:
    return Estimate(None, None, None, "none", note)


def _of_confusions(
    metric: Callable[[Floats], Floats], scores: ModelScores
) -> tuple[float | None, ...]:
    """Values of the repeats; None where only one class has cases."""
    defined = np.count_nonzero(scores.counts) > 1
    return tuple(float(metric(table)) if defined else None for table in scores.confusions)


def _of_confusion(name: str, label: str, metric: Callable[[Floats], Floats]) -> Metric[ModelScores]:
    return Metric(name, label, partial(confusion_estimate, metric), partial(_of_confusions, metric))


METRICS: tuple[Metric[ModelScores], ...] = (
    Metric(
        "accuracy",
        "accuracy",
        accuracy,
        per_repeat=lambda scores: scores.per_repeat(metrics.accuracy),
        guess=lambda scores: 1 / len(scores.classes),
        shown="summary",
        percent=True,
    ),
    Metric(
        "balanced_accuracy",
        "balanced accuracy",
        balanced_accuracy,
        per_repeat=lambda scores: scores.per_repeat(metrics.balanced_accuracy),
        shown="summary",
        percent=True,
    ),
    Metric(
        "auc",
        "macro AUC",
        auc,
        per_repeat=lambda scores: scores.per_repeat(metrics.macro_auc),
        guess=lambda _: 0.5,
        shown="summary",
        page_label_of_two="AUC",
    ),
    Metric(
        "auc_delong", "macro AUC, DeLong", auc_delong, shown="nowhere", page_label="AUC, DeLong"
    ),
    Metric(
        "average_precision",
        "average precision",
        average_precision,
        label_of_two="average precision of {positive}",
    ),
    _of_confusion("macro_f1", "macro F1", metrics.macro_f1),
    _of_confusion("mcc", "MCC", metrics.mcc),
    _of_confusion("kappa", "kappa", metrics.kappa),
)
