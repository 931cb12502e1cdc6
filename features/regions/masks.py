"""Tissue segmentation by colour, and the fraction of a tile that a region covers."""

import math
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy import ndimage
from shapely.geometry import MultiPolygon

from features.regions.drawing import Region, polygonal_parts

MIN_BRIGHTNESS = 25  # of 255: black background of fluorescence and scanners is not tissue
OPAQUE = 8  # of 255: transmitted light leaves more in every channel
# Glass for itself, as bright as no stain leaves it, without colour and without structure:
GLASS_BRIGHTNESS = 180  # of 255, weakest channel at least
GLASS_SATURATION = 20  # of 255, at most; tinted glass has 15
STAIN_OVER_GLASS = (
    6  # haematoxylin and eosin absorb green most: green below red and blue by this much
)
GLASS_ROUGHNESS = 4.0  # grey values, root mean square over 5 x 5 such means; compression leaves 1
MIN_GLASS = 0.005  # of the picture; less is holes in the tissue
GLASS_UM = 200.0  # width of bare glass at least; clefts, vessels and fat cells are narrower
GLASS_PART = 0.25  # of the shorter side, where that is less: a field of 100 µm has narrower glass
MIN_SATURATION, MIN_STAINED = (
    12,
    0.02,
)  # of 255, and of the pixels: else a picture without glass is grey
PALE_SATURATION = 6  # of 255 at least: below, grey dirt and paper
ABOVE_GLASS = 2  # of 255, from the glass's own colour to that of pale tissue
CLOSING_STEPS = 2  # thumbnail pixels: gaps up to twice this wide are filled


def tissue_mask(rgb: NDArray[np.uint8], um_per_px: float | None = None) -> NDArray[np.bool_]:
    """Pixels that are not glass and not dark, specks and holes closed; all that is lit where no glass is.

    Glass is recognised for itself, and tissue is what is more coloured than that glass. A threshold
    between two groups of pixels, as Otsu's, would split tissue from tissue on an exported region, a core or
    a cropped biopsy, and lose pale tissue beside dark.

    Args:
        rgb: (H, W, 3) overview of a slide.
        um_per_px: micrometres per pixel; None takes the narrowest gap for glass too.

    Returns:
        (H, W) True where there is tissue.
    """
    high, _, saturation = _high_low_saturation(rgb)
    mask = high > MIN_BRIGHTNESS
    glass = _looks_like_glass(rgb)
    if glass.mean() >= MIN_GLASS and _is_wide(glass, um_per_px):
        mask &= saturation > max(PALE_SATURATION, _most_coloured_glass(saturation[glass]))
    elif (saturation[mask] > MIN_SATURATION).sum() < MIN_STAINED * mask.sum():
        mask[:] = False
    mask = majority_filter(mask.astype(np.uint8))
    # Closing ends with an erosion: without a margin, tissue would shrink from the image's own edge.
    margin = CLOSING_STEPS
    closed: NDArray[np.bool_] = ndimage.binary_closing(np.pad(mask, margin), iterations=margin)
    return closed[margin:-margin, margin:-margin]


def _high_low_saturation(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.int32], ...]:
    """The strongest and the weakest channel and the saturation, each (H, W) out of 255."""
    high, low = (channel.astype(np.int32) for channel in _extremes(rgb))
    return high, low, 255 * (high - low) // np.maximum(high, 1)


