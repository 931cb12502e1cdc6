"""From the table of predictions to each model's numbers, per case and with intervals."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from mil.evaluation import metrics
from mil.evaluation.intervals import (
    Interval,
    balanced_accuracy_interval,
    newcombe_macro_auc,
    shared_variance,
    wilson,
)
from mil.evaluation.metrics import Floats
from mil.evaluation.predictions import CaseScores, Predictions


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % confidence limits; None where undefined, and the note says why."""

    value: float | None
    low: float | None
    high: float | None
    method: str
    note: str = ""


@dataclass(frozen=True, eq=False)
class ModelResult:
    """What one model achieved; the unit is the case.

    Attributes:
        model: its name.
        accuracy: with Wilson's interval.
        correct: cases called rightly, averaged over repeats.
        n: cases.
        balanced_accuracy: mean sensitivity of the classes.
        auc: macro one-vs-rest AUC of pooled cases; for two classes that of class 1.
        confusion: (C, C) cases averaged over repeats; rows are the truth.
        per_repeat: metric name to one value per repeat; None where undefined.
    """

    model: str
    accuracy: Estimate
    correct: float
    n: int
    balanced_accuracy: Estimate
    auc: Estimate
    confusion: Floats
    per_repeat: dict[str, tuple[float | None, ...]]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The results of all models over one set of cases.

    Attributes:
        classes: class names, in the order of every array.
        class_counts: cases per class.
        n_cases: cases.
        n_slides: distinct slides.
        repeats: the repeats found.
        models: one result per model, in the order of the table.
    """

    classes: tuple[str, ...]
    class_counts: tuple[int, ...]
    n_cases: int
    n_slides: int
    repeats: tuple[int, ...]
    models: tuple[ModelResult, ...]

    @property
    def chance_accuracy(self) -> float:
        """Accuracy of guessing each class equally often: 1 / C."""
        return 1 / len(self.classes)

    @property
    def majority_share(self) -> float:
        """Accuracy of always naming the most frequent class."""
        return max(self.class_counts) / self.n_cases

    def to_json(self) -> dict[str, object]:
        """Plain numbers, text, lists and dicts; None for what is undefined."""
        return {
            "classes": list(self.classes),
            "class_counts": list(self.class_counts),
            "n_cases": self.n_cases,
            "n_slides": self.n_slides,
            "repeats": list(self.repeats),
            "chance_accuracy": self.chance_accuracy,
            "majority_share": self.majority_share,
            "models": [_result_to_json(result) for result in self.models],
        }


def evaluate(predictions: Predictions) -> Evaluation:
    """Judge every model of the table over its cases.

    With several repeats each headline is the mean of the metric over repeats, and its interval
    is laid at that mean for the number of cases there are: repeats are never more cases. The
    interval states the sampling error of cases; `per_repeat` shows the spread over reshuffles.

    Args:
        predictions: out-of-fold predictions; the slides of a case are averaged.
    """
    models, repeats = predictions.models, predictions.repeats
    scores = {name: [predictions.case_scores(name, each) for each in repeats] for name in models}
    truth = scores[models[0]][0].truth
    counts = np.bincount(truth, minlength=len(predictions.classes))
    return Evaluation(
        classes=predictions.classes,
        class_counts=tuple(int(count) for count in counts),
        n_cases=len(truth),
        n_slides=int(predictions.table["slide"].nunique()),
        repeats=repeats,
        models=tuple(_result(name, scores[name], predictions.classes) for name in models),
    )


def _result(model: str, repeats: list[CaseScores], classes: tuple[str, ...]) -> ModelResult:
    truth = repeats[0].truth  # cases are sorted, so that every repeat has the same
    counts = np.bincount(truth, minlength=len(classes))
    absent = [name for name, count in zip(classes, counts, strict=True) if count == 0]
    table = np.mean([metrics.confusion(truth, each.p) for each in repeats], axis=0)
    correct = float(np.trace(table))
    balanced = _each(metrics.balanced_accuracy, repeats)
    return ModelResult(
        model=model,
        accuracy=_estimate(correct / len(truth), wilson(correct, len(truth))),
        correct=correct,
        n=len(truth),
        balanced_accuracy=_estimate(
            float(np.mean(balanced)),
            balanced_accuracy_interval(float(np.mean(balanced)), counts),
            f"no case of {', '.join(absent)}: mean of the other classes" if absent else "",
        ),
        auc=_auc(repeats, absent),
        confusion=table,
        per_repeat={
            "accuracy": _each(metrics.accuracy, repeats),
            "balanced_accuracy": balanced,
            "auc": tuple(metrics.macro_auc(each.truth, each.p) for each in repeats),
        },
    )


def _each(metric: Callable[..., float], repeats: list[CaseScores]) -> tuple[float, ...]:
    return tuple(metric(each.truth, each.p) for each in repeats)


def _estimate(value: float, interval: Interval, note: str = "") -> Estimate:
    return Estimate(value, interval.low, interval.high, interval.method, note)


def _auc(repeats: list[CaseScores], absent: list[str]) -> Estimate:
    values = [metrics.macro_auc(each.truth, each.p) for each in repeats]
    known = [value for value in values if value is not None]
    if not known:
        return Estimate(None, None, None, "none", f"undefined: no case of {', '.join(absent)}")
    if all(_ranks_nothing(each) for each in repeats):
        return Estimate(None, None, None, "none", "undefined: the answer depends on the fold alone")
    truth, auc = repeats[0].truth, float(np.mean(known))
    shared = float(np.mean([shared_variance(each.truth, each.p) for each in repeats]))
    return _estimate(auc, newcombe_macro_auc(auc, np.bincount(truth), shared))


def _ranks_nothing(scores: CaseScores) -> bool:
    """Whether a model's answers follow from which classes a fold tests, as the majority rule's do.

    Its pooled AUC would only rank the folds, and those the wrong way round: a fold that tests more
    cases of a class has trained on fewer.
    """
    n_classes = scores.p.shape[1]
    answers: dict[bytes, list[int]] = {}
    for fold in np.unique(scores.fold):
        tested = np.flatnonzero(scores.fold == fold)
        counts = np.bincount(scores.truth[tested], minlength=n_classes)
        answers.setdefault(counts.tobytes(), []).extend(tested.tolist())
    alike = [scores.p[cases] for cases in answers.values() if len(cases) > 1]
    return bool(alike) and all(np.ptp(p, axis=0).max() == 0 for p in alike)


def _result_to_json(result: ModelResult) -> dict[str, object]:
    return {
        "model": result.model,
        "n": result.n,
        "correct": result.correct,
        "accuracy": asdict(result.accuracy),
        "balanced_accuracy": asdict(result.balanced_accuracy),
        "auc": asdict(result.auc),
        "confusion": result.confusion.tolist(),
        "per_repeat": {name: list(values) for name, values in result.per_repeat.items()},
    }
