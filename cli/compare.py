"""`mil compare`: two runs or tables against each other, case by case."""

from dataclasses import dataclass, field
from pathlib import Path

from cli.app import app
from cli.options import verb
from cli.tables import TableOptions, check_out, read_predictions_of, tables_of, write_results


@dataclass(frozen=True, kw_only=True)
class CompareOptions(TableOptions):
    """Settings of `mil compare`."""

    first: Path = field(metadata={"argument": "A", "help": "A run or a table of predictions."})
    second: Path = field(metadata={"argument": "B", "help": "Another over the same cases."})


@verb(
    app,
    CompareOptions,
    examples=[
        "mil compare run again --out compared",
        "mil compare run again --models mean",
    ],
)
def compare(options: CompareOptions) -> None:
    """Test the models of two runs or tables against each other, over the same cases.

    Models of the same name are paired; where no name is in both, each of A with each of B. Predicted classes
    are tested by exact McNemar, AUCs by paired DeLong, accuracies in the same folds by Nadeau and Bengio's t;
    Brier scores, errors in grades, kappa and Harrell's C by swapping the two models' predictions of a case.
    Each p is adjusted over the pairs by Holm.
    """
    from cli.console import show_tables
    from mil.evaluation.judge import compare_tables

    check_out(options.out)
    first, second = (
        read_predictions_of(tables_of([path]), options) for path in (options.first, options.second)
    )
    comparison = compare_tables(first, second, (str(options.first), str(options.second)))
    show_tables(comparison.tables())
    if options.out:
        write_results(options.out, "comparison", comparison.to_json(), comparison.rows())
