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
        metadata={"help": "The class that one would act on; needed where there are more than two."},
    )
    horizon: float | None = field(
        default=None,
        metadata={
            "help": "Of survival: the time until which the event counts; the middle one if not given."
        },
    )
    lowest: float = field(
        default=0.05,
        metadata={"help": "The lowest probability from which anybody would act; ask clinicians."},
    )
    highest: float = field(
        default=0.5, metadata={"help": "The highest from which anybody would still hesitate."}
    )
    seed: int = field(default=0, metadata={"help": "Of the cases drawn for the bands."})

    def __post_init__(self) -> None:
        if not 0 < self.lowest < self.highest < 1:
            raise UsageError(
                f"--lowest {self.lowest} and --highest {self.highest}: thresholds lie above 0 and below 1, "
                "and rise."
            )


@verb(app, DecisionOptions, examples=["mil decision run --positive LMS"])
def decision(options: DecisionOptions) -> None:
    """Draw the net benefit of acting on each model's probabilities, beside treating all and none."""
    import numpy as np

    from cli.console import say
    from mil.evaluation.classification.predictions import ClassPredictions
    from mil.evaluation.decision_curves import (
        decision_curves,
        nearest_horizon,
        survival_decision_curves,
        write_curves,
    )
    from mil.evaluation.survival.predictions import RiskPredictions
    from mil.report.decision import draw_decisions
    from mil.report.saving import save_figure
    from mil.runs.run import open_run

    run = open_run(options.run)
    run.require_finished()
    thresholds = np.linspace(options.lowest, options.highest, 46)
    if run.task.name == "survival":
        risks = RiskPredictions.expect(run.predictions())
        asked = options.horizon or float(np.median(risks.horizons))
        at = float(risks.horizons[nearest_horizon(risks, asked)])
        curves = survival_decision_curves(risks, at, thresholds, seed=options.seed)
        what = f"event until {at:g} {risks.unit}"
    else:
        predictions = ClassPredictions.expect(run.predictions())
        positive = options.positive or _second_of_two(predictions.classes)
        curves = decision_curves(predictions, positive, thresholds, seed=options.seed)
        what = f"{positive} against the rest"
    folder = run.path / "decision"
    folder.mkdir(exist_ok=True)
    stem = folder / "".join(c if c.isalnum() or c in "-." else "-" for c in what)
    write_curves(stem.with_name(f"{stem.name}.csv"), curves)
    save_figure(draw_decisions(curves, what), stem)
    say(f"Net benefit, {what}: {stem}.png, .svg and .csv")


def _second_of_two(classes: tuple[str, ...]) -> str:
    if len(classes) > 2:
        raise UsageError(
            f"Of {len(classes)} classes, say which one would be acted on: --positive {classes[0]}."
        )
    return classes[1]
