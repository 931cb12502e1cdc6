"""A nomogram from the columns of a cohort table, and from a model's predictions out of fold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mil.data.case import Row
from mil.data.columns import note_calendar, odd_cells
from mil.data.encoding import check_numbers, check_telling, describe_revealing, revealing_columns
from mil.data.names import find_column
from mil.data.reading import AS_WRITTEN, TableReading
from mil.data.table import training_rows
from mil.errors import CohortError, RunError
from mil.evaluation.regression.models import fit_regression
from mil.evaluation.regression.nomogram import Nomogram, make_nomogram, write_nomogram
from mil.figures.saving import save_figure
from mil.report.nomogram import draw_nomogram
from mil.runs.run import Run
from mil.tasks.task import Task

DECIMALS = 6  # of a score


@dataclass(frozen=True, kw_only=True)
class TableNomogram:
    """A nomogram of a cohort.

    Attributes:
        nomogram: its scales.
        title: what it gives the probability of, and from how many cases.
        penalty: of the regression; ``none`` where no column separates the cases.
        left_out: cases without an outcome.
        notes: remarks on columns that are the outcome in other words.
    """

    nomogram: Nomogram
    title: str
    penalty: str
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


def table_nomogram(  # noqa: PLR0913 - what, and how it is read
    table: Path,
    task: Task,
    *,
    columns: Sequence[str] = (),
    positive: str | None = None,
    horizon: float | None = None,
    run: Run | None = None,
    model: str = "",
    reading: TableReading = AS_WRITTEN,
    notify: Callable[[str], None] | None = None,
) -> TableNomogram:
    """Fit a regression on all cases of a table, and lay it out as points.

    Args:
        table: cases, slides, outcomes and columns; rows for external validation are not read.
        task: what the outcome is.
        columns: of the table, to read.
        positive: of classes, the one of the probability; the second of two if not given.
        horizon: of survival, the time until which an event counts.
        run: a finished cross-validation of these cases, for a model's score.
        model: of the run, whose score out of fold is one more column.
        reading: what the names and words of the table mean.
        notify: called with what a reader should know before the result.

    Raises:
        CohortError: a column is missing, slides of a case differ in it, or a setting does not suit the task.
        RunError: the run is of another task, or has not predicted a case.
        FitError: no column has an effect.
    """
    rows = task.label_rows(training_rows(table, notify, reading), table.name)
    columns = _named_columns(rows, columns, table.name)
    cases = _case_rows(rows, columns, table.name)
    labelled = [row for row in cases if row.label]
    classes, text = task.name_probability({row.label for row in labelled}, positive, horizon)
    first, second = classes
    check_telling(labelled, columns)
    check_numbers(labelled, columns)
    if notify:
        for note in (*odd_cells(labelled, columns), *note_calendar(labelled, columns)):
            notify(note)
    outcomes = [replace(row, label=second if row.label == second else first) for row in labelled]
    values = {name: [row.other[name] for row in outcomes] for name in columns}
    if run:
        scores = _scores(run, task, model, second)
        values[f"{model} score"] = [_score_of(scores, row.case, run) for row in outcomes]
    regression = fit_regression(values, task.regression_truth(outcomes, classes))
    return TableNomogram(
        nomogram=make_nomogram(regression, values, horizon),
        title=f"Probability of {text}; fitted on {len(outcomes)} cases",
        penalty=regression.penalty,
        left_out=tuple(row.case for row in cases if not row.label),
        notes=tuple(
            describe_revealing(name, outcomes) for name in revealing_columns(outcomes, columns)
        ),
    )


def write_table_nomogram(result: TableNomogram, folder: Path) -> Path:
    """Write nomogram.csv, .png and .svg; returns the picture."""
    folder.mkdir(parents=True, exist_ok=True)
    write_nomogram(folder / "nomogram.csv", result.nomogram)
    save_figure(draw_nomogram(result.nomogram, result.title), folder / "nomogram")
    return folder / "nomogram.png"


def _named_columns(rows: Sequence[Row], columns: Sequence[str], source: str) -> tuple[str, ...]:
    """The columns as the table writes them."""
    names = []
    for name in columns:
        column = find_column(name, rows[0].other)
        if column is None:
            known = ", ".join(rows[0].other) or "none"
            raise CohortError(f"No column {name!r} in {source}; it has {known}.")
        names.append(column)
    return tuple(names)


def _case_rows(rows: Sequence[Row], columns: Sequence[str], source: str) -> list[Row]:
    """One row per case, by name; the columns are facts of the case."""
    first: dict[str, Row] = {}
    for row in rows:
        earlier = first.setdefault(row.case, row)
        for name in columns:
            if earlier.other[name] != row.other[name]:
                raise CohortError(
                    f"{source}: slides of case {row.case!r} differ in {name!r}. Correct the table."
                )
    return [row for _, row in sorted(first.items())]


def _scores(run: Run, task: Task, model: str, positive: str) -> Mapping[str, float]:
    """By case, the score of the model of the run that has not seen it."""
    run.require_finished()
    if run.task.name != task.name:
        raise RunError(
            f"{run.path} is a run of {run.task.name}, not of {task.name}. Give a run of the same task."
        )
    answers = run.predictions().mean_answers(model)
    try:
        return {case: task.regression_score(answer, positive) for case, answer in answers.items()}
    except KeyError as error:
        raise RunError(
            f"{run.path} does not predict {positive!r}. Give a run on these labels."
        ) from error


def _score_of(scores: Mapping[str, float], case: str, run: Run) -> str:
    if case not in scores:
        raise RunError(f"{run.path} has not predicted {case}. Cross-validate on this table.")
    return f"{scores[case]:.{DECIMALS}f}"
