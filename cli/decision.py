"""`mil decision`: is acting on a model better than treating all, or none?"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cli.app import app
from cli.options import UsageError, verb

if TYPE_CHECKING:
    from mil.evaluation.decision_curves import DecisionCurve
    from mil.runs.run import Run


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
    from cli.console import say
    from mil.evaluation.decision_curves import write_curves
    from mil.report.decision import draw_decisions
    from mil.report.saving import save_figure
    from mil.runs.run import open_run

    run = open_run(options.run)
    run.require_finished()
    curves, outcome = _curves(options, run)
    folder = run.path / "decision"
    folder.mkdir(exist_ok=True)
    stem = folder / "".join(c if c.isalnum() or c in "-." else "-" for c in outcome)
    write_curves(stem.with_name(f"{stem.name}.csv"), curves)
    save_figure(draw_decisions(curves, outcome), stem)
    say(f"Net benefit, {outcome}: {stem}.png, .svg and .csv")


def _curves(options: DecisionOptions, run: "Run") -> "tuple[tuple[DecisionCurve, ...], str]":
    """The curves of the run's models, and the outcome they are about."""
    import numpy as np

    from mil.evaluation import decision_curves
    from mil.evaluation.classification.predictions import ClassPredictions
    from mil.evaluation.survival.predictions import RiskPredictions

    thresholds = np.linspace(options.lowest, options.highest, 46)
    if run.task.name == "survival":
        risks = RiskPredictions.expect(run.predictions())
        time = options.horizon or float(np.median(risks.horizons))
        at = float(risks.horizons[decision_curves.nearest_horizon(risks, time)])
        curves = decision_curves.survival_decision_curves(risks, at, thresholds, seed=options.seed)
        return curves, f"event until {at:g} {risks.unit}"
    predictions = ClassPredictions.expect(run.predictions())
    positive = options.positive or _second_of_two(predictions.classes)
    curves = decision_curves.decision_curves(predictions, positive, thresholds, seed=options.seed)
    return curves, f"{positive} against the rest"


def _second_of_two(classes: tuple[str, ...]) -> str:
    if len(classes) > 2:
        raise UsageError(
            f"Of {len(classes)} classes, say which one would be acted on: --positive {classes[0]}."
        )
    return classes[1]
