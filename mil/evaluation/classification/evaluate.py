"""From the table of predictions to each model's numbers, per case and with intervals."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from mil.errors import RunError
from mil.evaluation.arrays import Floats
from mil.evaluation.classification import metrics
from mil.evaluation.classification.calibration import Calibration, calibrate
from mil.evaluation.classification.conformal import ConformalResult, conformal
from mil.evaluation.classification.per_class import (
    ClassResult,
    Spread,
    average_precisions,
    class_results,
    make_estimate,
    p_no_better,
    spread,
)
from mil.evaluation.intervals import (
    Estimate,
    balanced_accuracy_interval,
    confusion_interval,
    logit_delong_macro_auc,
    newcombe_macro_auc,
    shared_variance,
    wilson,
)
from mil.evaluation.predictions import CaseScores, Predictions
from mil.settings import JudgeSettings


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
        auc_delong: the same AUC with DeLong's interval on the logit scale.
        average_precision: macro, or that of class 1 of two, whose other class has another.
        macro_f1: mean F1 of the classes that have a case; undefined, as the next two, where only one has.
        mcc: Matthews' correlation.
        kappa: Cohen's.
        p_chance: how often guessing evenly is right on as many cases or more.
        p_majority: the same of always naming the largest class.
        per_class: each class against the rest.
        confusion: (C, C) cases averaged over repeats; rows are the truth.
        per_repeat: metric name to one value per repeat; None where undefined.
        spread: of these over the repeats; None where one is undefined.
        calibration: whether probabilities mean what they say.
        conformal: sets of classes that hold the true one as often as promised.
    """

    model: str
    accuracy: Estimate
    correct: float
    n: int
    balanced_accuracy: Estimate
    auc: Estimate
    auc_delong: Estimate
    average_precision: Estimate
    macro_f1: Estimate
    mcc: Estimate
    kappa: Estimate
    p_chance: float
    p_majority: float
    per_class: tuple[ClassResult, ...]
    confusion: Floats
    per_repeat: dict[str, tuple[float | None, ...]]
    spread: dict[str, Spread | None]
    calibration: Calibration
    conformal: ConformalResult


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


def evaluate(predictions: Predictions, settings: JudgeSettings | None = None) -> Evaluation:
    """Judge every model of the table over its cases.

    With several repeats each headline is the mean of the metric over repeats, and its interval
    is laid at that mean for the number of cases there are: repeats are never more cases. The
    interval states the sampling error of cases; `per_repeat` and `spread` show what reshuffling
    and reseeding move.

    Args:
        predictions: out-of-fold predictions; the slides of a case are averaged.
        settings: which interval, which prevalence; the defaults if not given.

    Raises:
        RunError: a prevalence is stated of no class of the table.
    """
    settings = settings or JudgeSettings()
    if strange := sorted(set(settings.shares()) - set(predictions.classes)):
        raise RunError(
            f"prevalence names {', '.join(strange)}; the classes are "
            f"{', '.join(predictions.classes)}. Name one of these."
        )
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
        models=tuple(_result(name, scores[name], predictions.classes, settings) for name in models),
    )


def _result(
    model: str, repeats: list[CaseScores], classes: tuple[str, ...], settings: JudgeSettings
) -> ModelResult:
    truth = repeats[0].truth  # cases are sorted, so that every repeat has the same
    counts = np.bincount(truth, minlength=len(classes))
    absent = [name for name, count in zip(classes, counts, strict=True) if count == 0]
    tables = [metrics.confusion(truth, each.p).astype(np.float64) for each in repeats]
    table = np.mean(tables, axis=0)
    correct = float(np.trace(table))
    note = f"no case of {', '.join(absent)}: mean of the other classes" if absent else ""
    of_confusion: dict[str, Callable[[Floats], Floats]] = {
        "macro_f1": metrics.macro_f1,
        "mcc": metrics.mcc,
        "kappa": metrics.kappa,
    }
    told_apart = np.count_nonzero(counts) > 1
    of_each: dict[str, tuple[float | None, ...]] = {
        name: tuple(float(metric(each)) if told_apart else None for each in tables)
        for name, metric in of_confusion.items()
    }
    per_repeat: dict[str, tuple[float | None, ...]] = {
        "accuracy": _each(metrics.accuracy, repeats),
        "balanced_accuracy": (balanced := _each(metrics.balanced_accuracy, repeats)),
        "auc": tuple(metrics.macro_auc(each.truth, each.p) for each in repeats),
        **of_each,
    }
    auc, auc_delong = _auc(repeats, absent)
    *precisions, average_precision = average_precisions(truth, [each.p for each in repeats])
    per_class = class_results(repeats, classes, precisions, settings.interval, settings.shares())
    if auc.value is None and not absent:  # what ranks nothing ranks no class either
        average_precision = auc
        per_class = tuple(
            replace(each, auc=auc, auc_delong=auc, average_precision=auc) for each in per_class
        )
    return ModelResult(
        model=model,
        accuracy=make_estimate(correct / len(truth), wilson(correct, len(truth))),
        correct=correct,
        n=len(truth),
        balanced_accuracy=make_estimate(
            float(np.mean(balanced)),
            balanced_accuracy_interval(float(np.mean(balanced)), counts),
            note,
        ),
        auc=auc,
        auc_delong=auc_delong,
        average_precision=average_precision,
        **{
            name: _laid_at(of_each[name], metric, table, note)
            for name, metric in of_confusion.items()
        },
        p_chance=p_no_better(correct, len(truth), 1 / len(classes)),
        p_majority=p_no_better(correct, len(truth), counts.max() / len(truth)),
        per_class=per_class,
        confusion=table,
        per_repeat=per_repeat,
        spread={name: spread(values) for name, values in per_repeat.items()},
        calibration=calibrate(repeats, classes),
        conformal=conformal(repeats, classes, settings.coverage),
    )