def _extremes(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The strongest and the weakest channel, each (H, W)."""
    red, green, blue = np.moveaxis(rgb, -1, 0)  # ``rgb.max(axis=-1)`` takes twenty times as long
    return np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)


def _looks_like_glass(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(H, W) True where a picture is bright, without colour and flat, by means of 3 x 3 pixels."""
    smooth = np.empty_like(rgb)
    for channel in range(3):
        smooth[..., channel] = _box_mean(rgb[..., channel])
    _, low, saturation = _high_low_saturation(smooth)
    red, green, blue = np.moveaxis(smooth.astype(np.int16), -1, 0)
    unstained = np.minimum(red, blue) < green + STAIN_OVER_GLASS
    glass: NDArray[np.bool_] = (
        (low >= GLASS_BRIGHTNESS)
        & (saturation <= GLASS_SATURATION)
        & unstained
        & _is_flat(smooth[..., 1])
    )
    return glass


def _box_mean(channel: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mean of the 3 x 3 pixels around each pixel, rounded down along each axis."""
    mean = channel
    for axis in (0, 1):
        mean = (_window_sums(mean, 3, axis, np.uint16) // 3).astype(np.uint8)
    return mean


def _window_sums(values: NDArray[Any], width: int, axis: int, dtype: type) -> NDArray[Any]:
    """The sum of the ``width`` pixels around each pixel along an axis; a picture is mirrored at its edges.

    Sums of shifted pictures take a third of the time of scipy's filters, which go line by line.
    """
    reach = width // 2
    padding = [(reach, reach) if number == axis else (0, 0) for number in (0, 1)]
    padded: NDArray[Any] = np.pad(values.astype(dtype, copy=False), padding, mode="symmetric")
    sums: NDArray[Any] = np.zeros(values.shape, dtype)
    for start in range(width):
        stop = start + values.shape[axis]
        sums += padded[start:stop] if axis == 0 else padded[:, start:stop]
    return sums


def is_bright_field(rgb: NDArray[np.uint8]) -> bool:
    """Whether a picture was taken in transmitted light, which leaves something in every channel.

    Args:
        rgb: (H, W, 3) overview of a slide. A picture that is black altogether counts as bright-field.
    """
    high, low = _extremes(rgb)
    lit = high > MIN_BRIGHTNESS
    return not lit.any() or bool((low[lit] < OPAQUE).mean() < 0.5)


def _is_wide(glass: NDArray[np.bool_], um_per_px: float | None) -> bool:
    """Whether some glass is as wide as bare glass is; a picture without tissue is all glass."""
    if um_per_px is None or glass.all():
        return True
    clean = majority_filter(glass.astype(np.uint8))  # dust does not divide glass
    distance_px = min(GLASS_UM / um_per_px, GLASS_PART * min(glass.shape)) / 2
    gaps = np.pad(np.cumsum(np.cumsum(~clean, axis=0, dtype=np.int32), axis=1), ((1, 0), (1, 0)))
    # Squares inside and around the circle answer nearly always; to compute distances takes long.
    if _square_fits(gaps, math.ceil(distance_px) - 1):
        return True
    if not _square_fits(gaps, math.ceil(distance_px / math.sqrt(2)) - 1):
        return False
    return bool(ndimage.distance_transform_edt(clean).max() >= distance_px)


def _square_fits(gaps: NDArray[np.int32], reach_px: int) -> bool:
    """Whether around some pixel there is no gap up to ``reach_px`` away along both axes.

    Args:
        gaps: (H + 1, W + 1) gaps above and left of each corner of a pixel; none is outside.
        reach_px: 0 is the pixel alone.
    """
    edges = [
        [np.clip(np.arange(side - 1) + shift, 0, side - 1) for shift in (-reach_px, reach_px + 1)]
        for side in gaps.shape
    ]
    (top, bottom), (left, right) = edges
    rows = gaps[bottom] - gaps[top]
    return bool((rows[:, right] == rows[:, left]).any())


def _most_coloured_glass(saturation: NDArray[np.int32]) -> int:
    """The largest saturation of glass among pixels that are glass or pale tissue.

    Glass is their commonest saturation, and spreads as far above it as below, where no tissue is.
    """
    common = int(np.argmax(np.bincount(saturation)))
    return 2 * common - int(np.quantile(saturation, 0.01)) + ABOVE_GLASS


def _is_flat(channel: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where the standard deviation of the 5 x 5 pixels around a pixel is at most ``GLASS_ROUGHNESS``."""
    values = channel.astype(np.uint32)
    sums, squares = values, values * values
    for axis in (0, 1):
        sums, squares = (_window_sums(part, 5, axis, np.uint32) for part in (sums, squares))
    flat: NDArray[np.bool_] = 25 * squares - sums * sums <= (25 * GLASS_ROUGHNESS) ** 2
    return flat


def majority_filter(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Median of the 5 x 5 pixels around each pixel, by sums along both axes."""
    for axis in (0, 1):
        mask = _window_sums(mask, 5, axis, np.uint8)
    return mask > 12


def polygons_from_mask(mask: NDArray[np.bool_], size_l0: tuple[float, float]) -> Region:
    """The outline of a mask's True pixels, scaled to level-0 pixels.

    Args:
        mask: (H, W) covering the whole slide.
        size_l0: the slide's (width, height).
    """
    height, width = mask.shape
    padded = np.zeros((height, width + 2), dtype=np.int8)
    padded[:, 1:-1] = mask
    step = np.diff(padded, axis=1)
    row, start = np.nonzero(step == 1)  # runs of True pixels, row by row
    _, stop = np.nonzero(step == -1)
    if row.size == 0:
        return MultiPolygon()
    scale_x, scale_y = size_l0[0] / width, size_l0[1] / height
    runs = shapely.box(start * scale_x, row * scale_y, stop * scale_x, (row + 1) * scale_y)
    return polygonal_parts(shapely.union_all(runs))


def mask_fraction(
    mask: NDArray[np.bool_],
    size_l0: tuple[int, int],
    corners_l0: NDArray[np.int64],
    side_l0: tuple[float, float],
) -> NDArray[np.float64]:
    """The fraction of each square that is True in a mask, to whole pixels of the mask; fast for many.

    Args:
        mask: (H, W) covering the whole slide.
        size_l0: the slide's (width, height).
        corners_l0: (N, 2) top-left corners, (x, y).
        side_l0: width and height of every square.

    Returns:
        (N,) fractions in [0, 1].
    """
    scale = np.divide(mask.shape[::-1], size_l0)
    sums = np.pad(np.cumsum(np.cumsum(mask, axis=0, dtype=np.int64), axis=1), ((1, 0), (1, 0)))
    first = np.clip(np.floor(corners_l0 * scale), 0, np.array(mask.shape[::-1]) - 1).astype(
        np.int64
    )
    last = np.ceil((corners_l0 + np.array(side_l0)) * scale).astype(np.int64)
    last = np.clip(last, first + 1, mask.shape[::-1])
    (left, top), (right, bottom) = first.T, last.T
    within = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return np.asarray(within / ((right - left) * (bottom - top)))


def coverage(
    area: Region, x_l0: NDArray[np.float64], y_l0: NDArray[np.float64], side_l0: tuple[float, float]
) -> NDArray[np.float64]:
    """The exact fraction of each square that lies in a region.

    Args:
        area: polygons in level-0 pixels.
        x_l0: (N,) left edges.
        y_l0: (N,) top edges.
        side_l0: width and height of every square.

    Returns:
        (N,) fractions in [0, 1] of the full square, also where it reaches over the slide's edge.
    """
    squares = shapely.box(x_l0, y_l0, x_l0 + side_l0[0], y_l0 + side_l0[1])
    shapely.prepare(area)
    inside = shapely.contains_properly(area, squares)
    touched = ~inside & shapely.intersects(area, squares)
    fraction = inside.astype(np.float64)
    overlap = shapely.area(shapely.intersection(area, squares[touched]))
    fraction[touched] = np.clip(overlap / (side_l0[0] * side_l0[1]), 0.0, 1.0)
    return fraction
