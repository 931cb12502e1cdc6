"""A ladder of scales as a figure and a table."""

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from features.files.atomic import write_atomic
from mil.figures.saving import ACCENT, INK, png_bytes, write_rows
from mil.runs.files import write_json
from mil.scales.ladder import Ladder


def draw_ladder(ladder: Ladder) -> Figure:
    """Two panels over the scale: the measure with its interval, and the seconds that a slide takes."""
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    mpp = [rung.mpp for rung in ladder.rungs]
    side = ladder.sides  # empty where all tiles have one
    labels = [r.magnification + (f"\n{r.tile_px} px" if side else "") for r in ladder.rungs]
    for rung in ladder.rungs:
        estimate = rung.accuracy
        if estimate.low is not None and estimate.high is not None:
            left.plot([rung.mpp] * 2, [estimate.low, estimate.high], color=ACCENT, linewidth=1.5)
    left.plot(mpp, [rung.accuracy.value for rung in ladder.rungs], "o", color=ACCENT)
    left.set_ylim(0, 1.02)
    left.set_title(f"{ladder.label}, 95 % interval", loc="left", fontsize=9)
    right.plot(mpp, [rung.seconds_per_slide for rung in ladder.rungs], "o-", color=INK)
    right.set_ylim(bottom=0)
    right.set_title("seconds a slide", loc="left", fontsize=9)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(mpp, labels, fontsize=8)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"{ladder.model}, {ladder.n_cases} cases, the same folds at every scale",
        fontsize=9, x=0.01, ha="left",
    )  # fmt: skip
    return figure


def write_ladder(ladder: Ladder) -> None:
    """Write ladder.csv, ladder.json and ladder.png into the ladder's folder."""
    write_rows(ladder.path / "ladder.csv", ladder.rows())
    notes = list(ladder.table().notes)
    document = {"model": ladder.model, "cases": ladder.n_cases, "scales": ladder.rows()}
    write_json(ladder.path / "ladder.json", document | {"notes": notes})
    write_atomic(ladder.path / "ladder.png", png_bytes(draw_ladder(ladder)))
