"""Clinical columns selected inside each fold, alone and beside a model's score.

The score of a training case, by which the two are weighed against each other, comes from a model of the same
fold that has not seen this case: by cross-validation within the fold's training part. Scores of cases that
the model was trained on would make it look far better than it is on new ones, and take all the weight.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy.special import logit

from features.progress import Progress, Silent
from features.threads import one_thread
from mil.data.cohort import Case, Cohort
from mil.data.outcomes import EVENT
from mil.data.splits import Fold, split_cases
from mil.errors import CohortError
from mil.evaluation.arrays import Floats
from mil.evaluation.predictions import COLUMNS, PREFIX, Predictions
from mil.evaluation.regression.models import Truth, fit_regression, select_columns
from mil.evaluation.survival.predictions import COLUMNS as SURVIVAL_COLUMNS
from mil.evaluation.survival.predictions import SurvivalPredictions, column_of, horizons_of
from mil.learning.crossval import Fitter, Row, check_fit, check_seen, fit_cases, fit_fold, fold_seed
from mil.learning.fitted import Fitted
from mil.learning.parallel import run_tasks
from mil.learning.prediction import probabilities, risk
from mil.learning.survival import outcomes_of
from mil.settings import FitSettings, SplitSettings

SELECTED = "clinical-selected"
SCORE = "score of the model"  # a column of the combined regression; no table has one of this name
MOST_FOLDS = 5


@dataclass(frozen=True)
class Combination:
    """What is combined, and how; may be sent to another process.

    Attributes:
        cohort: of two classes, or of survival.
        model: whose score is combined with the columns.
        columns: of the table, to select from.
        settings: how the model is trained.
        seed: as of the cross-validation.
        keep: as of the cross-validation: its own fit of the model on the fold is taken.
    """

    cohort: Cohort
    model: str
    columns: tuple[str, ...]
    settings: FitSettings
    seed: int
    keep: Fitter

    @property
    def survival(self) -> bool:
        """Whether the cohort is one of survival."""
        return self.settings.task == "survival"

    @property
    def horizons(self) -> tuple[float, ...]:
        """At which survival is predicted, as in the cross-validation."""
        told = outcomes_of(self.cohort.cases)
        return horizons_of(told.time, told.event)

    def __call__(self, fold: Fold) -> list[Row]:
        """Fit both models on the training part of a fold, predict its test cases."""
        train, test = self.cohort.named(fold.train), self.cohort.named(fold.test)
        truth = self._truth(train)
        table = {name: [case.other[name] for case in train] for name in self.columns}
        selected = select_columns(table, truth)
        # A column that says nothing, so that where none is selected there is one still.
        chosen = {"": [""] * len(train)} | {name: table[name] for name in selected}
        tested = {"": [""] * len(test)}
        tested |= {name: [case.other[name] for case in test] for name in selected}
        with one_thread():
            fitted = self.keep(
                self.model,
                fold,
                partial(fit_fold, self.cohort, self.model, fold, self.settings, self.seed),
            )
            check_fit(self.cohort, self.model, fold, self.settings, self.seed, fitted)
            scored = {SCORE: self._inner_scores(train, fold_seed(self.seed, fold))}
            told = {SCORE: [self._score(fitted, case) for case in test]}
        rows: list[Row] = []
        for name, given, asked in (
            (SELECTED, chosen, tested),
            (f"{self.model}+clinical", chosen | scored, tested | told),
        ):
            answers = self._answers(given, asked, truth)
            for case, answer in zip(test, answers, strict=True):
                at = {"model": name, "repeat": fold.repeat, "fold": fold.index, "case": case.name}
                rows += [
                    at | {"slide": bag.slide} | self._stated(case) | answer for bag in case.bags
                ]
        return rows

    def _truth(self, cases: Sequence[Case]) -> Truth:
        if self.survival:
            return outcomes_of(cases)
        return np.array([case.label == self.cohort.classes[1] for case in cases])

    def _stated(self, case: Case) -> Row:
        if self.survival:
            return {"time": case.time, "event": int(case.label == EVENT)}
        return {"label": case.label}

    def _inner_scores(self, cases: Sequence[Case], seed: int) -> list[str]:
        """The score of each training case by a model that was fitted on others of them."""
        labels = [case.label for case in cases]
        # As many folds as the smaller class has cases; without two, nothing could be held out.
        count = max(2, min(MOST_FOLDS, *Counter(labels).values()))
        split = SplitSettings(folds=str(count), seed=seed % 2**31)
        names = [case.name for case in cases]
        scores = {}
        for inner in split_cases(names, labels, [""] * len(cases), split):
            held_out = set(inner.test)
            part = [case for case in cases if case.name not in held_out]
            own = fold_seed(seed, inner)
            fitted = fit_cases(self.model, part, self.cohort.classes, self.settings, own)
            for case in cases:
                if case.name in held_out:
                    scores[case.name] = self._score(fitted, case)
        return [scores[name] for name in names]

    def _score(self, fitted: Fitted, case: Case) -> str:
        """The log odds of the second class, or the risk, over a case's slides; as a column holds it."""
        if self.survival:
            found = float(np.mean([risk(fitted, bag, (), case.other)[0] for bag in case.bags]))
        else:
            p = np.mean([probabilities(fitted, bag, case.other)[1] for bag in case.bags])
            found = float(logit(np.clip(p, 1e-6, 1 - 1e-6)))
        return repr(found)

    def _answers(
        self, given: dict[str, list[str]], asked: dict[str, list[str]], truth: Truth
    ) -> list[Row]:
        """What a regression on columns of the training cases says of the test cases."""
        fitted = fit_regression(given, truth)
        linear = fitted.linear(asked)
        if fitted.baseline is None:
            first, second = (PREFIX + name for name in self.cohort.classes)
            p = fitted.probability(linear)
            return [{first: 1 - float(value), second: float(value)} for value in p]
        centred: Floats = linear - float(np.median(fitted.linear(given)))
        survival = fitted.baseline.survival(linear, np.array(self.horizons))
        names = list(map(column_of, self.horizons))
        return [
            {"risk": float(value), **dict(zip(names, map(float, row), strict=True))}
            for value, row in zip(centred, survival, strict=True)
        ]


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
        combination: of a cohort of two classes.
        folds: of the cross-validation.
        engine: as of the cross-validation.
        workers: likewise.
        progress: told of each fold.

    Raises:
        CohortError: more than two classes.
        LeakageError: a backbone, or a kept fit, has seen a case that would be tested with it.
        FitError: as of the cross-validation.
    """
    classes = combination.cohort.classes
    if len(classes) != 2:
        raise CohortError(
            f"Clinical columns and a score are combined by a logistic regression of two classes; the cohort "
            f"has {len(classes)}. Leave --combine out, or make one table per question."
        )
    rows = _rows(combination, folds, engine, workers, progress)
    columns = [*COLUMNS, *(PREFIX + name for name in classes)]
    return Predictions(pd.DataFrame(rows, columns=columns), classes)


def combine_survival(
    combination: Combination,
    folds: Sequence[Fold],
    *,
    engine: str = "loky",
    workers: int = 1,
    progress: Progress | None = None,
) -> SurvivalPredictions:
    """The same of survival, by Cox regressions; all as ``combine``."""
    rows = _rows(combination, folds, engine, workers, progress)
    columns = [*SURVIVAL_COLUMNS, *map(column_of, combination.horizons)]
    return SurvivalPredictions(pd.DataFrame(rows, columns=columns))


def _rows(
    combination: Combination,
    folds: Sequence[Fold],
    engine: str,
    workers: int,
    progress: Progress | None,
) -> list[Row]:
    """The rows of every fold, one model after the other."""
    check_seen(combination.cohort, folds)
    done: dict[int, list[Row]] = {}
    tasks = [(fold,) for fold in folds]
    with (progress or Silent()).task("combined models", len(tasks), "folds") as advance:
        for number, rows in run_tasks(combination, tasks, engine=engine, workers=workers):
            done[number] = rows
            advance(1)
    every = [row for number in sorted(done) for row in done[number]]
    return sorted(every, key=lambda row: row["model"] != SELECTED)
