"""A volume: values on a grid of voxels that has a place in the patient, in millimetres.

One frame everywhere: LPS, millimetres that grow to the patient's left, to the back (posterior) and to the
head (superior), as in DICOM. Arrays are (z, y, x); triples in millimetres are (x, y, z).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.errors import VolumeError

SAME_GRID = 1e-2  # of a voxel: grids whose corners differ by less are one
AIR_HU = -1024.0
MISSING_HALF = 1.9  # times the thickness of a slice
FINEST_MM, COARSEST_MM = 0.01, 100.0  # sides of voxels
MICRO_MM = (
    0.002,
    0.1,
)  # of all sides, in micro-CT; those of a patient, in metres, are mostly below
RIGHT_ANGLE = 1e-3  # cosine; float32 in a header leaves less
PLANES = ("axial", "coronal", "sagittal")  # by the array axis across the slices


@dataclass(frozen=True)
class Grid:
    """Places of voxels.

    Attributes:
        shape: voxels along (z, y, x).
        spacing_mm: distance of voxel centres along (x, y, z).
        origin_mm: centre of voxel (0, 0, 0), LPS.
        direction: (3, 3); its columns are the unit vectors of the x, y and z axis in LPS.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    direction: NDArray[np.float64]

    @property
    def voxel_ml(self) -> float:
        """The volume of a voxel in millilitres."""
        return math.prod(self.spacing_mm) / 1000

    @property
    def affine(self) -> NDArray[np.float64]:
        """(4, 4) from the index (x, y, z, 1) to millimetres."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.direction * np.asarray(self.spacing_mm)
        matrix[:3, 3] = self.origin_mm
        return matrix

    def to_mm(self, index: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, 3) places in mm of (n, 3) indices (x, y, z), which may lie between voxels."""
        places_mm: NDArray[np.float64] = index @ self.affine[:3, :3].T + self.affine[:3, 3]
        return places_mm

    def to_index(self, places_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, 3) indices (x, y, z) of (n, 3) places in mm; whole numbers are centres of voxels."""
        turned = np.linalg.solve(self.affine[:3, :3], (places_mm - self.affine[:3, 3]).T)
        return turned.T.astype(np.float64)

    def is_same_as(self, other: "Grid") -> bool:
        """Whether the corners of two grids lie within 1/100 voxel of each other."""
        if self.shape != other.shape:
            return False
        size = np.asarray(self.shape[::-1]) - 1.0
        corners = np.array(np.meshgrid(*zip((0, 0, 0), size, strict=True))).reshape(3, -1).T
        return bool(np.abs(other.to_index(self.to_mm(corners)) - corners).max() < SAME_GRID)


@dataclass(frozen=True)
class Volume:
    """Values of one modality on a grid.

    Attributes:
        values: (z, y, x) float32: HU of CT, Gy of a dose, else as the scanner scaled them.
        grid: the places of the voxels.
        modality: that of DICOM (CT, MR, PT, RTDOSE) or of the user; empty where a file names none.
        frame_of_reference: UID of the frame the millimetres are in; empty where a file names none.
        series: UID of the DICOM series; empty for other files.
        slice_axis: the array axis across the acquired slices: 0 axial, 1 coronal, 2 sagittal.
        facts: what the audit asks of a scan (spacing, thickness, manufacturer, ...), and nothing of the
            patient.
        notes: what was assumed, filled or clipped when the series was read, in words.
    """

    values: NDArray[np.float32]
    grid: Grid
    modality: str = ""
    frame_of_reference: str = ""
    series: str = ""
    slice_axis: int = 0
    facts: Mapping[str, str | float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.values.shape == self.grid.shape, (self.values.shape, self.grid.shape)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of voxel centres along (x, y, z)."""
        return self.grid.spacing_mm

    @property
    def origin_mm(self) -> tuple[float, float, float]:
        """Centre of voxel (0, 0, 0), LPS."""
        return self.grid.origin_mm

    @property
    def direction(self) -> NDArray[np.float64]:
        """(3, 3); its columns are the unit vectors of the x, y and z axis."""
        return self.grid.direction

    @property
    def outside(self) -> float:
        """The value where there is nothing: air on CT, else 0."""
        return AIR_HU if self.modality == "CT" else 0.0

    def with_values(self, values: NDArray[Any], *notes: str) -> "Volume":
        """The same place with other values."""
        return replace(self, values=values.astype(np.float32), notes=self.notes + notes)


