"""Tile scores drawn over the slide, on one absolute scale for all slides."""

import io
from collections.abc import Sequence
from functools import cache

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LogNorm, Normalize, SymLogNorm, to_hex
from numpy.typing import NDArray
from PIL import Image

from mil.explanation.scores import TileScores

# Attention relative to a uniform share. The same limits for every slide and model: stretched to each
# slide's own range, a flat map would show hot spots that are not there.
SCALE = LogNorm(1 / 16, 16, clip=True)
COLOURS = colormaps["viridis"]
TICKS = {1 / 16: "1/16", 1 / 4: "1/4", 1: "1", 4: "4", 16: "16"}
UNIT = "times a uniform share"
# In units of the slide's score, see ``TileScores.relative``: linear up to 1, logarithmic beyond.
SIGNED_SCALE = SymLogNorm(1.0, vmin=-64, vmax=64, clip=True)
SIGNED_COLOURS = colormaps["coolwarm"]
SIGNED_TICKS = {x: f"{x:+g}" if x else "0" for x in (-64, -16, -4, -1, 0, 1, 4, 16, 64)}
OPACITY = 0.6
BLANK_PX = 512  # longer side of the canvas where the bag has no thumbnail


def show_heatmap(
    axes: Axes, canvas: NDArray[np.uint8], scores: TileScores, caption: str = ""
) -> None:
    """Show the map that ``overlay`` made in axes, with title and colour bar."""
    axes.imshow(canvas)
    axes.set_axis_off()
    _show_positions(axes, canvas.shape[1], scores)
    count = f"{len(scores.values)} {scores.part}s"
    title = f"{scores.bag.slide}: {scores.method} of {scores.model}, {count}"
    axes.set_title(
        title + (f"\n{caption}" if caption else ""), fontsize=9, loc="left", parse_math=False
    )
    norm, colours = choose_scale(scores)
    ticks = SIGNED_TICKS if scores.target else TICKS
    bar = axes.get_figure(root=True).colorbar(  # type: ignore[union-attr]
        ScalarMappable(norm, colours), ax=axes, alpha=OPACITY, extend="both", shrink=0.9, pad=0.02,
        ticks=list(ticks),
    )  # fmt: skip
    bar.ax.set_yticklabels(list(ticks.values()), fontsize=8)
    bar.ax.minorticks_off()
    bar.set_label(describe_unit(scores), fontsize=8, parse_math=False)


def _show_positions(axes: Axes, width_px: int, scores: TileScores) -> None:
    """Where every slice of a volume lies in the patient, in its corner."""
    places = scores.bag.positions_mm
    if places is None:
        return
    zoom = width_px / scores.bag.size_l0[0]
    for (x, y), (_, _, z) in zip(scores.bag.coords_l0 * zoom, places, strict=True):
        axes.text(
            x + 3, y + 3, f"z {z:+.0f} mm", fontsize=5, color="white", va="top", ha="left",
            bbox={"facecolor": "black", "alpha": 0.5, "pad": 0.8, "linewidth": 0},
        )  # fmt: skip


def describe_unit(scores: TileScores) -> str:
    """Unit of the numbers beside the scale."""
    if not scores.target:
        return UNIT
    if scores.method == "single-tile":
        return f"{scores.quantity} if all {scores.part}s were like this one"
    return f"{len(scores.values)} times the {scores.part}'s share of the {scores.quantity}"


def choose_scale(scores: TileScores) -> tuple[Normalize, Colormap]:
    """A sequential scale for attention, a diverging one that is white at 0 for signed scores."""
    return (SIGNED_SCALE, SIGNED_COLOURS) if scores.target else (SCALE, COLOURS)


def draw_layers(scores: TileScores, *, side_px: int = 320) -> tuple[bytes, bytes]:
    """The slide, and the colours of its tiles to lay over it; for a page that explains the scale once.

    Args:
        scores: of one slide.
        side_px: longer side of both pictures.

    Returns:
        Two files of the same size: the slide's thumbnail without any map as a JPEG, and the opaque colours
        of the tiles on nothing as a PNG. For a bag without a thumbnail the first is a PNG that shows the
        map already, as it hides no tissue, and the second is empty.
    """
    base, painted = _paint(scores)
    covered = ~np.isnan(painted[..., 0])
    if not scores.bag.thumbnail:
        return _few_colours(Image.fromarray(_blend(base, painted)), side_px), b""
    tiles = np.dstack([np.nan_to_num(painted), 255.0 * covered]).astype(np.uint8)
    return _photograph(Image.fromarray(base), side_px), _few_colours(
        Image.fromarray(tiles, "RGBA"), side_px
    )


