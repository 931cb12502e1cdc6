"""`mil evaluate`: numbers of predictions, ours or another tool's."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cli.app import app
from cli.options import UsageError, part_of, verb
from cli.tables import (
    TableOptions,
    check_models,
    check_out,
    keep_numbers,
    read_asked,
    shown,
    shown_p,
    tables_of,
)
from mil.settings import JudgeSettings

if TYPE_CHECKING:
    from mil.evaluation.classification.evaluate import Evaluation
    from mil.evaluation.classification.per_class import ClassResult
    from mil.evaluation.intervals import Estimate


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(TableOptions, JudgeSettings):
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
    from mil.evaluation.survival.predictions import is_survival

    check_out(options.out)
    tables = tables_of(options.inputs)
    if is_survival(tables[0]):
        _evaluate_survival(options, tables)
    else:
        _evaluate_classes(options, tables)


def _evaluate_classes(options: EvaluateOptions, tables: Sequence[Path]) -> None:
    from cli.learn import show_evaluation
    from mil.evaluation.classification.evaluate import evaluate as judge
    from mil.evaluation.classification.evaluate import rows
    from mil.evaluation.predictions import write_predictions

    if options.time_unit:
        raise UsageError(f"--time-unit is of survival; {tables[0]} is of classes. Leave it out.")
    predictions = read_asked(tables, options)
    evaluation = judge(predictions, part_of(options, JudgeSettings))
    show_evaluation(evaluation)
    _show_more(evaluation)
    _show_calibration(evaluation)
    _show_sets(evaluation)
    _show_classes(evaluation)
    if options.out:
        write_predictions(options.out / "predictions.csv", predictions)
        keep_numbers(options.out, "metrics", evaluation.to_json(), rows(evaluation))


def _evaluate_survival(options: EvaluateOptions, tables: Sequence[Path]) -> None:
    from cli.survival import show_survival
    from mil.evaluation.survival.evaluate import evaluate_survival, rows
    from mil.evaluation.survival.predictions import (
        SurvivalPredictions,
        joined,
        read_survival,
        write_survival,
    )
    from mil.runs.run import open_run

    if options.classes or options.cohort or part_of(options, JudgeSettings) != JudgeSettings():
        raise UsageError(
            "--classes, --cohort, --interval, --prevalence and --coverage are of classes; "
            f"{tables[0]} is of survival. Leave them out."
        )
    predictions = joined(*map(read_survival, tables))
    if options.models:
        check_models(options.models, predictions, tables[0])
        chosen = predictions.table["model"].isin(options.models)
        predictions = SurvivalPredictions(predictions.table[chosen].reset_index(drop=True))
    runs = [open_run(path) for path in options.inputs if (path / "run.json").is_file()]
    told = [run.settings.time_unit for run in runs]
    unit = options.time_unit or (told[0] if told else "units of time")
    evaluation = evaluate_survival(predictions, unit)
    show_survival(evaluation)
    if options.out:
        write_survival(options.out / "predictions.csv", predictions)
        keep_numbers(options.out, "metrics", evaluation.to_json(), rows(evaluation))


def _show_more(evaluation: "Evaluation") -> None:
    """Further numbers of each model, and whether guessing does as well."""
    from cli.console import say, show_table

    say("")
    of_two = f" of {evaluation.classes[1]}" if len(evaluation.classes) == 2 else ""
    precision = f"average precision{of_two}"
    header = ["model", "macro F1", "MCC", "kappa", precision, "p guessing", "p majority"]
    rows = [
        [
            each.model,
            *(
                shown(part)
                for part in (each.macro_f1, each.mcc, each.kappa, each.average_precision)
            ),
            shown_p(each.p_chance),
            shown_p(each.p_majority),
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
                shown(found.brier),
                shown(found.scaled_brier),
                f"{found.ece:.2f}",
                f"{found.ece_expected:.2f}",
                shown_p(found.p_ece),
                *([f"{mended.parameter:.2f}", f"{mended.brier:.2f}"] if mended else ["", ""]),
            ]
        )
    show_table(header, rows)
    say("ECE by chance: what so few cases give though every probability be right.")
    for result in evaluation.models:
        if (mended := result.calibration.temperature) and mended.note:
            say(f"Temperature of {result.model}: {mended.note}.")


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
                shown(each.auc),
                shown(line.slope),
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
    return [f"{there.prevalence:.2f}", shown(there.ppv), shown(there.npv)] if there else []


def _counted(share: "Estimate") -> str:
    k, n = getattr(share, "k", 0.0), getattr(share, "n", 0.0)
    return f"{k:.4g}/{n:.4g} {shown(share)}" if share.value is not None else f"{k:.4g}/{n:.4g}"
