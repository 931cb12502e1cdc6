"""`mil evaluate`: evaluate predictions, of `mil` or of another tool."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cli.app import app
from cli.options import UsageError, part_of, verb
from cli.tables import (
    TableOptions,
    check_out,
    read_class_predictions,
    read_predictions_of,
    tables_of,
    write_results,
)
from mil.settings import JudgeSettings


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
    """Evaluate predictions, also of another tool: each class, calibration, conformal sets; with intervals.

    Tables of STAMP, CLAM and slideflow are read as they are. So is any table with case or slide, label and
    one p_CLASS per class; for survival it has time, event, risk and one s_TIME per time of a curve. The unit
    is the case: predictions of its slides are averaged.
    """
    from mil.evaluation.classification.predictions import ClassPredictions
    from mil.evaluation.predictions import kind_of, read_text_table

    check_out(options.out)
    tables = tables_of(options.inputs)
    if kind_of(list(read_text_table(tables[0]).columns)) is ClassPredictions:
        _evaluate_classes(options, tables)
    else:
        _evaluate_others(options, tables)


def _evaluate_classes(options: EvaluateOptions, tables: Sequence[Path]) -> None:
    from cli.console import show_tables
    from mil.evaluation.classification.evaluate import evaluate as judge
    from mil.evaluation.predictions import write_predictions

    if options.time_unit:
        raise UsageError(f"--time-unit is of survival; {tables[0]} is of classes. Leave it out.")
    predictions = read_class_predictions(tables, options)
    evaluation = judge(predictions, part_of(options, JudgeSettings))
    show_tables(evaluation.tables())
    if options.out:
        write_predictions(options.out / "predictions.csv", predictions)
        write_results(options.out, "metrics", evaluation.to_json(), evaluation.rows())


def _evaluate_others(options: EvaluateOptions, tables: Sequence[Path]) -> None:
    from cli.console import show_tables
    from mil.evaluation.judge import evaluate as judge
    from mil.evaluation.predictions import write_predictions
    from mil.evaluation.survival.predictions import RiskPredictions
    from mil.runs.run import open_run

    if part_of(options, JudgeSettings) != JudgeSettings():
        raise UsageError(
            "--interval, --prevalence and --coverage are for predictions of classes; "
            f"{tables[0]} holds none. Leave them out."
        )
    predictions = read_predictions_of(tables, options)
    for path in options.inputs:
        if (path / "run.json").is_file():
            predictions = open_run(path).task.adopt(predictions)
    if options.time_unit:
        predictions = replace(RiskPredictions.expect(predictions), unit=options.time_unit)
    evaluation = judge(predictions)
    show_tables(evaluation.tables())
    if options.out:
        write_predictions(options.out / "predictions.csv", predictions)
        write_results(options.out, "metrics", evaluation.to_json(), evaluation.rows())
