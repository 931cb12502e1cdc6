"""What a pipeline finds where there is nothing to find: the same fits on shuffled labels of cases.

The labels move between whole cases, so that bags, folds, models and settings stay what they are and only
the link from image to label is cut. A pipeline that still ranks cases above chance has let the answer in.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from mil.data.cohort import Cohort
from mil.data.splits import Fold, split_cases
from mil.errors import CohortError
from mil.evaluation.classification.evaluate import evaluate
from mil.evaluation.predictions import Predictions
from mil.learning.parallel import run_tasks
from mil.settings import SplitSettings

CHANCE = 0.5  # the AUC of a score that knows nothing
ALARM = 0.01  # how often a sound pipeline may be called leaking, over all its models
DRAWS = 100  # of labels, until every fold has a training case of each class

Crossval = Callable[[Cohort, Sequence[Fold], int], Predictions]


@dataclass(frozen=True)
class Shuffle:
    """One model on one shuffle of the labels; the AUC is None where it is undefined."""

    shuffle: int
    model: str
    auc: float | None
    accuracy: float


@dataclass(frozen=True)
class Verdict:
    """What the shuffles say of one model.

    Attributes:
        model: its name.
        aucs: macro AUC of each shuffle; empty for a model that ranks nothing.
        observed: its macro AUC with the true labels.
        p_value: share of shuffles, the true labels counted among them, that reach the observed AUC
            (Phipson & Smyth 2010, doi:10.2202/1544-6115.1585); None without an AUC.
        noticed: the least mean AUC of the shuffles that would have raised the alarm.
        invents: whether their mean is above .5 beyond chance.
    """

    model: str
    aucs: tuple[float, ...]
    observed: float | None
    p_value: float | None
    noticed: float | None
    invents: bool


def shuffles(
    cohort: Cohort,
    models: Sequence[str],
    split: SplitSettings,
    crossval: Crossval,
    numbers: Sequence[int],
    *,
    workers: int = 1,
) -> Iterator[list[Shuffle]]:
    """Cross-validate on shuffled labels, once for each number; yields as they come.

    Args:
        cohort: with its true labels.
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

    def __call__(self, number: int) -> list[Shuffle]:
        shuffled, folds = shuffle_labels(self.cohort, self.split, number)
        results = evaluate(self.crossval(shuffled, folds, number)).models
        return [
            Shuffle(number, result.model, result.metrics["auc"].value, result.correct / result.n)
            for result in results
            if result.model in self.models
        ]


def shuffle_labels(
    cohort: Cohort, split: SplitSettings, number: int
) -> tuple[Cohort, tuple[Fold, ...]]:
    """The cohort with its labels dealt out anew to whole cases, and folds of it.

    Raises:
        CohortError: whatever was drawn, a fold trains without a class, as with small sites.
    """
    rng = np.random.default_rng([number, len(cohort.cases)])
    for draw in range(DRAWS):
        labels = [str(label) for label in rng.permutation([case.label for case in cohort.cases])]
        cases = tuple(
            replace(case, label=label) for case, label in zip(cohort.cases, labels, strict=True)
        )
        try:
            folds = split_cases(
                [case.name for case in cases],
                labels,
                [case.site for case in cases],
                replace(split, seed=split.seed + number),
            )
        except CohortError:
            if draw == DRAWS - 1:
                raise
            continue
        return replace(cohort, cases=cases), folds
    raise AssertionError("unreachable: the last draw returns or raises")


def judge(found: Sequence[Shuffle], observed: dict[str, float | None]) -> tuple[Verdict, ...]:
    """What the shuffles say of each model.

    The mean AUC of the shuffles is held against .5 by a one-sided t test, at a level of 1 % over all
    models (Bonferroni). Means below .5 raise no alarm: pooled scores of held-out folds lean that way,
    because a fold trains on fewer of whatever it tests.
    """
    verdicts = []
    for model, score in observed.items():
        aucs = [
            run_tasks.auc
            for run_tasks in found
            if run_tasks.model == model and run_tasks.auc is not None
        ]
        if score is None or len(aucs) < 2:
            verdicts.append(Verdict(model, tuple(aucs), score, None, None, invents=False))
            continue
        error = float(np.std(aucs, ddof=1)) / len(aucs) ** 0.5
        above = float(stats.t.isf(ALARM / len(observed), len(aucs) - 1)) * error
        reaching = sum(auc >= score for auc in aucs)
        verdicts.append(
            Verdict(
                model,
                tuple(aucs),
                score,
                (1 + reaching) / (1 + len(aucs)),
                CHANCE + above,
                invents=float(np.mean(aucs)) > CHANCE + above,
            )
        )
    return tuple(verdicts)
