"""One grid for all modalities of a patient: resampling, isotropic grids, boxes with a margin, padding."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from features.errors import VolumeError
from features.volumes.between import depth_mm
from features.volumes.contours import Mask
from features.volumes.libraries import simpleitk
from features.volumes.volume import Grid, Volume

Interpolation = Literal["linear", "bspline", "nearest"]
MAX_VOXELS = 2**30  # 4 GiB of float32
# Places are multiples of 1/96 voxel: halves, quarters, eighths and thirds are among them.
PARTS_OF_VOXEL = 96
PARTS_OF_STEP = 1e5  # of the steps and turns from grid to grid
BESIDE = 0.03  # of a part; float32 leaves up to 0.01


@dataclass(frozen=True)
class Box:
    """A part of a grid in voxels, which may reach beyond it.

    Attributes:
        start: first voxel along (z, y, x).
        stop: the voxel after the last.
    """

    start: tuple[int, int, int]
    stop: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (z, y, x)."""
        z, y, x = (last - first for first, last in zip(self.start, self.stop, strict=True))
        return z, y, x


def resample(
    volume: Volume,
    grid: Grid,
    *,
    interpolation: Interpolation = "linear",
    moved: NDArray[np.float64] | None = None,
) -> Volume:
    """A volume at the places of another grid.

    Places are rounded to 1/96 voxel of the volume, so that what a file format rounds away of its geometry
    (NIfTI stores float32) changes no value. Beyond the volume, by more than half a voxel, there is nothing:
    air on CT, else 0.

    Args:
        volume: what is resampled.
        grid: where its values are wanted.
        interpolation: linear; bspline (cubic), clipped to the range of the values, as it overshoots; nearest.
        moved: (4, 4) from millimetres of the grid to those of the volume; None where they share a frame.

    Returns:
        The volume on the grid; with equal values where both grids are one.

    Raises:
        VolumeError: the volume and the grid have no place in common.
    """
    if moved is None and volume.grid.is_same_as(grid):
        return replace(volume, grid=grid)
    index_map = _index_map(volume.grid, grid, moved)
    _check_overlap(volume, grid, index_map)
    values = _at(volume.values, index_map, grid, interpolation, volume.outside)
    if interpolation == "bspline":
        values = np.clip(values, volume.values.min(), volume.values.max())
    return replace(volume, values=values, grid=grid)


def resample_mask(mask: Mask, grid: Grid, *, moved: NDArray[np.float64] | None = None) -> Mask:
    """A region at the places of another grid.

    The signed distance from its border is interpolated, in millimetres, and what is above 0 is inside: a
    region keeps its shape between thick slices, where the nearest voxel would give steps.

    Args:
        mask: the region.
        grid: where it is wanted.
        moved: see ``resample``.

    Raises:
        VolumeError: the region is empty, or no voxel of the grid lies in it.
    """
    if moved is None and mask.grid.is_same_as(grid):
        return replace(mask, grid=grid)
    if not mask.values.any():
        raise VolumeError(
            f"{mask.name or 'The region'} is empty: there is nothing to move to a grid."
        )
    margin_mm = 2 * np.asarray(mask.grid.spacing_mm)
    box = box_of(mask, (float(margin_mm[0]), float(margin_mm[1]), float(margin_mm[2])))
    depth = depth_mm(_cut(mask.values, box, 0), mask.grid.spacing_mm[::-1])
    index = _index_map(mask.grid, grid, moved)
    index[:3, 3] -= box.start[::-1]
    values = _at(depth, index, grid, "linear", -1.0) > 0
    if not values.any():
        raise VolumeError(
            f"{mask.name or 'The region'} has no voxel on the grid: they lie apart, or the region is smaller "
            "than a voxel. Check that both belong to one patient, or use a finer grid."
        )
    return replace(mask, values=values, grid=grid)


