"""Label maps (NIfTI, NRRD, MetaImage): a region of one as a mask on the grid of a volume."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.errors import AnnotationError, EmptyRegion, VolumeError
from features.volumes.contours import Mask
from features.volumes.grid import resample_mask, share_beyond
from features.volumes.image_files import is_image_file, read_image_file
from features.volumes.predicted import read_card
from features.volumes.volume import Volume

MOST_INSIDE = 0.5  # of an image; more is noted, as of a map with 0 inside
MAX_BEYOND = 0.01  # of a region may lie beyond the image
SHOWN = 12  # numbers in an error


def read_region_map(path: Path, volume: Volume, roi: int | None = None) -> Mask:
    """A region of a label map as a mask on the grid of a volume.

    Args:
        path: a file of whole numbers, 0 outside.
        volume: the image; a map on another grid is moved to its grid, with a note.
        roi: which label; None where there is one alone.

    Raises:
        AnnotationError: the file holds no whole numbers, no label, several while none is named, or lies
            elsewhere than the image; or a network has drawn it and nothing says what it has learnt from.
        VolumeError: the file cannot be read.
    """
    if not is_image_file(path):
        raise AnnotationError(
            f"{path.name} is no NIfTI, NRRD or MetaImage file. Convert a DICOM segmentation to one of them."
        )
    stored = read_image_file(path)
    chosen, others = _choose(stored.values, roi, path)
    own = tuple(note for note in stored.notes if note not in volume.notes)
    mask = Mask(stored.values == chosen, stored.grid, f"{path.name}, label {chosen}", own)
    card = read_card(path)
    if card:
        mask = replace(
            mask,
            notes=(
                *mask.notes,
                f"drawn by a network trained on other cases ({len(card.trained_on)})",
            ),
            trained_on=card.trained_on,
            trained_on_slides=card.trained_on_slides,
        )
    moved = _place(mask, volume, path)
    notes = [f"labels {', '.join(map(str, others))} left out"] if others else []
    if (share := float(moved.values.mean())) > MOST_INSIDE:
        notes.append(f"{share:.0%} of the image is inside: is 0 what lies outside?")
    return replace(moved, notes=(*notes, *moved.notes))


def _choose(values: NDArray[np.float32], roi: int | None, path: Path) -> tuple[int, list[int]]:
    """The label that is meant, and the others."""
    if not np.array_equal(values, np.round(values)):
        raise AnnotationError(
            f"{path.name} holds values from {values.min():g} to {values.max():g}, which look like a "
            "probability map or an image, not labels. Write whole numbers: 0 outside, and one for "
            "each region."
        )
    numbers, counts = np.unique(values[values != 0].astype(np.int64), return_counts=True)
    listed = ", ".join(
        f"{one} ({count} voxels)" for one, count in list(zip(numbers, counts, strict=True))[:SHOWN]
    )
    if not len(numbers):
        raise EmptyRegion(f"{path.name} is empty: every voxel is 0. Draw the region again.")
    if roi is None and len(numbers) > 1:
        raise AnnotationError(
            f"{path.name} holds {len(numbers)} labels: {listed}{' ...' if len(numbers) > SHOWN else ''}. "
            "Name the one that is meant (roi)."
        )
    chosen = int(numbers[0]) if roi is None else roi
    if chosen not in numbers:
        raise AnnotationError(
            f"{path.name} has no label {roi}. It has {listed}. Name one of these."
        )
    return chosen, [int(one) for one in numbers if one != chosen]


def _place(mask: Mask, volume: Volume, path: Path) -> Mask:
    if mask.grid.is_same_as(volume.grid):
        return replace(mask, grid=volume.grid)
    shown = [
        "{} voxels of {} mm from {} mm".format(
            " x ".join(map(str, grid.shape[::-1])),
            " x ".join(f"{step:.3g}" for step in grid.spacing_mm),
            ", ".join(f"{place:.1f}" for place in grid.origin_mm),
        )
        for grid in (mask.grid, volume.grid)
    ]
    elsewhere = AnnotationError(
        f"{path.name} lies elsewhere than the image: it has {shown[0]}, the image {shown[1]}. Its header was "
        "lost or changed: save it again from the tool that it was drawn in."
    )
    if mask.grid.shape == volume.grid.shape:
        raise elsewhere
    try:
        moved = resample_mask(mask, volume.grid)
    except VolumeError as error:
        raise elsewhere from error
    beyond = share_beyond(mask, volume.grid)
    if beyond > MAX_BEYOND:
        raise AnnotationError(
            f"{path.name}: {beyond:.0%} of the region lies beyond the image: the map has {shown[0]}, the "
            f"image {shown[1]}. Use the image that it was drawn on."
        )
    change = moved.volume_ml / mask.volume_ml - 1
    note = f"moved from a grid of {shown[0]} to the image's {shown[1]}; its volume changed by {change:.1%}"
    return replace(moved, notes=(*mask.notes, note))
