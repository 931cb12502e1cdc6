"""Evaluation of predicted grades: the metrics of each model, per case and with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from mil.errors import PredictionsError
from mil.evaluation.arrays import Floats
from mil.evaluation.by_model import ByModel
from mil.evaluation.classification.per_class import Spread, spread
from mil.evaluation.classification.predictions import CaseScores
from mil.evaluation.display import Table, format_count
from mil.evaluation.grade.metric_table import METRICS, ModelGrades, model_grades
from mil.evaluation.grade.metrics import median_grade
from mil.evaluation.grade.predictions import GradePredictions
from mil.evaluation.intervals import Estimate
from mil.evaluation.metric import Metric, metrics_to_json
from mil.settings import JudgeSettings

BASELINE = "(median training grade)"
MEDIAN = "The predicted grade is the median of the predicted distribution: it has the least absolute error."

MetricTable = Sequence[Metric[ModelGrades]]


@dataclass(frozen=True, eq=False)
class GradeResult:
    """What one model achieved; the unit is the case, and values are means over repeats.

    Attributes:
        model: name of the model.
        n: cases.
        metrics: estimates by the names of the table of metrics, in its order.
        confusion: (K, K) cases, mean over repeats; rows are the true grade, columns the predicted one.
        per_repeat: metric name to one value per repeat; None where undefined.
        spread: of these over the repeats; None where one is undefined.
        constant: whether it gives all cases of a fold one answer.
    """

    model: str
    n: int
    metrics: Mapping[str, Estimate]
    confusion: Floats
    per_repeat: Mapping[str, tuple[float | None, ...]]
    spread: Mapping[str, Spread | None]
    constant: bool


@dataclass(frozen=True, eq=False, repr=False)
class GradeEvaluation(ByModel[GradeResult]):
    """The results of all models over one set of cases.

    The predicted grade of a case is the median of its predicted distribution, which minimises the expected
    absolute error.

    Attributes:
        grades: names of the grades, lowest first, in the order of every array.
        grade_counts: cases per true grade.
        n_cases: cases.
        n_slides: distinct slides.
        repeats: numbers of the repeats.
        models: one result per model, in the order of the table of predictions.
        baseline: always the median true grade of the cases of the other folds; None with one fold.
        metric_table: the metrics of every model.
    """

    grades: tuple[str, ...]
    grade_counts: tuple[int, ...]
    n_cases: int
    n_slides: int
    repeats: tuple[int, ...]
    models: tuple[GradeResult, ...]
    baseline: GradeResult | None
    metric_table: MetricTable = METRICS

    def best(self) -> GradeResult:
        """The first of ``ranked``."""
        return self.ranked()[0]

    def ranked(self) -> list[GradeResult]:
        """The models by quadratic kappa, then by Somers' D, then by absolute error, the best first.

        Those that give all cases of a fold one answer come last: they have found nothing in the slides.
        """

        def rank(result: GradeResult) -> tuple[float, ...]:
            kappa, order = (result.metrics[name].value for name in ("quadratic_kappa", "somers_d"))
            worst_first = [np.inf if value is None else -value for value in (kappa, order)]
            return result.constant, *worst_first, result.metrics["mae"].value or 0.0

        return sorted(self.models, key=rank)

    def to_json(self) -> dict[str, object]:
        """Plain numbers, text, lists and dicts; None for what is undefined."""
        return {
            "task": "grade",
            "grades": list(self.grades),
            "grade_counts": list(self.grade_counts),
            "n_cases": self.n_cases,
            "n_slides": self.n_slides,
            "repeats": list(self.repeats),
            "predicted_grade": MEDIAN,
            "models": [self._result_to_json(result) for result in self.models],
            "baseline": self.baseline and self._result_to_json(self.baseline),
        }

    def rows(self) -> list[dict[str, object]]:
        """Every metric of each model and of the baseline with its limits, one row each."""
        return [
            {
                "model": result.model,
                "metric": metric.name,
                **metric.fields(result.metrics[metric.name]),
            }
            for result in self._results()
            for metric in self.metric_table
        ]

    def tables(self) -> list[Table]:
        """The results as text: the summary, the other metrics, and each model's confusion matrix."""
        counts = ", ".join(
            f"{count} of grade {name}"
            for name, count in zip(self.grades, self.grade_counts, strict=True)
        )
        title = (
            f"{self.n_cases} cases ({counts}), {format_count(self.n_slides, 'slide')}; 95 % intervals over "
            "cases."
        )
        further = [metric for metric in self.metric_table if metric.shown == "further"]
        summary = [metric for metric in self.metric_table if metric.shown == "summary"]
        return [
            self._metric_table(title, summary, [MEDIAN]),
            *([self._metric_table("", further, [])] if further else []),
            *(self._confusion_table(result) for result in self.models),
        ]

    def _results(self) -> list[GradeResult]:
        return [*self.models, *([self.baseline] if self.baseline else [])]

    def _metric_table(
        self, title: str, columns: Sequence[Metric[ModelGrades]], notes: Sequence[str]
    ) -> Table:
        rows = [
            [result.model, *(metric.format(result.metrics[metric.name]) for metric in columns)]
            for result in self._results()
        ]
        return Table(title, ["model", *(metric.heading() for metric in columns)], rows, notes)

    def _confusion_table(self, result: GradeResult) -> Table:
        rows = [
            [name, *(f"{count:.6g}" for count in row)]
            for name, row in zip(self.grades, np.round(result.confusion, 1), strict=True)
        ]
        title = f"{result.model}: cases by true grade (rows) and predicted grade (columns)"
        return Table(title, ["true grade", *self.grades], rows)

    def _result_to_json(self, result: GradeResult) -> dict[str, object]:
        return {
            "model": result.model,
            "n": result.n,
            **metrics_to_json(self.metric_table, result.metrics),
            "confusion": result.confusion.tolist(),
            "per_repeat": {name: list(values) for name, values in result.per_repeat.items()},
            "spread": {name: value and asdict(value) for name, value in result.spread.items()},
        }


