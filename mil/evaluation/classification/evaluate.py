"""Evaluation of predictions of classes: the numbers of each model, per case and with intervals."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from features.choices import unknown_problem
from mil.errors import RunError
from mil.evaluation.by_model import ByModel
from mil.evaluation.classification.calibration import calibrate
from mil.evaluation.classification.conformal import conformal
from mil.evaluation.classification.metric_table import METRICS
from mil.evaluation.classification.model_scores import ModelScores
from mil.evaluation.classification.per_class import (
    ClassResult,
    class_results,
    p_no_better,
    spread,
)
from mil.evaluation.classification.predictions import ClassPredictions
from mil.evaluation.classification.results import (
    MetricTable,
    ModelResult,
    result_rows,
    result_to_json,
)
from mil.evaluation.classification.tables import (
    calibration_table,
    class_table,
    conformal_table,
    further_table,
    summary_table,
)
from mil.evaluation.display import Table, format_count
from mil.evaluation.intervals import Estimate
from mil.settings import JudgeSettings


@dataclass(frozen=True, eq=False, repr=False)
class ClassEvaluation(ByModel[ModelResult]):
    """The results of all models over one set of cases.

    Attributes:
        classes: class names, in the order of every array.
        class_counts: cases per class.
        n_cases: cases.
        n_slides: distinct slides.
        repeats: numbers of the repeats.
        models: one result per model, in the order of the table of predictions.
        guesses: value of a metric for guessing, by name, where it has one.
        metric_table: the metrics of every model.
    """

    classes: tuple[str, ...]
    class_counts: tuple[int, ...]
    n_cases: int
    n_slides: int
    repeats: tuple[int, ...]
    models: tuple[ModelResult, ...]
    guesses: Mapping[str, float]
    metric_table: MetricTable = METRICS

    @property
    def chance_accuracy(self) -> float:
        """Accuracy of guessing each class equally often: 1 / C."""
        return 1 / len(self.classes)

    @property
    def majority_share(self) -> float:
        """Accuracy of always naming the most frequent class."""
        return max(self.class_counts) / self.n_cases

    def best(self) -> ModelResult:
        """The first of ``ranked``."""
        return self.ranked()[0]

    def ranked(self) -> list[ModelResult]:
        """The models by their cases correct, the best first; equals in the order of the table.

        Those that give all cases of a fold one answer come last: they have found nothing in the slides.
        """
        return sorted(self.models, key=lambda result: (result.constant, -result.correct))

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
            "models": [result_to_json(result, self.metric_table) for result in self.models],
        }

    def rows(self) -> list[dict[str, object]]:
        """Every number with its limits, one row each: model, class (or empty), metric, and its fields."""
        return [row for result in self.models for row in result_rows(result, self.metric_table)]

    def tables(self) -> list[Table]:
        """The results as text; the first table is the summary."""
        title = (
            f"{self.n_cases} cases, {format_count(self.n_slides, 'slide')}, {len(self.classes)} classes; "
            "95 % intervals over cases."
        )
        return [
            summary_table(title, self.models, self.metric_table, self.guesses),
            further_table(self.models, self.metric_table, self.classes, self.majority_share),
            calibration_table(self.models),
            conformal_table(self.models),
            *map(class_table, self.models),
        ]


def evaluate(
    predictions: ClassPredictions,
    settings: JudgeSettings | None = None,
    metric_table: MetricTable = METRICS,
) -> ClassEvaluation:
    """Evaluate every model of the table over its cases.

    With several repeats each metric is the mean over repeats, and its interval is laid around that mean for
    the number of cases: repeats do not count as more cases. The interval states the sampling error of
    cases; `per_repeat` and `spread` show the effect of reshuffling and reseeding.

    Args:
        predictions: out-of-fold predictions; the slides of a case are averaged.
        settings: interval, prevalence and coverage; the defaults if None.
        metric_table: the metrics to compute.

    Raises:
        RunError: a prevalence is set for a class that the table does not have.
    """
    settings = settings or JudgeSettings()
    if problem := unknown_problem("class", sorted(settings.shares()), predictions.classes):
        raise RunError(f"prevalence: {problem}")
    models = {
        name: ModelScores(
            tuple(predictions.case_scores(name, repeat) for repeat in predictions.repeats),
            predictions.classes,
        )
        for name in predictions.models
    }
    first = models[predictions.models[0]]
    return ClassEvaluation(
        classes=predictions.classes,
        class_counts=tuple(int(count) for count in first.counts),
        n_cases=len(first.truth),
        n_slides=int(predictions.table["slide"].nunique()),
        repeats=predictions.repeats,
        models=tuple(
            _evaluate_model(name, scores, settings, metric_table) for name, scores in models.items()
        ),
        guesses={metric.name: metric.guess(first) for metric in metric_table if metric.guess},
        metric_table=metric_table,
    )


def _evaluate_model(
    model: str, scores: ModelScores, settings: JudgeSettings, metric_table: MetricTable
) -> ModelResult:
    per_repeat = {
        metric.name: metric.per_repeat(scores) for metric in metric_table if metric.per_repeat
    }
    n = len(scores.truth)
    return ModelResult(
        model=model,
        correct=scores.correct,
        n=n,
        metrics={metric.name: metric.estimate(scores) for metric in metric_table},
        p_chance=p_no_better(scores.correct, n, 1 / len(scores.classes)),
        p_majority=p_no_better(scores.correct, n, scores.counts.max() / n),
        per_class=_evaluate_classes(scores, settings),
        confusion=scores.confusion,
        per_repeat=per_repeat,
        spread={name: spread(values) for name, values in per_repeat.items()},
        calibration=calibrate(scores.repeats, scores.classes),
        conformal=conformal(scores.repeats, scores.classes, settings.coverage),
        constant=scores.constant,
    )


def _evaluate_classes(scores: ModelScores, settings: JudgeSettings) -> tuple[ClassResult, ...]:
    """Each class against the rest; where cases are not ranked, no class is ranked either."""
    results = class_results(
        scores.repeats,
        scores.classes,
        scores.precisions[:-1],
        settings.interval,
        settings.shares(),
    )
    if not scores.unranked or scores.absent:
        return results
    undefined = Estimate(None, None, None, "none", scores.unranked)
    return tuple(
        replace(result, auc=undefined, auc_delong=undefined, average_precision=undefined)
        for result in results
    )
