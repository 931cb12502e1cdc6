"""What library functions return, printed."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mil.evaluation.judge import Evaluation
    from mil.runs.cross_validation import CrossValidation


def show_cross_validation(result: "CrossValidation") -> None:
    """Each model's numbers, and where everything was written."""
    from cli.console import say

    show_headline(result.evaluation)
    for note in result.notes:
        say(note)
    say(f"Run folder: {result.run.path}. Next: mil report {result.run.path}")


def show_headline(evaluation: "Evaluation") -> None:
    """The first table of an evaluation: one row per model."""
    from cli.console import show_tables

    show_tables(evaluation.tables()[:1])
