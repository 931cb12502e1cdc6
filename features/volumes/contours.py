"""Outlines in millimetres as a mask on a grid: a voxel belongs to what its centre lies in.

Contours of one region and one plane are combined by exclusive or, so that an outline inside another is a
hole and one beside it an island; a single outline is filled by the even-odd rule, so that a keyhole is one.
A polygon painted with its border, as by drawing libraries, would be up to half larger on a PET grid.

Source: DICOM PS3.3, C.8.8.6 (ROI contours).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.errors import AnnotationError
from features.volumes.between import fill_gaps, gap_notes, shape_between, volume_by_lesion
from features.volumes.volume import PLANES, Grid

MIN_POINTS = 3
FLAT = 0.5  # of a voxel: how far the points of a contour may lie from its plane
NOISE_MM = 0.05  # contours nearer than this lie in one plane
ONE_PLANE = 0.2  # of the distance of planes: contours nearer than this lie in one
TIE = 1e-4  # of a step: a contour half way between two slices is in the upper
BESIDE_SLICE = 0.25  # of a step: contours farther from their slices are noted
ON_PLANE = 1e-3  # of a step: a slice so near to a plane of contours has its outlines
GAP = 1.5  # distances of planes: where they are farther apart, contours are missing
COPY_PX = 0.25  # an outline nearer than this to another all along is its copy
MAX_BEYOND = 0.01  # of a region may lie beyond the image
BESIDE = ". Use the series that it was drawn on, whole."


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
        drawn_ml: the volume of the region as it was drawn, which another grid does not change.
    """

    values: NDArray[np.bool_]
    grid: Grid
    name: str = ""
    notes: tuple[str, ...] = ()
    trained_on: tuple[str, ...] = ()
    trained_on_slides: tuple[str, ...] = ()
    drawn_ml: float = math.nan

    def __post_init__(self) -> None:
        if math.isnan(self.drawn_ml):
            object.__setattr__(self, "drawn_ml", self.volume_ml)

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
    name = name or "The region"
    usable = [contour for contour in contours if len(contour) >= MIN_POINTS]
    notes = []
    if len(usable) < len(contours):
        notes.append(f"{len(contours) - len(usable)} contours of fewer than 3 points left out")
    if not usable:
        raise AnnotationError(
            f"{name} has no contour of three points or more ({len(contours)} contours). "
            "Name another region."
        )
    indices = [grid.to_index(contour) for contour in usable]
    axis = _plane_axis(indices, 2 - slice_axis, grid, name)
    count, step_mm = grid.shape[2 - axis], grid.spacing_mm[axis]
    places, outlines = _planes(indices, axis, step_mm)
    _check_slices(np.array([points[:, axis].mean() for points in indices]), count, step_mm, name)
    in_plane = [place for place in range(3) if place != 2 - axis]
    steps_mm = [grid.spacing_mm[2 - place] for place in in_plane]
    drawn = _draw(outlines, (grid.shape[in_plane[0]], grid.shape[in_plane[1]]), name, notes)
    values, slices, drawn_ml = _at_slices(drawn, places, count, step_mm, steps_mm, notes)
    if empty := sorted(set(range(min(slices), max(slices))) - set(slices)):
        if fill_between:
            values = fill_gaps(values, slices, steps_mm)
            drawn_ml = volume_by_lesion(drawn, places * step_mm, step_mm, steps_mm)
        notes += gap_notes(values, slices, empty, step_mm, allowed=fill_between)
    values = np.ascontiguousarray(np.moveaxis(values, 0, 2 - axis))
    if not values.any():
        raise AnnotationError(
            f"{name} holds no centre of a voxel: it is smaller than the grid of "
            f"{' x '.join(f'{step:.2f}' for step in grid.spacing_mm)} mm. Use a finer grid."
        )
    return Mask(values, grid, name, tuple(notes), drawn_ml=drawn_ml)


def _planes(
    indices: list[NDArray[np.float64]], axis: int, step_mm: float
) -> tuple[NDArray[np.float64], list[list[NDArray[np.float64]]]]:
    """(planes,) where the contours lie across the slices, in slices, and the (n, 2) outlines of each."""
    across = [other for other in (0, 1, 2) if other != axis]
    along = np.array([float(points[:, axis].mean()) for points in indices])
    order = np.argsort(along, kind="stable")
    gaps = np.diff(along[order])
    apart = gaps[gaps * step_mm > NOISE_MM]
    limit = max(NOISE_MM / step_mm, ONE_PLANE * float(np.median(apart)) if len(apart) else 0.0)
    groups = np.split(order, np.flatnonzero(gaps > limit) + 1)
    places = np.array([along[group].mean() for group in groups])
    return places, [[indices[member][:, across] for member in group] for group in groups]


