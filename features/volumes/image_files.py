"""Volumes in files of their own: NIfTI, NRRD and MetaImage."""

import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.errors import VolumeError
from features.files.atomic import atomic_path
from features.volumes import nifti, text_headers
from features.volumes.libraries import simpleitk
from features.volumes.volume import Grid, Volume, check_axes, notes_on_spacing, turn_to_lps

SUFFIXES = (*nifti.SUFFIXES, *text_headers.NRRD_SUFFIXES, *text_headers.META_SUFFIXES)


def is_image_file(path: Path) -> bool:
    """Whether a file is a volume of its own, by its name."""
    return path.name.lower().endswith(SUFFIXES)


def read_image_file(path: Path) -> Volume:
    """Read a NIfTI, NRRD or MetaImage file.

    Returns:
        The volume, its axes turned to LPS; its modality is empty, as these files name none.

    Raises:
        VolumeError: the file cannot be read, is no volume of one value per voxel, or has no unique place.
    """
    affine = _check_header(path)
    values, grid = _read(path, affine)
    values, grid, slice_axis = turn_to_lps(values, grid)
    lost = nifti.nifti_blanks(path) if nifti.is_nifti(path) else 0
    values, notes = _finite(values, path.name, lost)
    notes = (*notes, *notes_on_spacing(grid))
    return Volume(values, grid, slice_axis=slice_axis, facts=_facts(grid, slice_axis), notes=notes)


def write_image_file(path: Path, values: NDArray[Any], grid: Grid, description: str = "") -> None:
    """Write a NIfTI file; it appears complete or not at all.

    Args:
        path: ``<name>.nii.gz``.
        values: (z, y, x) voxels.
        grid: their places.
        description: up to 79 characters, kept in the header.

    Raises:
        OSError: the disk is full or not writable.
    """
    sitk = simpleitk()
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(grid.spacing_mm)
    image.SetOrigin(grid.origin_mm)
    image.SetDirection(grid.direction.ravel().tolist())
    image.SetMetaData("ITK_FileNotes", description)
    with atomic_path(path) as temporary:
        named = temporary.with_name(f"{temporary.name}.nii.gz")  # the writer goes by the name
        try:
            sitk.WriteImage(image, str(named), useCompression=True)
            named.replace(temporary)
        except RuntimeError as error:
            raise OSError(f"{path} cannot be written ({_reason(error)})") from error
        finally:
            named.unlink(missing_ok=True)


def read_description(path: Path) -> str:
    """What the header of a NIfTI file says of it in words; empty for other files."""
    if not nifti.is_nifti(path):
        return ""
    reader = simpleitk().ImageFileReader()
    try:
        with _by_content(path) as named:
            reader.SetFileName(str(named))
            reader.ReadImageInformation()
    except (RuntimeError, OSError):
        return ""  # the reader of its voxels says why
    return str(reader.GetMetaData("descrip")) if reader.HasMetaDataKey("descrip") else ""


def read_layout(path: Path) -> tuple[int | None, float | None, str]:
    """Slices of a file and their distance in mm, by its header alone, and why it cannot be read."""
    try:
        affine = _check_header(path)
        reader = _read_information(path)
    except VolumeError as error:
        return None, None, str(error)
    return reader.GetSize()[2], float(np.linalg.norm(affine[:3, 2])), ""


def _facts(grid: Grid, slice_axis: int) -> dict[str, str | float]:
    return {"slice_spacing_mm": grid.spacing_mm[2 - slice_axis]}


def _read(path: Path, affine: NDArray[np.float64]) -> tuple[NDArray[np.float32], Grid]:
    """The voxels of a file and their grid, by the affine map from the index to mm."""
    sitk = simpleitk()
    try:
        with _by_content(path) as named:
            image = sitk.ReadImage(str(named), sitk.sitkFloat32)
    except RuntimeError as error:
        raise VolumeError(f"{path.name} cannot be read ({_reason(error)}).") from error
    if image.GetDimension() == 4:
        image = image[:, :, :, 0]
    values = sitk.GetArrayFromImage(image)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    origin = affine[:3, 3].tolist()
    return values, Grid(
        values.shape,
        (float(spacing[0]), float(spacing[1]), float(spacing[2])),
        (origin[0], origin[1], origin[2]),
        affine[:3, :3] / spacing,
    )


