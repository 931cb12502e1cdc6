"""`mil decision`: is acting on a model better than treating all, or none?"""

from dataclasses import dataclass, field
from pathlib import Path

from cli.app import app
from cli.options import UsageError, verb


@dataclass(frozen=True, kw_only=True)
class DecisionOptions:
    """Settings of `mil decision`."""

    run: Path = field(metadata={"argument": "RUN", "help": "The run folder of `mil crossval`."})
    positive: str | None = field(
        default=None,
        metadata={
            "help": "The class that one would act on, or the lowest grade; needed where there are more than "
            "two."
        },
    )
    horizon: float | None = field(
        default=None,
        metadata={
            "help": "Survival: the time until which the event counts; the middle one if not given."
        },
    )
    lowest: float = field(
        default=0.05,
        metadata={"help": "The lowest probability at which anybody would act; ask clinicians."},
    )
    highest: float = field(
        default=0.5,
        metadata={"help": "The highest at which anybody would still wait."},
    )
    seed: int = field(default=0, metadata={"help": "Seed of the resampled cases for the bands."})

    def __post_init__(self) -> None:
        if not 0 < self.lowest < self.highest < 1:
            raise UsageError(
                f"--lowest {self.lowest} and --highest {self.highest}: thresholds lie above 0 and below 1, "
                "and rise."
            )


@verb(app, DecisionOptions, examples=["mil decision run --positive LMS"])
def decision(options: DecisionOptions) -> None:
    """Draw the net benefit of acting on each model's probabilities, beside treating all and none."""
    from cli.console import say
    from mil.report.decision import write_run_decision
    from mil.runs.run import open_run

    decision, stem = write_run_decision(
        open_run(options.run),
        positive=options.positive,
        horizon=options.horizon,
        lowest=options.lowest,
        highest=options.highest,
        seed=options.seed,
    )
    say(f"Net benefit, {decision.title}: {stem}.png, .svg and .csv")
