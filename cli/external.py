"""`mil external`: one model of a run on cases that none of its fits has seen."""

from dataclasses import dataclass, field
from pathlib import Path

from cli.app import app
from cli.options import UsageError, verb, writable


@dataclass(frozen=True, kw_only=True)
class ExternalOptions:
    """Settings of `mil external`."""

    run: Path = field(metadata={"argument": "RUN", "help": "A finished `mil crossval`."})
    cohort: Path = field(
        metadata={
            "argument": "COHORT.csv",
            "help": "Table with case, slide and label; of one with a column split, the rows that say test.",
        }
    )
    store: Path = field(metadata={"argument": "STORE", "help": "The bag store of its slides."})
    model: str = field(
        metadata={
            "help": "The one model of the run to read them with, chosen by its cross-validation."
        }
    )
    name: str | None = field(
        default=None,
        metadata={"help": "Of the folder in RUN/external; that of the table if not given."},
    )
    allow_missing: bool = field(
        default=False, metadata={"help": "Go on without slides that lack a bag or a label."}
    )

    def __post_init__(self) -> None:
        if "," in self.model:
            raise UsageError(
                f"--model {self.model}: external cases are read by one model. The best of several on them "
                "is chosen by them, and its score is no longer what unseen cases will give. Choose by the "
                "cross-validation, then name that one."
            )
        if self.name is not None and Path(self.name).name != self.name:
            raise UsageError(f"--name {self.name}: a name, not a path. Use letters and digits.")


@verb(
    app,
    ExternalOptions,
    examples=[
        "mil crossval split.csv store --models majority,mean --epochs 5 --seeds 1 --folds 4 --out developed",
        "mil external developed split.csv store --model mean",
    ],
)
def external(options: ExternalOptions) -> None:
    """Read external cases once, with the ensemble of all fits of one model: their mean logits, then softmax.

    The cases are rows with split=test, which `mil crossval` leaves alone, or those of a table of their own.
    Each reading is logged beside the table, in STORE and in RUN; a second model on these cases is refused.
    """
    from cli.console import complain, counted, say
    from cli.learn import show_evaluation
    from mil.data.cohort import assemble, read_table, split_train_test
    from mil.evaluation.classification.evaluate import evaluate
    from mil.evaluation.predictions import write_predictions
    from mil.runs.external import (
        check_first,
        check_unseen,
        earlier,
        log_reading,
        logs_of,
        predict_together,
        reading_of,
    )
    from mil.runs.files import write_json
    from mil.runs.run import open_run

    run = open_run(options.run)
    out = writable(run.path / "external" / (options.name or options.cohort.stem))
    members = run.ensemble(options.model)
    rest, held = split_train_test(read_table(options.cohort))
    cohort = assemble(
        held or rest, options.store, allow_missing=options.allow_missing, source=options.cohort.name
    )
    for what, reason in cohort.excluded:
        complain(f"Left out: {what}: {reason}")
    check_unseen(run, members, cohort)
    reading = reading_of(run, options.model, options.cohort, cohort)
    logs = logs_of(options.cohort, options.store, run.path)
    before = earlier(logs, reading)
    check_first(before, reading)
    predictions = predict_together(members, cohort)  # knows no label: nothing has been read yet
    out.mkdir(parents=True, exist_ok=True)
    log_reading(logs, reading)
    write_predictions(out / "predictions.csv", predictions)
    evaluation = evaluate(predictions)
    facts = {"members": len(members), "table_sha256": reading.table_sha256, "read": reading.date}
    write_json(out / "metrics.json", evaluation.to_json() | facts)
    say(
        f"{options.model}, the mean of {counted(len(members), 'fit')}, on cases none of them has seen."
    )
    if before:
        say(
            f"Read before by the same model, {counted(len(before), 'time')}, first on {before[0].date}."
        )
    show_evaluation(evaluation)
    say(f"Predictions: {out / 'predictions.csv'}. Logged: {', '.join(map(str, logs))}")
