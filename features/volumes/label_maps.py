"""Label maps (NIfTI, NRRD, MetaImage): a region of one as a mask on the grid of a volume."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.errors import AnnotationError, VolumeError
from features.volumes.contours import Mask
from features.volumes.grid import resample_mask
from features.volumes.image_files import is_image_file, read_image_file
from features.volumes.volume import Volume

SHOWN = 12  # labels in an error


def read_label_map(path: Path, volume: Volume, label: int | None = None) -> Mask:
    """A region of a label map as a mask on the grid of a volume.

    Args:
        path: a file of whole numbers, 0 outside.
        volume: the image; a map on another grid is moved to its grid, with a note.
        label: which number; None where there is one alone.

    Raises:
        AnnotationError: the file holds no whole numbers, no label, several while none is named, or lies
            elsewhere than the image.
        VolumeError: the file cannot be read.
    """
    if not is_image_file(path):
        raise AnnotationError(
            f"{path.name} is no NIfTI, NRRD or MetaImage file. Convert a DICOM segmentation to one of them."
        )
    stored = read_image_file(path)
    chosen, others = _choose(stored.values, label, path)
    mask = Mask(stored.values == chosen, stored.grid, f"{path.name}, label {chosen}", stored.notes)
    moved = _place(mask, volume, path)
    notes = [f"labels {', '.join(map(str, others))} left out"] if others else []
    return replace(moved, notes=(*notes, *moved.notes))


def _choose(values: NDArray[np.float32], label: int | None, path: Path) -> tuple[int, list[int]]:
    """The label that is meant, and the others."""
    if not np.array_equal(values, np.round(values)):
        raise AnnotationError(
            f"{path.name} holds values that are no labels, from {values.min():g} to {values.max():g}, as a "
            "probability or an image does. Write whole numbers: 0 outside, and one for each region."
        )
    labels, counts = np.unique(values[values != 0].astype(np.int64), return_counts=True)
    listed = ", ".join(
        f"{one} ({count} voxels)" for one, count in list(zip(labels, counts, strict=True))[:SHOWN]
    )
    if not len(labels):
        raise AnnotationError(f"{path.name} is empty: every voxel is 0. Draw the region again.")
    if label is None and len(labels) > 1:
        raise AnnotationError(
            f"{path.name} holds {len(labels)} labels: {listed}{' ...' if len(labels) > SHOWN else ''}. Name "
            "the one that is meant (label)."
        )
    chosen = int(labels[0]) if label is None else label
    if chosen not in labels:
        raise AnnotationError(
            f"{path.name} has no label {label}. It has {listed}. Name one of these."
        )
    return chosen, [int(one) for one in labels if one != chosen]


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
    try:
        moved = resample_mask(mask, volume.grid)
    except VolumeError as error:
        raise AnnotationError(
            f"{path.name} lies elsewhere than the image: it has {shown[0]}, the image {shown[1]}. Its header "
            "was lost or changed: save it again from the tool that it was drawn in."
        ) from error
    lost = 1 - moved.volume_ml / mask.volume_ml
    note = f"moved from a grid of {shown[0]} to the image's {shown[1]}; its volume changed by {-lost:.1%}"
    return replace(moved, notes=(*mask.notes, note))
