"""A cross-validation as a run: folds, fits, predictions, numbers, all in one folder."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from features.progress import Notify, Progress, Silent
from mil.data.cohort import Cohort
from mil.data.duplicates import lookalikes
from mil.data.encoding import clinical_columns
from mil.data.splits import Fold, folds_sha256, site_warning, split_cases, write_folds
from mil.errors import FitError
from mil.evaluation.judge import Comparison, Evaluation, compare, evaluate
from mil.evaluation.predictions import Predictions, concat, write_predictions
from mil.heads.registry import check_chunks, check_names, eclipsed_heads
from mil.learning.combined import Combination, combine
from mil.learning.crossval import check_inputs, check_start, cross_validate, fit_cases
from mil.learning.fitted import FittedModel, load_model, save_model
from mil.learning.head_weights import check_head_weights, note_start
from mil.learning.reserved import check_reserved
from mil.likeness.reference import SlideReference, save_reference
from mil.runs import files
from mil.runs.clinical import clinical_facts, clinical_values
from mil.runs.record import NewRun, finish_run
from mil.runs.run import Run
from mil.runs.run_log import log_run
from mil.settings import FitSettings, SplitSettings
from mil.tasks.task import Task


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


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is done with the cases of a cross-validation.

    Attributes:
        models: names of heads and baselines.
        fit: how each model is trained.
        split: how cases are divided into folds.
        combine: a model whose score is combined with clinical columns; empty for none.
    """

    models: tuple[str, ...]
    fit: FitSettings
    split: SplitSettings
    combine: str = ""

    @property
    def readers(self) -> tuple[str, ...]:
        """The models, and the clinical one where a score is combined with columns."""
        return (*self.models, "clinical") if self.combine else self.models

    def to_settings(self) -> dict[str, Any]:
        """The plan as run.json holds it."""
        return {
            "models": list(self.models),
            "combine": self.combine,
            **asdict(self.fit),
            **asdict(self.split),
        }


class Cases(Protocol):
    """The cases of a cross-validation, and where the bags of each fold come from."""

    @property
    def task(self) -> Task:
        """What is asked of a case."""

    def to_settings(self, out: Path) -> dict[str, Any]:
        """Where they come from, as run.json holds it."""

    def split(self, plan: Plan, notify: Notify) -> tuple[Fold, ...]:
        """Folds of the cases; notifies first of what their reader should know."""

    def facts(self, plan: Plan, out: Path, notify: Notify) -> dict[str, Any]:
        """What run.json says of them before any model is fitted."""

    def predict(
        self, run: Run, plan: Plan, folds: Sequence[Fold], computing: "Computing"
    ) -> tuple[Run, Cohort, Predictions]:
        """Every case by models that have not seen it, with the bags that it was tested on."""


@dataclass(frozen=True)
class Computing:
    """How fits are computed, which changes no result.

    Attributes:
        engine: where fits run, ``loky`` or ``ray``.
        workers: fits at once; 0 takes one per core where that is worth their start.
        progress: is advanced by each fit.
        notify: called with what a reader should know before any number.
    """

    engine: str = "loky"
    workers: int = 1
    progress: Progress = field(default_factory=Silent)
    notify: Notify = lambda _text: None


def run_cross_validation(
    cases: Cases, plan: Plan, folder: NewRun, computing: Computing | None = None
) -> CrossValidation:
    """Cross-validate models and write the run folder; an interrupted run goes on.

    Args:
        cases: with bags of a store, or of a backbone that is fine-tuned in each fold.
        plan: models, training and folds.
        folder: the run folder; its settings are made from cases and plan if empty.
        computing: one fit at a time, in silence, if not given.

    Raises:
        FitError: a model is unknown or cannot learn this outcome, a slide cannot be used, or a fit fails.
        CohortError: the cases cannot carry the folds.
        LeakageError: a backbone has seen a case that would be tested.
        RunError: the folder holds another run.
    """
    computing = computing or Computing()
    notify, chunk_tiles = computing.notify, plan.fit.chunk_tiles
    check_models(cases.task, plan.models, chunk_tiles, notify)
    if plan.combine:
        check_models(cases.task, [plan.combine], chunk_tiles)
    folds = cases.split(plan, notify)
    facts = cases.facts(plan, folder.path, notify) | {"folds_sha256": folds_sha256(folds)}
    settings = folder.settings or cases.to_settings(folder.path) | plan.to_settings()
    run = replace(folder, settings=settings).start("crossval", facts)
    write_folds(run.path / files.FOLDS, folds)
    run, cohort, predictions = cases.predict(run, plan, folds, computing)
    return _judge_and_finish(run, cohort, predictions, plan)


def _judge_and_finish(
    run: Run, cohort: Cohort, predictions: Predictions, plan: Plan
) -> CrossValidation:
    """Write predictions and numbers, and mark the run as finished."""
    write_predictions(run.path / files.PREDICTIONS, predictions)
    evaluation, comparison = evaluate(predictions), compare(predictions)
    files.write_json(run.path / files.METRICS, evaluation.to_json())
    files.write_json(run.path / files.COMPARISON, comparison.to_json())
    columns = clinical_values(cohort, plan.readers, plan.fit.clinical)
    notes = cohort.task.write_extras(run.path, predictions, columns)
    if not run.settings.finetunes:  # whose folds have features of their own
        _save_reference(run, cohort)
    run = finish_run(run)
    log_run(run, cohort, evaluation)
    return CrossValidation(
        run=run,
        predictions=predictions,
        evaluation=evaluation,
        comparison=comparison,
        notes=notes,
    )