def _photograph(image: Image.Image, side_px: int) -> bytes:
    """A JPEG: half as large as a PNG of few colours, and made in a hundredth of the time."""
    buffer = io.BytesIO()
    image.resize(_fit(image, side_px)).save(
        buffer, "JPEG", quality=85, subsampling=0, optimize=True
    )
    return buffer.getvalue()


def _few_colours(image: Image.Image, side_px: int) -> bytes:
    small = image.resize(_fit(image, side_px), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    small.quantize(96, Image.Quantize.FASTOCTREE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _fit(image: Image.Image, side_px: int) -> tuple[int, int]:
    zoom = side_px / max(image.size)
    return max(1, round(image.width * zoom)), max(1, round(image.height * zoom))


def scale_stops(scores: TileScores) -> tuple[tuple[str, str], ...]:
    """(colour, label) at the ticks of the scores' scale, for a page with many small maps."""
    return _stops(signed=bool(scores.target))


@cache
def _stops(*, signed: bool) -> tuple[tuple[str, str], ...]:
    if signed:
        labels = {-64: "-64: speaks against", 0: "0", 64: "+64: speaks for"}
        return tuple(
            (to_hex(_on_white(SIGNED_COLOURS(SIGNED_SCALE(tick)))), labels.get(tick, label))
            for tick, label in SIGNED_TICKS.items()
        )
    return tuple(
        (
            to_hex(_on_white(COLOURS(SCALE(tick)))),
            f"{label} of uniform" if tick < 1 else f"{label} times uniform",
        )
        for tick, label in TICKS.items()
    )


def scale_bar(scores: TileScores) -> tuple[tuple[str, str], ...]:
    """(colour, label) at the ticks of the scores' scale, opaque like ``tile_colours``."""
    norm, colours = choose_scale(scores)
    ticks = SIGNED_TICKS if scores.target else TICKS
    return tuple((to_hex(colours(norm(tick))), label) for tick, label in ticks.items())


def tile_colours(scores: TileScores) -> NDArray[np.float32]:
    """(N, 3) the opaque colour of each tile, from 0 to 255."""
    norm, colormap = choose_scale(scores)
    colours = colormap(norm(scores.relative))[:, :3] * 255
    opaque: NDArray[np.float32] = colours.astype(np.float32)
    return opaque


def _on_white(colour: Sequence[float]) -> tuple[float, float, float]:
    """A colour as the transparent overlay shows it on glass."""
    red, green, blue = (OPACITY * part + 1 - OPACITY for part in colour[:3])
    return red, green, blue


def overlay(scores: TileScores, picture: Image.Image | None = None) -> NDArray[np.uint8]:
    """A picture of the slide with coloured tiles, (H, W, 3).

    Args:
        scores: of one slide.
        picture: of the whole slide, at any size; the bag's thumbnail if not given. Without either, the
            tiles lie on grey that ends with them.
    """
    return _blend(*_paint(scores, picture))


def _paint(
    scores: TileScores, picture: Image.Image | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The slide (H, W, 3), and the opaque colours of its tiles over it, NaN where there is none."""
    bag = scores.bag
    corner, extent = np.zeros(2), np.array(bag.size_l0, dtype=float)
    if picture is not None or bag.thumbnail:
        picture = picture or Image.open(io.BytesIO(bag.thumbnail))
        base = np.asarray(picture.convert("RGB")).copy()
    else:
        corner = bag.coords_l0.min(axis=0)
        extent = (bag.coords_l0 + bag.side_l0).max(axis=0) - corner
        shape = np.maximum(1, np.round(extent * (BLANK_PX / extent.max()))).astype(int)
        base = np.full((shape[1], shape[0], 3), 238, dtype=np.uint8)
    height, width = base.shape[:2]
    zoom, positions = np.array([width, height]) / extent, bag.coords_l0 - corner
    colours = tile_colours(scores)
    # Rounded first: a corner at 20.000000000000004 must not paint pixel 20.
    first = np.floor(np.round(positions * zoom, 3)).astype(int)  # (N, 2) as (x, y)
    last = np.ceil(np.round((positions + bag.side_l0) * zoom, 3)).astype(int)
    painted = np.full((height, width, 3), np.nan, dtype=np.float32)
    for (x0, y0), (x1, y1), colour in zip(first, last, colours, strict=True):
        painted[y0:y1, x0:x1] = colour
    return base, painted


def _blend(base: NDArray[np.uint8], painted: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The colours half transparent over the slide."""
    mixed = OPACITY * painted + (1 - OPACITY) * base
    return np.where(np.isnan(painted), base, mixed).astype(np.uint8)
