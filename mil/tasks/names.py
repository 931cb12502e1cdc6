"""The table of tasks: names, and what settings need to know of each. A task is its files and a row here.

No other import than the standard library, so that the command line starts at once.
"""

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple


@dataclass(frozen=True, kw_only=True)
class FollowUpColumns:
    """Where the table states the time until an event."""

    PANEL: ClassVar[str] = "Task"

    time: str = field(
        default="time", metadata={"help": "Survival: the column of times until the event."}
    )
    event: str = field(
        default="event",
        metadata={"help": "Survival: the column that is 1 where the event was observed, else 0."},
    )
    time_unit: str = field(
        default="days", metadata={"help": "Survival: unit of the times, for tables and figures."}
    )


@dataclass(frozen=True, kw_only=True)
class GradeColumns:
    """Where the table states the grade."""

    PANEL: ClassVar[str] = "Task"

    grade: str = field(default="grade", metadata={"help": "Grade: the column of grades."})
    grade_order: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Grade: the grades from lowest to highest, with commas between; ordered by their "
            "numbers (1, 2, 3 or G1, G2, G3) if not given.",
            "split": ",",
        },
    )


@dataclass(frozen=True, kw_only=True)
class TaskColumns(FollowUpColumns, GradeColumns):
    """The columns of all tasks, for settings of verbs."""


class TaskRow(NamedTuple):
    """One task.

    Attributes:
        target: ``module:class``, imported on first use.
        predicts: in help texts.
        losses: what training can minimise; the first is the default.
        folder: of what the task adds to a run folder; empty for nothing.
    """

    target: str
    predicts: str
    losses: tuple[str, ...]
    folder: str = ""


TASKS = {
    "diagnosis": TaskRow(
        "mil.tasks.diagnosis:Diagnosis", "the case's class", ("cross-entropy", "focal")
    ),
    "survival": TaskRow(
        "mil.tasks.survival:Survival",
        "the time until the case's event",
        ("cox", "discrete"),
        folder="survival",
    ),
    "grade": TaskRow(
        "mil.tasks.grade:Grade", "the case's grade on an ordered scale", ("cumulative",)
    ),
}
DEFAULT_TASK = next(iter(TASKS))
