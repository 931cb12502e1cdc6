"""A map with its faithfulness beside it: nobody sees one without the other."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from mil.explanation.faithfulness import Faithfulness
from mil.explanation.heatmap import overlay, show_heatmap
from mil.explanation.scores import TileScores
from mil.figures.saving import DPI, png_bytes

MAP_PX = 780  # width of the map at DPI
MAP_COLOUR, CHANCE_COLOUR, ALERT_COLOUR = "#1b5e9c", "#9a9a9a", "#b00020"


def draw_explanation(
    scores: TileScores,
    faithfulness: Faithfulness,
    *,
    caption: str = "",
    answer_label: str = "",
    limits: tuple[float, float] | None = (0, 1),
    guessing: str = "",
    warnings: Sequence[str] = (),
    picture: Image.Image | None = None,
) -> bytes:
    """Draw the map with its colour bar, its two curves among random orders, and the verdict.

    Args:
        scores: of one slide.
        faithfulness: of these scores.
        caption: a line under the title.
        answer_label: what the curves show, e.g. the probability of a class.
        limits: of the curves' axis; fitted to the curves if None.
        guessing: a sentence before the verdict, for a model that may be guessing.
        warnings: sentences printed below, one a line.
        picture: of the whole slide, shown in full; the bag's thumbnail if not given.

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
    curves, random = faithfulness.curves, faithfulness.random
    percent = 100 * curves.shares
    for row, name, answers, random_answers, area in (
        (0, "removed", curves.deletion[0], random.deletion, curves.deletion_area[0]),
        (1, "inserted", curves.insertion[0], random.insertion, curves.insertion_area[0]),
    ):
        axes = figure.add_subplot(grid[row, 1])
        low, high = np.quantile(random_answers, [0.05, 0.95], axis=0)
        axes.fill_between(
            percent, low, high, color=CHANCE_COLOUR, alpha=0.35, lw=0, label="9 in 10 random orders"
        )
        axes.plot(percent, random_answers.mean(axis=0), color=CHANCE_COLOUR, lw=1)
        axes.plot(percent, answers, color=MAP_COLOUR, lw=1.6, label=f"this map, area {area:.2f}")
        _label_axes(axes, f"{scores.part}s {name}", answer_label, limits)
    sentences = [*filter(None, [guessing]), f"{faithfulness.verdict}.", *warnings]
    alert = not faithfulness.better_than_random or len(sentences) > 1
    figure.supxlabel(
        "\n".join(sentences),
        fontsize=8, color=ALERT_COLOUR if alert else "black", parse_math=False, x=0.01, ha="left",
    )  # fmt: skip
    return png_bytes(figure, dpi=DPI * max(1.0, canvas.shape[1] / MAP_PX))


def _label_axes(
    axes: Axes, changed: str, answer_label: str, limits: tuple[float, float] | None
) -> None:
    axes.set_xlim(0, 100)
    if limits is not None:
        axes.set_ylim(*limits)
    axes.set_xlabel(f"% of {changed}, highest first", fontsize=8)
    axes.set_ylabel(answer_label, fontsize=8, parse_math=False)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False, loc="best")
