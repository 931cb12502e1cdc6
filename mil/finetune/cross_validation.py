"""A cross-validation as a run whose folds fine-tune a backbone each, and its label permutation test."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from features.progress import Progress, Silent
from mil.data.cohort import Cohort
from mil.data.splits import Fold, folds_sha256, split_cases, write_folds
from mil.data.table import training_rows
from mil.evaluation.predictions import Predictions
from mil.finetune.config import FinetuneConfig, label_slides
from mil.finetune.per_fold import cross_validate_per_fold, open_tuning
from mil.finetune.run import slide_facts
from mil.learning.crossval import fit_anew
from mil.runs import files
from mil.runs.cases import cohort_as_tested
from mil.runs.cross_validation import (
    CrossValidation,
    Notify,
    StoredFits,
    check_models,
    clinical_facts,
    clinical_values,
    cohort_facts,
    judge_and_finish,
    notify_cohort,
)
from mil.runs.record import start_run, update_run
from mil.runs.run import Run
from mil.settings import FitSettings, SplitSettings
from mil.tasks.registry import task_from
from mil.tasks.task import Task


def run_cross_validation_per_fold(  # noqa: PLR0913 - what, and how it is run
    table: Path,
    models: Sequence[str],
    out: Path,
    *,
    config: FinetuneConfig,
    fit: FitSettings,
    split: SplitSettings,
    task: Task | None = None,
    overwrite: bool = False,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    notify: Notify = lambda _message: None,
) -> CrossValidation:
    """Cross-validate models on bags of backbones that were fine-tuned on each fold's training cases.

    Writes the run folder; an interrupted run goes on. Every row of the table is needed.

    Args:
        table: CSV with case, slide and the columns of the task; rows kept for testing are left out.
        models: names of heads and baselines.
        out: the run folder.
        config: slides, recipe, fine-tuning and device.
        fit: how each model is trained.
        split: how cases are divided into folds.
        task: which outcome is learnt; that of ``fit`` in its usual columns if not given.
        overwrite: replace a finished run.
        settings: what run.json records, enough to repeat the run; made from the arguments if not given.
        progress: is advanced by each slide, step and fit.
        notify: called with what a reader should know of the cohort.

    Raises:
        InputError: the table is none, or there is no folder with its slides.
        FitError: a model is unknown or cannot learn this outcome, a slide cannot be used, or a fit fails.
        CohortError: the cohort cannot carry the folds, or a row has no outcome.
        LeakageError: the first weights or the target stain have seen a case that would be tested.
        RunError: the folder holds another run.
    """
    task = task or task_from({"task": fit.task})
    check_models(task, models, fit.chunk_tiles, notify)
    jobs, rows = config.read_jobs(table), training_rows(table, notify, config.reading)
    slides = label_slides(jobs, rows, task, source=table.name)
    labelled = task.label_rows(rows, table.name)
    cases = {row.case: row for row in sorted(labelled, key=lambda row: row.case)}
    folds = split_cases(
        list(cases),
        task.strata([row.label for row in cases.values()], split.folds),
        [row.site for row in cases.values()],
        split,
    )
    facts = slide_facts(slides, task, source=table.name) | {
        "tuning": {
            "inputs": [str(table.absolute())],
            "out": str(out.absolute()),
            **config.to_settings(),
        },
        "folds_sha256": folds_sha256(folds),
    }
    recorded = settings or _record_settings(table, models, out, task, fit, split) | asdict(
        config.reading
    )
    run = start_run(out, "crossval", recorded, facts, overwrite=overwrite)
    write_folds(out / files.FOLDS, folds)
    with open_tuning(
        rows, slides, config.recipe, config.settings, run.fold_store, task=task,
        device=config.device, workers=config.workers,
    ) as tuning:  # fmt: skip
        predictions = cross_validate_per_fold(
            tuning, folds, models, fit, seed=split.seed, fitter=StoredFits(run),
            progress=progress or Silent(),
        )  # fmt: skip
    tested = cohort_as_tested(rows, folds, run.fold_store, task)
    notify_cohort(tested, notify)
    run = update_run(
        run, **cohort_facts(tested), **clinical_facts(tested, models, fit.clinical, notify)
    )
    return judge_and_finish(run, tested, predictions, clinical_values(tested, models, fit.clinical))


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
    return lambda fold: folder / f"r{fold.repeat}-f{fold.index}" / "bags"


def _record_settings(
    table: Path,
    models: Sequence[str],
    out: Path,
    task: Task,
    fit: FitSettings,
    split: SplitSettings,
) -> dict[str, Any]:
    """Settings as run.json records them, for a run that was started from Python."""
    return {
        "cohort": str(table.absolute()),
        "store": None,
        "out": str(out.absolute()),
        "allow_missing": False,
        "allow_duplicates": False,
        "finetune": "per-fold",
        **task.to_settings(),
        **asdict(fit),
        "models": list(models),
        "combine": "",
        **asdict(split),
    }