def check_spacing(spacing_mm: Sequence[float], name: str, stated: str = "") -> None:
    """Raise where voxels are of no size that a scanner makes.

    Args:
        spacing_mm: of voxel centres along the axes.
        name: of the file or series.
        stated: what its header says of the unit, in words.

    Raises:
        VolumeError: they are.
    """
    if not (min(spacing_mm) >= FINEST_MM and max(spacing_mm) <= COARSEST_MM):
        if MICRO_MM[0] <= min(spacing_mm) and max(spacing_mm) <= MICRO_MM[1]:
            return
        in_metres = (
            not stated and 0 < 1000 * min(spacing_mm) <= 1000 * max(spacing_mm) <= COARSEST_MM
        )
        remedy = (
            "If they are metres, multiply them by 1000"
            if in_metres
            else "Correct the size or its unit"
        )
        raise VolumeError(
            f"{name}: its voxels are {' x '.join(f'{step:.4g}' for step in spacing_mm)} mm"
            f"{f' ({stated})' if stated else ''}; sides of {FINEST_MM:g} to {COARSEST_MM:g} mm are "
            f"plausible, and {MICRO_MM[0]:g} to {MICRO_MM[1]:g} mm of micro-CT. {remedy} "
            "in the header, or export the series again."
        )


def notes_on_spacing(
    grid: Grid, step_mm: float = 0.0, thickness_mm: float | None = None
) -> tuple[str, ...]:
    """Notes on voxels as fine as those of micro-CT, and on slices twice their thickness apart.

    Fine voxels are what a header in metres would state too; far slices, what is left where every second one
    was lost.

    Args:
        grid: of the volume.
        step_mm: from slice to slice.
        thickness_mm: of a slice; None if it is not stated.
    """
    notes = []
    finest = min(grid.spacing_mm)
    if finest < FINEST_MM:
        notes.append(
            f"voxels of {finest:.3g} mm, as of micro-CT; if the header means metres, multiply them by 1000"
        )
    if thickness_mm and step_mm >= MISSING_HALF * thickness_mm:
        notes.append(
            f"its slices are {thickness_mm:.3g} mm thick and {step_mm:.3g} mm apart: nothing is seen between "
            "them, or every second one is missing"
        )
    return tuple(notes)


def check_axes(steps_mm: NDArray[np.float64], name: str, stated: str = "") -> None:
    """Raise where the axes of a grid are not at right angles, or its voxels of no plausible size.

    Args:
        steps_mm: (3, 3), its columns the step along each axis.
        name: of the file.
        stated: as in ``check_spacing``.

    Raises:
        VolumeError: they are.
    """
    lengths = np.linalg.norm(steps_mm, axis=0)
    check_spacing(lengths.tolist(), name, stated)
    cosines = steps_mm / lengths
    if np.abs(cosines.T @ cosines - np.eye(3)).max() > RIGHT_ANGLE:
        raise VolumeError(
            f"{name}: its axes are not at right angles (steps of "
            f"{' x '.join(f'{length:.3g}' for length in lengths)} mm). Resample it to a plain grid first."
        )


def turn_to_lps(
    values: NDArray[Any], grid: Grid, slice_axis: int = 0
) -> tuple[NDArray[Any], Grid, int]:
    """Reorder and flip the axes, without a new value, until x, y, z run nearest to left, back and head.

    Files of one scan store its axes in different orders; here they all become one array.

    Args:
        values: (z, y, x) voxels.
        grid: their places.
        slice_axis: the array axis across the slices.

    Returns:
        The values, their grid and the array axis across the slices, in the new order.
    """
    order, signs = _nearest_axes(grid.direction)
    array_order = [2 - order[2 - axis] for axis in range(3)]
    turned = values.transpose(array_order)
    direction = grid.direction[:, order]
    spacing = tuple(grid.spacing_mm[axis] for axis in order)
    origin = np.asarray(grid.origin_mm, dtype=np.float64)
    for axis in range(3):
        if signs[axis] < 0:
            steps = turned.shape[2 - axis] - 1
            origin = origin + direction[:, axis] * spacing[axis] * steps
            turned = np.flip(turned, 2 - axis)
    placed = Grid(
        shape=(turned.shape[0], turned.shape[1], turned.shape[2]),
        spacing_mm=(spacing[0], spacing[1], spacing[2]),
        origin_mm=(float(origin[0]), float(origin[1]), float(origin[2])),
        direction=direction * signs,
    )
    return np.ascontiguousarray(turned), placed, array_order.index(slice_axis)


def _nearest_axes(direction: NDArray[np.float64]) -> tuple[list[int], NDArray[np.float64]]:
    """For left, back and head: the axis nearest to it, each once, and 1 or -1 as it runs along or against."""
    best, order = -1.0, [0, 1, 2]
    for candidate in ([0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]):
        agreement = float(sum(abs(direction[way, axis]) for way, axis in enumerate(candidate)))
        if agreement > best + 1e-9:
            best, order = agreement, candidate
    signs = np.array([math.copysign(1.0, direction[way, axis]) for way, axis in enumerate(order)])
    return order, signs
