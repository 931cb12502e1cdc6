"""`mil decision`: is acting on a model better than treating all, or none?"""

from dataclasses import dataclass, field
from pathlib import Path

from cli.app import app
from cli.options import UsageError, verb, writable, writable_run
from cli.runs import MOVED_COHORT, MOVED_STORE


@dataclass(frozen=True, kw_only=True)
class DecisionOptions:
    """Settings of `mil decision`."""

    run: Path = field(metadata={"argument": "RUN", "help": "The run folder of `mil crossval`."})
    positive: str | None = field(
        default=None,
        metadata={
            "help": "The class to treat, or the lowest grade to treat; required if there are more than two."
        },
    )
    horizon: float | None = field(
        default=None,
        metadata={
            "help": "For survival: judge the predicted probability of the event up to this time; the middle "
            "one of the predicted times if not given."
        },
    )
    lowest: float = field(
        default=0.05,
        metadata={
            "help": "Lowest threshold probability of the curve: at a lower risk, nobody would treat."
        },
    )
    highest: float = field(
        default=0.5,
        metadata={
            "help": "Highest threshold probability of the curve: at a higher risk, everybody would treat."
        },
    )
    seed: int = field(
        default=0, metadata={"help": "Seed of the bootstrap samples behind the confidence bands."}
    )
    out: Path | None = field(
        default=None,
        metadata={"help": "Folder for the curves as CSV, PNG and SVG; RUN/decision if not given."},
    )
    store: Path | None = field(default=None, metadata=MOVED_STORE)
    cohort: Path | None = field(default=None, metadata=MOVED_COHORT)

    def __post_init__(self) -> None:
        if not 0 < self.lowest < self.highest < 1:
            raise UsageError(
                f"--lowest {self.lowest} and --highest {self.highest}: thresholds lie above 0 and below 1, "
                "and rise."
            )


@verb(app, DecisionOptions, examples=["mil decision run --positive LMS"])
def decision(options: DecisionOptions) -> None:
    """Draw decision curves: the net benefit of treating by each model, compared with treating all or none."""
    from cli.console import say
    from mil.api.run import open_run

    if options.out is None:
        writable_run(options.run, "decision")
    else:
        writable(options.out)
    run = open_run(options.run, store=options.store, cohort=options.cohort)
    decision = run.decision_curves(
        positive=options.positive,
        horizon=options.horizon,
        lowest=options.lowest,
        highest=options.highest,
        seed=options.seed,
        out=options.out,
    )
    say(f"Net benefit, {decision.curves.title}: {decision.picture}, .svg and .csv")
