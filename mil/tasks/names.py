"""The table of tasks: names, and what settings need to know of each. A task is its files and a row here.

Nothing is imported that takes time, so that the command line starts at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import ClassVar, NamedTuple

from mil.data.reading import TableReading


@dataclass(frozen=True, kw_only=True)
class FollowUpColumns:
    """Where the table states the time until an event."""

    PANEL: ClassVar[str] = "Task"

    time: str = field(
        default="time", metadata={"help": "Column of times until the event (task=survival)."}
    )
    event: str = field(
        default="event",
        metadata={"help": "Column that is 1 where the event was observed, else 0 (task=survival)."},
    )
    time_unit: str = field(
        default="days",
        metadata={"help": "Unit of the times, for tables and figures (task=survival)."},
    )


@dataclass(frozen=True, kw_only=True)
class GradeColumns:
    """Where the table states the grade."""

    PANEL: ClassVar[str] = "Task"

    grade: str = field(
        default="grade", metadata={"help": "Column that holds the grade (task=grade)."}
    )
    grade_order: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Grades from lowest to highest, separated by commas (task=grade); ordered by their "
            "numbers (1, 2, 3 or G1, G2, G3) if not given.",
            "split": ",",
        },
    )


@dataclass(frozen=True, kw_only=True)
class TaskColumns(FollowUpColumns, GradeColumns, TableReading):
    """The columns of all tasks and how the table is read, for settings of verbs."""


class TaskRow(NamedTuple):
    """One task.

    Attributes:
        target: ``module:class``, imported on first use.
        predicts: in help texts.
        losses: what training can minimise; the first is the default.
        folder: of what the task adds to a run folder; empty for nothing.
        columns: settings that say where the table states the outcome.
    """

    target: str
    predicts: str
    losses: tuple[str, ...]
    folder: str = ""
    columns: type | None = None


TASKS = {
    "diagnosis": TaskRow(
        "mil.tasks.diagnosis:Diagnosis", "the case's class", ("cross-entropy", "focal")
    ),
    "survival": TaskRow(
        "mil.tasks.survival:Survival",
        "the time until the case's event",
        ("cox", "discrete"),
        folder="survival",
        columns=FollowUpColumns,
    ),
    "grade": TaskRow(
        "mil.tasks.grade:Grade",
        "the case's grade on an ordered scale",
        ("cumulative",),
        columns=GradeColumns,
    ),
}
DEFAULT_TASK = next(iter(TASKS))


def foreign_setting(task: str, changed: Mapping[str, object]) -> str:
    """What is wrong with settings that say where the outcome of another task is; empty if nothing is.

    Args:
        task: that is learnt.
        changed: settings by name that are not their defaults.
    """
    for owner, row in TASKS.items():
        names = {entry.name for entry in fields(row.columns)} if row.columns else set()
        for name, value in changed.items():
            if name in names and owner != task:
                text = ",".join(value) if isinstance(value, tuple) else value
                return (
                    f"{name}={text} is not used by the task {task}, only by {owner}. Leave it out, or set "
                    f"task to {owner}."
                )
    return ""


def changed_columns(settings: TaskColumns) -> dict[str, object]:
    """The settings of columns that are not their defaults."""
    values = {
        entry.name: (getattr(settings, entry.name), entry.default) for entry in fields(TaskColumns)
    }
    return {name: value for name, (value, default) in values.items() if value != default}
