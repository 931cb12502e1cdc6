"""`mil nomogram`: a probability to be read off with a ruler, from the table's columns and a model's score."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cli.app import app
from cli.options import UsageError, verb, writable

if TYPE_CHECKING:
    from mil.data.case import Row
    from mil.evaluation.regression.models import Truth

DECIMALS = 6


@dataclass(frozen=True, kw_only=True)
class NomogramOptions:
    """Settings of `mil nomogram`."""

    cohort: Path = field(
        metadata={"argument": "COHORT.csv", "help": "Table with case, slide, label and columns."}
    )
    out: Path = field(metadata={"help": "The folder to write."})
    clinical: tuple[str, ...] = field(
        default=(), metadata={"help": "Columns to read, with commas between.", "split": ","}
    )
    positive: str | None = field(
        default=None,
        metadata={"help": "The class of the probability; needed where there are more than two."},
    )
    run: Path | None = field(
        default=None,
        metadata={"help": "A finished `mil crossval` of these cases, for --model's score."},
    )
    model: str | None = field(
        default=None, metadata={"help": "The model of --run whose score out of fold is a column."}
    )
    task: str = field(
        default="diagnosis", metadata={"help": "`diagnosis`, or `survival`: by a Cox regression."}
    )
    horizon: float | None = field(
        default=None,
        metadata={"help": "With --task survival: the time until which an event counts."},
    )
    time: str = field(default="time", metadata={"help": "With --task survival: its column."})
    event: str = field(default="event", metadata={"help": "With --task survival: its column."})
    time_unit: str | None = field(
        default=None,
        metadata={"help": "What the times count; that of --run, else days, if not given."},
    )

    def __post_init__(self) -> None:
        if self.task not in ("diagnosis", "survival"):
            raise UsageError(f"--task is diagnosis or survival; got {self.task!r}.")
        if (self.task == "survival") != (self.horizon is not None):
            raise UsageError("--task survival and --horizon TIME go together.")
        if (self.run is None) != (self.model is None):
            raise UsageError("--run RUN and --model NAME go together.")
        if not (self.clinical or self.run):
            raise UsageError("Name columns with --clinical, or a score with --run and --model.")


@verb(
    app,
    NomogramOptions,
    examples=[
        "mil nomogram cohort.csv --run run --model abmil --positive LMS --out nomogram",
        "mil nomogram cohort.csv --task survival --time-unit months --horizon 24 --clinical label --out "
        "nomogram-survival",
    ],
)
def nomogram(options: NomogramOptions) -> None:
    """Fit a regression on all cases and lay it out as points for each column, their sum and a probability.

    It is not judged here: no case is left to judge it by. `mil crossval` with model clinical does that.
    """
    from cli.console import say, show_table, warn
    from mil.evaluation.regression.models import fit_regression
    from mil.evaluation.regression.nomogram import make_nomogram, write_nomogram
    from mil.report.nomogram import draw_nomogram
    from mil.report.saving import save_figure

    writable(options.out)
    rows = _cases(options)
    truth, what = _truth(options, rows)
    _tell_of_labels(options, rows, what)
    table = {name: [row.other[name] for row in rows] for name in options.clinical}
    if options.run and options.model:
        table[f"{options.model} score"] = _scores(options, rows, what)
    fitted = fit_regression(table, truth)
    made = make_nomogram(fitted, table, options.horizon)
    if fitted.penalty != "none":
        warn("A column separates the cases: the regression is fitted with Firth's penalty.")
    options.out.mkdir(parents=True, exist_ok=True)
    write_nomogram(options.out / "nomogram.csv", made)
    title = f"Probability of {what}; fitted on {len(rows)} cases"
    save_figure(draw_nomogram(made, title), options.out / "nomogram")
    marks = [[s.column, value, f"{points:.0f}"] for s in made.scales for value, points in s.marks]
    show_table(["column", "value", "points"], marks)
    say(f"{title}: {options.out / 'nomogram.png'}, .svg and .csv")


def _cases(options: NomogramOptions) -> "list[Row]":
    """One row per case that has an outcome; the columns are facts of the case."""
    from cli.console import complain, notify
    from mil.data.outcomes import with_outcomes
    from mil.data.table import training_rows
    from mil.errors import CohortError

    rows, source = training_rows(options.cohort, notify), options.cohort.name
    if options.task == "survival":
        rows = with_outcomes(rows, options.time, options.event, source=source)
    for name in options.clinical:
        if name not in rows[0].other:
            there = ", ".join(rows[0].other) or "none"
            raise UsageError(f"No column {name!r} in {source}; it has {there}.")
    first: dict[str, Row] = {}
    for row in rows:
        known = first.setdefault(row.case, row)
        for name in options.clinical:
            if known.other[name] != row.other[name]:
                raise CohortError(
                    f"{source}: slides of case {row.case!r} differ in {name!r}. Mend the table."
                )
    if lacking := [name for name, row in first.items() if not row.label]:
        complain(f"Left out, without an outcome: {', '.join(lacking)}.")
    return [row for _, row in sorted(first.items()) if row.label]


def _truth(options: NomogramOptions, rows: "Sequence[Row]") -> "tuple[Truth, str]":
    """What the regression is fitted to, and its name."""
    import numpy as np

    from mil.data.outcomes import EVENT, Outcomes

    if options.task == "survival":
        time = np.array([row.time for row in rows], dtype=np.float64)
        event = np.array([row.label == EVENT for row in rows])
        return Outcomes(time, event), f"the event until {options.horizon:g} {_unit(options)}"
    classes = sorted({row.label for row in rows})
    positive = options.positive or (classes[1] if len(classes) == 2 else None)
    if positive not in classes:
        raise UsageError(f"Name one of {', '.join(classes)} with --positive; got {positive!r}.")
    return np.array([row.label == positive for row in rows]), str(positive)


def _unit(options: NomogramOptions) -> str:
    from mil.runs.run import open_run

    if options.time_unit:
        return options.time_unit
    if not options.run:
        return "days"
    return str(open_run(options.run).task.to_settings().get("time_unit", "days"))


def _tell_of_labels(options: NomogramOptions, rows: "Sequence[Row]", what: str) -> None:
    """Warn of columns that nobody has who does not know the outcome."""
    from cli.console import complain
    from mil.baselines.encoding import revealing_columns

    if options.task == "diagnosis":  # what is told apart is one class and the rest
        rows = [replace(row, label=str(row.label == what)) for row in rows]
    for name in revealing_columns(rows, options.clinical):
        complain(
            f"Column {name} is the outcome in other words: who fills it in knows it already. Leave it out of "
            "--clinical."
        )


def _scores(options: NomogramOptions, rows: "Sequence[Row]", positive: str) -> list[str]:
    """Per case, the log odds of the class or the risk, by models of the run that have not seen it."""
    import numpy as np
    from scipy.special import logit

    from mil.errors import RunError
    from mil.evaluation.classification.predictions import ClassPredictions
    from mil.evaluation.survival.predictions import RiskPredictions
    from mil.runs.run import open_run

    assert options.run
    assert options.model
    run = open_run(options.run)
    run.require_finished()
    if run.task.name != options.task:
        raise UsageError(f"{run.path} is a run of {run.task.name}, not of {options.task}.")
    if options.task == "survival":
        risks = RiskPredictions.expect(run.predictions()).mean_risks(options.model)
        scores = dict(zip(risks.case, risks.risk, strict=True))
    else:
        table = ClassPredictions.expect(run.predictions())
        if positive not in table.classes:
            raise RunError(f"{run.path} has no class {positive!r}.")
        repeats = [table.case_scores(options.model, repeat) for repeat in table.repeats]
        p = np.mean([scored.p[:, table.classes.index(positive)] for scored in repeats], axis=0)
        scores = dict(zip(repeats[0].case, logit(np.clip(p, 1e-6, 1 - 1e-6)), strict=True))
    if missing := [row.case for row in rows if row.case not in scores]:
        raise RunError(
            f"{run.path} has not predicted {', '.join(missing[:5])}. Run it on this table."
        )
    return [f"{scores[row.case]:.{DECIMALS}f}" for row in rows]
