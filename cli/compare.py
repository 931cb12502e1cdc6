"""`mil compare`: two runs or tables against each other, case by case."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cli.app import app
from cli.options import verb
from cli.tables import TableOptions, check_out, keep_numbers, read_asked, shown_p, tables_of

if TYPE_CHECKING:
    from mil.evaluation.comparison import Comparison, PairTest


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

    Models of the same name are paired; where no name is in both, each of A with each of B. Calls are
    tested by exact McNemar, AUCs by paired DeLong, Brier scores by swapping answers, folds (where both
    have the same) by Nadeau and Bengio's t; each p is adjusted over the pairs by Holm.
    """
    from mil.evaluation.comparison import compare_tables

    check_out(options.out)
    first, second = (
        read_asked(tables_of([path]), options) for path in (options.first, options.second)
    )
    found = compare_tables(first, second, (str(options.first), str(options.second)))
    _show_comparison(found)
    if options.out:
        rows = [_flat(test.to_json()) for test in found.pairs]
        keep_numbers(options.out, "comparison", found.to_json(), rows)


def _show_comparison(comparison: "Comparison") -> None:
    from cli.console import counted, say, show_table

    header = [
        "first",
        "second",
        "only first",
        "only second",
        "p",
        "AUC",
        "p AUC",
        "Brier",
        "p Brier",
        "p folds",
    ]
    show_table(header, [_pair(test) for test in comparison.pairs])
    pairs = counted(len(comparison.pairs), "pair")
    say(f"{comparison.pairs[0].n} cases; p adjusted over {pairs} (Holm).")
    if comparison.cochran:
        say(
            f"All {comparison.cochran.models} models alike (Cochran's Q): {shown_p(comparison.cochran.p)}"
        )
    say(str(comparison.power))


def _pair(test: "PairTest") -> list[str]:
    auc = test.auc
    return [
        test.first,
        test.second,
        f"{test.only_first}",
        f"{test.only_second}",
        shown_p(test.p_holm),
        f"{auc.value:+.2f} ({auc.low:+.2f} to {auc.high:+.2f})" if auc else "undefined",
        shown_p(auc.p_holm) if auc else "",
        f"{test.brier:+.3f}",
        shown_p(test.p_brier_holm),
        "" if test.p_folds_holm is None else shown_p(test.p_folds_holm),
    ]


def _flat(told: Mapping[str, object]) -> dict[str, object]:
    """One level: what is in ``auc`` becomes ``auc_value`` and so on."""
    found: dict[str, object] = {}
    for name, value in told.items():
        if isinstance(value, dict):
            found |= {f"{name}_{inner}": each for inner, each in value.items()}
        else:
            found[name] = value
    return found
