"""Outlines in millimetres as a mask on a grid: a voxel belongs to what its centre lies in.

Contours of one region and one plane are combined by exclusive or, so that an outline inside another is a
hole and one beside it an island; a single outline is filled by the even-odd rule, so that a keyhole is one.
A polygon painted with its border, as by drawing libraries, would be up to half larger on a PET grid.

Source: DICOM PS3.3, C.8.8.6 (ROI contours).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from features.errors import AnnotationError
from features.volumes.volume import PLANES, Grid

MIN_POINTS = 3
FLAT = 0.5  # of a voxel: how far the points of a contour may lie from its plane
ONE_PLANE = 0.3  # of a step: contours nearer than this lie in one plane
TIE = 1e-4  # of a step: a contour half way between two slices is in the upper


@dataclass(frozen=True)
class Mask:
    """A region on a grid.

    Attributes:
        values: (z, y, x) True inside.
        grid: the places of the voxels.
        name: of the region, as its file names it.
        notes: what was left out, filled in or is doubtful, in words.
        trained_on: cases that a network has learnt from which has drawn it; empty for a person's drawing.
        trained_on_slides: fingerprints of their images, as ``Bag.sources``.
    """

    values: NDArray[np.bool_]
    grid: Grid
    name: str = ""
    notes: tuple[str, ...] = ()
    trained_on: tuple[str, ...] = ()
    trained_on_slides: tuple[str, ...] = ()

    @property
    def volume_ml(self) -> float:
        """The volume of the region in millilitres."""
        return int(self.values.sum()) * self.grid.voxel_ml


def mask_of_contours(
    contours: Sequence[NDArray[np.float64]],
    grid: Grid,
    name: str = "",
    *,
    slice_axis: int = 0,
    fill_between: bool = False,
) -> Mask:
    """The voxels whose centres lie in a region.

    Args:
        contours: (n, 3) points in mm, LPS; whether the last repeats the first is of no meaning.
        grid: where the mask is to be.
        name: of the region, for messages.
        slice_axis: the array axis across the acquired slices; contours may lie in other planes too.
        fill_between: give slices between two contoured ones a shape between theirs.

    Raises:
        AnnotationError: no contour has three points; one lies beyond the grid, or in a plane oblique to it;
            no voxel centre lies inside.
    """
    usable = [contour for contour in contours if len(contour) >= MIN_POINTS]
    notes = []
    if len(usable) < len(contours):
        notes.append(f"{len(contours) - len(usable)} contours of fewer than 3 points left out")
    if not usable:
        raise AnnotationError(
            f"{name or 'The region'} has no contour of three points or more ({len(contours)} contours). "
            "Name another region."
        )
    indices = [grid.to_index(contour) for contour in usable]
    axis = _plane_axis(indices, 2 - slice_axis, grid, name)
    slices = _by_slice(indices, axis, grid, name, notes)
    in_plane = [place for place in range(3) if place != 2 - axis]
    shape = (grid.shape[2 - axis], grid.shape[in_plane[0]], grid.shape[in_plane[1]])
    values = _draw(slices, shape, notes)
    steps_mm = [grid.spacing_mm[2 - place] for place in in_plane]
    if empty := sorted(set(range(min(slices), max(slices))) - set(slices)):
        words = "have no contour and are outside; they can be filled (allow=sparse)"
        if fill_between:
            words = "are filled with a shape between theirs"
            values = _fill_between(values, sorted(slices), steps_mm)
        notes.append(f"{len(empty)} slices between contoured ones {words}")
    values = np.ascontiguousarray(np.moveaxis(values, 0, 2 - axis))
    if not values.any():
        raise AnnotationError(
            f"{name or 'The region'} holds no centre of a voxel: it is smaller than the grid of "
            f"{' x '.join(f'{step:.2f}' for step in grid.spacing_mm)} mm. Use a finer grid."
        )
    return Mask(values, grid, name, tuple(notes))


def _draw(
    slices: dict[int, list[NDArray[np.float64]]], shape: tuple[int, int, int], notes: list[str]
) -> NDArray[np.bool_]:
    """(planes, rows, columns) the exclusive or of the outlines of each slice."""
    values, union = np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.bool_)
    repeated = 0
    for place, outlines in slices.items():
        distinct = _without_copies(outlines)
        repeated += len(outlines) - len(distinct)
        for outline in distinct:
            inside = fill_even_odd(outline, shape[1:])
            values[place] ^= inside
            union[place] |= inside
    if repeated:
        notes.append(f"{repeated} contours stored twice are taken once")
    if holes := int((union ^ values).sum()):
        notes.append(f"contours lie in each other: {holes} voxels between them are holes")
    return values


def _plane_axis(indices: list[NDArray[np.float64]], slice_axis: int, grid: Grid, name: str) -> int:
    """The axis (0 x, 1 y, 2 z) across the planes of all contours: that of the slices where it can be."""
    spread = np.max([np.ptp(points, axis=0) for points in indices], axis=0)
    if spread[slice_axis] <= FLAT:
        return slice_axis
    flattest = int(spread.argmin())
    if spread[flattest] <= FLAT:
        return flattest
    raise AnnotationError(
        f"{name or 'The region'}: a contour rises by {spread[slice_axis] * grid.spacing_mm[slice_axis]:.2f} "
        f"mm through the {PLANES[2 - slice_axis]} slices, which are {grid.spacing_mm[slice_axis]:.2f} mm "
        "apart: it was drawn in planes oblique to them. Use the series that it was drawn on."
    )


def _by_slice(
    indices: list[NDArray[np.float64]], axis: int, grid: Grid, name: str, notes: list[str]
) -> dict[int, list[NDArray[np.float64]]]:
    """(n, 2) outlines in the plane of each slice; where planes are denser than slices, of the nearest."""
    count = grid.shape[2 - axis]
    across = [other for other in (0, 1, 2) if other != axis]
    planes = np.array([float(points[:, axis].mean()) for points in indices])
    beyond = np.maximum(-0.5 - planes, planes - count + 0.5)
    if beyond.max() > TIE:
        raise AnnotationError(
            f"{name or 'The region'}: {int((beyond > TIE).sum())} of {len(planes)} contours lie beyond the "
            f"slices, by up to {beyond.max() * grid.spacing_mm[axis]:.2f} mm. Use the series that it was "
            "drawn on, whole."
        )
    places = np.clip(np.floor(planes + 0.5 + TIE).astype(int), 0, count - 1)
    slices: dict[int, list[NDArray[np.float64]]] = {}
    passed_over = 0
    for place in np.unique(places).tolist():
        members = np.flatnonzero(places == place)
        nearest = planes[members][np.abs(planes[members] - place).argmin()]
        chosen = members[np.abs(planes[members] - nearest) <= ONE_PLANE]
        passed_over += len(members) - len(chosen)
        slices[place] = [indices[member][:, across] for member in chosen]
    if passed_over:
        notes.append(
            f"{passed_over} contours between slices passed over: their planes are denser than the slices"
        )
    return slices


def _without_copies(outlines: list[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """Outlines, each once: two copies of one would cancel each other."""
    distinct: list[NDArray[np.float64]] = []
    for outline in outlines:
        if not any(_is_copy(outline, other) for other in distinct):
            distinct.append(outline)
    return distinct


def _is_copy(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Whether two outlines have the same corners, wherever each begins, whichever way it runs."""
    first, second = (np.unique(np.round(points, 4), axis=0) for points in (one, other))
    return first.shape == second.shape and bool(np.abs(first - second).max() < 1e-3)


