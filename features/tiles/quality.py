"""Quality flags of tiles: background, blur, pen.

Fixed rules on colour and fine structure, fast enough for every tile; nothing is learned. The flags are
stored in the bag, so that tiles can be left out later without reading the slides again.

Measured on 224 px tiles. Of 1,455 H&E tiles with tissue (60 fields of bone sarcoma at three resolutions,
a skin and a head-and-neck slide) 2 are flagged blur and none pen. Blurred by a Gaussian of 2 px or more,
with noise of 1.5 grey values or JPEG added, all are flagged blur; by 1.5 px 74 %, by 1 px 11 %. Noise of
2.5 grey values hides blur, unless compression has removed it. Of 14 tiles with green or red marker 10 are
flagged pen and 3 of the others blur. Of 357 tiles of a DAPI slide none is flagged blur or pen. The
thresholds were set on the same tiles.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.choices import suggest
from features.errors import FeaturesError

FLAGS: Mapping[str, int] = {"background": 1, "blur": 2, "pen": 4}

# Lengths in pixels, colours out of 255, fractions of a tile's cells.
CELL_PX = 8  # colours are averaged over cells of this side: stray pixels are not ink
# Transmitted light leaves something in every channel. In fluorescence every cell has a channel below this;
# 0.1 % of the cells of H&E tiles have, and 1 % of a tile with red pen.
OPAQUE = 8
COLOURED = 20  # strongest minus weakest channel: glass is below, pale stroma above
MIN_TISSUE = 0.05  # coloured fraction; fat, which is mostly holes, has 0.16
# The ratio of energies is 1/16 for a perfectly smooth image. Sharp tiles have 0.081 or more, except for two
# of structureless cartilage; blurred by 2 px, with noise or JPEG added, they have 0.077 or less.
SHARP = 0.079
FLAT = 40.0  # squared grey values: structure weaker than this is camera and JPEG noise
# Haematoxylin and eosin both absorb green more than red. Chromatic aberration turns 0.059 of a skin tile
# green; a tile with green pen well inside it has 0.19 or more.
GREEN_OVER_RED = 30
# Pure red: blood and eosin-red bone reach 0.011 of a tile, red pen 0.16 where it is not mixed with others.
BRIGHT_RED, PURE_RED = 100, 0.2  # red at least; green and blue at most this part of it
BLACK = 90  # brightest channel of grey ink; 0.008 of an H&E tile. No black marker was available.
MIN_INK = 0.1


def quality_flags(tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Flag each tile; a tile may have several flags.

    ``background``: less than 5 % of the tile is coloured: glass, or black beside the scanned part.
    ``blur``: not background, but without fine structure. ``pen``: over a tenth of the tile is green, blue,
    pure red or black. Violet ink looks like haematoxylin and is missed, as is the faint edge of a stroke.
    Fluorescence is never flagged as blur or pen: the rules are made for transmitted light.

    Args:
        tiles: (B, H, W, 3) RGB, H and W at least 16.

    Returns:
        (B,) bitmask of ``FLAGS``; 0 for a tile without flags.
    """
    red, green, blue = np.moveaxis(_cells(tiles), -1, 0)
    low = np.minimum(np.minimum(red, green), blue)
    high = np.maximum(np.maximum(red, green), blue)
    red_ink = (red >= BRIGHT_RED) & (np.maximum(green, blue) <= PURE_RED * red)
    black_ink = (low >= OPAQUE) & (high < BLACK) & (high - low < COLOURED)
    ink = (green - red >= GREEN_OVER_RED) | red_ink | black_ink

    brightfield = _fraction(low >= OPAQUE) >= 0.5
    background = _fraction(high - low >= COLOURED) < MIN_TISSUE
    pen = brightfield & (_fraction(ink) >= MIN_INK)
    blur = brightfield & ~background
    for index in np.flatnonzero(blur):
        blur[index] = _sharpness(tiles[index]) < SHARP
    flags: NDArray[np.uint8] = np.zeros(len(tiles), np.uint8)
    for name, flagged in (("background", background), ("blur", blur), ("pen", pen)):
        flags[flagged] |= FLAGS[name]
    return flags


def flag_bits(names: Iterable[str]) -> int:
    """The bitmask in which the named flags are set.

    Raises:
        FeaturesError: a name is not one of ``FLAGS``; the message suggests the closest.
    """
    mask = 0
    for name in names:
        if name not in FLAGS:
            hint = suggest(name, FLAGS)
            raise FeaturesError(f"No quality flag {name!r}.{hint} Known: {', '.join(FLAGS)}.")
        mask |= FLAGS[name]
    return mask


def _cells(tiles: NDArray[np.uint8]) -> NDArray[np.int16]:
    """(B, H / 8, W / 8, 3) mean colours of four pixels per cell: a full mean takes ten times as long."""
    side = CELL_PX
    height, width = tiles.shape[1] // side * side, tiles.shape[2] // side * side
    total = np.zeros((len(tiles), height // side, width // side, 3), np.int16)
    for y, x in ((0, 0), (2, 4), (4, 2), (6, 6)):
        total += tiles[:, y:height:side, x:width:side]
    return total // 4


def _fraction(cells: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(B,) the fraction of each tile's cells that is True."""
    return np.asarray(cells.mean(axis=(1, 2)))


def _sharpness(tile: NDArray[np.uint8]) -> float:
    """Energy of the Laplacian over one pixel, relative to the same over two.

    Contrast and the amount of tissue cancel. They do not in the plain variance of the Laplacian (J. L.
    Pech-Pacheco et al., ICPR 2000), which ranks pale sharp tiles below dark blurred ones. Averaging 2 x 2
    pixels first removes noise, which would otherwise hide blur.
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