def _check_slices(along: NDArray[np.float64], count: int, step_mm: float, name: str) -> None:
    beyond = np.maximum(-0.5 - along, along - count + 0.5)
    if beyond.max() > TIE:
        raise AnnotationError(
            f"{name}: {int((beyond > TIE).sum())} of {len(along)} contours lie beyond the "
            f"slices, by up to {beyond.max() * step_mm:.2f} mm. Use the series that it was "
            "drawn on, whole."
        )


def _draw(
    planes: list[list[NDArray[np.float64]]], shape: tuple[int, int], name: str, notes: list[str]
) -> NDArray[np.bool_]:
    """(planes, rows, columns) the exclusive or of the outlines of each plane."""
    before, canvas = _canvas([one for outlines in planes for one in outlines], shape, name)
    rows, columns = shape
    picture = np.s_[before[1] : before[1] + rows, before[0] : before[0] + columns]
    values = np.zeros((len(planes), rows, columns), dtype=np.bool_)
    repeated = holes = whole = 0
    for place, outlines in enumerate(planes):
        distinct = _without_copies(outlines)
        repeated += len(outlines) - len(distinct)
        inside, union = np.zeros(canvas, dtype=np.bool_), np.zeros(canvas, dtype=np.bool_)
        for outline in distinct:
            filled = fill_even_odd(outline + before, canvas)
            inside ^= filled
            union |= filled
        holes += int((union ^ inside).sum())
        whole += int(inside.sum())
        values[place] = inside[picture]
    if repeated:
        notes.append(f"{repeated} contours stored twice are taken once")
    if holes:
        notes.append(f"contours lie in each other: {holes} voxels between them are holes")
    if beyond := 1 - int(values.sum()) / whole if whole else 0.0:
        if beyond > MAX_BEYOND:
            raise AnnotationError(f"{name}: {beyond:.0%} of it lies beyond the image{BESIDE}")
        notes.append(f"{beyond:.2%} of the region lies beyond the image and is cut off")
    return values


def _canvas(
    outlines: list[NDArray[np.float64]], shape: tuple[int, int], name: str
) -> tuple[NDArray[np.int64], tuple[int, int]]:
    """Pixels (x, y) before the picture, and rows and columns of a canvas that holds picture and outlines."""
    corners = np.concatenate(outlines)
    size = np.array(shape[::-1])
    before = np.maximum(np.ceil(-corners.min(axis=0)), 0).astype(np.int64)
    after = np.maximum(np.ceil(corners.max(axis=0)) + 1 - size, 0).astype(np.int64)
    if (np.maximum(before, after) > size).any():
        raise AnnotationError(
            f"{name}: a contour reaches farther beyond the image than the image is wide{BESIDE}"
        )
    columns, rows = (before + size + after).tolist()
    return before, (rows, columns)


def _at_slices(
    drawn: NDArray[np.bool_],
    places: NDArray[np.float64],
    count: int,
    step_mm: float,
    steps_mm: list[float],
    notes: list[str],
) -> tuple[NDArray[np.bool_], list[int], float]:
    """(slices, rows, columns) inside, the slices with a contour, and the volume as drawn; NaN if the same.

    Each plane belongs to the slice that it lies in. Where a slice would have several, the region between the
    planes is cut at the centre of the slice instead: outlines of two planes are never combined.
    """
    values = np.zeros((count, *drawn.shape[1:]), dtype=np.bool_)
    own = np.clip(np.floor(places + 0.5 + TIE).astype(int), 0, count - 1)
    if len(np.unique(own)) == len(own):
        beside = float(np.abs(places - own).max())
        if beside > BESIDE_SLICE:
            notes.append(
                f"contours lie up to {beside * step_mm:.2f} mm beside the slices that they are taken to"
            )
        values[own] = drawn
        return values, own.tolist(), math.nan
    gaps = np.diff(places)
    plane_step = float(np.median(gaps))
    limit = max(GAP * plane_step, 1 + ON_PLANE)  # where planes are denser than slices, in slices
    covered = [
        place
        for place in range(count)
        if _cut_between(values[place], drawn, places - place, plane_step, limit, steps_mm)
    ]
    notes.append(
        f"contours in {len(places)} planes {plane_step * step_mm:.2f} mm apart are taken to the slices, "
        f"{step_mm:.2f} mm apart"
    )
    drawn_ml = _drawn_ml(drawn, places * step_mm, limit * step_mm, steps_mm)
    return values, covered or sorted(set(own.tolist())), drawn_ml


