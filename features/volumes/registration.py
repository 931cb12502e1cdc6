"""Rigid registration of two modalities of a patient, and how well both of its directions agree.

Source: Mattes et al., IEEE TMI 2003 (mutual information of a sample of voxels); Christensen and Johnson,
IEEE TMI 2001 (a registration and its inverse must undo each other).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.errors import VolumeError
from features.volumes.grid import resample
from features.volumes.libraries import simpleitk
from features.volumes.volume import Grid, Volume

SAMPLES = 20_000  # voxels at each level
BINS, STEPS = 32, 100
FIRST_STEP_MM, LAST_STEP_MM = 0.5, 0.01
# From coarse to fine, and fine alone, which keeps to a start that is nearly right; both end alike.
PYRAMIDS = (((4, 2, 1), (4.0, 2.0, 2.0)), ((1,), (2.0,)))
CONTRAST_HU = (-200.0, 300.0)  # fat to contrast agent; air and bone would take all bins
CONTRAST = (0.01, 0.99)  # quantiles of other modalities
MAX_RESIDUAL_MM = 3.0
# T1, CT and PET that lie right gained a factor of 1.1 to 1.3 by registration, which moved them 5 to 10 mm; CT
# that lay 28 mm off gained 1.65 and more.
CLEAR_GAIN = 1.5


@dataclass(frozen=True)
class Registration:
    """Where a place of one volume lies in another.

    Attributes:
        matrix: (4, 4) from millimetres of the fixed volume to millimetres of the moving one; rigid.
        residual_mm: mean distance, over the fixed volume, by which the registration and that of the volumes
            in exchanged roles fail to undo each other. It is no error: 0 is no proof of a right registration,
            and the error was up to 5 times as large on CT, MRI and PET of sarcomas. What is far from 0 is
            wrong.
        information: Mattes mutual information at the end; more is better.
        moved_mm: mean distance, over the fixed volume, between its millimetres and those of the moved one.
        is_identity: whether equal millimetres were kept, as the registration was not clearly better.
    """

    matrix: NDArray[np.float64]
    residual_mm: float
    information: float
    moved_mm: float = 0.0
    is_identity: bool = False


def register_rigid(
    fixed: Volume, moving: Volume, *, seed: int = 0, max_residual_mm: float = MAX_RESIDUAL_MM
) -> Registration:
    """Register two volumes by turns and shifts, with no change of shape.

    It starts from equal millimetres where both name one frame of reference, else from equal centres. Fields
    of view that were cropped closely often mislead it, which the residual need not show. Where a file names
    no frame of reference, equal millimetres are kept unless the registration is clearly better.

    Args:
        fixed: the volume whose places are kept.
        moving: the other; its frame of reference may be another.
        seed: of the sample of voxels.
        max_residual_mm: refuse what is further off than this.

    Raises:
        VolumeError: the two do not overlap, or the registration is further off than is allowed.
    """
    there, information = _register(fixed, moving, seed)
    back, _ = _register(moving, fixed, seed)
    residual_mm = _mean_distance(fixed.grid, back @ there)
    moved_mm = _mean_distance(fixed.grid, there)
    if _may_lie_right(fixed, moving):
        before, after = (_similarity(fixed, moving, matrix) for matrix in (np.eye(4), there))
        if after < CLEAR_GAIN * before:
            return Registration(np.eye(4), residual_mm, before, moved_mm, is_identity=True)
    if residual_mm > max_residual_mm:
        raise VolumeError(
            f"The registration of {moving.modality or 'a volume'} to {fixed.modality or 'another'} and its "
            f"inverse differ by {residual_mm:.2f} mm, more than {max_residual_mm:g} mm: it is not to be "
            "relied on. Pass volumes that were registered and checked elsewhere."
        )
    return Registration(there, residual_mm, information, moved_mm)


def apply_registration(registration: Registration, moving: Volume, fixed: Volume) -> Volume:
    """The moving volume on the grid, and in the frame of reference, of the fixed one."""
    placed = resample(moving, fixed.grid, moved=registration.matrix)
    note = describe(registration)
    return replace(placed, frame_of_reference=fixed.frame_of_reference, notes=(*placed.notes, note))


def describe(registration: Registration) -> str:
    """What was done, and what the residual is."""
    moved = f"{registration.moved_mm:.1f} mm"
    if registration.is_identity:
        return (
            f"left where its file places it: registration would move it by {moved} on average, and is not "
            "clearly better"
        )
    return (
        f"registered rigidly and moved by {moved} on average; both directions agree to "
        f"{registration.residual_mm:.2f} mm, which is no measure of the error: that may be several times as "
        "large, so check it by eye"
    )


def to_image(volume: Volume) -> Any:
    """A volume as an image of SimpleITK, in millimetres."""
    image = simpleitk().GetImageFromArray(volume.values)
    image.SetSpacing(volume.spacing_mm)
    image.SetOrigin(volume.origin_mm)
    image.SetDirection(volume.direction.ravel().tolist())
    return image


def _may_lie_right(fixed: Volume, moving: Volume) -> bool:
    """Whether equal millimetres may be equal places: not where two frames of reference are named."""
    names = fixed.frame_of_reference, moving.frame_of_reference
    return not all(names) or names[0] == names[1]


def _similarity(fixed: Volume, moving: Volume, matrix: NDArray[np.float64]) -> float:
    """Mattes mutual information of two volumes as they lie; 0 where they do not overlap."""
    sitk = simpleitk()
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(min(1.0, 2 * SAMPLES / fixed.values.size))
    method.SetInterpolator(sitk.sitkLinear)
    method.SetNumberOfThreads(1)
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix[:3, :3].ravel().tolist())
    transform.SetTranslation(matrix[:3, 3].tolist())
    method.SetInitialTransform(transform, inPlace=True)
    try:
        return -float(method.MetricEvaluate(_contrast(fixed), _contrast(moving)))
    except RuntimeError:
        return 0.0


def _register(fixed: Volume, moving: Volume, seed: int) -> tuple[NDArray[np.float64], float]:
    """The better of two ways, by the information at their end."""
    images = _contrast(fixed), _contrast(moving)
    thin = min(fixed.values.shape + moving.values.shape)
    results = []
    for shrink, smooth_mm in PYRAMIDS:
        levels = [
            level for level, factor in enumerate(shrink) if factor == 1 or thin // factor >= 4
        ]
        method = _method(fixed, [shrink[i] for i in levels], [smooth_mm[i] for i in levels], seed)
        method.SetInitialTransform(_start(fixed, moving), inPlace=True)
        try:
            transform = method.Execute(*images)
        except RuntimeError as error:
            raise VolumeError(
                f"{moving.modality or 'The volume'} cannot be registered to "
                f"{fixed.modality or 'the other'}: they do not overlap enough, or one is without contrast. "
                "Check that both show one region."
            ) from error
        results.append((_matrix(transform.TransformPoint), -float(method.GetMetricValue())))
    return max(results, key=lambda result: result[1])


def _contrast(volume: Volume) -> Any:
    """An image of the values that tell tissues apart."""
    low, high = np.quantile(volume.values, CONTRAST).tolist()
    if volume.modality == "CT":
        low, high = CONTRAST_HU
    return to_image(volume.with_values(np.clip(volume.values, low, high)))


def _method(fixed: Volume, shrink: list[int], smooth_mm: list[float], seed: int) -> Any:
    """Mattes mutual information, climbed in steps that grow shorter."""
    sitk = simpleitk()
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.RANDOM)
    counts = [math.prod(max(1, side // factor) for side in fixed.values.shape) for factor in shrink]
    shares = [min(1.0, SAMPLES / count) for count in counts]
    method.SetMetricSamplingPercentagePerLevel(shares, seed + 1)  # seed 0 would take the clock
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(FIRST_STEP_MM, LAST_STEP_MM, STEPS, 0.5)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(shrink)
    method.SetSmoothingSigmasPerLevel(smooth_mm)
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetNumberOfThreads(1)  # sums in one order: equal results on every machine
    return method


def _start(fixed: Volume, moving: Volume) -> Any:
    """No turn, about the centre of the fixed volume; no shift in one frame, else from centre to centre."""
    centres = [
        one.grid.to_mm((np.array([one.grid.shape[::-1]], dtype=np.float64) - 1) / 2)[0]
        for one in (fixed, moving)
    ]
    start = simpleitk().Euler3DTransform()
    start.SetCenter(centres[0].tolist())
    if not fixed.frame_of_reference or fixed.frame_of_reference != moving.frame_of_reference:
        start.SetTranslation((centres[1] - centres[0]).tolist())
    return start


def _matrix(move: Callable[[tuple[float, float, float]], Any]) -> NDArray[np.float64]:
    """(4, 4) of an affine map of points."""
    origin = np.array(move((0.0, 0.0, 0.0)))
    matrix = np.eye(4)
    axes = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    matrix[:3, :3] = np.stack([np.array(move(axis)) - origin for axis in axes], axis=1)
    matrix[:3, 3] = origin
    return matrix


def _mean_distance(grid: Grid, matrix: NDArray[np.float64]) -> float:
    """Mean distance by which a map moves the corners and the centre of a grid, in mm."""
    ends = [(0.0, (length - 1) / 2, length - 1.0) for length in grid.shape[::-1]]
    places = grid.to_mm(np.array(np.meshgrid(*ends)).reshape(3, -1).T)
    moved = places @ matrix[:3, :3].T + matrix[:3, 3]
    return float(np.linalg.norm(moved - places, axis=1).mean())
