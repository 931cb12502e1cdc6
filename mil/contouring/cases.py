"""Volumes to contour: one modality on a grid of equal pixels, and the region that is drawn on it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from features.errors import FeaturesError
from features.progress import Progress, Silent
from features.summary import listed
from features.volumes.cells import voxels_sha256
from features.volumes.contours import Mask
from features.volumes.grid import (
    crop,
    crop_mask,
    grid_of_spacing,
    resample,
    resample_mask,
    share_grid,
    square_box,
    whole_box,
)
from features.volumes.intensity import scale_z, window
from features.volumes.jobs import VolumeJob
from features.volumes.recipe import VolumeRecipe
from features.volumes.volume import Grid, Volume
from mil.contouring.settings import ContourSettings
from mil.errors import CohortError, LeakageError

Z_RANGE = 4.0  # standard deviations on either side
POOLED = 8  # the network halves a slice three times


@dataclass(frozen=True, kw_only=True)
class ContourCase:
    """A volume within the field that is searched.

    Attributes:
        name: of the volume.
        case: the patient.
        pixels: (z, side, side) from -1 to 1; -1 beyond the image.
        inside: (z, side, side) whether a pixel lies in the image.
        region: (z, side, side) what is drawn; None where nothing is.
        grid: of these.
        image_grid: of the image as it was acquired.
        drawn: (z, y, x) the region on the grid of the image; None where nothing is drawn.
        region_name: what is drawn, as its file names it.
        source: fingerprint of the voxels.
        notes: what was assumed.
    """

    name: str
    case: str
    pixels: NDArray[np.float32]
    inside: NDArray[np.bool_]
    region: NDArray[np.bool_] | None
    grid: Grid
    image_grid: Grid
    drawn: NDArray[np.bool_] | None
    region_name: str
    source: str
    notes: tuple[str, ...] = ()

    def on_image(self, values: NDArray[np.generic]) -> NDArray[np.float32]:
        """(z, y, x) of the image: what (z, side, side) within the field becomes there; 0 beyond it."""
        volume = Volume(values.astype(np.float32), self.grid)
        return np.clip(resample(volume, self.image_grid).values, 0, 1)


def read_cases(
    jobs: Sequence[VolumeJob], settings: ContourSettings, progress: Progress | None = None
) -> list[ContourCase]:
    """Read the volumes of a table.

    Args:
        jobs: one per examination.
        settings: modality, grid, field and scale of grey.
        progress: is advanced by each volume.

    Raises:
        CohortError: a volume cannot be read.
        LeakageError: the region of one was drawn by a network, which nothing can be judged by.
    """
    cases = []
    with (progress or Silent()).task("volumes", len(jobs), "volumes") as advance:
        for job in jobs:
            try:
                cases.append(_read_case(job, settings))
            except FeaturesError as error:
                raise CohortError(f"{job.name}: {error}") from error
            advance(1)
    return cases


def _read_case(job: VolumeJob, settings: ContourSettings) -> ContourCase:
    recipe = VolumeRecipe(
        channels=(settings.modality,), slices="all", show="whole", pixel_mm=settings.pixel_mm
    )
    volumes, mask = job.read(recipe)
    image = volumes[settings.modality]
    drawn = bool(job.drawn_on(recipe))
    if mask.trained_on:
        raise LeakageError(
            f"{job.name}: its mask was drawn by a network, trained on {listed(mask.trained_on)}. A network "
            "is trained and judged by what people have drawn: name that in the table's column mask."
        )
    if drawn:
        share_grid(volumes, image.grid)  # refuses images of two frames of reference
        mask = resample_mask(mask, image.grid)
    return _place(job, image, mask if drawn else None, settings)


def _place(
    job: VolumeJob, image: Volume, mask: Mask | None, settings: ContourSettings
) -> ContourCase:
    """A volume and its region within the field."""
    pixel = settings.pixel_mm
    grid = grid_of_spacing(image.grid, (pixel, pixel, settings.slice_mm or image.spacing_mm[2]))
    side = int(np.ceil(settings.field_mm / pixel / POOLED)) * POOLED
    box = square_box(whole_box(grid), side)
    grey = crop(resample(_grey(image, settings), grid), box)
    filled = image.with_values(np.ones(image.values.shape))
    inside = crop(resample(replace(filled, modality=""), grid), box)
    return ContourCase(
        name=job.name,
        case=job.case,
        pixels=grey.values - 1,
        inside=inside.values > 0.5,
        region=crop_mask(resample_mask(mask, grid), box).values if mask else None,
        grid=grey.grid,
        image_grid=image.grid,
        drawn=mask.values if mask else None,
        region_name=mask.name if mask else "",
        source=voxels_sha256(image),
        notes=(*image.notes, *(mask.notes if mask else ())),
    )


def _grey(image: Volume, settings: ContourSettings) -> Volume:
    """From 0 to 2, so that nothing, beyond the image, is the lowest value."""
    low, high = settings.limits or (-Z_RANGE, Z_RANGE)
    scaled = window(image if settings.limits else scale_z(image), low, high)
    return replace(scaled, values=2 * scaled.values, modality="")
