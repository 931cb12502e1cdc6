"""Decision curves as a picture, and those of a run as files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mil.errors import PredictionsError
from mil.evaluation.decision_curves import (
    TREAT_ALL,
    TREAT_NONE,
    Decision,
    DecisionCurve,
    decide,
    write_curves,
)
from mil.figures.risk_groups import COLOURS
from mil.figures.saving import save_figure
from mil.runs.run import Run

N_THRESHOLDS = 46
N_INTERVALS = 5  # thresholds at which several models have their intervals
BESIDE = 0.13  # of the distance of these: from one model's interval to the next
THICKEST_PT, THINNER_PT, THINNEST_PT = 2.8, 0.45, 1.2  # of lines


@dataclass(frozen=True, kw_only=True)
class RunDecision:
    """Decision curves of a run, and where they were written.

    Attributes:
        curves: of all models, of treating all, and of treating none.
        picture: a PNG; SVG and CSV lie beside it.
    """

    curves: Decision
    picture: Path


def write_run_decision(
    run: Run,
    out: Path | None = None,
    *,
    positive: str | None = None,
    horizon: float | None = None,
    lowest: float = 0.05,
    highest: float = 0.5,
    seed: int = 0,
) -> RunDecision:
    """Write the decision curves of all models of a run, as CSV, PNG and SVG.

    Args:
        run: a finished cross-validation.
        out: the folder; ``decision`` in that of the run if not given.
        positive: the class to act on, or the lowest grade to act on; the second of two if not given.
        horizon: of survival, the time until which an event counts; the middle one if not given.
        lowest: threshold, above 0.
        highest: threshold, below 1.
        seed: of the resampled cases.

    Returns:
        The curves, and where they are.

    Raises:
        RunError: the run is not a finished cross-validation.
        PredictionsError: as ``decide``, or the thresholds do not rise from 0 to 1.
    """
    if not 0 < lowest < highest < 1:
        raise PredictionsError(
            f"Thresholds lie above 0 and below 1, and rise; got lowest={lowest:g} and highest={highest:g}."
        )
    run.require_finished()
    thresholds = np.linspace(lowest, highest, N_THRESHOLDS)
    try:
        decision = decide(
            run.predictions(), thresholds, positive=positive, horizon=horizon, seed=seed
        )
    except PredictionsError as error:
        raise PredictionsError(f"{run.path}: {error}") from error
    folder = run.path / "decision" if out is None else out
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / "".join(c if c.isalnum() or c in "-." else "-" for c in decision.title)
    write_curves(stem.with_name(f"{stem.name}.csv"), decision.curves)
    save_figure(draw_decisions(decision.curves, decision.title), stem)
    return RunDecision(curves=decision, picture=stem.with_name(f"{stem.name}.png"))


def draw_decisions(curves: Sequence[DecisionCurve], title: str) -> Figure:
    """Net benefit over the threshold, with the interval of each model; below treat-none a model does harm.

    One model has its band. Bands of several would hide each other: these have their intervals at a few
    thresholds, side by side, and lines that are thinner the later they are drawn, so that equal ones show.
    """
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    models = [curve for curve in curves if curve.name not in (TREAT_ALL, TREAT_NONE)]
    for place, curve in enumerate(models):
        colour = COLOURS[place % len(COLOURS)]
        width = max(THICKEST_PT - THINNER_PT * place, THINNEST_PT)
        axes.plot(curve.threshold, curve.benefit, color=colour, label=curve.name, linewidth=width)
        if len(models) == 1:
            band = (curve.threshold, curve.low, curve.high)
            axes.fill_between(*band, color=colour, alpha=0.12, linewidth=0)
        else:
            _draw_intervals(axes, curve, colour, place, len(models))
    for name, dashes in ((TREAT_ALL, (4, 3)), (TREAT_NONE, (1, 2))):
        curve = next(curve for curve in curves if curve.name == name)
        axes.plot(curve.threshold, curve.benefit, color="black", linestyle=(0, dashes), label=name)
    highest = max(float(curve.high.max()) for curve in curves)
    axes.set_ylim(-0.25 * highest - 0.01, highest * 1.05 + 0.01)
    axes.set_xlim(float(curves[0].threshold[0]), float(curves[0].threshold[-1]))
    axes.set_xlabel("threshold: the probability from which one would act")
    axes.set_ylabel("net benefit")
    axes.set_title(title, loc="left", fontsize=10)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_intervals(axes: Axes, curve: DecisionCurve, colour: str, place: int, n: int) -> None:
    """The intervals of one of n models at a few thresholds, beside those of the others."""
    first, last = float(curve.threshold[0]), float(curve.threshold[-1])
    step = (last - first) / N_INTERVALS
    beside = (place - (n - 1) / 2) * min(BESIDE, 0.8 / n) * step
    at = first + (np.arange(N_INTERVALS) + 0.5) * step + beside
    low, benefit, high = (
        np.interp(at, curve.threshold, values) for values in (curve.low, curve.benefit, curve.high)
    )
    axes.vlines(at, low, high, color=colour, linewidth=1.3, alpha=0.75)
    axes.scatter(at, benefit, s=14, color=colour, zorder=3)