def _laid_at(
    values: Sequence[float | None], metric: Callable[[Floats], Floats], table: Floats, note: str
) -> Estimate:
    """The mean over repeats, with the interval of their mean confusion matrix moved to it."""
    known = [value for value in values if value is not None]
    if not known:
        return Estimate(None, None, None, "none", "undefined: cases of one class only")
    mean = float(np.mean(known))
    found = confusion_interval(metric, table)
    off = mean - float(metric(table))
    return make_estimate(
        mean, replace(found, low=max(-1.0, found.low + off), high=min(1.0, found.high + off)), note
    )


def _each(metric: Callable[..., float], repeats: list[CaseScores]) -> tuple[float, ...]:
    return tuple(metric(each.truth, each.p) for each in repeats)


def _auc(repeats: list[CaseScores], absent: list[str]) -> tuple[Estimate, Estimate]:
    """The macro AUC by Newcombe's interval and by DeLong's."""
    values = [metrics.macro_auc(each.truth, each.p) for each in repeats]
    known = [value for value in values if value is not None]
    why = ""
    if not known:
        why = f"undefined: no case of {', '.join(absent)}"
    elif all(depends_on_fold_alone(each) for each in repeats):
        why = "undefined: the answer depends on the fold alone"
    if why:
        undefined = Estimate(None, None, None, "none", why)
        return undefined, undefined
    truth, auc = repeats[0].truth, float(np.mean(known))
    shared = float(np.mean([shared_variance(each.truth, each.p) for each in repeats]))
    return (
        make_estimate(auc, newcombe_macro_auc(auc, np.bincount(truth), shared)),
        make_estimate(auc, logit_delong_macro_auc(truth, [each.p for each in repeats])),
    )


def rows(evaluation: Evaluation) -> list[dict[str, object]]:
    """Every number with its limits, one row each: model, class (or empty), metric, and its fields."""
    found = []
    for told in evaluation.to_json()["models"]:  # type: ignore[attr-defined]
        calibration, sets = told["calibration"], told["conformal"]
        of_class = [*told["per_class"], *calibration["per_class"]]
        parts = [
            ("", told),
            ("", calibration),
            ("", sets),
            *((each["name"], each) for each in of_class),
        ]
        for each in told["per_class"]:
            there = each["at_prevalence"] or {}
            at = f" at {there.get('prevalence')}"
            parts.append((each["name"], {name + at: fields for name, fields in there.items()}))
        found += [
            {"model": told["model"], "class": name, "metric": metric, **fields}
            for name, part in parts
            for metric, fields in part.items()
            if isinstance(fields, dict) and "method" in fields
        ]
    return found


def depends_on_fold_alone(scores: CaseScores) -> bool:
    """Whether a model's answers follow from which classes a fold tests, as the majority rule's do.

    Its pooled AUC would only rank the folds, and those the wrong way round: a fold that tests more
    cases of a class has trained on fewer.
    """
    n_classes = scores.p.shape[1]
    answers: dict[bytes, list[int]] = {}
    folds = [np.flatnonzero(scores.fold == fold) for fold in np.unique(scores.fold)]
    if all(len({*scores.truth[tested].tolist()}) == 1 for tested in folds):
        return _reflects_counts_only(scores)
    for tested in folds:
        counts = np.bincount(scores.truth[tested], minlength=n_classes)
        answers.setdefault(counts.tobytes(), []).extend(tested.tolist())
    alike = [scores.p[cases] for cases in answers.values() if len(cases) > 1]
    return bool(alike) and all(np.ptp(p, axis=0).max() == 0 for p in alike)


def _reflects_counts_only(scores: CaseScores) -> bool:
    """Of folds that test one class each, as leave-one-out's: whether a class is likeliest where not tested.

    A perfect model and one that knows only counts both answer all cases of a class alike; but the counts
    name a class less where cases of it are left out.
    """
    n_classes = scores.p.shape[1]
    present = [k for k in range(n_classes) if (scores.truth == k).any()]
    own = [scores.p[scores.truth == k] for k in present]
    if any(np.ptp(p, axis=0).max() > 0 for p in own):
        return False
    answer = np.array([p[0] for p in own])[:, present]  # (truth, answer)
    return bool((np.diag(answer) <= answer.min(axis=0)).all())


def _result_to_json(result: ModelResult) -> dict[str, object]:
    estimates = (
        "accuracy", "balanced_accuracy", "auc", "auc_delong", "average_precision", "macro_f1", "mcc", "kappa",
    )  # fmt: skip
    return {
        "model": result.model,
        "n": result.n,
        "correct": result.correct,
        **{name: asdict(getattr(result, name)) for name in estimates},
        "p_chance": result.p_chance,
        "p_majority": result.p_majority,
        "per_class": [each.to_json() for each in result.per_class],
        "confusion": result.confusion.tolist(),
        "per_repeat": {name: list(values) for name, values in result.per_repeat.items()},
        "spread": {name: each and asdict(each) for name, each in result.spread.items()},
        "calibration": result.calibration.to_json(),
        "conformal": result.conformal.to_json(),
    }
