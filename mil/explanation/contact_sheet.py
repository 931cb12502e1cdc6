"""Contact sheets: the tiles with the highest and the lowest scores."""

import textwrap
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mil.explanation.gradcam import TileMaps
from mil.explanation.heatmap import (
    OPACITY,
    SIGNED_COLOURS,
    SIGNED_SCALE,
    SIGNED_TICKS,
    describe_unit,
)
from mil.explanation.scores import TileScores
from mil.figures.saving import png_bytes

ReadTile = Callable[[int], NDArray[np.uint8]]
N_SHOWN = 6
LINE = 125  # characters of the title that fit the width


def extreme_tiles(scores: TileScores, count: int = N_SHOWN) -> tuple[list[int], list[int]]:
    """Indices of the highest tiles, highest first, and of the lowest, lowest first; no tile is in both."""
    order = [int(index) for index in np.argsort(-scores.relative, kind="stable")]
    top = order[: min(count, (len(order) + 1) // 2)]
    return top, order[::-1][: min(count, len(order) // 2)]


def draw_contact_sheet(scores: TileScores, read: ReadTile, *, caption: str = "") -> bytes:
    """Draw the highest tiles above the lowest, with their scores; PNG.

    Args:
        scores: of one slide.
        read: returns the pixels of a tile by its index in the bag.
        caption: a line under the title.
    """
    top, bottom = extreme_tiles(scores)
    figure = _figure(2, scores, caption)
    for row, (name, tiles) in enumerate((("highest", top), ("lowest", bottom))):
        for column, index in enumerate(tiles):
            axes = figure.add_subplot(2, N_SHOWN, row * N_SHOWN + column + 1)
            _show_tile(axes, read(index), _format_score(scores, index))
            if column == 0:
                axes.set_ylabel(name, fontsize=9)
    return png_bytes(figure)


def draw_tile_maps(
    scores: TileScores,
    tiles: Sequence[int],
    read: ReadTile,
    tile_maps: TileMaps,
    *,
    method: str,
    caption: str = "",
) -> bytes:
    """Draw tiles, and below them where in each its score comes from; PNG.

    A tile's score is spread over its pixels in proportion to its map, so that their mean is the score.
    All tiles share one scale, and strong colour needs both a tile and a position in it that matter.

    Args:
        scores: of the slide; signed.
        tiles: indices of the tiles to show, at most ``N_SHOWN``.
        read: returns a tile's pixels.
        tile_maps: their maps, in the same order.
        method: the maps' name.
        caption: a line under the title.
    """
    figure = _figure(2, scores, caption)
    shown = []
    for column, (index, tile_map) in enumerate(zip(tiles, tile_maps.maps, strict=True)):
        pixels = read(index)
        top_axes = figure.add_subplot(2, N_SHOWN, column + 1)
        axes = figure.add_subplot(2, N_SHOWN, N_SHOWN + column + 1)
        _show_tile(top_axes, pixels, _format_score(scores, index))
        if tile_map.any():
            spread = spread_score(float(scores.relative[index]), tile_map)
            colours = 255 * SIGNED_COLOURS(SIGNED_SCALE(spread))[..., :3]
            _show_tile(axes, (OPACITY * colours + (1 - OPACITY) * pixels).astype(np.uint8), "")
        else:
            _show_tile(axes, pixels, "no position agrees")
        if column == 0:
            top_axes.set_ylabel("highest", fontsize=9)
            axes.set_ylabel(f"where ({method})", fontsize=9)
        shown.append(axes)
    bar = figure.colorbar(
        ScalarMappable(SIGNED_SCALE, SIGNED_COLOURS), ax=shown, alpha=OPACITY, extend="both",
        orientation="horizontal", aspect=60, ticks=list(SIGNED_TICKS),
    )  # fmt: skip
    bar.ax.set_xticklabels(list(SIGNED_TICKS.values()), fontsize=7)
    bar.ax.minorticks_off()
    bar.set_label(
        f"{describe_unit(scores)}, spread over the {scores.part}", fontsize=8, parse_math=False
    )
    return png_bytes(figure)


def spread_score(score: float, tile_map: NDArray[np.float64]) -> NDArray[np.float64]:
    """A tile's score over its pixels (H, W), in proportion to a map that is not all zero."""
    return score * tile_map / float(tile_map.mean())


def _figure(rows: int, scores: TileScores, caption: str) -> Figure:
    figure = Figure(figsize=(1.5 * N_SHOWN, 1.75 * rows + 0.9), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    label = f"{scores.method} for {scores.target}" if scores.target else scores.method
    title = f"{scores.bag.slide}: {label}, of {scores.model}\n{caption}".strip()
    figure.suptitle(
        "\n".join(textwrap.fill(line, LINE) for line in title.splitlines()),
        fontsize=9, x=0.01, ha="left", parse_math=False,
    )  # fmt: skip
    return figure


def _show_tile(axes: Axes, pixels: NDArray[np.uint8], title: str) -> None:
    axes.imshow(pixels)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=8)


def _format_score(scores: TileScores, index: int) -> str:
    value = scores.relative[index]
    return f"{value:+.3g}" if scores.target else f"{value:.3g} x uniform"
