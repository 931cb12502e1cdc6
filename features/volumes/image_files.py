"""Volumes in files of their own: NIfTI, NRRD and MetaImage.

Source: NIfTI-1 and NIfTI-2 headers (nifti.nimh.nih.gov): a file may state its place twice, as a quaternion
(qform) and as a matrix (sform).
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from features.errors import VolumeError
from features.files.atomic import atomic_path
from features.volumes.libraries import simpleitk
from features.volumes.volume import Grid, Volume, turn_to_lps

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
NIFTI_SUFFIXES = (".nii", ".nii.gz")
NRRD_SUFFIXES = (".nrrd", ".nhdr")
NRRD_SPACES = ("left-posterior-superior", "right-anterior-superior", "left-anterior-superior")
FORMS_DIFFER = 0.1  # of a voxel, at any corner
TURN = 1e-3  # what float32 leaves of a quaternion near half a turn, and of angles in it
NIFTI_1, NIFTI_2 = 348, 540
GZIP = b"\x1f\x8b"
UNITS_MM = {1: 1000.0, 3: 0.001}  # metres and micrometres; all others are millimetres
# By version: the offset of the magic word, then offset and layout of dim, pixdim, the codes of qform and
# sform, the quaternion with its offset, the rows of the matrix, and the units.
NIFTI_FLOATS = {16: "f4", 64: "f8"}
# By version: offset and layout of the data type, and of where voxels begin.
NIFTI_VOXELS = {NIFTI_1: ((70, "h"), (108, "f")), NIFTI_2: ((12, "h"), (168, "q"))}
CHUNK = 2**22  # voxels
NIFTI_FIELDS: dict[int, tuple[int, tuple[tuple[int, str], ...]]] = {
    NIFTI_1: (344, ((40, "8h"), (76, "8f"), (252, "2h"), (256, "6f"), (280, "12f"), (123, "b"))),
    NIFTI_2: (4, ((16, "8q"), (104, "8d"), (344, "2i"), (352, "6d"), (400, "12d"), (500, "i"))),
}


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
    nifti = path.name.lower().endswith(NIFTI_SUFFIXES)
    affine = nifti_affine(path) if nifti else None
    _check_dimensions(path)
    values, grid = _read(path, affine)
    values, grid, slice_axis = turn_to_lps(values, grid)
    values, notes = _finite(values, path.name, nifti_blanks(path) if nifti else 0)
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
    if not path.name.lower().endswith(NIFTI_SUFFIXES):
        return ""
    reader = simpleitk().ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return ""  # the reader of its voxels says why
    return str(reader.GetMetaData("descrip")) if reader.HasMetaDataKey("descrip") else ""


def read_layout(path: Path) -> tuple[int | None, float | None, str]:
    """Slices of a file and their distance in mm, by its header alone, and why it cannot be read."""
    try:
        if path.name.lower().endswith(NIFTI_SUFFIXES):
            nifti_affine(path)
        _check_dimensions(path)
    except VolumeError as error:
        return None, None, str(error)
    reader = simpleitk().ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader.GetSize()[2], float(reader.GetSpacing()[2]), ""


def _facts(grid: Grid, slice_axis: int) -> dict[str, str | float]:
    return {"slice_spacing_mm": grid.spacing_mm[2 - slice_axis]}


def _read(path: Path, affine: NDArray[np.float64] | None) -> tuple[NDArray[np.float32], Grid]:
    """The voxels of a file and their places, which are those of an affine map where one is given."""
    sitk = simpleitk()
    try:
        image = sitk.ReadImage(str(path), sitk.sitkFloat32)
    except RuntimeError as error:
        raise VolumeError(f"{path.name} cannot be read ({_reason(error)}).") from error
    if image.GetDimension() == 4:
        image = image[:, :, :, 0]
    values = sitk.GetArrayFromImage(image)
    if affine is None:
        affine = np.eye(4)
        direction = np.array(image.GetDirection()).reshape(3, 3)
        affine[:3, :3] = direction * image.GetSpacing()
        affine[:3, 3] = image.GetOrigin()
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


def _check_dimensions(path: Path) -> None:
    """Refuse colours, time series and single pictures before their voxels are read."""
    reader = simpleitk().ImageFileReader()
    reader.SetFileName(str(path))
    try:
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
    if path.name.lower().endswith(NRRD_SUFFIXES):
        space = reader.GetMetaData("NRRD_space") if reader.HasMetaDataKey("NRRD_space") else "none"
        if space.lower() not in NRRD_SPACES:
            raise VolumeError(
                f"{path.name} does not say which side is left (its space is {space!r}). Convert the series "
                "from DICOM again."
            )
    if len(size) < 3:
        raise VolumeError(f"{path.name} is one picture ({shown}), no volume of slices.")


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


def nifti_blanks(path: Path) -> int:
    """How many voxels of a NIfTI file are no numbers; its reader makes them 0 without a word.

    Raises:
        VolumeError: the file cannot be read.
    """
    head, order, version = _nifti_head(path)
    (kind_at, kind_layout), (start_at, start_layout) = NIFTI_VOXELS[version]
    [datatype] = struct.unpack_from(order + kind_layout, head, kind_at)
    [offset] = struct.unpack_from(order + start_layout, head, start_at)
    magic = NIFTI_FIELDS[version][0]
    if datatype not in NIFTI_FLOATS or head[magic : magic + 2] != b"n+":
        return 0
    kind = np.dtype(order + NIFTI_FLOATS[datatype])
    dim_at, dim_layout = NIFTI_FIELDS[version][1][0]
    dim = struct.unpack_from(order + dim_layout, head, dim_at)
    count = math.prod(max(length, 1) for length in dim[1 : dim[0] + 1])
    try:
        with _opened(path) as file:
            file.seek(int(offset))
            blanks = 0
            for start in range(0, count, CHUNK):
                part = file.read(min(CHUNK, count - start) * kind.itemsize)
                whole = len(part) // kind.itemsize * kind.itemsize
                blanks += int((~np.isfinite(np.frombuffer(part[:whole], kind))).sum())
    except (OSError, EOFError, zlib.error) as error:
        raise VolumeError(
            f"{path.name} cannot be read ({error}). Copy or convert it again."
        ) from error
    return blanks


def nifti_affine(path: Path) -> NDArray[np.float64]:
    """(4, 4) from the index (x, y, z, 1) to mm, LPS, of a NIfTI file: its sform, else its qform.

    Raises:
        VolumeError: the header is damaged or of Analyze, states no place, or two, or axes that are not at
            right angles.
    """
    dim, pixdim, codes, quatern, srow, units = _nifti_header(path)
    if not codes.any():
        raise VolumeError(
            f"{path.name} has neither qform nor sform: it does not say which side is left, nor where it "
            "lies. Convert the series from DICOM again."
        )
    qform, sform = _qform(pixdim, quatern), srow.reshape(3, 4)
    if codes.all():
        _compare_forms(path, dim[1:4], qform, sform)
    affine = np.eye(4)
    affine[:3] = (sform if codes[1] else qform) * UNITS_MM.get(int(units[0]) & 7, 1.0)
    affine[:2] *= -1  # from RAS to LPS
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    cosines = affine[:3, :3] / np.where(lengths > 0, lengths, 1)
    if lengths.min() <= 0 or np.abs(cosines.T @ cosines - np.eye(3)).max() > TURN:
        raise VolumeError(
            f"{path.name}: its axes are not at right angles (steps of "
            f"{' x '.join(f'{length:.3g}' for length in lengths)} mm). Resample it to a plain grid first."
        )
    return affine


def _nifti_header(path: Path) -> list[NDArray[np.float64]]:
    """The fields of ``NIFTI_FIELDS``."""
    head, order, kind = _nifti_head(path)
    return [
        np.array(struct.unpack_from(order + layout, head, start), dtype=np.float64)
        for start, layout in NIFTI_FIELDS[kind][1]
    ]


def _nifti_head(path: Path) -> tuple[bytes, str, int]:
    """The header, its byte order and its version by its size."""
    try:
        with _opened(path) as file:
            head = file.read(NIFTI_2)
        sizes = (struct.pack("<i", NIFTI_1), struct.pack("<i", NIFTI_2))
        order = "<" if head[:4] in sizes else ">"
        kind = struct.unpack(order + "i", head[:4])[0]
        magic, _ = NIFTI_FIELDS.get(kind, NIFTI_FIELDS[NIFTI_1])
        if kind not in NIFTI_FIELDS or head[magic : magic + 2] not in (b"n+", b"ni"):
            raise VolumeError(
                f"{path.name} is an Analyze file or none of NIfTI: it does not say which side is left. "
                "Convert the series from DICOM again."
            )
        if len(head) < kind:
            raise EOFError(f"its header has {len(head)} of {kind} bytes")
        return head, order, kind
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise VolumeError(
            f"{path.name} cannot be read ({error}). Copy or convert it again."
        ) from error


def _opened(path: Path) -> IO[bytes]:
    """The file, unpacked where it is packed, whatever its name says."""
    with path.open("rb") as file:
        packed = file.read(2) == GZIP
    return cast("IO[bytes]", gzip.open(path, "rb")) if packed else path.open("rb")


def _compare_forms(
    path: Path, size: NDArray[np.float64], qform: NDArray[np.float64], sform: NDArray[np.float64]
) -> None:
    corners = np.array(np.meshgrid(*[(0.0, max(length - 1, 1)) for length in size]))
    index = np.vstack([corners.reshape(3, -1), np.ones(8)])
    apart_mm = np.linalg.norm(qform @ index - sform @ index, axis=0).max()
    steps = np.linalg.norm(sform[:, :3], axis=0)
    if apart_mm > max(FORMS_DIFFER * steps.min(), TURN * float(steps @ size)):
        raise VolumeError(
            f"{path.name} states two places: its qform and its sform are up to {apart_mm:.2f} mm apart. "
            "Convert the series from DICOM again, or write the right one to both."
        )


def _qform(pixdim: NDArray[np.float64], quatern: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 4) from the index to mm in RAS, by the quaternion (NIfTI-1, method 2)."""
    b, c, d = quatern[:3]
    a = np.sqrt(max(0.0, 1 - b * b - c * c - d * d))
    if a < TURN:  # half a turn, as of axes to the left and the back; float32 keeps no smaller angle
        a = 0.0
        b, c, d = quatern[:3] / np.linalg.norm(quatern[:3])
    turn = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    steps = pixdim[1:4] * [1, 1, -1 if pixdim[0] < 0 else 1]
    return np.hstack([turn * steps, quatern[3:, None]])
