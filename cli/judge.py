"""`mil evaluate`, `mil compare`: numbers of predictions, ours or another tool's."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cli.app import app
from cli.options import UsageError, part_of, verb, writable
from mil.settings import JudgeSettings

if TYPE_CHECKING:
    from mil.evaluation.classification import ClassResult
    from mil.evaluation.comparison import Comparison, PairTest
    from mil.evaluation.evaluate import Evaluation
    from mil.evaluation.intervals import Estimate
    from mil.evaluation.predictions import CaseTable, Predictions


@dataclass(frozen=True, kw_only=True)
class _TableOptions:
    """How tables are read, and where the numbers go."""

    cohort: Path | None = field(
        default=None,
        metadata={
            "help": "Table with case, slide and label, for predictions that name slides only."
        },
    )
    classes: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Names of the classes that a table calls 0, 1, ..., with commas between.",
            "split": ",",
        },
    )
    models: tuple[str, ...] = field(
        default=(),
        metadata={"help": "Only these, with commas between; all if not given.", "split": ","},
    )
    out: Path | None = field(
        default=None, metadata={"help": "Folder for the numbers as JSON and CSV."}
    )


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(_TableOptions, JudgeSettings):
    """Settings of `mil evaluate`."""

    inputs: tuple[Path, ...] = field(
        metadata={
            "argument": "PREDICTIONS.csv|RUN...",
            "help": "A run, a table of predictions, or one table per fold.",
        }
    )
    time_unit: str = field(
        default="",
        metadata={"help": "Of a table of survival: what its times count; a run says it itself."},
    )


@dataclass(frozen=True, kw_only=True)
class CompareOptions(_TableOptions):
    """Settings of `mil compare`."""

    first: Path = field(metadata={"argument": "A", "help": "A run or a table of predictions."})
    second: Path = field(metadata={"argument": "B", "help": "Another over the same cases."})


@verb(
    app,
    EvaluateOptions,
    examples=[
        "mil evaluate run --models abmil --out judged",
        "mil evaluate run/predictions.csv --interval wilson-cc --prevalence LMS=0.4,DDLPS=0.3",
        "mil evaluate run-survival --out judged-survival",
    ],
)
def evaluate(options: EvaluateOptions) -> None:
    """Judge predictions, also those of another tool: each class, calibration, sets; with intervals.

    Tables of STAMP, CLAM and slideflow are read as they are; so is any with a case or slide, a label
    and one p_CLASS per class, or of survival a time, event, risk and one s_TIME per time of a curve. The
    case is the unit: its slides are averaged.
    """
    from mil.evaluation.survival_predictions import is_survival

    _check_out(options.out)
    tables = _tables(options.inputs)
    if is_survival(tables[0]):
        _evaluate_survival(options, tables)
    else:
        _evaluate_classes(options, tables)


def _evaluate_classes(options: EvaluateOptions, tables: Sequence[Path]) -> None:
    from cli.console import say
    from cli.learn import show_evaluation
    from mil.evaluation.evaluate import evaluate as judge
    from mil.evaluation.evaluate import rows
    from mil.evaluation.predictions import write_predictions
    from mil.runs import write_json

    if options.time_unit:
        raise UsageError(f"--time-unit is of survival; {tables[0]} is of classes. Leave it out.")
    predictions = _read(tables, options)
    evaluation = judge(predictions, part_of(options, JudgeSettings))
    show_evaluation(evaluation)
    _show_more(evaluation)
    _show_calibration(evaluation)
    _show_sets(evaluation)
    _show_classes(evaluation)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        write_predictions(options.out / "predictions.csv", predictions)
        write_json(options.out / "metrics.json", evaluation.to_json())
        _write_rows(options.out / "metrics.csv", rows(evaluation))
        say(f"Numbers: {options.out / 'metrics.json'}, {options.out / 'metrics.csv'}")


def _evaluate_survival(options: EvaluateOptions, tables: Sequence[Path]) -> None:
    from cli.console import say
    from cli.survival import show_survival
    from mil.evaluation.evaluate_survival import evaluate_survival, rows
    from mil.evaluation.survival_predictions import (
        SurvivalPredictions,
        joined,
        read_survival,
        write_survival,
    )
    from mil.runs import open_run, write_json

    if options.classes or options.cohort or part_of(options, JudgeSettings) != JudgeSettings():
        raise UsageError(
            "--classes, --cohort, --interval, --prevalence and --coverage are of classes; "
            f"{tables[0]} is of survival. Leave them out."
        )
    predictions = joined(*map(read_survival, tables))
    if options.models:
        _check_models(options.models, predictions, tables[0])
        chosen = predictions.table["model"].isin(options.models)
        predictions = SurvivalPredictions(predictions.table[chosen].reset_index(drop=True))
    runs = [open_run(path) for path in options.inputs if (path / "run.json").is_file()]
    told = [run.settings["time_unit"] for run in runs if "time_unit" in run.settings]
    unit = options.time_unit or (told[0] if told else "units of time")
    evaluation = evaluate_survival(predictions, unit)
    show_survival(evaluation)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        write_survival(options.out / "predictions.csv", predictions)
        write_json(options.out / "metrics.json", evaluation.to_json())
        _write_rows(options.out / "metrics.csv", rows(evaluation))
        say(f"Numbers: {options.out / 'metrics.json'}, {options.out / 'metrics.csv'}")


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
    from cli.console import say
    from mil.evaluation.comparison import compare_tables
    from mil.runs import write_json

    _check_out(options.out)
    first, second = (_read(_tables([path]), options) for path in (options.first, options.second))
    found = compare_tables(first, second, (str(options.first), str(options.second)))
    _show_comparison(found)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        write_json(options.out / "comparison.json", found.to_json())
        _write_rows(options.out / "comparison.csv", [_flat(test.to_json()) for test in found.pairs])
        say(f"Numbers: {options.out / 'comparison.json'}, {options.out / 'comparison.csv'}")


def _check_out(out: Path | None) -> None:
    if out and writable(out) and (out / "run.json").exists():
        raise UsageError(f"--out {out} is a run folder. Choose another.")


def _tables(paths: Sequence[Path]) -> list[Path]:
    """The tables given, or those of runs, as these wrote them."""
    from mil.runs import check_results, open_run

    for path in paths:
        if (path / "run.json").is_file():
            check_results(open_run(path))
    return [path / "predictions.csv" if path.is_dir() else path for path in paths]


def _check_models(asked: Sequence[str], found: "CaseTable", table: Path) -> None:
    if unknown := [name for name in asked if name not in found.models]:
        raise UsageError(f"{table} has no model {unknown[0]!r}; it has {', '.join(found.models)}.")


def _read(tables: Sequence[Path], options: _TableOptions) -> "Predictions":
    """The predictions of the tables."""
    from cli.console import warn
    from mil.cohort import read_table
    from mil.evaluation.predictions import Predictions
    from mil.evaluation.tables import Told, read_tables

    told = {}
    if options.cohort:
        told = {row.slide: Told(row.case, row.label) for row in read_table(options.cohort)}
    found, notes = read_tables(tables, told, options.classes)
    for note in notes:
        warn(note)
    _check_models(options.models, found, tables[0])
    if not options.models:
        return found
    return Predictions(found.table[found.table["model"].isin(options.models)], found.classes)


def _show_more(evaluation: "Evaluation") -> None:
    """Further numbers of each model, and whether guessing does as well."""
    from cli.console import say, show_table

    say("")
    header = ["model", "macro F1", "MCC", "kappa", "average precision", "p guessing", "p majority"]
    rows = [
        [
            each.model,
            *(
                _shown(part)
                for part in (each.macro_f1, each.mcc, each.kappa, each.average_precision)
            ),
            _p(each.p_chance),
            _p(each.p_majority),
        ]
        for each in evaluation.models
    ]
    show_table(header, rows)
    say(
        f"p: how often guessing evenly ({evaluation.chance_accuracy:.2f}), or naming the largest class "
        f"({evaluation.majority_share:.2f}), is right on as many cases."
    )
    if len(evaluation.repeats) > 1:
        say("")
        parts = [
            f"{each.model} accuracy {part.least:.2f} to {part.most:.2f}"
            for each in evaluation.models
            if (part := each.spread["accuracy"])
        ]
        say(f"Over {len(evaluation.repeats)} repeats, of the same cases: {'; '.join(parts)}.")


def _show_calibration(evaluation: "Evaluation") -> None:
    """Whether probabilities can be believed, and what a temperature would mend."""
    from cli.console import say, show_table

    say("")
    header = [
        "model",
        "Brier",
        "scaled Brier",
        "ECE",
        "by chance",
        "p",
        "temperature",
        "Brier after",
    ]
    rows = []
    for result in evaluation.models:
        found, mended = result.calibration, result.calibration.temperature
        rows.append(
            [
                result.model,
                _shown(found.brier),
                _shown(found.scaled_brier),
                f"{found.ece:.2f}",
                f"{found.ece_expected:.2f}",
                _p(found.p_ece),
                *([f"{mended.parameter:.2f}", f"{mended.brier:.2f}"] if mended else ["", ""]),
            ]
        )
    show_table(header, rows)
    say("ECE by chance: what so few cases give though every probability be right.")


def _show_sets(evaluation: "Evaluation") -> None:
    """How many cases are answered by a set of one class, and how many of those rightly."""
    from cli.console import say, show_table

    say("")
    show_table(
        ["model", "classes per set", "answered", "right of these", "covered"],
        [
            [
                each.model,
                f"{each.conformal.mean_size:.1f}",
                f"{each.conformal.answered.k:.0f}/{each.n}",
                _counted(each.conformal.right),
                f"{each.conformal.covered.k:.0f}/{each.n}",
            ]
            for each in evaluation.models
        ],
    )
    say(f"Sets that hold the true class: {evaluation.models[0].conformal}")


def _show_classes(evaluation: "Evaluation") -> None:
    """Each class against the rest, by model."""
    from cli.console import say, show_table

    for result in evaluation.models:
        say("")
        rows = [
            [
                each.name,
                f"{each.n}",
                *(
                    _counted(part)
                    for part in (each.sensitivity, each.specificity, each.ppv, each.npv)
                ),
                _shown(each.auc),
                _shown(line.slope),
                *_elsewhere(each),
            ]
            for each, line in zip(result.per_class, result.calibration.per_class, strict=True)
        ]
        header = [result.model, "cases", "sensitivity", "specificity", "PPV", "NPV", "AUC", "slope"]
        stated = any(len(row) > len(header) for row in rows)
        header += ["at", "PPV there", "NPV there"] if stated else []
        show_table(header, [row + [""] * (len(header) - len(row)) for row in rows])


def _elsewhere(result: "ClassResult") -> list[str]:
    there = result.at_prevalence
    return [f"{there.prevalence:.2f}", _shown(there.ppv), _shown(there.npv)] if there else []


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
            f"All {comparison.cochran.models} models alike (Cochran's Q): {_p(comparison.cochran.p)}"
        )
    say(str(comparison.power))


def _pair(test: "PairTest") -> list[str]:
    auc = test.auc
    return [
        test.first,
        test.second,
        f"{test.only_first}",
        f"{test.only_second}",
        _p(test.p_holm),
        f"{auc.value:+.2f} ({auc.low:+.2f} to {auc.high:+.2f})" if auc else "undefined",
        _p(auc.p_holm) if auc else "",
        f"{test.brier:+.3f}",
        _p(test.p_brier_holm),
        "" if test.p_folds_holm is None else _p(test.p_folds_holm),
    ]


def _shown(estimate: "Estimate") -> str:
    if estimate.value is None:
        return "undefined"
    if estimate.low is None:
        return f"{estimate.value:.2f} (no interval)"
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"


def _counted(share: "Estimate") -> str:
    k, n = getattr(share, "k", 0.0), getattr(share, "n", 0.0)
    return f"{k:.4g}/{n:.4g} {_shown(share)}" if share.value is not None else f"{k:.4g}/{n:.4g}"


def _p(value: float) -> str:
    return "<.001" if value < 0.001 else f"{value:.3f}"


def _flat(told: Mapping[str, object]) -> dict[str, object]:
    """One level: what is in ``auc`` becomes ``auc_value`` and so on."""
    found: dict[str, object] = {}
    for name, value in told.items():
        if isinstance(value, dict):
            found |= {f"{name}_{inner}": each for inner, each in value.items()}
        else:
            found[name] = value
    return found


def _write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """A CSV that appears whole; what a row lacks stays empty."""
    from features.whole import whole

    columns = list(dict.fromkeys(name for row in rows for name in row))
    with whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
