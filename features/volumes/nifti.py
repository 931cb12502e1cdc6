"""The header of NIfTI files: where their voxels lie, whether all of them are there, and which are no numbers.

Source: NIfTI-1 and NIfTI-2 headers (nifti.nimh.nih.gov): a file may state its place twice, as a quaternion
(qform) and as a matrix (sform).
"""

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from features.errors import VolumeError
from features.volumes.volume import check_axes

SUFFIXES = (".nii", ".nii.gz")
FORMS_DIFFER = 0.1  # of a voxel, at any corner
TURN = 1e-3  # what float32 leaves of a quaternion near half a turn, and of angles in it
NIFTI_1, NIFTI_2 = 348, 540
GZIP = b"\x1f\x8b"
UNITS_MM = {1: 1000.0, 3: 0.001}  # metres and micrometres; all others are millimetres
UNIT_NAMES = {1: "metres", 3: "micrometres"}
FLOATS = {16: "f4", 64: "f8"}  # data types that know what is no number
# By version: offset and layout of the data type, of the bits of a voxel, and of where voxels begin.
VOXELS = {
    NIFTI_1: ((70, "h"), (72, "h"), (108, "f")),
    NIFTI_2: ((12, "h"), (14, "h"), (168, "q")),
}
CHUNK = 2**22  # voxels
# By version: the offset of the magic word, then offset and layout of dim, pixdim, the codes of qform and
# sform, the quaternion with its offset, the rows of the matrix, and the units.
FIELDS: dict[int, tuple[int, tuple[tuple[int, str], ...]]] = {
    NIFTI_1: (344, ((40, "8h"), (76, "8f"), (252, "2h"), (256, "6f"), (280, "12f"), (123, "b"))),
    NIFTI_2: (4, ((16, "8q"), (104, "8d"), (344, "2i"), (352, "6d"), (400, "12d"), (500, "i"))),
}


@dataclass(frozen=True)
class _Voxels:
    """How the voxels of a file are stored.

    Attributes:
        in_file: whether they follow the header in the same file.
        start: bytes before the first.
        count: of all.
        bits: of one.
        kind: of floating numbers, in the byte order of the file; None for others.
    """

    in_file: bool
    start: int
    count: int
    bits: int
    kind: np.dtype[np.floating] | None

    @property
    def end(self) -> int:
        """Bytes up to the end of the last."""
        return self.start + math.ceil(self.count * self.bits / 8)


def is_nifti(path: Path) -> bool:
    """Whether a file is NIfTI, by its name."""
    return path.name.lower().endswith(SUFFIXES)


def is_packed(path: Path) -> bool:
    """Whether a file is packed (gzip), by its first bytes."""
    with path.open("rb") as file:
        return file.read(2) == GZIP


def check_length(path: Path) -> None:
    """Raise where a file ends before its voxels do; a reader leaves the rest unset without a word.

    Raises:
        VolumeError: it is cut off, or cannot be read.
    """
    voxels = _voxels(path)
    if not voxels.in_file:
        return
    with _readable(path):
        length = _length(path)
    if length < voxels.end:
        there = max(length - voxels.start, 0) / max(voxels.end - voxels.start, 1)
        raise VolumeError(
            f"{path.name} is cut off: it has {length} of the {voxels.end} bytes that its header states, and "
            f"{there:.0%} of its voxels. Copy or convert it again."
        )


def _length(path: Path) -> int:
    """The bytes of a file; of a packed one unpacked to its end, where its checksum is."""
    if not is_packed(path):
        return path.stat().st_size
    length = 0
    with _opened(path) as file:
        while part := file.read(CHUNK):
            length += len(part)
    return length


def _voxels(path: Path) -> _Voxels:
    head, order, version = _nifti_head(path)
    datatype, bits, start = (
        struct.unpack_from(order + layout, head, place)[0] for place, layout in VOXELS[version]
    )
    dim_at, dim_layout = FIELDS[version][1][0]
    dim = struct.unpack_from(order + dim_layout, head, dim_at)
    magic = FIELDS[version][0]
    return _Voxels(
        in_file=head[magic : magic + 2] == b"n+",
        start=max(int(start), version),
        count=math.prod(max(length, 1) for length in dim[1 : dim[0] + 1]),
        bits=int(bits),
        kind=np.dtype(order + FLOATS[datatype]) if datatype in FLOATS else None,
    )


