"""`mil compare`: models against each other, case by case."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.app import app
from cli.options import UsageError, part_of, verb
from cli.tables import TableOptions, check_out, read_inputs, say_results, table_of
from mil.data.reading import TableReading

if TYPE_CHECKING:
    from mil.evaluation.judge import Comparison


@dataclass(frozen=True, kw_only=True)
class CompareOptions(TableOptions):
    """Settings of `mil compare`."""

    first: Path = field(metadata={"argument": "A", "help": "A run or a table of predictions."})
    second: Path | None = field(
        default=None,
        metadata={
            "argument": "B",
            "help": "Another one over the same cases; without it, the models of A are compared.",
        },
    )

    def __post_init__(self) -> None:
        if self.second and table_of(self.first).resolve() == table_of(self.second).resolve():
            raise UsageError(
                f"{self.first} and {self.second} are the same predictions. Name two, or one alone to compare "
                "its models with each other."
            )


@verb(
    app,
    CompareOptions,
    examples=[
        "mil compare run",
        "mil compare run again --out compared",
        "mil compare run again --models mean",
    ],
)
def compare(options: CompareOptions) -> None:
    """Test models against each other over the same cases: those of one run or table, or of two.

    All models of A are paired. With B, models of the same name are paired; if no name is in both, each model
    of A is paired with each of B. Predicted classes are compared by the exact McNemar test, AUCs by the
    paired DeLong test, and accuracies in the same folds by Nadeau and Bengio's corrected t test. Brier
    scores, errors in grades, kappa and Harrell's C are compared by permutation: the two models' predictions
    of a case are swapped. Each p is adjusted over the pairs by Holm's method.
    """
    from cli.console import show_tables

    check_out(options.out)
    comparison = _compare(
        options.first,
        options.second,
        out=options.out,
        store=options.store,
        cohort=options.cohort,
        classes=options.classes,
        models=options.models,
        reading=part_of(options, TableReading),
    )
    show_tables(comparison.tables())
    if options.out:
        say_results(options.out, "comparison")


def _compare(first: Path, second: Path | None, *, out: Path | None, **how: Any) -> "Comparison":
    """The comparison of the models of one input, or of two; ``how`` as ``read_inputs``."""
    from mil.evaluation.judge import compare

    if second is None:
        predictions = read_inputs([first], **how)
        if len(predictions.models) < 2:
            raise UsageError(
                f"{first} has one model, {predictions.models[0]}. Name a second run or table to compare "
                f"it with."
            )
        return compare(predictions, out=out)
    tables = [read_inputs([path], **how) for path in (first, second)]
    return compare(*tables, names=(str(first), str(second)), out=out)
