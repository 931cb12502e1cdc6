"""What is wrong with a tile: no tissue, out of focus, ink of a marker pen.

Rules on colours and on fine structure, cheap enough to run on every tile and open to inspection; nothing
is learned. The flags are stored with the bag, so that tiles can be left out later without reading slides
again.

Measured on 224 px tiles. Of 1,455 H&E tiles with tissue (60 fields of bone sarcoma at three resolutions,
a skin and a head-and-neck slide) 2 are flagged blur and none pen. Blurred by a Gaussian of 2 px or more,
with noise of 1.5 grey values or JPEG added, all are flagged blur; by 1.5 px 74 %, by 1 px 11 %. Noise of
2.5 grey values hides blur, unless compression has removed it. Of 14 tiles with green or red marker 10 are
flagged pen and 3 of the others blur. Of 357 tiles of a DAPI slide none is flagged blur or pen. The
thresholds were set on the same tiles.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.errors import FeaturesError

FLAGS: Mapping[str, int] = {"background": 1, "blur": 2, "pen": 4}

# Lengths in pixels, colours out of 255, shares of a tile's cells.
CELL_PX = 8  # colours are judged on cells of this side: stray pixels are not ink
# Light through a slide leaves something in every channel. Of fluorescence, every cell has a channel below
# this; of H&E tiles 0.1 % of cells, of a tile with red pen 1 %.
OPAQUE = 8
COLOURED = 20  # strongest over weakest channel: glass stays below, pale stroma above
LEAST_TISSUE = 0.05  # coloured; fat, which is mostly holes, has 0.16
# The ratio of energies is 1/16 for a perfectly smooth picture. Sharp tiles have 0.081 or more, but for two
# of structureless cartilage; blurred by 2 px, with noise or JPEG added, they have 0.077 or less.
SHARP = 0.079
FLAT = 40.0  # squared grey values: structure weaker than this is noise of camera and JPEG
# Haematoxylin and eosin both take green more than red. Chromatic aberration turns 0.059 of a skin tile
# green; a tile with green pen well inside it has 0.19 or more.
GREEN_OVER_RED = 30
# Pure red: blood and eosin-red bone reach 0.011 of a tile, red pen 0.16 where it is not mixed with others.
BRIGHT_RED, PURE_RED = 100, 0.2  # red at least; green and blue at most this part of it
BLACK = 90  # brightest channel of grey ink; 0.008 of an H&E tile. No black marker was at hand.
LEAST_INK = 0.1


def quality_flags(tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Flag what is wrong with each tile; several flags may hold at once.

    ``background``: under 5 % of the tile is coloured and lit: glass, or black beside the scanned part.
    ``blur``: no fine structure in what is not background. ``pen``: over a tenth of the tile is green,
    blue, pure red or black. Violet ink looks like haematoxylin and is not found, nor is a faint edge of a
    stroke. Fluorescence is never flagged as blur or pen: the rules are made for transmitted light.

    Args:
        tiles: (B, H, W, 3) RGB, H and W at least 16.

    Returns:
        (B,) bitmask of ``FLAGS``; 0: no remark.
    """
    red, green, blue = np.moveaxis(_cells(tiles), -1, 0)
    low = np.minimum(np.minimum(red, green), blue)
    high = np.maximum(np.maximum(red, green), blue)
    red_ink = (red >= BRIGHT_RED) & (np.maximum(green, blue) <= PURE_RED * red)
    black_ink = (low >= OPAQUE) & (high < BLACK) & (high - low < COLOURED)
    ink = (green - red >= GREEN_OVER_RED) | red_ink | black_ink

    brightfield = _share(low >= OPAQUE) >= 0.5
    background = _share(high - low >= COLOURED) < LEAST_TISSUE
    pen = brightfield & (_share(ink) >= LEAST_INK)
    blur = brightfield & ~background
    for index in np.flatnonzero(blur):
        blur[index] = _sharpness(tiles[index]) < SHARP
    flags: NDArray[np.uint8] = np.zeros(len(tiles), np.uint8)
    for name, found in (("background", background), ("blur", blur), ("pen", pen)):
        flags[found] |= FLAGS[name]
    return flags


def flag_names(flags: int) -> tuple[str, ...]:
    """The names of the flags set in a bitmask.

    >>> flag_names(5)
    ('background', 'pen')
    """
    return tuple(name for name, bit in FLAGS.items() if flags & bit)


def bits(names: Iterable[str]) -> int:
    """The bitmask in which the named flags are set.

    Raises:
        FeaturesError: a name is not one of ``FLAGS``; the message names the nearest.
    """
    mask = 0
    for name in names:
        if name not in FLAGS:
            near = get_close_matches(name, FLAGS, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise FeaturesError(f"No quality flag {name!r}.{hint} Known: {', '.join(FLAGS)}.")
        mask |= FLAGS[name]
    return mask


def _cells(tiles: NDArray[np.uint8]) -> NDArray[np.int16]:
    """(B, H / 8, W / 8, 3) mean colours, from four pixels of each cell: a full mean costs tenfold."""
    side = CELL_PX
    height, width = tiles.shape[1] // side * side, tiles.shape[2] // side * side
    total = np.zeros((len(tiles), height // side, width // side, 3), np.int16)
    for y, x in ((0, 0), (2, 4), (4, 2), (6, 6)):
        total += tiles[:, y:height:side, x:width:side]
    return total // 4


def _share(cells: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(B,) the part of each tile's cells that is True."""
    return np.asarray(cells.mean(axis=(1, 2)))


def _sharpness(tile: NDArray[np.uint8]) -> float:
    """Energy of the Laplacian over one pixel, relative to the same over two.

    Contrast and the amount of tissue cancel, which they do not in the plain variance of the Laplacian
    (J. L. Pech-Pacheco et al., ICPR 2000): that ranks pale sharp tiles below dark blurred ones. Averaging
    2 x 2 pixels first takes out noise, which blur would otherwise be hidden by.
    """
    green = tile[..., 1].astype(np.float32)  # where haematoxylin and eosin both absorb
    grey = green[:-1] + green[1:]
    grey = (grey[:, :-1] + grey[:, 1:]) / 4
    return _laplacian_energy(grey, 1) / (_laplacian_energy(grey, 2) + FLAT)


def _laplacian_energy(grey: NDArray[np.floating[Any]], step: int) -> float:
    """Mean square of the Laplacian with neighbours ``step`` pixels away, on every other row."""
    height, width = grey.shape
    rows, columns = slice(2, height - 2, 2), slice(2, width - 2)
    values = 4 * grey[rows, columns]
    for shift in (-step, step):
        values -= grey[2 + shift : height - 2 + shift : 2, columns]
        values -= grey[rows, 2 + shift : width - 2 + shift]
    flat = values.ravel()
    return float(flat @ flat) / flat.size
