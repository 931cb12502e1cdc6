"""Volumes to contour: one modality on a grid of equal pixels, and the region that is drawn on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from features.errors import EmptyRegion, SarcomilError
from features.progress import Progress, Silent
from features.summary import listed
from features.volumes.cells import FLAT, voxels_sha256
from features.volumes.contours import Mask
from features.volumes.grid import (
    Box,
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
from mil.errors import LeakageError

Z_RANGE = 4.0  # standard deviations on either side
POOLED = 8  # the network halves a slice three times
WHITEST = 2.0  # of grey, before it is moved to -1 to 1
EMPTY = (
    "its mask is empty: it is learnt from as a volume without a region, and no Dice is defined; leave the "
    "column mask empty if nobody has drawn it"
)


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

    @property
    def beyond(self) -> float | None:
        """The share of the drawn region that lies beyond the field; None where it does not touch its edge."""
        if self.drawn is None or self.region is None or not self.drawn.any():
            return None
        edges = (self.region[:, [0, -1]], self.region[:, :, [0, -1]])
        if self.region.any() and not any(edge.any() for edge in edges):
            return None
        inside = int(self.region.sum()) * self.grid.voxel_ml
        return max(0.0, 1 - inside / (int(self.drawn.sum()) * self.image_grid.voxel_ml))

    def on_image(self, values: NDArray[np.generic]) -> NDArray[np.float32]:
        """(z, y, x) of the image: what (z, side, side) within the field becomes there; 0 beyond it."""
        volume = Volume(values.astype(np.float32), self.grid)
        return np.clip(resample(volume, self.image_grid).values, 0, 1)


@dataclass(frozen=True)
class ReadCases:
    """The volumes of a table that could be read, and why the others could not.

    Attributes:
        cases: in the order of the table.
        failed: reasons by volume.
    """

    cases: tuple[ContourCase, ...]
    failed: Mapping[str, str]


def read_cases(
    jobs: Sequence[VolumeJob], settings: ContourSettings, progress: Progress | None = None
) -> ReadCases:
    """Read the volumes of a table; one that cannot be read does not stop the others.

    Args:
        jobs: one per examination.
        settings: modality, grid, field and scale of grey.
        progress: is advanced by each volume.

    Raises:
        LeakageError: the region of one was drawn by a network, which nothing can be judged by; or two
            patients have one image, of which one would be judged by a network that has learnt the other.
    """
    cases, failed = [], {}
    with (progress or Silent()).task("volumes", len(jobs), "volumes") as advance:
        for job in jobs:
            try:
                cases.append(_read_case(job, settings))
            except LeakageError:
                raise
            except SarcomilError as error:
                failed[job.name] = str(error)
            except Exception as error:  # noqa: BLE001 - the one guard of the other volumes
                failed[job.name] = f"{type(error).__name__}: {error}"
            advance(1)
    _refuse_twins(cases)
    return ReadCases(tuple(cases), failed)


def _refuse_twins(cases: Sequence[ContourCase]) -> None:
    """Refuse one image under two patients."""
    first_with: dict[str, ContourCase] = {}
    for case in cases:
        twin = first_with.setdefault(case.source, case)
        if twin.case != case.case:
            raise LeakageError(
                f"{twin.name} (case {twin.case}) and {case.name} (case {case.case}) are the same "
                "image: every "
                "voxel is equal. Keep one of them in the table, or give both the same case."
            )


def _read_case(job: VolumeJob, settings: ContourSettings) -> ContourCase:
    recipe = VolumeRecipe(
        channels=(settings.modality,), slices="all", show="whole", pixel_mm=settings.pixel_mm
    )
    try:
        volumes, mask = job.read(recipe)
        empty = False
    except EmptyRegion:
        volumes, mask = _without_region(job).read(recipe)
        mask, empty = replace(mask, values=np.zeros_like(mask.values), notes=(EMPTY,)), True
    image = volumes[settings.modality]
    drawn = bool(job.drawn_on(recipe))
    if mask.trained_on:
        raise LeakageError(
            f"{job.name}: its mask was drawn by a network, trained on {listed(mask.trained_on)}. A network "
            "is trained and judged by what people have drawn: name that in the table's column mask."
        )
    if drawn and not empty:
        share_grid(volumes, image.grid)  # refuses images of two frames of reference
        mask = resample_mask(mask, image.grid)
    return _place(job, image, mask if drawn else None, settings)


def _without_region(job: VolumeJob) -> VolumeJob:
    files = {name: replace(one, mask=None, roi="") for name, one in job.modalities.items()}
    return replace(job, modalities=files)


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
    notes = (*image.notes, *(mask.notes if mask else ()))
    if settings.limits:  # its own scale suits a volume, however much of it is air
        notes += _flat_note(grey.values, inside.values)
    return ContourCase(
        name=job.name,
        case=job.case,
        pixels=grey.values - 1,
        inside=inside.values > 0.5,
        region=_region(mask, grid, box) if mask else None,
        grid=grey.grid,
        image_grid=image.grid,
        drawn=mask.values if mask else None,
        region_name=mask.name if mask else "",
        source=voxels_sha256(image),
        notes=notes,
    )


def _region(mask: Mask, grid: Grid, box: Box) -> NDArray[np.bool_]:
    """The region within the field; an empty one is empty there too."""
    if not mask.values.any():
        return np.zeros(box.shape, bool)
    return crop_mask(resample_mask(mask, grid), box).values


def _grey(image: Volume, settings: ContourSettings) -> Volume:
    """From 0 to 2, so that nothing, beyond the image, is the lowest value."""
    low, high = settings.limits or (-Z_RANGE, Z_RANGE)
    scaled = window(image if settings.limits else scale_z(image), low, high)
    return replace(scaled, values=2 * scaled.values, modality="")


def _flat_note(grey: NDArray[np.float32], inside: NDArray[np.float32]) -> tuple[str, ...]:
    """A note where nearly all of an image is black or white, as with the window of another unit."""
    shown = grey[inside > 0.5]
    flat = max(np.mean(shown <= 0), np.mean(shown >= WHITEST)) if len(shown) else 0.0
    if flat <= FLAT:
        return ()
    return (f"{flat:.0%} of it is black or white; check its window and its unit",)