def _reason(error: RuntimeError) -> str:
    """The last line of what the reader says, without its place in the source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("ITK ERROR: ") if lines else "no reason given"


def _check_header(path: Path) -> NDArray[np.float64]:
    """(4, 4) from the index to mm, LPS; refuses what is no whole volume with a place, before voxels are read.

    Raises:
        VolumeError: the file is one of colours, a time series or a picture; it is cut off; its place is
            unknown, or its axes are not at right angles.
    """
    if nifti.is_nifti(path):
        affine = nifti.nifti_affine(path)
        _read_information(path)
        nifti.check_length(path)
        return affine
    reader = _read_information(path)
    text_headers.check_place(path)
    size, n = reader.GetSize(), reader.GetDimension()
    bits = int(simpleitk().GetPixelIDValueAsString(reader.GetPixelID()).split("-")[0])
    text_headers.check_length(path, math.prod(size) * bits // 8)
    affine = np.eye(4)
    direction = np.array(reader.GetDirection()).reshape(n, n)[:3, :3]
    affine[:3, :3] = direction * reader.GetSpacing()[:3]
    affine[:3, 3] = reader.GetOrigin()[:3]
    unit_mm = text_headers.unit_mm(path)
    affine[:3] *= unit_mm
    check_axes(affine[:3, :3], path.name, f"its unit is {unit_mm:g} mm" if unit_mm != 1 else "")
    return affine


@contextmanager
def _by_content(path: Path) -> Iterator[Path]:
    """The file under a name that tells the reader its content: packed NIfTI as .nii.gz, in small letters."""
    suffix = _suffix(path)
    if not suffix or path.name.endswith(suffix):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        named = Path(folder) / f"{path.name}{suffix}"
        try:
            named.symlink_to(path.resolve())
        except OSError:  # where links need rights of their own
            shutil.copyfile(path, named)
        yield named


def _suffix(path: Path) -> str:
    """What a name ends in by the content of its file; empty where its voxels lie in another file."""
    if nifti.is_nifti(path):
        return ".nii.gz" if nifti.is_packed(path) else ".nii"
    name = path.name.lower()
    return next((one for one in (".nrrd", ".mha") if name.endswith(one)), "")


def _read_information(path: Path) -> Any:
    """The header, by its reader; refuses colours, time series and single pictures."""
    reader = simpleitk().ImageFileReader()
    try:
        with _by_content(path) as named:
            reader.SetFileName(str(named))
            reader.ReadImageInformation()
    except RuntimeError as error:
        raise VolumeError(
            f"{path.name} cannot be read ({_reason(error)}). Copy or convert it again."
        ) from error
    size, components = reader.GetSize(), reader.GetNumberOfComponents()
    shown = " x ".join(map(str, size))
    if components > 1:
        raise VolumeError(
            f"{path.name} has {components} values per voxel, as colours or vectors do; a volume has one. "
            "Write one component to a file of its own."
        )
    if len(size) > 3 and any(length > 1 for length in size[3:]):
        raise VolumeError(
            f"{path.name} is a series of volumes ({shown}), as of time points or b values. Write the one "
            "that is meant to a file of its own."
        )
    if len(size) < 3:
        raise VolumeError(f"{path.name} is one picture ({shown}), no volume of slices.")
    return reader


def _finite(
    values: NDArray[np.float32], name: str, lost: int
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Values that are no numbers, as outside a registered field, become 0.

    Args:
        values: as they were read.
        name: of the file.
        lost: how many were no numbers before they were read.
    """
    blank = ~np.isfinite(values)
    count = max(int(blank.sum()), lost)
    if not count:
        return values, ()
    if count == blank.size:
        raise VolumeError(f"{name} holds no number at all: every voxel is NaN. Write it again.")
    return np.where(blank, np.float32(0), values), (f"{count} voxels that are no numbers are 0",)