def _drawn_ml(
    drawn: NDArray[np.bool_],
    places_mm: NDArray[np.float64],
    limit_mm: float,
    steps_mm: list[float],
) -> float:
    """The volume of planes: the area of each, half way to the next; the usual way where there is a gap."""
    gaps = np.diff(places_mm)
    usual = float(np.median(gaps))
    widths = np.concatenate([[usual], np.where(gaps > limit_mm, usual, gaps), [usual]])
    areas_mm2 = drawn.sum(axis=(1, 2)) * math.prod(steps_mm)
    return float(areas_mm2 @ (widths[:-1] + widths[1:])) / 2000


def _cut_between(
    out: NDArray[np.bool_],
    drawn: NDArray[np.bool_],
    distances: NDArray[np.float64],
    plane_step: float,
    limit: float,
    steps_mm: list[float],
) -> bool:
    """Fill in one slice from the planes at its sides; whether contours reach it.

    Args:
        out: (rows, columns) of the slice, written to.
        drawn: (planes, rows, columns) in their order.
        distances: (planes,) from the slice, in slices.
        plane_step: usual distance of planes; half of it beyond the last is inside.
        limit: planes farther apart have nothing between them.
        steps_mm: of the pixels.
    """
    nearest = int(np.abs(distances).argmin())
    above = int(np.searchsorted(distances, 0.0))
    between = 0 < above < len(distances) and distances[above] - distances[above - 1] <= limit
    if abs(distances[nearest]) <= ON_PLANE or not between:
        reached = bool(abs(distances[nearest]) <= max(plane_step / 2, ON_PLANE) + TIE)
        if reached:
            out[:] = drawn[nearest]
        return reached
    share = -distances[above - 1] / (distances[above] - distances[above - 1])
    out[:] = shape_between(drawn[above - 1], drawn[above], share, steps_mm)
    return True


def _plane_axis(indices: list[NDArray[np.float64]], slice_axis: int, grid: Grid, name: str) -> int:
    """The axis (0 x, 1 y, 2 z) across the planes of all contours: that of the slices where it can be."""
    spread = np.max([np.ptp(points, axis=0) for points in indices], axis=0)
    if spread[slice_axis] <= FLAT:
        return slice_axis
    flattest = int(spread.argmin())
    if spread[flattest] <= FLAT:
        return flattest
    raise AnnotationError(
        f"{name}: a contour rises by {spread[slice_axis] * grid.spacing_mm[slice_axis]:.2f} "
        f"mm through the {PLANES[2 - slice_axis]} slices, which are {grid.spacing_mm[slice_axis]:.2f} mm "
        "apart: it was drawn in planes oblique to them. Use the series that it was drawn on."
    )


def _without_copies(outlines: list[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """Outlines, each once: two copies of one would cancel each other."""
    distinct: list[NDArray[np.float64]] = []
    for outline in outlines:
        if not any(_is_copy(outline, other) for other in distinct):
            distinct.append(outline)
    return distinct


def _is_copy(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Whether two outlines run along each other, wherever each begins, whichever way it runs."""
    ends = (one.min(axis=0) - other.min(axis=0), one.max(axis=0) - other.max(axis=0))
    if np.abs(ends).max() > COPY_PX:
        return False
    return max(_farthest(one, other), _farthest(other, one)) <= COPY_PX


def _farthest(points: NDArray[np.float64], outline: NDArray[np.float64]) -> float:
    """The largest distance of points (n, 2) from an outline (m, 2)."""
    side = np.roll(outline, -1, axis=0) - outline
    length = np.maximum((side**2).sum(axis=1), 1e-12)
    farthest = 0.0
    for point in points:
        along = np.clip(((point - outline) * side).sum(axis=1) / length, 0, 1)
        apart = ((outline + along[:, None] * side - point) ** 2).sum(axis=1).min()
        farthest = max(farthest, float(apart))
    return math.sqrt(farthest)


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
