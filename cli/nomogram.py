"""`mil nomogram`: a probability to be read off with a ruler, from the table's columns and a model's score."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cli.app import app
from cli.options import UsageError, verb, writable
from cli.runs import MOVED_COHORT, MOVED_STORE
from mil.data.reading import TableReading
from mil.tasks.names import DEFAULT_TASK, TASKS, foreign_setting

if TYPE_CHECKING:
    from mil.report.table_nomogram import TableNomogram
    from mil.runs.run import Run
    from mil.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class NomogramOptions(TableReading):
    """Settings of `mil nomogram`."""

    cohort: Path = field(
        metadata={"argument": "COHORT.csv", "help": "Table with case, slide, label and columns."}
    )
    out: Path = field(metadata={"help": "The folder to write."})
    clinical: tuple[str, ...] = field(
        default=(),
        metadata={"help": "Columns to use as predictors, separated by commas.", "split": ","},
    )
    positive: str | None = field(
        default=None,
        metadata={
            "help": "The class whose probability is read off; required for more than two classes."
        },
    )
    run: Path | None = field(
        default=None,
        metadata={
            "help": "A finished `mil crossval` of these cases; supplies the score of --model."
        },
    )
    model: str | None = field(
        default=None,
        metadata={"help": "Name of a model; its out-of-fold score in --run is added as a column."},
    )
    task: str | None = field(
        default=None,
        metadata={
            "help": f"The task; defaults to the run's, or {DEFAULT_TASK}.",
            "choices": tuple(TASKS),
            "panel": "Task",
        },
    )
    horizon: float | None = field(
        default=None,
        metadata={"help": "Predict the event up to this time (task=survival).", "panel": "Task"},
    )
    time: str | None = field(
        default=None,
        metadata={
            "help": "Column of times (task=survival); defaults to the run's, or `time`.",
            "panel": "Task",
        },
    )
    event: str | None = field(
        default=None,
        metadata={
            "help": "Column of events (task=survival); defaults to the run's, or `event`.",
            "panel": "Task",
        },
    )
    time_unit: str | None = field(
        default=None,
        metadata={
            "help": "Unit of the times (task=survival); defaults to the run's, or days.",
            "panel": "Task",
        },
    )
    store: Path | None = field(default=None, metadata=MOVED_STORE)
    moved_cohort: Path | None = field(
        default=None, metadata=MOVED_COHORT | {"flag": "--cohort", "parameter": "cohort"}
    )

    def __post_init__(self) -> None:
        if (self.run is None) != (self.model is None):
            raise UsageError("--run RUN and --model NAME go together.")
        if self.run is None and (self.store or self.moved_cohort):
            raise UsageError("--store and --cohort belong to a run: name it with --run.")
        if not (self.clinical or self.run):
            raise UsageError("Name columns with --clinical, or a score with --run and --model.")


@verb(
    app,
    NomogramOptions,
    examples=[
        "mil nomogram cohort.csv --run run --model abmil --positive DDLPS --out nomogram",
        "mil nomogram cohort.csv --task survival --time-unit months --horizon 24 --clinical label --out "
        "nomogram-survival",
    ],
)
def nomogram(options: NomogramOptions) -> None:
    """Fit a regression on all cases and draw it as points for each column, their total and a probability.

    It is not evaluated: no case is left for that. `mil crossval` with model clinical does so.
    """
    from cli.console import notify
    from mil.api.judging import nomogram as fit_nomogram
    from mil.api.run import open_run

    writable(options.out)
    places = {"store": options.store, "cohort": options.moved_cohort}
    run = open_run(options.run, **places) if options.run else None
    result = fit_nomogram(
        options.cohort,
        options.clinical,
        out=options.out,
        task=_task(options, run),
        positive=options.positive,
        horizon=options.horizon,
        run=run,
        model=options.model or "",
        notify=notify,
        **options.words(),
    )
    _show(result, options.out / "nomogram.png")


def _task(options: NomogramOptions, run: "Run | None") -> "Task":
    """The task of the run, with what the options say otherwise."""
    from mil.tasks.registry import task_from

    names = ("task", "time", "event", "time_unit")
    options_set = {name: value for name in names if (value := getattr(options, name)) is not None}
    task = task_from({**(run.settings.stored if run else {}), **options_set})
    if problem := foreign_setting(task.name, options_set):
        raise UsageError(problem)
    return task


def _show(result: "TableNomogram", picture: Path) -> None:
    from cli.console import complain, say, show_table, warn

    if result.left_out:
        complain(f"Left out, without an outcome: {', '.join(result.left_out)}.")
    for note in result.notes:
        complain(note)
    if result.penalty != "none":
        warn("A column separates the cases: the regression is fitted with Firth's penalty.")
    scales = result.nomogram.scales
    show_table(
        ["column", "value", "points"],
        [[s.column, value, f"{points:.0f}"] for s in scales for value, points in s.marks],
    )
    say(f"{result.title}: {picture}, .svg and .csv")
