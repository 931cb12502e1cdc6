"""A cross-validation as a run: folds, fits, predictions, numbers, all in one folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from features.progress import Progress
from mil.baselines.encoding import clinical_columns, readable, revealing_columns
from mil.data.cohort import Cohort
from mil.data.columns import odd_cells
from mil.data.duplicates import lookalikes
from mil.data.splits import Fold, folds_sha256, site_warning, split_cases, write_folds
from mil.evaluation.judge import Comparison, Evaluation, compare, evaluate
from mil.evaluation.predictions import Predictions, concat, write_predictions
from mil.heads.registry import check_chunks, check_names, eclipsed_heads, reads_table
from mil.learning.combined import Combination, combine
from mil.learning.crossval import cross_validate, fit_cases
from mil.learning.fitted import FittedModel, load_model, save_model
from mil.learning.head_weights import check_head_weights
from mil.runs import files
from mil.runs.record import finish_run, start_run
from mil.runs.run import Run
from mil.runs.run_log import log_run
from mil.settings import FitSettings, SplitSettings
from mil.tasks.task import Task

Notify = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class CrossValidation:
    """What a cross-validation has left.

    Attributes:
        run: its folder.
        predictions: out of fold.
        evaluation: of each model.
        comparison: of the models on the same cases.
        notes: what else was written, or could not be.
    """

    run: Run
    predictions: Predictions
    evaluation: Evaluation
    comparison: Comparison
    notes: tuple[str, ...]


def run_cross_validation(  # noqa: PLR0913 - what, and how it is run
    cohort: Cohort,
    models: Sequence[str],
    out: Path,
    *,
    fit: FitSettings,
    split: SplitSettings,
    combine_model: str = "",
    engine: str = "loky",
    workers: int = 1,
    overwrite: bool = False,
    settings: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    notify: Notify = lambda _text: None,
) -> CrossValidation:
    """Cross-validate models on a cohort and write the run folder; an interrupted run goes on.

    Args:
        cohort: cases with bags, loaded from a table and a store.
        models: names of heads and baselines.
        out: the run folder.
        fit: how each model is trained.
        split: how cases are divided into folds.
        combine_model: a model whose score is combined with clinical columns; empty for none.
        engine: where fits run, ``loky`` or ``ray``.
        workers: fits at once; 0 takes one per core where that is worth their start.
        overwrite: replace a finished run.
        settings: what run.json records, enough to repeat the run; made from the arguments if not given.
        progress: is advanced by each fit.
        notify: called with what a reader should know before any number.

    Raises:
        FitError: a model is unknown or cannot learn this outcome, or a fit fails.
        CohortError: the cohort cannot carry the folds.
        LeakageError: a backbone has seen a case that would be tested.
        RunError: the folder holds another run.
    """
    check_models(cohort.task, models, fit.chunk_tiles, notify)
    if combine_model:
        check_models(cohort.task, [combine_model], fit.chunk_tiles)
        cohort.task.check_combinable(cohort.classes)
    notify_cohort(cohort, notify)
    folds = split_cases(
        cohort.names,
        cohort.task.strata(cohort.labels, split.folds),
        [case.site for case in cohort.cases],
        split,
    )
    reading = (*models, "clinical") if combine_model else tuple(models)
    if split.folds == "site" and (
        warning := site_warning(folds, {case.name: case.label for case in cohort.cases})
    ):
        notify(warning)
    facts = cohort_facts(cohort) | clinical_facts(cohort, reading, fit.clinical, notify)
    facts["folds_sha256"] = folds_sha256(folds)
    recorded = settings or record_settings(cohort, models, out, fit, split, combine_model)
    run = start_run(out, "crossval", recorded, facts, overwrite=overwrite)
    write_folds(out / files.FOLDS, folds)
    fitter = StoredFits(run)
    predictions = cross_validate(
        cohort, folds, models, fit, seed=split.seed, fitter=fitter, engine=engine, workers=workers,
        progress=progress,
    )  # fmt: skip
    if combine_model:
        names = clinical_columns(cohort.cases, fit.clinical)
        combination = Combination(cohort, combine_model, names, fit, split.seed, fitter)
        combined = combine(combination, folds, engine=engine, workers=workers, progress=progress)
        predictions = concat([predictions, combined])
    columns = clinical_values(cohort, reading, fit.clinical)
    return judge_and_finish(run, cohort, predictions, columns)


def judge_and_finish(
    run: Run,
    cohort: Cohort,
    predictions: Predictions,
    columns: Mapping[str, Mapping[str, str]] | None = None,
) -> CrossValidation:
    """Write predictions and numbers, and mark the run as finished.

    Args:
        run: that was started.
        cohort: that was predicted.
        predictions: out of fold.
        columns: clinical columns by case, where models read them.
    """
    write_predictions(run.path / files.PREDICTIONS, predictions)
    evaluation, comparison = evaluate(predictions), compare(predictions)
    files.write_json(run.path / files.METRICS, evaluation.to_json())
    files.write_json(run.path / files.COMPARISON, comparison.to_json())
    notes = cohort.task.write_extras(run.path, predictions, columns or {})
    run = finish_run(run)
    log_run(run, cohort, evaluation)
    return CrossValidation(
        run=run,
        predictions=predictions,
        evaluation=evaluation,
        comparison=comparison,
        notes=notes,
    )


def train_on_all(
    cohort: Cohort,
    model: str,
    out: Path,
    *,
    fit: FitSettings,
    seed: int = 0,
    overwrite: bool = False,
    settings: Mapping[str, Any] | None = None,
    notify: Notify = lambda _text: None,
) -> tuple[Run, FittedModel]:
    """Fit one model on all cases and write it into a run folder; it is not judged, no case is left for that.

    Args:
        cohort: cases with bags.
        model: name of a head or baseline.
        out: the run folder.
        fit: how the model is trained.
        seed: of weights, draws and order.
        overwrite: replace a finished run.
        settings: what run.json records; made from the arguments if not given.
        notify: called with what a reader should know of the cohort.

    Raises:
        FitError: the model is unknown or cannot learn this outcome, or the fit fails.
        RunError: the folder holds another run.
    """
    check_models(cohort.task, [model], fit.chunk_tiles, notify)
    check_head_weights(fit.head_weights, [model], cohort.recipe)
    notify_cohort(cohort, notify)
    facts = cohort_facts(cohort) | clinical_facts(cohort, [model], fit.clinical, notify)
    recorded = settings or record_settings(cohort, (), out, fit, None) | {
        "model": model,
        "seed": seed,
    }
    run = start_run(out, "train", recorded, facts, overwrite=overwrite)
    fitted = fit_cases(model, cohort.cases, cohort.classes, fit, seed, task=cohort.task)
    save_model(run.model_path(model), fitted)
    return finish_run(run), fitted


@dataclass(frozen=True)
class StoredFits:
    """Saves each fit in a run folder, and takes up those that the run, interrupted, has left there."""

    run: Run

    def __call__(self, model: str, fold: Fold, fit: Callable[[], FittedModel]) -> FittedModel:
        """The fit of a model on a fold, from its file or made now."""
        path = self.run.model_path(model, fold)
        if path.exists():
            return load_model(path)
        fitted = fit()
        save_model(path, fitted)
        return fitted


def check_models(
    task: Task, models: Sequence[str], chunk_tiles: int, notify: Notify = lambda _text: None
) -> None:
    """Refuse models before any work is done; say which names other packages use too.

    Raises:
        FitError: one is unknown, cannot learn the outcome, or takes no chunks where chunks are requested.
    """
    check_names(models)
    task.check_models(models)
    check_chunks(models, chunk_tiles)
    for note in eclipsed_heads(models):
        notify(note)


def notify_cohort(cohort: Cohort, notify: Notify) -> None:
    """Say what is left out of a cohort, what looks alike, and what its backbone does not state."""
    for row, reason in cohort.excluded:
        notify(f"Left out: {row}: {reason}")
    for pair in lookalikes(cohort).pairs:
        notify(str(pair))
    if cohort.unknown_weights:
        notify(
            f"The backbone's weights, {cohort.unknown_weights}, do not say which cases they have seen. If "
            "they were trained on cases of this table, the results are worthless."
        )


def clinical_facts(
    cohort: Cohort, models: Sequence[str], columns: Sequence[str], notify: Notify
) -> dict[str, object]:
    """What run.json says of the columns that a clinical model reads; notifies of them."""
    if not reads_table(models):
        return {}
    # Of all cases, to inform the reader only: each fold learns an encoding of its own.
    encoding = readable(cohort.cases, columns)
    names = [column.name for column in encoding.columns]
    notify(f"The clinical model reads {', '.join(names)}.")
    for name, reason in encoding.left_out:
        notify(f"The clinical model leaves out {name}: it {reason}.")
    for note in odd_cells(cohort.cases, names):
        notify(note)
    for name in revealing_columns(cohort.cases, names):
        notify(
            f"Column {name} is the outcome in other words: whoever fills it in has made the diagnosis. Name "
            "the columns to read (clinical)."
        )
    return {"clinical": {case.name: {n: case.other[n] for n in names} for case in cohort.cases}}


def clinical_values(
    cohort: Cohort, models: Sequence[str], columns: Sequence[str]
) -> dict[str, dict[str, str]]:
    """Clinical columns by case, where columns are named or a model reads them; else empty."""
    if not (columns or reads_table(models)):
        return {}
    names = clinical_columns(cohort.cases, columns)
    return {case.name: {name: case.other[name] for name in names} for case in cohort.cases}


def cohort_facts(cohort: Cohort) -> dict[str, object]:
    """What run.json says of the data."""
    times = {case.name: case.time for case in cohort.cases if case.time is not None}
    return ({"times": times} if times else {}) | {
        "classes": cohort.classes,
        "labels": {case.name: case.label for case in cohort.cases},
        "cases": {bag.slide: case.name for case in cohort.cases for bag in case.bags},
        "recipe": dict(cohort.recipe),
        "bags": {bag.slide: bag.data_sha256 for bag in cohort.bags},
        "excluded": cohort.excluded,
    }


def record_settings(
    cohort: Cohort,
    models: Sequence[str],
    out: Path,
    fit: FitSettings,
    split: SplitSettings | None,
    combine_model: str = "",
) -> dict[str, Any]:
    """Settings as run.json records them, for a run that was started from Python.

    Raises:
        CohortError: the cohort was not loaded from a table and a store, so that no run could find it again.
    """
    table, store = cohort.origin()
    return {
        "cohort": str(table),
        "store": str(store),
        "out": str(out.absolute()),
        "allow_missing": bool(cohort.excluded),
        "allow_duplicates": bool(cohort.duplicates),
        **cohort.task.to_settings(),
        **asdict(cohort.reading),
        **asdict(fit),
        **({"models": list(models), "combine": combine_model} if models else {}),
        **(asdict(split) if split else {}),
    }