def evaluate_grades(
    predictions: GradePredictions,
    settings: JudgeSettings | None = None,
    *,
    metric_table: MetricTable = METRICS,
) -> GradeEvaluation:
    """Evaluate every model of the table over its cases.

    With several repeats each value is the mean of the metric over repeats, and its interval is laid around
    that mean for the number of cases: repeats are never more cases.

    Args:
        predictions: out-of-fold predictions; the slides of a case are averaged.
        settings: must be the defaults: they are for classes.
        metric_table: the metrics to compute.

    Raises:
        PredictionsError: other settings were given.
    """
    if settings not in (None, JudgeSettings()):
        raise PredictionsError(
            "interval, prevalence and coverage are for predictions of classes; these hold "
            f"{predictions.answers}. Leave them out."
        )
    scores = {
        name: tuple(predictions.case_scores(name, repeat) for repeat in predictions.repeats)
        for name in predictions.models
    }
    first = scores[predictions.models[0]]
    counts = np.bincount(first[0].truth, minlength=len(predictions.grades))
    constant = [median_of_training(one) for one in first]
    known = tuple(one for one in constant if one is not None)
    whole = len(known) == len(constant)
    return GradeEvaluation(
        grades=predictions.grades,
        grade_counts=tuple(int(count) for count in counts),
        n_cases=len(first[0].truth),
        n_slides=int(predictions.table["slide"].nunique()),
        repeats=predictions.repeats,
        models=tuple(
            evaluate_model(name, repeats, metric_table) for name, repeats in scores.items()
        ),
        baseline=evaluate_model(BASELINE, known, metric_table) if whole else None,
        metric_table=metric_table,
    )


def median_of_training(scores: CaseScores) -> CaseScores | None:
    """Predict for each case the median true grade of the other folds; None where there is one fold."""
    folds = np.unique(scores.fold)
    if len(folds) < 2:
        return None
    p = np.zeros_like(scores.p)
    for fold in folds:
        tested = scores.fold == fold
        shares = np.bincount(scores.truth[~tested], minlength=p.shape[1])
        p[tested, median_grade(shares[None].astype(np.float64))[0]] = 1
    return replace(scores, p=p)


def evaluate_model(
    model: str, repeats: Sequence[CaseScores], metric_table: MetricTable = METRICS
) -> GradeResult:
    """Evaluate one model.

    Args:
        model: its name.
        repeats: its scores for the same cases; truth is the index of the true grade.
        metric_table: the metrics to compute.
    """
    grades = model_grades(tuple(repeats))
    per_repeat = {
        metric.name: metric.per_repeat(grades) for metric in metric_table if metric.per_repeat
    }
    return GradeResult(
        model=model,
        n=len(grades.truth),
        metrics={metric.name: metric.estimate(grades) for metric in metric_table},
        confusion=grades.confusion,
        per_repeat=per_repeat,
        spread={name: spread(values) for name, values in per_repeat.items()},
        constant=grades.constant,
    )