def nifti_blanks(path: Path) -> int:
    """How many voxels of a NIfTI file are no numbers; its reader makes them 0 without a word.

    Raises:
        VolumeError: the file cannot be read.
    """
    voxels = _voxels(path)
    kind = voxels.kind
    if kind is None or not voxels.in_file:
        return 0
    blanks = 0
    with _readable(path), _opened(path) as file:
        file.seek(voxels.start)
        for start in range(0, voxels.count, CHUNK):
            part = file.read(min(CHUNK, voxels.count - start) * kind.itemsize)
            whole = len(part) // kind.itemsize * kind.itemsize
            blanks += int((~np.isfinite(np.frombuffer(part[:whole], kind))).sum())
    return blanks


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Name a file that cannot be read, and what to do."""
    try:
        yield
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise VolumeError(
            f"{path.name} cannot be read ({error}). Copy or convert it again."
        ) from error


def nifti_affine(path: Path) -> NDArray[np.float64]:
    """(4, 4) from the index (x, y, z, 1) to mm, LPS, of a NIfTI file: its sform, else its qform.

    Raises:
        VolumeError: the header is damaged or of Analyze, states no place, or two, axes that are not at
            right angles, or voxels of no plausible size.
    """
    dim, pixdim, codes, quatern, srow, units = _nifti_header(path)
    if not codes.any():
        raise VolumeError(
            f"{path.name} has neither qform nor sform: left and right are not recorded, nor where it "
            "lies. Convert the series from DICOM again."
        )
    if codes[0] and not pixdim[1:4].min() > 0:
        raise VolumeError(
            f"{path.name}: its voxels are {' x '.join(f'{step:g}' for step in pixdim[1:4])} mm (pixdim), but "
            "each side must be above 0: readers disagree on such a file. Convert the series from DICOM again."
        )
    qform, sform = _qform(pixdim, quatern), srow.reshape(3, 4)
    if codes.all():
        _compare_forms(path, dim[1:4], qform, sform)
    affine, unit = np.eye(4), int(units[0]) & 7
    affine[:3] = (sform if codes[1] else qform) * UNITS_MM.get(unit, 1.0)
    affine[:2] *= -1  # from RAS to LPS
    stated = f"its unit is {UNIT_NAMES[unit]}" if unit in UNIT_NAMES else ""
    check_axes(affine[:3, :3], path.name, stated)
    return affine


def _nifti_header(path: Path) -> list[NDArray[np.float64]]:
    """The fields of ``FIELDS``."""
    head, order, kind = _nifti_head(path)
    return [
        np.array(struct.unpack_from(order + layout, head, start), dtype=np.float64)
        for start, layout in FIELDS[kind][1]
    ]


def _nifti_head(path: Path) -> tuple[bytes, str, int]:
    """The header, its byte order and its version by its size."""
    with _readable(path):
        with _opened(path) as file:
            head = file.read(NIFTI_2)
        sizes = (struct.pack("<i", NIFTI_1), struct.pack("<i", NIFTI_2))
        order = "<" if head[:4] in sizes else ">"
        kind = struct.unpack(order + "i", head[:4])[0]
        magic, _ = FIELDS.get(kind, FIELDS[NIFTI_1])
        if kind not in FIELDS or head[magic : magic + 2] not in (b"n+", b"ni"):
            raise VolumeError(
                f"{path.name} is an Analyze file, not NIfTI, and does not record left and right. "
                "Convert the series from DICOM again."
            )
        if len(head) < kind:
            raise EOFError(f"its header has {len(head)} of {kind} bytes")
    return head, order, kind


def _opened(path: Path) -> IO[bytes]:
    """The file, unpacked where it is packed, whatever its name says."""
    return cast("IO[bytes]", gzip.open(path, "rb")) if is_packed(path) else path.open("rb")


def _compare_forms(
    path: Path, size: NDArray[np.float64], qform: NDArray[np.float64], sform: NDArray[np.float64]
) -> None:
    corners = np.array(np.meshgrid(*[(0.0, max(length - 1, 1)) for length in size]))
    index = np.vstack([corners.reshape(3, -1), np.ones(8)])
    apart_mm = np.linalg.norm(qform @ index - sform @ index, axis=0).max()
    steps = np.linalg.norm(sform[:, :3], axis=0)
    if apart_mm > max(FORMS_DIFFER * steps.min(), TURN * float(steps @ size)):
        raise VolumeError(
            f"{path.name} holds a qform and an sform that disagree by up to {apart_mm:.2f} mm. "
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