def draw_folds(
    task: Task,
    names: Sequence[str],
    labels: Sequence[str],
    sites: Sequence[str],
    split: SplitSettings,
    notify: Notify,
) -> tuple[Fold, ...]:
    """Folds of cases; notifies where sites are left out that go together with the outcome."""
    folds = split_cases(names, task.strata(labels, split.folds), sites, split, group=task.group)
    if split.folds == "site" and (
        warning := site_warning(folds, dict(zip(names, labels, strict=True)))
    ):
        notify(warning)
    return folds


@dataclass(frozen=True)
class StoredCases:
    """Cases with the bags of a store.

    Attributes:
        cohort: loaded from a table and a store.
    """

    cohort: Cohort

    @property
    def task(self) -> Task:
        """What is asked of a case."""
        return self.cohort.task

    def to_settings(self, out: Path) -> dict[str, Any]:
        """Where they come from, as run.json holds it.

        Raises:
            CohortError: the cohort was not loaded from files, so that no run could find it again.
        """
        return cohort_settings(self.cohort, out)

    def split(self, plan: Plan, notify: Notify) -> tuple[Fold, ...]:
        """Folds of the cases; notifies first of what is left out and what looks alike.

        Raises:
            CohortError, LeakageError, FitError: what a cross-validation refuses, before anything is written.
        """
        cohort = self.cohort
        if plan.combine:
            cohort.task.check_combinable(cohort.classes)
        notify_cohort(cohort, notify)
        sites = [case.site for case in cohort.cases]
        folds = draw_folds(cohort.task, cohort.names, cohort.labels, sites, plan.split, notify)
        check_inputs(cohort, folds, plan.models, plan.fit)
        if plan.combine:
            check_start(cohort, folds, [plan.combine], plan.fit.head_weights)
        return folds

    def facts(self, plan: Plan, out: Path, notify: Notify) -> dict[str, Any]:
        """Outcomes, bags and clinical values, which all decide whether an interrupted run goes on."""
        del out
        columns = clinical_facts(self.cohort, plan.readers, plan.fit.clinical, notify)
        start = start_facts(self.cohort, plan.fit.head_weights, notify)
        return cohort_facts(self.cohort) | columns | start

    def predict(
        self, run: Run, plan: Plan, folds: Sequence[Fold], computing: Computing
    ) -> tuple[Run, Cohort, Predictions]:
        """Every case by models that have not seen it; fits of an interrupted run are used again."""
        cohort, fit, seed, fitter = self.cohort, plan.fit, plan.split.seed, StoredFits(run)
        engine, workers, progress = computing.engine, computing.workers, computing.progress
        predictions = cross_validate(
            cohort, folds, plan.models, fit, seed=seed, fitter=fitter, engine=engine,
            workers=workers, progress=progress,
        )  # fmt: skip
        if plan.combine:
            names = clinical_columns(cohort.cases, fit.clinical)
            combination = Combination(cohort, plan.combine, names, fit, seed, fitter)
            combined = combine(
                combination, folds, engine=engine, workers=workers, progress=progress
            )
            predictions = concat([predictions, combined])
        return run, cohort, predictions


def train_on_all(
    cohort: Cohort,
    model: str,
    folder: NewRun,
    *,
    fit: FitSettings,
    seed: int = 0,
    notify: Notify = lambda _text: None,
) -> tuple[Run, FittedModel]:
    """Fit one model on all cases and write it into a run folder; it is not judged, no case is left for that.

    Args:
        cohort: cases with bags.
        model: name of a head or baseline.
        folder: the run folder; its settings are made from the arguments if empty.
        fit: how the model is trained.
        seed: of weights, draws and order.
        notify: called with what a reader should know of the cohort.

    Raises:
        FitError: the model is unknown or cannot learn this outcome, or the fit fails.
        LeakageError: bags or weights were fitted on a case that the table keeps for external validation.
        RunError: the folder holds another run.
    """
    check_models(cohort.task, [model], fit.chunk_tiles, notify)
    check_head_weights(fit.head_weights, [model], cohort.recipe)
    check_reserved(cohort, fit.head_weights)
    notify_cohort(cohort, notify)
    facts = cohort_facts(cohort) | clinical_facts(cohort, [model], fit.clinical, notify)
    facts |= start_facts(cohort, fit.head_weights, notify)
    settings = folder.settings or {
        **cohort_settings(cohort, folder.path),
        **asdict(fit),
        "model": model,
        "seed": seed,
    }
    run = replace(folder, settings=settings).start("train", facts)
    fitted = fit_cases(model, cohort.cases, cohort.classes, fit, seed, task=cohort.task)
    save_model(run.model_path(model), fitted)
    _save_reference(run, cohort)
    return finish_run(run), fitted


def _save_reference(run: Run, cohort: Cohort) -> None:
    """Keep what new slides are compared with."""
    cases = [case.name for case in cohort.cases for _ in case.bags]
    save_reference(run.path / files.REFERENCE, SlideReference.of_bags(cohort.bags, cases))


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
        FitError: there is none, one is unknown, cannot learn the outcome, or takes no chunks where chunks
            are requested.
    """
    if not models:
        raise FitError(
            "models is empty: there is nothing to fit. Name a model, or leave models out."
        )
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


def start_facts(cohort: Cohort, head_weights: str, notify: Notify) -> dict[str, object]:
    """What run.json says of weights that a head starts from; notifies of what does not suit these cases."""
    notes = note_start(head_weights, cohort.classes, cohort.recipe)
    for note in notes:
        notify(note)
    return {"start_notes": notes} if notes else {}


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


def cohort_settings(cohort: Cohort, out: Path) -> dict[str, Any]:
    """Where a cohort comes from, as run.json records it.

    Raises:
        CohortError: it was not loaded from a table and a store, so that no run could find it again.
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
    }
