"""The log of cross-validations that a bag store keeps: the best of several on the same cases is too good.

With settings and seeds tried until one fits, pure noise looks like skill: of the runs on some cases, the
highest score is no estimate. Each finished run adds a line. Nothing is computed from the lines; a reader is
told of them.
"""

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from features.files.parse import parse_json
from mil.data.cohort import Cohort
from mil.runs.run import Run

LOG = "runs.jsonl"
DIGITS = 16  # of a slide's fingerprint
SAME = 0.5  # share of the slides from which two runs are on the same cases


@dataclass(frozen=True)
class LoggedRun:
    """One finished cross-validation.

    Attributes:
        finished: when, UTC.
        run: its folder.
        task: what it predicts.
        predictions_sha256: of its predictions, by which it is recognised.
        slides: beginnings of the fingerprints of its slides' content.
        model: its best model.
        score: of this model, by the measure of the task; None where it has none.
    """

    finished: str
    run: str
    task: str
    predictions_sha256: str
    slides: tuple[str, ...]
    model: str
    score: float | None


def log_run(run: Run, cohort: Cohort, evaluation: Any) -> None:
    """Add a finished run to the log of its store; a store that cannot be written keeps none."""
    if cohort.store is None or run.settings.own_bags:
        return
    best = evaluation.best()
    record = LoggedRun(
        finished=run.finished,
        run=str(run.path.absolute()),
        task=cohort.task.name,
        predictions_sha256=run.predictions_sha256,
        slides=_slides(cohort),
        model=best.model,
        score=best.metrics[cohort.task.null_metric[0]].value,
    )
    line = json.dumps(asdict(record)) + "\n"
    with contextlib.suppress(OSError), (cohort.store / LOG).open("a", encoding="utf-8") as file:
        file.write(line)


def runs_on(cohort: Cohort) -> tuple[LoggedRun, ...]:
    """The logged runs of the same task on at least half of the same slides, the first of equal ones."""
    slides = set(_slides(cohort))
    runs: dict[str, LoggedRun] = {}
    for record in _read(cohort.store / LOG) if cohort.store else ():
        shared = len(slides & set(record.slides))
        if record.task == cohort.task.name and shared >= SAME * len(slides):
            runs.setdefault(record.predictions_sha256, record)
    return tuple(runs.values())


def describe_runs(run: Run, cohort: Cohort) -> str:
    """Which of the logged runs on these cases a run is, and how it compares; empty for the only one."""
    runs = runs_on(cohort)
    own = next(
        (i for i, r in enumerate(runs) if r.predictions_sha256 == run.predictions_sha256), -1
    )
    if own < 0 or len(runs) < 2:
        return ""
    label, score = cohort.task.null_label, runs[own].score
    others = [r.score for i, r in enumerate(runs) if i != own and r.score is not None]
    place = ""
    if score is not None and others:
        rank = 1 + sum(other > score for other in others)
        place = (
            f" By the {label} of its best model ({score:.2f}; the others {min(others):.2f} to "
            f"{max(others):.2f}) it is {'the best' if rank == 1 else f'number {rank}'} of {len(runs)}."
        )
    return (
        f"This is run {own + 1} of {len(runs)} on these cases that the bag store has logged.{place} The best "
        "of several runs is better than a run on new cases would be."
    )


def _slides(cohort: Cohort) -> tuple[str, ...]:
    return tuple(sorted((bag.source_sha256 or bag.data_sha256)[:DIGITS] for bag in cohort.bags))


def _read(path: Path) -> list[LoggedRun]:
    """The lines of a log that can be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    records = []
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, KeyError):
            fields = parse_json(line)
            records.append(LoggedRun(**fields | {"slides": tuple(fields["slides"])}))
    return records