def fill_even_odd(outline: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels whose centres lie inside an outline: a ray from them crosses it an odd number of times.

    A centre on the outline belongs to what lies at its right or below, so that two regions with a common
    border share no pixel and leave none out.

    Args:
        outline: (n, 2) corners (x, y), in pixels; whole numbers are centres.
        shape: rows and columns.

    Returns:
        (rows, columns) True inside.
    """
    rows, columns = shape
    crossings = np.zeros((rows, columns + 1), dtype=np.int64)
    points = np.round(outline, 6)  # the noise of a change of frame is no side of a centre
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        top, bottom = np.ceil([min(y0, y1), max(y0, y1)])
        crossed = np.arange(max(int(top), 0), min(int(bottom), rows))
        if len(crossed):
            x = np.round(x0 + (crossed - y0) * ((x1 - x0) / (y1 - y0)), 6)
            np.add.at(crossings, (crossed, np.clip(np.ceil(x), 0, columns).astype(int)), 1)
    inside: NDArray[np.bool_] = np.cumsum(crossings, axis=1)[:, :columns] % 2 == 1
    return inside


def _fill_between(
    values: NDArray[np.bool_], slices: list[int], steps_mm: list[float]
) -> NDArray[np.bool_]:
    """Slices between contoured ones, where the mean of the depths in both neighbours is above 0.

    Source: Raya and Udupa, IEEE TMI 1990.
    """
    filled = values.copy()
    for below, above in pairwise(slices):
        for place in range(below + 1, above):
            share = (place - below) / (above - below)
            depth = depth_mm(values[below], steps_mm) * (1 - share)
            filled[place] = depth + depth_mm(values[above], steps_mm) * share > 0
    return filled


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
