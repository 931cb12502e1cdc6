"""Cases whose bags each fold makes with a backbone that it fine-tunes, and their label permutation test."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from features.errors import InputError
from features.progress import Notify, Progress
from mil.data.case import Row
from mil.data.cohort import Cohort
from mil.data.splits import Fold
from mil.data.table import reserved_rows, training_rows
from mil.evaluation.predictions import Predictions
from mil.finetune.config import FinetuneConfig, label_slides
from mil.finetune.files import read_tuned_card
from mil.finetune.per_fold import cross_validate_per_fold, open_tuning, tuned_folder
from mil.finetune.run import slide_facts, stop_facts
from mil.finetune.tiles import LabelledSlide
from mil.learning.crossval import fit_anew
from mil.learning.head_weights import check_start_model
from mil.learning.reserved import check_reserved_inputs
from mil.runs.cases import cohort_as_tested
from mil.runs.clinical import clinical_facts
from mil.runs.cross_validation import (
    Computing,
    Plan,
    StoredFits,
    cohort_facts,
    draw_folds,
    notify_cohort,
)
from mil.runs.record import update_run
from mil.runs.run import Run
from mil.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class TunedCases:
    """Cases whose bags are made in each fold, by a backbone that was fine-tuned on its training cases.

    Every row of the table is needed.

    Attributes:
        table: CSV with case, slide and the columns of the task.
        config: slides, recipe, fine-tuning and device.
        task: which outcome is learnt.
        rows: of the table; rows kept for testing are left out.
        slides: the same slides, labelled.
    """

    table: Path
    config: FinetuneConfig
    task: Task
    rows: Sequence[Row]
    slides: Sequence[LabelledSlide]

    @classmethod
    def read(cls, table: Path, config: FinetuneConfig, task: Task, notify: Notify) -> Self:
        """The cases of a table.

        Raises:
            InputError: the table is none, or there is no folder with its slides.
            CohortError: a row has no outcome.
            LeakageError: the first weights or the stain know a case that is kept for external validation.
        """
        jobs, rows = config.read_jobs(table), training_rows(table, notify, config.reading)
        check_reserved_inputs(config.recipe, reserved_rows(table, config.reading))
        slides = label_slides(jobs, rows, task, source=table.name)
        return cls(table=table, config=config, task=task, rows=rows, slides=slides)

    def to_settings(self, out: Path) -> dict[str, Any]:
        """Where they come from, as run.json holds it."""
        return {
            "cohort": str(self.table.absolute()),
            "store": None,
            "out": str(out.absolute()),
            "allow_missing": False,
            "allow_duplicates": False,
            "finetune": "per-fold",
            **self.task.to_settings(),
            **asdict(self.config.reading),
        }

    def split(self, plan: Plan, notify: Notify) -> tuple[Fold, ...]:
        """Folds of the cases; the rest is known when their bags have been made.

        Raises:
            InputError: the plan combines a score with columns.
            CohortError: the cases cannot carry the folds.
        """
        if plan.combine:
            raise InputError(
                f"combine={plan.combine} does not work where each fold fine-tunes its backbone. Leave one of "
                "them out."
            )
        if plan.fit.head_weights:
            check_start_model(plan.fit.head_weights, plan.models)
        labelled = self.task.label_rows(self.rows, self.table.name)
        cases = sorted({row.case: row for row in labelled}.values(), key=lambda row: row.case)
        names, labels = [row.case for row in cases], [row.label for row in cases]
        sites = [row.site for row in cases]
        folds = draw_folds(self.task, names, labels, sites, plan.split, notify)
        label_of = dict(zip(names, labels, strict=True))
        for fold in folds:
            self.config.settings.sets_aside([label_of[name] for name in fold.train])
        return folds

    def facts(self, plan: Plan, out: Path, notify: Notify) -> dict[str, Any]:
        """Outcomes, and how each fold is fine-tuned."""
        del plan, notify
        return slide_facts(self.slides, self.task, source=self.table.name) | {
            "tuning": {
                "inputs": [str(self.table.absolute())],
                "out": str(out.absolute()),
                **self.config.to_settings(),
            }
        }

    def predict(
        self, run: Run, plan: Plan, folds: Sequence[Fold], computing: Computing
    ) -> tuple[Run, Cohort, Predictions]:
        """Every case by models whose backbone has not seen it either; fits are made one at a time."""
        config, notify = self.config, computing.notify
        with open_tuning(
            self.rows, self.slides, config.recipe, config.settings, run.fold_store, task=self.task,
            device=config.device, workers=config.workers,
        ) as tuning:  # fmt: skip
            predictions = cross_validate_per_fold(
                tuning, folds, plan.models, plan.fit, seed=plan.split.seed, fitter=StoredFits(run),
                progress=computing.progress,
            )  # fmt: skip
        tested = cohort_as_tested(self.rows, folds, run.fold_store, self.task)
        notify_cohort(tested, notify)
        columns = clinical_facts(tested, plan.models, plan.fit.clinical, notify)
        tuned = {
            fold.name: stop_facts(read_tuned_card(tuned_folder(run.fold_store(fold))))
            for fold in folds
        }
        run = update_run(run, **cohort_facts(tested), **columns, tuned=tuned)
        return run, tested, predictions


@dataclass(frozen=True)
class PerFoldPipeline:
    """A run's own fine-tuning, extraction and cross-validation of its cases with other outcomes.

    Attributes:
        run: a finished cross-validation that fine-tuned a backbone in each fold.
        folder: for what each shuffle makes; a shuffle that was interrupted goes on there, and what a
            finished one has made is removed.
        progress: is advanced by each slide, step and fit.
    """

    run: Run
    folder: Path
    progress: Progress

    def __call__(self, cohort: Cohort, folds: Sequence[Fold], number: int) -> Predictions:
        """Predict every case of the cohort; the seed is that of the run plus the shuffle's number."""
        run, folder = self.run, self.folder / str(number)
        config = replace(FinetuneConfig.from_settings(run.finetuning), reading=run.settings.reading)
        case_of = {case.name: case for case in cohort.cases}
        rows = [cohort.task.write_outcome(row, case_of[row.case]) for row in run.rows()]
        slides = label_slides(config.read_jobs(run.table), rows, cohort.task)
        with open_tuning(
            rows, slides, config.recipe, config.settings, _stores_in(folder), task=cohort.task,
            device=config.device, workers=config.workers,
        ) as tuning:  # fmt: skip
            predictions = cross_validate_per_fold(
                tuning, folds, run.models, run.settings.fit,
                seed=run.settings.split.seed + number, fitter=fit_anew, progress=self.progress,
            )  # fmt: skip
        shutil.rmtree(folder)
        return predictions


def _stores_in(folder: Path) -> Callable[[Fold], Path]:
    """The bag store of each fold in a folder."""
    return lambda fold: folder / fold.name / "bags"
