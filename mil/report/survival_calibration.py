"""Predicted against observed survival as files for a paper: PNG, SVG and CSV."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from matplotlib.figure import Figure

from mil.evaluation.survival.calibration import HorizonCalibration, SurvivalCalibration
from mil.figures.saving import ACCENT, INK, plain_text, save_figure, write_rows


def write_calibration_figure(
    folder: Path, models: Mapping[str, SurvivalCalibration], lead: str, unit: str
) -> list[Path]:
    """Draw the calibration of one model, and write that of all; returns the paths.

    Args:
        folder: for ``calibration.csv``, ``.png`` and ``.svg``.
        models: by name.
        lead: the model to draw.
        unit: of time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(
        folder / "calibration.csv",
        [
            {"model": model, "horizon": at.horizon, **asdict(group)}
            for model, calibration in models.items()
            for at in calibration.horizons
            for group in at.groups
        ],
    )
    figure = draw_calibration(models[lead].horizons, lead, unit)
    return [folder / "calibration.csv", *save_figure(figure, folder / "calibration")]


def draw_calibration(horizons: tuple[HorizonCalibration, ...], model: str, unit: str) -> Figure:
    """A panel for each horizon: groups of cases with their limits and numbers, and the diagonal."""
    figure = Figure(figsize=(3.2 * len(horizons), 3.6), layout="constrained")
    panels = figure.subplots(1, len(horizons), sharey=True, squeeze=False)[0]
    for axes, at in zip(panels, horizons, strict=True):
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
        for group in at.groups:
            if group.observed is None or group.low is None or group.high is None:
                continue
            axes.plot([group.predicted] * 2, [group.low, group.high], color=ACCENT, linewidth=1.5)
            axes.plot([group.predicted], [group.observed], "o", color=ACCENT, markersize=5)
            axes.annotate(
                f"  {group.n}",
                (group.predicted, group.observed),
                color=INK,
                fontsize=8,
                va="center",
            )
        axes.set(xlim=(-0.03, 1.08), ylim=(-0.03, 1.03), aspect="equal")
        axes.set_xlabel("predicted survival")
        axes.set_title(f"until {at.horizon:.4g} {plain_text(unit)}", loc="left", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("observed survival")
    figure.suptitle(f"{plain_text(model)}; numbers: cases", x=0.01, ha="left", fontsize=10)
    return figure
