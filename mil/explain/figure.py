"""A map and, beside it, how true it is: nobody sees the one without the other."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from mil.explain.faithfulness import Faithfulness
from mil.explain.heatmap import overlay, show_heatmap
from mil.explain.scores import TileScores

TRUE_TO = "To the model itself:"  # before the verdict, where the model is told to guess
MAP_PX = 780  # width of the map at 150 dots per inch
MAP, CHANCE, LOUD = "#1b5e9c", "#9a9a9a", "#b00020"


def draw_explanation(
    scores: TileScores,
    faithfulness: Faithfulness,
    *,
    caption: str = "",
    class_name: str = "",
    guessing: str = "",
    warnings: Sequence[str] = (),
    picture: Image.Image | None = None,
) -> bytes:
    """Draw the map with its colour bar, its two curves among random orders, and the verdict.

    Args:
        scores: of one slide.
        faithfulness: of these scores.
        caption: a line under the title.
        class_name: the class whose probability the curves show.
        guessing: a sentence that comes before the verdict, where the model may as well have guessed.
        warnings: sentences printed below, each on a line.
        picture: of the whole slide, to be seen in full; the bag's thumbnail if not given.

    Returns:
        A PNG file's bytes.
    """
    canvas = overlay(scores, picture)
    tall = min(2.0, max(0.8, canvas.shape[0] / canvas.shape[1]))
    figure = Figure(
        figsize=(9.6, 5.6 * tall + 0.5 + 0.2 * (len(warnings) + bool(guessing))), dpi=150
    )
    figure.set_layout_engine("constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2, width_ratios=[2, 1])
    show_heatmap(figure.add_subplot(grid[:, 0]), canvas, scores, caption)
    found, chance = faithfulness.curves, faithfulness.random
    percent = 100 * found.shares
    for row, name, own, drawn, area in (
        (0, "taken away", found.deletion[0], chance.deletion, found.deletion_area[0]),
        (1, "put in", found.insertion[0], chance.insertion, found.insertion_area[0]),
    ):
        axes = figure.add_subplot(grid[row, 1])
        low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
        axes.fill_between(
            percent, low, high, color=CHANCE, alpha=0.35, lw=0, label="9 in 10 random orders"
        )
        axes.plot(percent, drawn.mean(axis=0), color=CHANCE, lw=1)
        axes.plot(percent, own, color=MAP, lw=1.6, label=f"this map, area {area:.2f}")
        _dress(axes, name, class_name)
    verdict = f"{TRUE_TO} {faithfulness.verdict}." if guessing else f"{faithfulness.verdict}."
    told = [*filter(None, [guessing]), verdict, *warnings]
    loud = not faithfulness.better_than_random or len(told) > 1
    figure.supxlabel(
        "\n".join(told),
        fontsize=8, color=LOUD if loud else "black", parse_math=False, x=0.01, ha="left",
    )  # fmt: skip
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150 * max(1.0, canvas.shape[1] / MAP_PX))
    return buffer.getvalue()


def _dress(axes: Axes, name: str, class_name: str) -> None:
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 1)
    axes.set_xlabel(f"% of tiles {name}, highest first", fontsize=8)
    axes.set_ylabel(f"probability of {class_name}", fontsize=8, parse_math=False)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False, loc="best")
