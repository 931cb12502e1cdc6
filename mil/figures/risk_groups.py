"""Kaplan-Meier curves of the risk groups of a model: a figure with the numbers at risk, and a table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from features.files.tables import write_table
from mil.evaluation.arrays import Bools, Floats, Ints
from mil.evaluation.display import state_p
from mil.evaluation.survival.evaluate import CAVEAT
from mil.evaluation.survival.metrics import Curve, kaplan_meier, log_rank, number_at_risk
from mil.evaluation.survival.predictions import RiskPredictions
from mil.figures.saving import save_figure

COLOURS = ("#0b6e8a", "#b3261e", "#7a5195", "#5b6770", "#ef8a17")
RISKS = ("low risk", "high risk")


@dataclass(frozen=True, eq=False)
class GroupCurve:
    """The cases of one group: their curve, and who is still observed when.

    Attributes:
        name: to be shown.
        time: (n,) of its cases.
        event: (n,)
        curve: the Kaplan-Meier estimate.
    """

    name: str
    time: Floats
    event: Bools
    curve: Curve


def groups_of(
    time: Floats, event: Bools, group: Ints, names: Sequence[str]
) -> tuple[GroupCurve, ...]:
    """The groups that have a case; ``group`` (n,) indexes ``names``."""
    return tuple(
        GroupCurve(
            name,
            time[group == i],
            event[group == i],
            kaplan_meier(time[group == i], event[group == i]),
        )
        for i, name in enumerate(names)
        if (group == i).any()
    )


def draw_groups(groups: Sequence[GroupCurve], title: str, unit: str) -> Figure:
    """Curves with their limits and a tick for each censored case; below, the numbers at risk."""
    figure = Figure(figsize=(6.4, 4.2 + 0.28 * len(groups)), layout="constrained")
    axes, below = figure.subplots(2, 1, height_ratios=[1, 0.08 + 0.08 * len(groups)], sharex=True)
    end = max(float(group.time.max()) for group in groups)
    for colour, group in zip(COLOURS, groups, strict=False):
        _draw_curve(axes, group, colour)
    axes.set_ylim(0, 1.02)
    axes.set_xlim(0, end * 1.02 or 1.0)
    axes.set_ylabel("without event")
    axes.set_title(title, loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=9)
    ticks = [t for t in axes.get_xticks() if 0 <= t <= end]
    for row, group in enumerate(groups):
        for t, count in zip(ticks, number_at_risk(group.time, np.array(ticks)), strict=True):
            below.text(t, -row, str(count), ha="center", va="center", fontsize=9)
    below.set_yticks([-row for row in range(len(groups))], [group.name for group in groups])
    below.set_ylim(-len(groups) + 0.5, 0.5)
    below.set_title("still observed", loc="left", fontsize=9)
    below.tick_params(length=0)
    below.tick_params(axis="y", pad=14)
    below.set_xlabel(f"time in {unit}")
    for side in (axes, below):
        side.spines[["top", "right"]].set_visible(False)
    below.spines["left"].set_visible(False)
    return figure


def write_groups(path: Path, groups: Sequence[GroupCurve]) -> None:
    """One row per group and time at which a case had its event or was last seen."""
    header = ["group", "time", "at_risk", "events", "censored", "survival", "low", "high"]
    write_table(path, header, (row for group in groups for row in _group_rows(group)))


def _group_rows(group: GroupCurve) -> Iterator[list[object]]:
    curve = group.curve
    at_risk = number_at_risk(group.time, curve.time)
    for time, observed, censored, *shares in zip(
        curve.time, at_risk, curve.censored, curve.survival, curve.low, curve.high, strict=True
    ):
        events = int(((group.time == time) & group.event).sum())
        shown = ["" if np.isnan(share) else f"{share:.6g}" for share in shares]
        yield [group.name, f"{time:g}", int(observed), events, int(censored), *shown]


def risk_groups(predictions: RiskPredictions, model: str) -> tuple[GroupCurve, ...]:
    """The cases above and below the median training risk; one group where all risks are equal."""
    risks = predictions.mean_risks(model)
    return groups_of(risks.time, risks.event, (risks.risk > 0).astype(np.int64), RISKS)


def write_survival_figures(folder: Path, predictions: RiskPredictions, unit: str) -> list[Path]:
    """Kaplan-Meier curves of the risk groups of each model, as PNG, SVG and CSV; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for model in predictions.models:
        risks = predictions.mean_risks(model)
        groups = risk_groups(predictions, model)
        write_groups(folder / f"{model}.csv", groups)
        test = log_rank(risks.time, risks.event, (risks.risk > 0).astype(np.int64))
        result = f"log-rank {state_p(test.p)},\n{CAVEAT}" if test else "one group only"
        figure = draw_groups(groups, f"{model}, split at the training median: {result}", unit)
        paths += [folder / f"{model}.csv", *save_figure(figure, folder / model)]
    return paths


def _draw_curve(axes: Any, group: GroupCurve, colour: str) -> None:
    curve = group.curve
    last = float(group.time.max())
    time = np.concatenate([[0.0], curve.time, [last]])
    share, low, high = (
        np.concatenate([[1.0], values, values[-1:]])
        for values in (curve.survival, curve.low, curve.high)
    )
    label = f"{group.name}: {int(group.event.sum())} events in {len(group.time)}"
    axes.step(time, share, where="post", color=colour, label=label)
    axes.fill_between(time, low, high, step="post", color=colour, alpha=0.15, linewidth=0)
    ends = curve.censored > 0
    axes.plot(curve.time[ends], curve.survival[ends], "|", color=colour, markersize=7)
