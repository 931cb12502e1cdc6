"""`mil evaluate`: evaluate predictions, of `mil` or of another tool."""

from dataclasses import dataclass, field
from pathlib import Path

from cli.app import app
from cli.options import part_of, verb
from cli.tables import TableOptions, check_out, read_inputs, say_results
from mil.data.reading import TableReading
from mil.settings import JudgeSettings


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(TableOptions, JudgeSettings):
    """Settings of `mil evaluate`."""

    inputs: tuple[Path, ...] = field(
        metadata={
            "argument": "RUN | PREDICTIONS.csv...",
            "help": "A run, a table of predictions, or one table per fold.",
        }
    )
    time_unit: str = field(
        default="",
        metadata={"help": "Unit of the times in a survival table; a run records its own."},
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
    """Evaluate predictions, including those of other tools: each class, calibration, conformal sets; with
    intervals.

    Tables of STAMP, CLAM and slideflow are read as they are. So is any table with case or slide, label and
    one p_CLASS per class; for survival it has time, event, risk and one s_TIME per time of a curve. The unit
    of evaluation is the case: predictions of its slides are averaged.
    """
    from cli.console import show_tables
    from mil.evaluation.judge import evaluate as judge

    check_out(options.out)
    predictions = read_inputs(
        options.inputs,
        store=options.store,
        cohort=options.cohort,
        classes=options.classes,
        models=options.models,
        reading=part_of(options, TableReading),
    )
    if options.time_unit:
        predictions = predictions.in_unit(options.time_unit)
    evaluation = judge(predictions, part_of(options, JudgeSettings), out=options.out)
    show_tables(evaluation.tables())
    if options.out:
        say_results(options.out, "metrics")
