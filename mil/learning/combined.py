"""Clinical columns selected inside each fold, alone and beside a model's score.

The score of a training case, by which the two are weighed against each other, comes from a model of the same
fold that has not seen this case: by cross-validation within the fold's training part. Scores of cases that
the model was trained on would make it look far better than it is on new ones, and take all the weight.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from features.progress import Progress, Silent
from features.threads import one_thread
from mil.data.case import Case
from mil.data.cohort import Cohort
from mil.data.splits import Fold, split_cases
from mil.evaluation.predictions import Predictions
from mil.evaluation.regression.models import fit_regression, select_columns
from mil.learning.crossval import (
    Fitter,
    check_fit,
    check_seen,
    check_start,
    fit_cases,
    fit_fold,
    fold_seed,
    prediction_keys,
)
from mil.learning.fitted import FittedModel, predict
from mil.learning.parallel import run_tasks
from mil.learning.reserved import check_reserved
from mil.settings import FitSettings, SplitSettings
from mil.tasks.task import Fields

SELECTED = "clinical-selected"
SCORE = "score of the model"  # a column of the combined regression; no table has one of this name
MAX_INNER_FOLDS = 5


@dataclass(frozen=True)
class Combination:
    """What is combined, and how; may be sent to another process.

    Attributes:
        cohort: whose outcome a regression takes.
        model: whose score is combined with the columns.
        columns: of the table, to select from.
        settings: how the model is trained.
        seed: as of the cross-validation.
        fitter: as of the cross-validation: its own fit of the model on the fold is taken.
    """

    cohort: Cohort
    model: str
    columns: tuple[str, ...]
    settings: FitSettings
    seed: int
    fitter: Fitter

    def __call__(self, fold: Fold) -> list[Fields]:
        """Fit both models on the training part of a fold, predict its test cases."""
        train, test = self.cohort.named(fold.train), self.cohort.named(fold.test)
        truth = self.cohort.task.regression_truth(train, self.cohort.classes)
        values = {name: [case.other[name] for case in train] for name in self.columns}
        selected = select_columns(values, truth)
        # A column without information, so that there is one where none is selected.
        train_table = {"": [""] * len(train)} | {name: values[name] for name in selected}
        test_table = {"": [""] * len(test)}
        test_table |= {name: [case.other[name] for case in test] for name in selected}
        train_scores, test_scores = self._scores(fold, train, test)
        rows: list[Fields] = []
        for name, fitted_on, applied_to in (
            (SELECTED, train_table, test_table),
            (f"{self.model}+clinical", train_table | train_scores, test_table | test_scores),
        ):
            regression = fit_regression(fitted_on, truth)
            answers = self.cohort.task.regression_answers(
                regression, fitted_on, applied_to, self._answer_columns
            )
            rows += [
                prediction_keys(name, fold, case, bag.slide)
                | self.cohort.task.outcome_fields(case)
                | answer
                for case, answer in zip(test, answers, strict=True)
                for bag in case.bags
            ]
        return rows

    @property
    def _answer_columns(self) -> tuple[str, ...]:
        return self.cohort.task.answer_columns(self.cohort.cases, self.cohort.classes)

    def _scores(
        self, fold: Fold, train: Sequence[Case], test: Sequence[Case]
    ) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """The model's score of the training and of the test cases, each by models that have not seen it."""
        with one_thread():
            fit = partial(fit_fold, self.cohort, self.model, fold, self.settings, self.seed)
            fitted = self.fitter(self.model, fold, fit)
            check_fit(self.cohort, self.model, fold, self.settings, self.seed, fitted)
            inner = {SCORE: self._inner_scores(train, fold_seed(self.seed, fold))}
            return inner, {SCORE: [self._score(fitted, case) for case in test]}

    def _inner_scores(self, cases: Sequence[Case], seed: int) -> list[str]:
        """The score of each training case by a model that was fitted on others of them."""
        labels = [case.label for case in cases]
        # As many folds as the smaller class has cases; without two, nothing could be left out.
        count = max(2, min(MAX_INNER_FOLDS, *Counter(labels).values()))
        split = SplitSettings(folds=str(count), seed=seed % 2**31)
        names = [case.name for case in cases]
        scores: dict[str, str] = {}
        group = self.cohort.task.group
        for inner in split_cases(names, labels, [""] * len(cases), split, group=group):
            test = set(inner.test)
            fitted = fit_cases(
                self.model,
                [case for case in cases if case.name not in test],
                self.cohort.classes,
                self.settings,
                fold_seed(seed, inner),
                task=self.cohort.task,
            )
            scores |= {c.name: self._score(fitted, c) for c in cases if c.name in test}
        return [scores[name] for name in names]

    def _score(self, fitted: FittedModel, case: Case) -> str:
        """One number for a case, over its slides, as a column of the table holds it."""
        answers = [predict(fitted, bag, case.other) for bag in case.bags]
        mean: Mapping[str, float] = {
            name: float(np.mean([answer[name] for answer in answers])) for name in answers[0]
        }
        return repr(self.cohort.task.regression_score(mean))


def combine(
    combination: Combination,
    folds: Sequence[Fold],
    *,
    engine: str = "loky",
    workers: int = 1,
    progress: Progress | None = None,
) -> Predictions:
    """Predict every case by the selected columns, and by these beside the model's score.

    Args:
        combination: of a cohort whose outcome a regression takes.
        folds: of the cross-validation.
        engine: as of the cross-validation.
        workers: likewise.
        progress: is advanced by each fold.

    Raises:
        CohortError: no regression takes this outcome.
        LeakageError: a backbone, or a stored fit, has seen a case that would be tested with it.
        FitError: as of the cross-validation.
    """
    cohort = combination.cohort
    cohort.task.check_combinable(cohort.classes)
    check_reserved(cohort, combination.settings.head_weights)
    check_seen(cohort, folds)
    check_start(cohort, folds, [combination.model], combination.settings.head_weights)
    done: dict[int, list[Fields]] = {}
    tasks = [(fold,) for fold in folds]
    with (progress or Silent()).task("combined models", len(tasks), "folds") as advance:
        for number, rows in run_tasks(combination, tasks, engine=engine, workers=workers):
            done[number] = rows
            advance(1)
    by_fold = [row for number in sorted(done) for row in done[number]]
    ordered = sorted(by_fold, key=lambda row: row["model"] != SELECTED)
    return cohort.task.make_predictions(ordered, cohort.cases, cohort.classes)
