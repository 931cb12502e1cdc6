"""How well two masks of one grid agree: overlap, and distances in millimetres.

Source: Dice 1945 (Ecology 26:297); Huttenlocher et al., IEEE TPAMI 1993 (Hausdorff distance of sets, here the
surfaces, and its ranks); Maier-Hein et al., Nature Methods 2024 (both as distances of boundaries); for the
continuous Dice, Shamir et al. 2019 (arXiv:1906.11031) without its normalising constant.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

PERCENTILE = 95
Mask = NDArray[np.bool_]


def dice(first: NDArray[np.generic], second: NDArray[np.generic]) -> float:
    """2 sum(pq) / (sum p + sum q): Dice of masks, and the continuous Dice of maps of confidence.

    Args:
        first: of any shape, bool or in [0, 1].
        second: of the same shape.

    Returns:
        In [0, 1]; NaN where both are empty.
    """
    p, q = first.astype(np.float64), second.astype(np.float64)
    total = float(p.sum() + q.sum())
    return 2 * float((p * q).sum()) / total if total > 0 else float("nan")


def hausdorff_mm(first: Mask, second: Mask, spacing_mm: Sequence[float]) -> float:
    """The greatest distance of the surface of either mask from the surface of the other.

    The surface of a mask is its voxels with a face to the outside; a hole has one too.

    Args:
        first: (z, y, x).
        second: of the same shape.
        spacing_mm: distance of voxel centres along (x, y, z).

    Returns:
        Millimetres; NaN where a mask is empty, as no distance to nothing is defined.
    """
    return _greater_way(first, second, spacing_mm, 100)


def hausdorff95_mm(first: Mask, second: Mask, spacing_mm: Sequence[float]) -> float:
    """The distance that 95 % of the surface of either mask keep from the surface of the other.

    The percentile is taken of each direction, and the greater one counts: never more than ``hausdorff_mm``.

    Args:
        first: (z, y, x).
        second: of the same shape.
        spacing_mm: distance of voxel centres along (x, y, z).

    Returns:
        Millimetres; NaN where a mask is empty.
    """
    return _greater_way(first, second, spacing_mm, PERCENTILE)


def _greater_way(
    first: Mask, second: Mask, spacing_mm: Sequence[float], percentile: float
) -> float:
    """A percentile of the distances from surface to surface, of the direction in which it is greater."""
    if not (first.any() and second.any()):
        return float("nan")
    steps = spacing_mm[::-1]
    one, other = (mask & ~ndimage.binary_erosion(mask) for mask in _cut(first, second))
    ways = [
        np.percentile(ndimage.distance_transform_edt(~b, steps)[a], percentile)
        for a, b in ((one, other), (other, one))
    ]
    return float(max(ways))


def _cut(first: Mask, second: Mask) -> tuple[Mask, Mask]:
    """Both masks within the box round both, and one voxel more: elsewhere there is nothing to measure."""
    [box] = ndimage.find_objects((first | second).astype(np.int8))
    return np.pad(first[box], 1), np.pad(second[box], 1)