def share_beyond(mask: Mask, grid: Grid) -> float:
    """The share of a region whose centres lie beyond a grid, by half a voxel of it or more."""
    places = mask.grid.to_mm(np.argwhere(mask.values)[:, ::-1].astype(np.float64))
    index = grid.to_index(places)
    size = np.asarray(grid.shape[::-1])
    inside = ((index >= -0.5 - 1e-6) & (index < size - 0.5 - 1e-6)).all(axis=1)
    return 1 - float(np.mean(inside)) if len(places) else 0.0


def _index_map(source: Grid, grid: Grid, moved: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """(4, 4) from the index of the grid to that of the source, rounded."""
    places = grid.affine if moved is None else moved @ grid.affine
    matrix = np.linalg.solve(source.affine, places).astype(np.float64)
    matrix[:3, :3] = round_apart(matrix[:3, :3], PARTS_OF_STEP)
    matrix[:3, 3] = round_apart(matrix[:3, 3], PARTS_OF_VOXEL)
    return matrix


def round_apart(values: NDArray[np.float64], parts: float) -> NDArray[np.float64]:
    """Multiples of 1/parts that no noise of float32 changes.

    What geometry is made of is often a fraction half way between two multiples, where noise would decide;
    here the decision falls a little beside the middle.
    """
    return np.floor(values * parts + 0.5 + BESIDE) / parts


def _check_overlap(volume: Volume, grid: Grid, index_map: NDArray[np.float64]) -> None:
    """Raise where no voxel of a grid can lie in a volume."""
    ends = [(0.0, length - 1.0) for length in grid.shape[::-1]]
    corners = np.array(np.meshgrid(*ends)).reshape(3, -1).T @ index_map[:3, :3].T + index_map[:3, 3]
    size = np.asarray(volume.grid.shape[::-1])
    apart = np.maximum(corners.min(axis=0) - (size - 0.5), -0.5 - corners.max(axis=0))
    if apart.max() > 0:
        apart_mm = float((apart * volume.spacing_mm).max())
        raise VolumeError(
            f"The {volume.modality or 'volume'} does not overlap the target grid, from which it "
            f"is {apart_mm:.1f} mm away. Check that both belong to one patient and one visit, or "
            "register them "
            "first."
        )


def share_grid(
    volumes: Mapping[str, Volume], grid: Grid, *, interpolation: Interpolation = "linear"
) -> dict[str, Volume]:
    """All modalities of a patient on one grid.

    Args:
        volumes: by name; in one frame of reference, or already registered.
        grid: as that of one of them.
        interpolation: see ``resample``.

    Raises:
        VolumeError: two name different frames of reference, or one does not reach the grid.
    """
    frames: dict[str, str] = {}
    for name, volume in volumes.items():
        if volume.frame_of_reference:
            frames.setdefault(volume.frame_of_reference, name)
    if len(frames) > 1:
        names = " and ".join(frames.values())
        raise VolumeError(
            f"{names} lie in different frames of reference: equal millimetres are different places. Register "
            "them first, or use series of one examination."
        )
    return {name: resample(one, grid, interpolation=interpolation) for name, one in volumes.items()}


def _at(
    values: NDArray[Any],
    index_map: NDArray[np.float64],
    grid: Grid,
    interpolation: Interpolation,
    outside: float,
) -> NDArray[np.float32]:
    """(z, y, x) of the grid: values at mapped indices. Both images lie in index space, one unit a voxel."""
    sitk = simpleitk()
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(index_map[:3, :3].ravel().tolist())
    transform.SetTranslation(index_map[:3, 3].tolist())
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize([int(length) for length in grid.shape[::-1]])
    resampler.SetTransform(transform)
    kinds = {
        "linear": sitk.sitkLinear,
        "bspline": sitk.sitkBSpline,
        "nearest": sitk.sitkNearestNeighbor,
    }
    resampler.SetInterpolator(kinds[interpolation])
    resampler.SetDefaultPixelValue(outside)
    image = sitk.GetImageFromArray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(sitk.GetArrayFromImage(resampler.Execute(image)), dtype=np.float32)


def grid_of_spacing(grid: Grid, spacing_mm: tuple[float, float, float]) -> Grid:
    """A grid of other steps over the extent of another, whose axes and centre it keeps.

    Args:
        grid: the extent and the axes.
        spacing_mm: along (x, y, z).

    Raises:
        VolumeError: a spacing is not above 0, or so fine that the volume would not fit into memory.
    """
    if min(spacing_mm) <= 0:
        raise VolumeError(f"The spacing of a grid, spacing_mm, must be above 0; got {spacing_mm}.")
    old, new = np.asarray(grid.spacing_mm), np.asarray(spacing_mm, dtype=np.float64)
    extent = np.asarray(grid.shape[::-1]) * old
    size = np.maximum(np.ceil(extent / new - 1e-3), 1).astype(int)
    if math.prod(size.tolist()) > MAX_VOXELS:
        raise VolumeError(
            f"A grid of {new.min():g} mm over {' x '.join(f'{side:.0f}' for side in extent)} mm has "
            f"{math.prod(size.tolist()):,} voxels. Take a wider spacing_mm, or a box round the tumour."
        )
    # The first centre lies so that both extents have one centre.
    first = (extent - size * new) / 2 + new / 2 - old / 2
    origin = np.asarray(grid.origin_mm) + grid.direction @ first
    return Grid(
        (int(size[2]), int(size[1]), int(size[0])),
        (float(new[0]), float(new[1]), float(new[2])),
        (float(origin[0]), float(origin[1]), float(origin[2])),
        grid.direction,
    )


def box_of(mask: Mask, margin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Box:
    """The smallest box round a region, and a margin.

    Args:
        mask: the region.
        margin_mm: along (x, y, z), rounded up to whole voxels.

    Raises:
        VolumeError: the region is empty.
    """
    places = np.argwhere(mask.values)
    if not len(places):
        raise VolumeError(f"{mask.name or 'The region'} is empty: there is nothing to crop to.")
    steps = np.asarray(mask.grid.spacing_mm[::-1])
    margin = np.ceil(np.asarray(margin_mm[::-1]) / steps - 1e-6).astype(int)
    start = (places.min(axis=0) - margin).tolist()
    stop = (places.max(axis=0) + 1 + margin).tolist()
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def whole_box(grid: Grid) -> Box:
    """All of a grid."""
    return Box((0, 0, 0), grid.shape)


def square_box(box: Box, side: int) -> Box:
    """A box of a square of so many voxels in plane, with the centre and the slices of another."""
    start, stop = [box.start[0]], [box.stop[0]]
    for axis in (1, 2):
        first = math.floor((box.start[axis] + box.stop[axis] - side) / 2)
        start.append(first)
        stop.append(first + side)
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def crop(volume: Volume, box: Box) -> Volume:
    """A part of a volume; beyond it there is nothing: air on CT, else 0."""
    values = _cut(volume.values, box, volume.outside)
    return replace(volume, values=values, grid=_cut_grid(volume.grid, box))


def crop_mask(mask: Mask, box: Box) -> Mask:
    """A part of a region."""
    return replace(mask, values=_cut(mask.values, box, 0), grid=_cut_grid(mask.grid, box))


def _cut(values: NDArray[Any], box: Box, outside: float) -> NDArray[Any]:
    cut = np.full(box.shape, outside, dtype=values.dtype)
    limits = list(zip(box.start, box.stop, values.shape, strict=True))
    source = tuple(slice(max(first, 0), max(min(last, size), 0)) for first, last, size in limits)
    if all(part.stop > part.start for part in source):
        target = tuple(
            slice(part.start - first, part.stop - first)
            for part, first in zip(source, box.start, strict=True)
        )
        cut[target] = values[source]
    return cut


def _cut_grid(grid: Grid, box: Box) -> Grid:
    origin = grid.to_mm(np.array([box.start[::-1]], dtype=np.float64))[0]
    return replace(
        grid, shape=box.shape, origin_mm=(float(origin[0]), float(origin[1]), float(origin[2]))
    )
