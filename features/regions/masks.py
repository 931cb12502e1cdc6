"""Tissue segmentation by colour, and the fraction of a tile that a region covers."""

import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from shapely.geometry import MultiPolygon

from features.regions.drawing import Region, polygonal_parts

OVERVIEW_PX = 1024
MIN_BRIGHTNESS = 25  # of 255: black background of fluorescence and scanners is not tissue
MIN_SATURATION = 12  # of 255: glass and grey paper are below
CLOSING_STEPS = 2  # thumbnail pixels: gaps up to twice this wide are filled


def tissue_from_overview(overview: Image.Image, size_l0: tuple[int, int]) -> Region:
    """The tissue in an overview of the whole slide, as polygons in level-0 pixels; empty if there is none."""
    return polygons_from_mask(tissue_mask(np.asarray(overview)), size_l0)


def tissue_mask(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels that are coloured and not dark: saturation above Otsu's threshold, specks and holes closed.

    Args:
        rgb: (H, W, 3) overview of a slide.

    Returns:
        (H, W) True where there is tissue.

    Source: N. Otsu, IEEE Trans. Syst. Man Cybern. 9 (1979), for the threshold.
    """
    red, green, blue = np.moveaxis(rgb, -1, 0)  # ``rgb.max(axis=-1)`` takes twenty times as long
    high = np.maximum(np.maximum(red, green), blue).astype(np.int32)
    low = np.minimum(np.minimum(red, green), blue).astype(np.int32)
    saturation = np.where(high > 0, 255 * (high - low) // np.maximum(high, 1), 0)
    lit = high > MIN_BRIGHTNESS
    threshold = max(otsu_threshold(saturation[lit]), MIN_SATURATION) if lit.any() else 255
    mask = majority_filter((lit & (saturation > threshold)).astype(np.uint8))
    # Closing ends with an erosion: without a margin, tissue would shrink from the image's own edge.
    margin = CLOSING_STEPS
    closed: NDArray[np.bool_] = ndimage.binary_closing(np.pad(mask, margin), iterations=margin)
    return closed[margin:-margin, margin:-margin]


def majority_filter(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Median of the 5 x 5 pixels around each pixel, by sums along both axes."""
    for axis in (0, 1):
        mask = ndimage.correlate1d(mask, np.ones(5), axis=axis, output=np.uint8)
    return mask > 12


def otsu_threshold(values: NDArray[np.int32]) -> int:
    """Otsu's threshold in 0..255: the one with the largest variance between the two groups."""
    counts = np.bincount(values.ravel(), minlength=256).astype(float)
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * np.arange(256))
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = sums / below - (sums[-1] - sums) / above
        between = np.where((below > 0) & (above > 0), below * above * gap**2, 0.0)
    return int(np.argmax(between))


def polygons_from_mask(mask: NDArray[np.bool_], size_l0: tuple[int, int]) -> Region:
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
