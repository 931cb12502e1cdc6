"""Label permutation test: what a pipeline finds where there is nothing to find.

Outcomes are shuffled between whole cases, so that bags, folds, models and settings stay what they are and
only the link from image to outcome is cut. A pipeline that still orders cases better than chance leaks the
answer.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mil.data.cohort import Cohort
from mil.data.splits import Fold, split_cases
from mil.distributions import student
from mil.errors import CohortError
from mil.evaluation.display import state_p
from mil.evaluation.judge import evaluate
from mil.evaluation.predictions import Predictions
from mil.learning.parallel import run_tasks
from mil.settings import SplitSettings

ALARM = 0.01  # how often a sound pipeline may be called leaking, over all its models
FEW = 20  # shuffles below which only gross leaks are seen
DRAWS = 100  # of outcomes, until every fold has a training case of each class

Crossval = Callable[[Cohort, Sequence[Fold], int], Predictions]


@dataclass(frozen=True)
class Permutation:
    """One model on one shuffle of the outcomes.

    Attributes:
        number: of the shuffle; its seed.
        model: its name.
        value: the task's metric; None where it is undefined.
    """

    number: int
    model: str
    value: float | None


@dataclass(frozen=True)
class PermutationTest:
    """What the shuffles show of one model.

    Attributes:
        model: its name.
        metric: that was computed, as AUC or Harrell's C.
        chance: the metric of a model that knows nothing.
        values: the metric of each shuffle; empty for a model that orders nothing.
        observed: the metric with the true outcomes.
        p_value: share of shuffles, the true outcomes counted among them, that reach the observed metric
            (Phipson & Smyth 2010, doi:10.2202/1544-6115.1585); None without a metric, and where it is that
            of chance throughout: a model that gives all cases one answer is not tested.
        alarm_at: the least mean of the shuffles that would have raised the alarm.
        leaks: whether their mean is above chance by more than chance explains.
    """

    model: str
    metric: str
    chance: float
    values: tuple[float, ...]
    observed: float | None
    p_value: float | None
    alarm_at: float | None
    leaks: bool

    def __repr__(self) -> str:
        """The model, what it reached and what that shows; not every shuffle."""
        if self.observed is None:
            return f"PermutationTest({self.model}: {self.verdict})"
        return (
            f"PermutationTest({self.model}: {self.metric} {self.observed:.2f}, {len(self.values)} shuffles, "
            f"{state_p(self.p_value)}, {self.verdict})"
        )

    @property
    def verdict(self) -> str:
        """What the shuffles show, in words."""
        if self.observed is None or self.alarm_at is None or self.p_value is None:
            return "gives all cases the same score"
        if self.leaks:
            return "LEAKS"
        if self.alarm_at >= 1:
            return "too few shuffles to tell"
        varies = min(self.values) < max(self.values)
        return "at chance" + f" (alarm from {self.alarm_at:.2f})" * varies

    @property
    def remark(self) -> str:
        """What so few shuffles cannot show; empty where they are enough."""
        n = len(self.values)
        if not 0 < n < FEW:
            return ""
        return (
            f"{n} shuffles show only gross leaks, and p cannot fall below {1 / (n + 1):.2f}. Use {FEW} or "
            "more."
        )


def permute(
    cohort: Cohort,
    models: Sequence[str],
    split: SplitSettings,
    crossval: Crossval,
    numbers: Sequence[int],
    *,
    workers: int = 1,
) -> Iterator[list[Permutation]]:
    """Cross-validate on shuffled outcomes, once for each number; yields as they are done.

    Args:
        cohort: with its true outcomes.
        models: of the pipeline.
        split: as the pipeline divides cases; the folds are drawn anew for each shuffle.
        crossval: the pipeline itself, as crossval(cohort, folds, seed).
        numbers: seeds of the shuffles.
        workers: shuffles at once; 0 takes one per core where that is worth their start.

    Raises:
        CohortError: no shuffle was found that the folds can carry.
    """
    work = _Shuffled(cohort, models, split, crossval)
    for _, rows in run_tasks(work, [(number,) for number in numbers], workers=workers):
        yield rows


@dataclass(frozen=True)
class _Shuffled:
    """One shuffle; may be sent to another process."""

    cohort: Cohort
    models: Sequence[str]
    split: SplitSettings
    crossval: Crossval

    def __call__(self, number: int) -> list[Permutation]:
        shuffled, folds = shuffle_outcomes(self.cohort, self.split, number)
        values = metric_by_model(self.cohort, self.crossval(shuffled, folds, number))
        return [Permutation(number, name, v) for name, v in values.items() if name in self.models]


def metric_by_model(cohort: Cohort, predictions: Predictions) -> dict[str, float | None]:
    """The task's metric of each model."""
    metric, _ = cohort.task.null_metric
    return {r.model: r.metrics[metric].value for r in evaluate(predictions).models}


def shuffle_outcomes(
    cohort: Cohort, split: SplitSettings, number: int
) -> tuple[Cohort, tuple[Fold, ...]]:
    """The cohort with its outcomes shuffled between whole cases, and folds of it.

    Raises:
        CohortError: whatever was drawn, a fold trains without a class, as with small sites.
    """
    rng = np.random.default_rng([number, len(cohort.cases)])
    for draw in range(DRAWS):
        order = rng.permutation(len(cohort.cases))
        cases = tuple(
            replace(case, label=cohort.cases[i].label, time=cohort.cases[i].time)
            for case, i in zip(cohort.cases, order, strict=True)
        )
        try:
            folds = split_cases(
                [case.name for case in cases],
                cohort.task.strata([case.label for case in cases], split.folds),
                [case.site for case in cases],
                replace(split, seed=split.seed + number),
                group=cohort.task.group,
            )
        except CohortError:
            if draw == DRAWS - 1:
                raise
            continue
        return replace(cohort, cases=cases), folds
    raise AssertionError("unreachable: the last draw returns or raises")


def judge_permutations(
    permutations: Sequence[Permutation],
    observed: Mapping[str, float | None],
    metric: str,
    chance: float,
) -> tuple[PermutationTest, ...]:
    """What the shuffles show of each model.

    The mean of the shuffles is compared with chance by a one-sided t test, at a level of 1 % over all models
    (Bonferroni). Means below chance raise no alarm: pooled scores of held-out folds lean that way, because a
    fold trains on fewer of whatever it tests.
    """
    tests = []
    for model, score in observed.items():
        values = [p.value for p in permutations if p.model == model and p.value is not None]
        if score is None or len(values) < 2 or {score, *values} == {chance}:
            tests.append(
                PermutationTest(
                    model, metric, chance, tuple(values), score, None, None, leaks=False
                )
            )
            continue
        error = float(np.std(values, ddof=1)) / len(values) ** 0.5
        alarm_at = chance + float(student.isf(ALARM / len(observed), len(values) - 1)) * error
        reaching = sum(value >= score for value in values)
        tests.append(
            PermutationTest(
                model,
                metric,
                chance,
                tuple(values),
                score,
                (1 + reaching) / (1 + len(values)),
                alarm_at,
                leaks=float(np.mean(values)) > alarm_at,
            )
        )
    return tuple(tests)
