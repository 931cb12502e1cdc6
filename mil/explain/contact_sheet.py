"""The tiles themselves: those that speak most for and most against, with their scores."""

import io
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mil.explain.gradcam import TileMaps
from mil.explain.heatmap import OPACITY, SIGNED_COLOURS, SIGNED_SCALE, SIGNED_TICKS, unit_of
from mil.explain.scores import TileScores

Read = Callable[[int], NDArray[np.uint8]]
N_SHOWN = 6


def ends_of(scores: TileScores, count: int = N_SHOWN) -> tuple[list[int], list[int]]:
    """The highest tiles, from the top, and the lowest, from the bottom; none is in both."""
    order = [int(index) for index in np.argsort(-scores.relative, kind="stable")]
    top = order[: min(count, (len(order) + 1) // 2)]
    return top, order[::-1][: min(count, len(order) // 2)]


def draw_contact(scores: TileScores, read: Read, *, caption: str = "") -> bytes:
    """Two rows of tiles, the highest and the lowest, each with its score; PNG.

    Args:
        scores: of one slide.
        read: gives the pixels of a tile by its number in the bag.
        caption: a line under the title.
    """
    top, bottom = ends_of(scores)
    figure = _figure(2, scores, caption)
    for row, (name, tiles) in enumerate((("highest", top), ("lowest", bottom))):
        for column, index in enumerate(tiles):
            axes = figure.add_subplot(2, N_SHOWN, row * N_SHOWN + column + 1)
            _show(axes, read(index), _score(scores, index))
            if column == 0:
                axes.set_ylabel(name, fontsize=9)
    return _png(figure)


def draw_tile_maps(
    scores: TileScores,
    tiles: Sequence[int],
    read: Read,
    found: TileMaps,
    *,
    method: str,
    caption: str = "",
) -> bytes:
    """Tiles, and below each where in it its score comes from; PNG.

    A tile's score is spread over its pixels in the proportion of its map, so that their mean is the
    score: all tiles share one scale, and strong colour needs both a tile and a place in it that count.

    Args:
        scores: of the slide; signed.
        tiles: numbers of those that are shown, at most ``N_SHOWN``.
        read: gives a tile's pixels.
        found: their maps, in the same order.
        method: the maps' name.
        caption: a line under the title.
    """
    figure = _figure(2, scores, caption)
    shown = []
    for column, (index, inside) in enumerate(zip(tiles, found.maps, strict=True)):
        pixels = read(index)
        whole = figure.add_subplot(2, N_SHOWN, column + 1)
        axes = figure.add_subplot(2, N_SHOWN, N_SHOWN + column + 1)
        _show(whole, pixels, _score(scores, index))
        if inside.any():
            spread = spread_over(float(scores.relative[index]), inside)
            colours = 255 * SIGNED_COLOURS(SIGNED_SCALE(spread))[..., :3]
            _show(axes, (OPACITY * colours + (1 - OPACITY) * pixels).astype(np.uint8), "")
        else:
            _show(axes, pixels, "no place speaks so")
        if column == 0:
            whole.set_ylabel("highest", fontsize=9)
            axes.set_ylabel(f"where ({method})", fontsize=9)
        shown.append(axes)
    bar = figure.colorbar(
        ScalarMappable(SIGNED_SCALE, SIGNED_COLOURS), ax=shown, alpha=OPACITY, extend="both",
        orientation="horizontal", aspect=60, ticks=list(SIGNED_TICKS),
    )  # fmt: skip
    bar.ax.set_xticklabels(list(SIGNED_TICKS.values()), fontsize=7)
    bar.ax.minorticks_off()
    bar.set_label(f"{unit_of(scores)}, spread over its places", fontsize=8, parse_math=False)
    return _png(figure)


def spread_over(score: float, inside: NDArray[np.float64]) -> NDArray[np.float64]:
    """A tile's score over its pixels (H, W) in the proportion of a map that is not zero throughout."""
    return score * inside / float(inside.mean())


def _figure(rows: int, scores: TileScores, caption: str) -> Figure:
    figure = Figure(figsize=(1.5 * N_SHOWN, 1.75 * rows + 0.9), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    what = f"{scores.method} for {scores.target}" if scores.target else scores.method
    figure.suptitle(
        f"{scores.bag.slide}: {what}, of {scores.model}\n{caption}".strip(),
        fontsize=9, x=0.01, ha="left", parse_math=False,
    )  # fmt: skip
    return figure


def _show(axes: Axes, pixels: NDArray[np.uint8], title: str) -> None:
    axes.imshow(pixels)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=8)


def _score(scores: TileScores, index: int) -> str:
    value = scores.relative[index]
    return f"{value:+.3g}" if scores.target else f"{value:.3g} x uniform"


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
