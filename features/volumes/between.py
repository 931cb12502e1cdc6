"""Slices between contoured ones: given a shape between those of their neighbours, or left outside."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from features.volumes.libraries import simpleitk


def fill_gaps(
    values: NDArray[np.bool_], slices: list[int], steps_mm: list[float]
) -> NDArray[np.bool_]:
    """Slices between contoured ones, where the mean of the depths in both neighbours is above 0.

    Only outlines that lie over each other are of one lesion; there is nothing between others.

    Source: Raya and Udupa, IEEE TMI 1990.
    """
    filled = values.copy()
    for below, above in pairwise(slices):
        lesions = _lesions(values[below], values[above]) if above - below > 1 else []
        for place in range(below + 1, above):
            share = (place - below) / (above - below)
            for lower, upper in lesions:
                filled[place] |= shape_between(lower, upper, share, steps_mm)
    return filled


def _lesions(
    below: NDArray[np.bool_], above: NDArray[np.bool_]
) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """The parts of two planes that lie over each other, together: each the part below and that above."""
    itk = simpleitk()
    either = itk.GetImageFromArray((below | above).astype(np.uint8))
    over_corners = True
    parts = itk.GetArrayFromImage(itk.ConnectedComponent(either, over_corners))
    planes = [(below & (parts == n), above & (parts == n)) for n in range(1, int(parts.max()) + 1)]
    return [(lower, upper) for lower, upper in planes if (lower & upper).any()]


def volume_by_lesion(
    drawn: NDArray[np.bool_],
    places_mm: NDArray[np.float64],
    step_mm: float,
    steps_mm: Sequence[float],
) -> float:
    """Millilitres of outlines in planes: of each the area, half way to the next of its lesion.

    Beyond the last of a lesion there is half of the usual distance of planes.

    Args:
        drawn: (planes, rows, columns) inside.
        places_mm: (planes,) of the planes, in their order.
        step_mm: between slices.
        steps_mm: of the pixels.
    """
    gaps = np.diff(places_mm)
    pairs = [_lesions(below, above) for below, above in pairwise(drawn)]
    joint = np.array([sum((a.sum() + b.sum()) for a, b in pair) for pair in pairs])
    usual = float(np.median(gaps[joint > 0])) if joint.any() else step_mm
    ends = 2 * drawn.sum() - joint.sum()  # sides of outlines with nothing of the lesion beyond
    return float((gaps * joint).sum() + usual * ends) * math.prod(steps_mm) / 2000


def gap_notes(
    values: NDArray[np.bool_], slices: list[int], empty: list[int], step_mm: float, *, allowed: bool
) -> list[str]:
    """What became of slices without a contour between contoured ones.

    Args:
        values: (slices, rows, columns) inside, filled where that is allowed.
        slices: with a contour.
        empty: slices between them.
        step_mm: between slices.
        allowed: whether they may be filled.
    """
    if not allowed:
        return [
            f"{len(empty)} slices between contoured ones have no contour and are outside; they can be filled "
            "(allow=sparse)"
        ]
    done = [place for place in empty if values[place].any()]
    notes = []
    if done:
        widest = max(b - a for a, b in pairwise(slices) if b - a > 1 and values[a + 1 : b].any())
        notes.append(
            f"{len(done)} slices between contoured ones are filled with a shape between theirs, over up to "
            f"{widest * step_mm:.1f} mm"
        )
    if left := len(empty) - len(done):
        notes.append(
            f"{left} slices between contoured ones are outside: no outline of one side lies over one of the "
            "other, as between two lesions"
        )
    return notes


def shape_between(
    below: NDArray[np.bool_], above: NDArray[np.bool_], share: float, steps_mm: list[float]
) -> NDArray[np.bool_]:
    """Pixels where the mean of the depths in two planes is above 0; ``share`` is the weight of the upper."""
    if not (below.any() and above.any()):
        return np.zeros_like(below)
    depth = depth_mm(below, steps_mm) * (1 - share) + depth_mm(above, steps_mm) * share
    inside: NDArray[np.bool_] = depth > 0
    return inside


def depth_mm(region: NDArray[np.bool_], steps_mm: Sequence[float]) -> NDArray[np.float64]:
    """Distance from the border of a region in mm: positive inside, negative outside.

    Args:
        region: of any dimension, with a voxel inside.
        steps_mm: between voxels along each axis.
    """
    half = min(steps_mm) / 2  # the border lies half way between centres
    if not region.any():
        return np.full(region.shape, -np.inf)
    if region.all():
        return np.full(region.shape, np.inf)
    inside = ndimage.distance_transform_edt(region, steps_mm) - half
    outside = ndimage.distance_transform_edt(~region, steps_mm) - half
    return np.where(region, inside, -outside)
