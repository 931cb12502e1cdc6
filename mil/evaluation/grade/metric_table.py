"""The table of grade metrics. To add one, write a function of ``ModelGrades`` and add a row."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from mil.evaluation.arrays import Floats, Ints
from mil.evaluation.classification.model_scores import ONE_ANSWER, depends_on_fold_alone
from mil.evaluation.classification.per_class import make_estimate
from mil.evaluation.classification.predictions import CaseScores
from mil.evaluation.grade.intervals import graded_interval, somers_interval
from mil.evaluation.grade.metrics import (
    exact_accuracy,
    expected_grade,
    linear_kappa,
    mean_absolute_error,
    mean_error,
    median_grade,
    quadratic_kappa,
    ranked_confusion,
    somers_d,
    within_one,
)
from mil.evaluation.intervals import Estimate, wilson
from mil.evaluation.metric import Metric

ONE_GRADE = "undefined: cases of one grade only"
TWO_GRADES = "undefined: two grades are never farther apart than one"
NO_VARIANCE = "no limits: the ranking has no variance among these cases"

CountMetric = Callable[[Floats], Floats]


@dataclass(frozen=True, eq=False)
class ModelGrades:
    """Predictions of one model for the same cases in each repeat.

    Attributes:
        repeats: one entry per repeat; truth is the index of the true grade, p is (n, K).
        tables: (K, K) ranked confusion matrix of each repeat; rows are the true grade, columns the median
            of the predicted distribution.
    """

    repeats: tuple[CaseScores, ...]
    tables: tuple[Floats, ...]

    @property
    def truth(self) -> Ints:
        """(n,) true grades; the same in every repeat."""
        return self.repeats[0].truth

    @property
    def n_grades(self) -> int:
        """K, the number of grades."""
        return len(self.repeats[0].p[0])

    @property
    def one_grade(self) -> bool:
        """Whether all cases have the same true grade."""
        return len(np.unique(self.truth)) < 2

    @cached_property
    def constant(self) -> bool:
        """Whether all cases of a fold get one answer, in every repeat."""
        return all(depends_on_fold_alone(one) for one in self.repeats)

    @property
    def confusion(self) -> Floats:
        """(K, K) mean of the tables."""
        return np.asarray(np.mean(self.tables, axis=0))


def model_grades(repeats: tuple[CaseScores, ...]) -> ModelGrades:
    """Count the confusion matrices of a model."""
    return ModelGrades(
        repeats,
        tuple(ranked_confusion(one.truth, median_grade(one.p), one.p.shape[1]) for one in repeats),
    )


def _of_counts(
    metric: CountMetric, lowest: float, *, needs_grades: bool = False, scaled: bool = True
) -> Callable[[ModelGrades], Estimate]:
    """A metric of the ranked confusion matrix: its mean over repeats, with ``graded_interval`` around it.

    Args:
        metric: from (..., K, K) counts to (...,) numbers.
        lowest: its least value; times K - 1 if scaled.
        needs_grades: whether it is undefined where all cases have one grade.
        scaled: whether its range is in grades, to K - 1; otherwise to 1.
    """

    def estimate(scores: ModelGrades) -> Estimate:
        if needs_grades and scores.one_grade:
            return Estimate(None, None, None, "none", ONE_GRADE)
        most = float(scores.n_grades - 1) if scaled else 1.0
        mean = float(np.mean([float(metric(table)) for table in scores.tables]))
        interval = graded_interval(metric, scores.confusion)
        shift = mean - float(metric(scores.confusion))
        low, high = max(lowest * most, interval.low + shift), min(most, interval.high + shift)
        return make_estimate(mean, replace(interval, low=low, high=high))

    return estimate


def _values(
    metric: CountMetric, *, needs_grades: bool = False
) -> Callable[[ModelGrades], tuple[float | None, ...]]:
    def per_repeat(scores: ModelGrades) -> tuple[float | None, ...]:
        undefined = needs_grades and scores.one_grade
        return tuple(None if undefined else float(metric(table)) for table in scores.tables)

    return per_repeat


def _share(metric: CountMetric, scores: ModelGrades) -> Estimate:
    """A share of cases with Wilson's interval."""
    share, n = float(metric(scores.confusion)), len(scores.truth)
    return make_estimate(share, wilson(share * n, n))


def exact(scores: ModelGrades) -> Estimate:
    """Share of cases whose grade is predicted exactly."""
    return _share(exact_accuracy, scores)


def near(scores: ModelGrades) -> Estimate:
    """Share of cases whose grade is missed by one at most; undefined for two grades."""
    if scores.n_grades == 2:
        return Estimate(None, None, None, "none", TWO_GRADES)
    return _share(within_one, scores)


def ranking(scores: ModelGrades) -> Estimate:
    """Somers' D of the expected grade, mean over repeats."""
    defined = [value for value in ranking_per_repeat(scores) if value is not None]
    if not defined:
        return Estimate(None, None, None, "none", ONE_GRADE if scores.one_grade else ONE_ANSWER)
    mean = float(np.mean(defined))
    expected = [expected_grade(one.p) for one in scores.repeats]
    interval = somers_interval(scores.truth, expected, mean)
    if interval is None:
        return Estimate(mean, None, None, "none", NO_VARIANCE)
    return make_estimate(mean, interval)


def ranking_per_repeat(scores: ModelGrades) -> tuple[float | None, ...]:
    """Somers' D of each repeat; None where all cases of a fold get one answer."""
    if scores.constant:
        return (None,) * len(scores.repeats)
    return tuple(somers_d(one.truth, expected_grade(one.p)) for one in scores.repeats)


METRICS: tuple[Metric[ModelGrades], ...] = (
    Metric(
        "quadratic_kappa",
        "kappa, quadratic",
        _of_counts(quadratic_kappa, -1.0, needs_grades=True, scaled=False),
        _values(quadratic_kappa, needs_grades=True),
        shown="summary",
        page_label="quadratic kappa",
    ),
    Metric(
        "mae",
        "mean absolute error",
        _of_counts(mean_absolute_error, 0.0),
        _values(mean_absolute_error),
        shown="summary",
    ),
    Metric("exact", "exact", exact, _values(exact_accuracy), shown="summary", percent=True),
    Metric(
        "within_one",
        "within one",
        near,
        _values(within_one),
        shown="summary",
        page_label="within one grade",
        percent=True,
        fewest_classes=3,
    ),
    Metric("somers_d", "Somers' D", ranking, ranking_per_repeat),
    Metric(
        "linear_kappa",
        "kappa, linear",
        _of_counts(linear_kappa, -1.0, needs_grades=True, scaled=False),
        _values(linear_kappa, needs_grades=True),
        page_label="linear kappa",
    ),
    Metric("bias", "mean error", _of_counts(mean_error, -1.0), _values(mean_error)),
)
