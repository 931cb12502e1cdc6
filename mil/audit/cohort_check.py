"""Check a cohort before its extraction: its slides, and the folds that its cases allow."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from features.extraction.check import (
    COLUMNS,
    Workload,
    account_for_files,
    check_rows,
    summarise_checks,
    warn_of_unnamed,
)
from features.extraction.jobs import ALL_DEFAULTS, JobSettings
from features.extraction.preflight import check_slides
from features.extraction.run import check_recipes
from features.extraction.slide_check import SlideCheck
from features.progress import Progress
from features.recipe import Recipe
from features.summary import Summary
from mil.audit.feasibility import summarise_cases
from mil.data.jobs import note_reserved_stain, read_jobs, read_rows
from mil.data.reading import AS_WRITTEN, TableReading
from mil.errors import CohortError
from mil.tasks.registry import task_class
from mil.tasks.task import Task

CHECK_COLUMNS = (*COLUMNS[:2], "label", *COLUMNS[2:])


@dataclass(frozen=True)
class CohortCheck:
    """The check of a cohort.

    Attributes:
        checks: one per slide.
        summary: of all of them.
        label_of: the labels of the table by slide.
    """

    checks: tuple[SlideCheck, ...]
    summary: Summary
    label_of: Mapping[str, str]


def check_cohort(  # noqa: PLR0913 - what, and how it is read
    inputs: Sequence[Path],
    recipes: Sequence[Recipe],
    out: Path,
    *,
    slides: Path | None = None,
    settings: JobSettings = ALL_DEFAULTS,
    folds: str,
    tiles_per_second: float,
    reading: TableReading = AS_WRITTEN,
    task: Task | None = None,
    progress: Progress | None = None,
) -> CohortCheck:
    """Open every slide and annotation as extraction would; writes ``check.csv`` and pictures.

    Args:
        inputs: the cohort's table, or slide files and folders.
        recipes: that differ in mpp only.
        out: folder for ``check.csv`` and a picture of every slide.
        slides: the folder with the table's slides.
        settings: of all slides.
        folds: the intended folds, as ``mil.settings.SplitSettings`` takes them.
        tiles_per_second: the expected rate of extraction.
        reading: what the names and words of the table mean.
        task: what is asked of a case; a diagnosis if not given.
        progress: shows slides.

    Raises:
        InputError: the arguments exclude each other, or name files that do not exist.
        SlideError: the folder has none of the table's slides.
        CohortError: the table cannot be read, or a case has slides with split=test and slides without.
    """
    jobs = read_jobs(inputs, slides, settings, reading)
    check_recipes(jobs, recipes)
    notes: list[str] = []
    rows = read_rows(inputs, reading, notes.append)
    notes += note_reserved_stain(rows, recipes)
    task = task or task_class()()
    problem = ""
    try:
        rows = task.label_rows(rows, inputs[0].name)
    except CohortError as error:
        rows, problem = (), str(error)
    label_of = {row.slide: row.label for row in rows}
    workload = Workload(recipes[0], out, tiles_per_second)
    out.mkdir(parents=True, exist_ok=True)
    checks = []
    with (out / "check.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, CHECK_COLUMNS)
        table.writeheader()
        for check in check_slides(jobs, recipes, out, progress=progress):
            label = label_of.get(check.slide, "")
            table.writerows({**row, "label": label} for row in check_rows(check, workload))
            file.flush()  # the rows stay if the check is stopped
            checks.append(check)
    summary = summarise_checks(jobs, checks, workload)
    summary.warnings.extend(notes)
    summary.problems.extend([problem] if problem else [])
    if not jobs[0].from_tiles:
        account_for_files(summary, [p for p in (slides, *inputs) if p is not None and p.is_dir()])
    if rows:
        if slides is not None:
            warn_of_unnamed(summary, slides, jobs)
        ready = {check.slide for check in checks if check.status == "ready"}
        summarise_cases(summary, rows, ready, folds, task)
    return CohortCheck(tuple(checks), summary, label_of)
