"""From the table of predicted grades to each model's metrics, per case and with intervals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from mil.evaluation.arrays import Floats
from mil.evaluation.classification.model_scores import depends_on_fold_alone
from mil.evaluation.classification.per_class import Spread, make_estimate, spread
from mil.evaluation.grade import metrics
from mil.evaluation.grade.intervals import graded_interval, somers_interval
from mil.evaluation.grade.predictions import GradePredictions
from mil.evaluation.intervals import Estimate, wilson
from mil.evaluation.predictions import CaseScores

BASELINE = "(median training grade)"
ONE_GRADE = Estimate(None, None, None, "none", "undefined: cases of one grade only")
TITLES = {
    "quadratic_kappa": "Quadratic kappa",
    "linear_kappa": "Linear kappa",
    "mae": "Mean absolute error",
    "bias": "Mean error",
    "exact": "Exact",
    "within_one": "Within one grade",
    "somers_d": "Somers' D",
}


@dataclass(frozen=True, eq=False)
class GradeResult:
    """What one model achieved; the unit is the case, and values are means over repeats.

    Attributes:
        model: its name.
        n: cases.
        metrics: by name. ``quadratic_kappa`` and ``linear_kappa``: agreement beyond what the two margins
            give. ``mae``: mean distance of the predicted from the true grade, in grades. ``bias``: mean of
            predicted minus true, above 0 where the model grades too high. ``exact`` and, of more than two
            grades, ``within_one``: shares of cases. ``somers_d``: how well the expected grade ranks cases,
            2 AUC - 1 for two grades.
        confusion: (K, K) cases, mean over repeats; rows are the true grade, columns the predicted one.
        per_repeat: metric name to one value per repeat; None where undefined.
        spread: of these over the repeats; None where one is undefined.
    """

    model: str
    n: int
    metrics: Mapping[str, Estimate]
    confusion: Floats
    per_repeat: Mapping[str, tuple[float | None, ...]]
    spread: Mapping[str, Spread | None]

    def to_json(self) -> dict[str, object]:
        """Plain numbers, text, lists and dicts; None for what is undefined."""
        return {
            "model": self.model,
            "n": self.n,
            "metrics": {name: asdict(value) for name, value in self.metrics.items()},
            "confusion": self.confusion.tolist(),
            "per_repeat": {name: list(values) for name, values in self.per_repeat.items()},
            "spread": {name: value and asdict(value) for name, value in self.spread.items()},
        }


@dataclass(frozen=True, eq=False)
class GradeEvaluation:
    """The results of all models over one set of cases.

    The predicted grade of a case is the median of its predicted distribution, which minimises the expected
    absolute error.

    Attributes:
        grades: names of the grades, lowest first, in the order of every array.
        grade_counts: cases per true grade.
        n_cases: cases.
        n_slides: distinct slides.
        repeats: the repeats of the table.
        models: one result per model, in the order of the table.
        baseline: always the median true grade of the cases of the other folds; None with one fold.
    """

    grades: tuple[str, ...]
    grade_counts: tuple[int, ...]
    n_cases: int
    n_slides: int
    repeats: tuple[int, ...]
    models: tuple[GradeResult, ...]
    baseline: GradeResult | None

    def best(self) -> GradeResult:
        """The model of the highest quadratic kappa; of equals, that of the smallest absolute error."""

        def rank(result: GradeResult) -> tuple[float, float]:
            kappa, error = (result.metrics[name].value for name in ("quadratic_kappa", "mae"))
            return (-np.inf if kappa is None else kappa), -(error or 0.0)

        return max(self.models, key=rank)

    def to_json(self) -> dict[str, object]:
        """Plain numbers, text, lists and dicts; None for what is undefined."""
        return {
            "task": "grade",
            "grades": list(self.grades),
            "grade_counts": list(self.grade_counts),
            "n_cases": self.n_cases,
            "n_slides": self.n_slides,
            "repeats": list(self.repeats),
            "predicted_grade": "median of the predicted distribution",
            "models": [result.to_json() for result in self.models],
            "baseline": self.baseline and self.baseline.to_json(),
        }

    def rows(self) -> list[dict[str, object]]:
        """Every metric of each model and of the baseline with its limits, one row each."""
        results = [*self.models, *([self.baseline] if self.baseline else [])]
        return [
            {"model": result.model, "metric": name, **asdict(value)}
            for result in results
            for name, value in result.metrics.items()
        ]


def evaluate_grades(predictions: GradePredictions) -> GradeEvaluation:
    """Judge every model of the table over its cases.

    With several repeats each value is the mean of the metric over repeats, and its interval is laid at that
    mean for the number of cases: repeats are never more cases.

    Args:
        predictions: out-of-fold predictions; the slides of a case are averaged.
    """
    models, repeats = predictions.models, predictions.repeats
    scores = {name: [predictions.case_scores(name, one) for one in repeats] for name in models}
    first = scores[models[0]]
    counts = np.bincount(first[0].truth, minlength=len(predictions.grades))
    constant = [median_of_training(one) for one in first]
    known = [one for one in constant if one is not None]
    return GradeEvaluation(
        grades=predictions.grades,
        grade_counts=tuple(int(count) for count in counts),
        n_cases=len(first[0].truth),
        n_slides=int(predictions.table["slide"].nunique()),
        repeats=repeats,
        models=tuple(evaluate_model(name, scores[name]) for name in models),
        baseline=evaluate_model(BASELINE, known) if len(known) == len(constant) else None,
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
        p[tested, metrics.median_grade(shares[None].astype(np.float64))[0]] = 1
    return replace(scores, p=p)


def evaluate_model(model: str, repeats: Sequence[CaseScores]) -> GradeResult:
    """Judge one model.

    Args:
        model: its name.
        repeats: its scores over the same cases; truth is the index of the true grade.
    """
    truth, n_grades = repeats[0].truth, repeats[0].p.shape[1]
    tables = [
        metrics.ranked_confusion(truth, metrics.median_grade(one.p), n_grades) for one in repeats
    ]
    farthest = float(n_grades - 1)
    one_grade = len(np.unique(truth)) < 2
    ranged: dict[str, tuple[Callable[[Floats], Floats], float, float]] = {
        "quadratic_kappa": (metrics.quadratic_kappa, -1.0, 1.0),
        "linear_kappa": (metrics.linear_kappa, -1.0, 1.0),
        "mae": (metrics.mean_absolute_error, 0.0, farthest),
        "bias": (metrics.mean_error, -farthest, farthest),
    }
    shares = {"exact": metrics.exact_accuracy, "within_one": metrics.within_one}
    if n_grades == 2:  # nothing is farther off than one grade
        del shares["within_one"]
    values = {
        name: [float(metric(table)) for table in tables]
        for name, metric in {**{name: of[0] for name, of in ranged.items()}, **shares}.items()
    }
    estimates = {name: _laid_at(values[name], tables, *ranged[name]) for name in ranged}
    if one_grade:
        estimates |= {"quadratic_kappa": ONE_GRADE, "linear_kappa": ONE_GRADE}
    for name in shares:
        share = float(np.mean(values[name]))
        estimates[name] = make_estimate(share, wilson(share * len(truth), len(truth)))
    estimates["somers_d"], somers = _somers(repeats)
    per_repeat: dict[str, tuple[float | None, ...]] = {
        name: tuple(None if estimates[name].value is None else value for value in values[name])
        for name in values
    }
    per_repeat["somers_d"] = somers
    return GradeResult(
        model=model,
        n=len(truth),
        metrics=estimates,
        confusion=np.asarray(np.mean(tables, axis=0)),
        per_repeat=per_repeat,
        spread={name: spread(one) for name, one in per_repeat.items()},
    )


def _laid_at(
    values: Sequence[float],
    tables: Sequence[Floats],
    metric: Callable[[Floats], Floats],
    least: float,
    most: float,
) -> Estimate:
    """The mean over repeats, with the interval of their mean confusion matrix moved to it."""
    table, mean = np.mean(tables, axis=0), float(np.mean(values))
    interval = graded_interval(metric, table)
    shift = mean - float(metric(table))
    low, high = max(least, interval.low + shift), min(most, interval.high + shift)
    return make_estimate(mean, replace(interval, low=low, high=high))


def _somers(repeats: Sequence[CaseScores]) -> tuple[Estimate, tuple[float | None, ...]]:
    """Somers' D of the expected grade, and its value in every repeat."""
    truth, scores = repeats[0].truth, [metrics.expected_grade(one.p) for one in repeats]
    values = tuple(metrics.somers_d(truth, score) for score in scores)
    nothing: tuple[float | None, ...] = (None,) * len(repeats)
    known = [value for value in values if value is not None]
    if not known:
        return ONE_GRADE, nothing
    if all(depends_on_fold_alone(one) for one in repeats):
        note = "undefined: predictions follow from the fold alone"
        return Estimate(None, None, None, "none", note), nothing
    mean = float(np.mean(known))
    interval = somers_interval(truth, scores, mean)
    if interval is None:
        note = "no limits: the ranking has no variance among these cases"
        return Estimate(mean, None, None, "none", note), values
    return make_estimate(mean, interval), values
