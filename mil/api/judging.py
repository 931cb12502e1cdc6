"""Judging from Python: external validation, permutation, published tables, nomograms."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from mil.api.options import (
    ReadingOptions,
    StrPath,
    as_path,
    notify_of,
    silence,
    table_reading,
    task_or_default,
)
from mil.runs.run import Run, to_run

if TYPE_CHECKING:
    from features.progress import Progress
    from mil.audit.permutation import Crossval, PermutationTest
    from mil.audit.published_audit import TableAudit
    from mil.evaluation.predictions import Predictions
    from mil.report.table_nomogram import TableNomogram
    from mil.runs.external import ExternalValidation
    from mil.tasks.task import Task


def read_predictions(
    tables: "StrPath | Sequence[StrPath]",
    *,
    cohort: StrPath | None = None,
    classes: Sequence[str] = (),
    **options: Unpack[ReadingOptions],
) -> "Predictions":
    """Read predictions of any kind and tool: one table, or one for each fold of a cross-validation.

    Tables of STAMP, CLAM and slideflow are read as they are. So is any table with case or slide, label and
    one p_CLASS per class; for survival it has time, event, risk and one s_TIME per time of a curve.

    Args:
        tables: CSV, with commas, semicolons or tabs. Names such as 007 or 1e5 stay as written; a patient with
            two names, a missing outcome and rows that were trained on are refused.
        cohort: table with the cases and labels of slides, where the predictions name slides only.
        classes: names of the classes that a table calls 0, 1, ...
        **options: how ``cohort`` is read; see ``mil.api.options.ReadingOptions``. ``notify`` is called with
            what had to be assumed.

    Raises:
        PredictionsError: no such file, a number that is not one, or an inconsistent table; the message names
            the file.
        CohortError: ``cohort`` cannot be read.

    Example:
        predictions = mil.read_predictions("run/predictions.csv")
        print(predictions.models, len(predictions.table))
    """
    from mil.data.table import read_table
    from mil.evaluation.tables import SlideLabel, read_any_tables

    several = [tables] if isinstance(tables, str | os.PathLike) else tables
    notify = notify_of(options)
    rows = () if cohort is None else read_table(Path(cohort), table_reading(options), notify)
    labels = {row.slide: SlideLabel(row.case, row.label) for row in rows}
    predictions, notes = read_any_tables([Path(path) for path in several], labels, classes)
    for note in notes:
        notify(note)
    return predictions


def external_validation(  # noqa: PLR0913 - which cases, and how their slides are read
    run: Run | StrPath,
    model: str,
    table: StrPath,
    store: StrPath,
    *,
    name: str | None = None,
    allow_missing: bool = False,
    slides: StrPath | None = None,
    annotations: StrPath | None = None,
    slide_mpp: float | None = None,
    device: str = "auto",
    workers: int = 0,
    progress: "Progress | None" = None,
    notify: Callable[[str], None] | None = None,
) -> "ExternalValidation":
    """Test one model of a finished cross-validation on unseen cases, and record it.

    Args:
        run: the cross-validation: its folder, or the open run.
        model: the model, chosen by the cross-validation.
        table: cases, slides and outcomes; where some rows say ``split`` = ``test``, only those are used.
        store: the bag store of these slides. Of a run that fine-tuned a backbone in each fold, the folder of
            one store for each, which are filled from ``slides``.
        name: of the folder in ``external`` of the run; that of the table if not given.
        allow_missing: go on without slides that lack a bag or an outcome.
        slides: folder with the slides, for a run that fine-tuned a backbone in each fold; the arguments from
            here to ``progress`` say how they are read.
        annotations: folder with their annotations.
        slide_mpp: micrometres per level-0 pixel, where files give none; needed for tile images.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        workers: threads that read tiles; 0 takes one per core.
        progress: shows slides and tiles.
        notify: called with each row that is left out, and each slide that looks like one of the run.

    Raises:
        LeakageError: a case has been seen, or another model has been tested on one of the cases.
        RunError: the run has no such model or is not finished, or a log cannot be read or written.
        CohortError: the table and the store do not go together.
        FitError: a fit is missing, or a bag was made by another recipe.

    Example:
        validation = mil.external_validation("run", "abmil", "external.csv", "external-store")
        print(validation.evaluation["abmil"].metrics["accuracy"])
    """
    from features.progress import Silent
    from mil.runs.external import external_validation as validate
    from mil.runs.fold_bags import ExternalSlides

    read = None
    if slides is not None:
        read = ExternalSlides(
            folder=Path(slides),
            annotations=as_path(annotations),
            slide_mpp=slide_mpp,
            device=device,
            workers=workers,
            progress=progress or Silent(),
        )
    return validate(
        to_run(run),
        model,
        Path(table),
        Path(store),
        name=name,
        allow_missing=allow_missing,
        slides=read,
        notify=notify or silence,
    )


def permute(
    run: Run | StrPath,
    times: int,
    out: StrPath,
    *,
    crossval: "Crossval | None" = None,
    workers: int = 0,
    progress: "Progress | None" = None,
) -> "tuple[PermutationTest, ...]":
    """Repeat a run's cross-validation on shuffled outcomes; writes permutation.json, .csv and .png.

    Args:
        run: a finished cross-validation: its folder, or the open run.
        times: number of shuffles; those that ``out`` already holds are not repeated.
        out: folder for the results.
        crossval: the pipeline; the run's own if not given, with the fine-tuning or the segmentation of each
            fold.
        workers: shuffles at once; 0 takes one per core where that is worth their start.
        progress: is advanced by each shuffle.

    Raises:
        RunError: the run is not finished, its bags or outcomes have changed, or ``out`` holds shuffles of
            another run.
        CohortError: no shuffle was found that the folds can carry.

    Example:
        for test in mil.permute("run", 2, "permuted"):
            print(test.model, test.observed, test.p_value, test.verdict, test.remark)
    """
    from features.progress import Silent
    from mil.audit.permutation_run import permute_run
    from mil.finetune.cross_validation import PerFoldPipeline
    from mil.segmentation.cases import SegmentedPipeline

    run, out = to_run(run), Path(out)
    run.require_finished()
    if crossval is None and run.settings.own_bags:
        folder, shown, workers = out / "shuffles", progress or Silent(), 1
        if run.settings.segments:
            crossval = SegmentedPipeline(run, run.tissue(), folder, shown)
        else:
            crossval = PerFoldPipeline(run, folder, shown)
    return permute_run(run, times, out, crossval=crossval, workers=workers, progress=progress)


def audit_table(table: StrPath, *, out: StrPath | None = None) -> "TableAudit":
    """Whether the numbers of a published table of results can be true of any cases.

    Args:
        table: with columns such as model, accuracy, sensitivity, specificity, precision, f1, n, n_pos; a cell
            may have limits, 0.83 (0.71-0.92), or a spread, 0.83 ± 0.02.
        out: folder for index.html, audit.csv and audit.json; nothing is written if not given.

    Returns:
        What contradicts what, line by line.

    Raises:
        CohortError: the table cannot be read, or no rule reads any of its columns.

    Example:
        audited = mil.audit_table("audited/results.csv")
        print(audited.verdict, [finding.text for finding in audited.findings])
    """
    from mil.audit.published_audit import audit_published
    from mil.report.audit import write_table_audit

    audit = audit_published(Path(table))
    if out is not None:
        write_table_audit(audit, Path(out))
    return audit


def nomogram(
    table: StrPath,
    columns: Sequence[str] = (),
    *,
    out: StrPath | None = None,
    task: "Task | None" = None,
    positive: str | None = None,
    horizon: float | None = None,
    run: Run | StrPath | None = None,
    model: str = "",
    **options: Unpack[ReadingOptions],
) -> "TableNomogram":
    """Fit a regression on all cases, and lay it out as points for each column, their total, a probability.

    It is not judged: no case is left for that. ``mil.cross_validate`` with model ``clinical`` does so.

    Args:
        table: with case, slide, the outcome and the columns; rows for external validation are not read.
        columns: of the table, to read.
        out: folder for nomogram.csv, .png and .svg; nothing is written if not given.
        task: what the outcome is; that of the run, or a diagnosis, if not given.
        positive: of classes, the one of the probability; the second of two if not given.
        horizon: of survival, the time until which an event counts.
        run: a finished cross-validation of these cases, or its folder, for a model's score.
        model: of the run, whose score out of fold is one more column.
        **options: how the table is read, where there is no run; see ``mil.api.options.ReadingOptions``.

    Raises:
        CohortError: a column is missing, slides of a case differ in it, or a setting does not suit the task.
        RunError: the run is of another task, or has not predicted a case.
        FitError: no column has an effect.

    Example:
        chart = mil.nomogram("cohort.csv", ["grade"], run="run", model="abmil", positive="LMS", out="chart")
        print(chart.title, [(scale.column, scale.marks) for scale in chart.nomogram.scales])
    """
    from mil.report.table_nomogram import table_nomogram, write_table_nomogram

    opened = None if run is None else to_run(run)
    if task is None and opened is not None:
        task = opened.task
    result = table_nomogram(
        Path(table),
        task_or_default(task),
        columns=tuple(columns),
        positive=positive,
        horizon=horizon,
        run=opened,
        model=model,
        reading=opened.settings.reading if opened else table_reading(options),
        notify=options.get("notify"),
    )
    if out is not None:
        write_table_nomogram(result, Path(out))
    return result
