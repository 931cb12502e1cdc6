"""The stored values of a DICOM image, of any transfer syntax, and what they mean.

Every value passes through float64, whatever the slope of the first slice: rounding to whole numbers is a
fault of readers that take the type of the first for all.

Source: DICOM PS3.3, C.7.6.3 (image pixel), C.7.5.1.1.2 (padding); PS3.5, 8.2 (compressed transfer syntaxes).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from features.errors import VolumeError
from features.volumes.headers import Plane, lenient, number, read_header, text
from features.volumes.libraries import pydicom
from features.volumes.volume import AIR_HU

MEASURED = ("CT", "MR", "PT", "NM", "RTDOSE")  # a stored value is a measurement, not a grey value
WITH_PYDICOM = (  # implicit, explicit, deflated, big-endian; run-length encoding
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.5",
)
CODECS: dict[str, Callable[..., Any]] = {
    "1.2.840.10008.1.2.4.50": imagecodecs.jpeg8_decode,
    "1.2.840.10008.1.2.4.51": imagecodecs.jpeg8_decode,
    "1.2.840.10008.1.2.4.57": imagecodecs.ljpeg_decode,
    "1.2.840.10008.1.2.4.70": imagecodecs.ljpeg_decode,
    "1.2.840.10008.1.2.4.80": imagecodecs.jpegls_decode,
    "1.2.840.10008.1.2.4.81": imagecodecs.jpegls_decode,
    "1.2.840.10008.1.2.4.90": imagecodecs.jpeg2k_decode,
    "1.2.840.10008.1.2.4.91": imagecodecs.jpeg2k_decode,
    "1.2.840.10008.1.2.4.201": imagecodecs.jpeg2k_decode,
    "1.2.840.10008.1.2.4.202": imagecodecs.jpeg2k_decode,
    "1.2.840.10008.1.2.4.203": imagecodecs.jpeg2k_decode,
}


def read_stored(header: Any, name: str, frames: tuple[int, ...] = ()) -> NDArray[Any]:
    """(frames, rows, columns) stored values: signed or not as the file says, unused bits removed.

    Args:
        header: the elements of a file with its pixels.
        name: the file, for messages.
        frames: numbers of the frames, from 0; empty for all.

    Raises:
        VolumeError: the pixels are missing, cut off, or stored in a way that is not decoded.
    """
    try:
        with lenient():
            stored = _decode(header, name, frames)
    except VolumeError:
        raise
    except Exception as error:
        raise VolumeError(
            f"The pixels of {name} cannot be decoded ({error}). The file may be cut off: copy it again."
        ) from error
    rows, columns = int(header.Rows), int(header.Columns)
    if stored.shape[1:] != (rows, columns):
        raise VolumeError(
            f"The pixels of {name} are {stored.shape[2]} x {stored.shape[1]}, but the file says "
            f"{columns} x {rows}. Copy it from its source again."
        )
    return stored if stored.dtype.kind == "f" else _used_bits(header, stored, name)


def _decode(header: Any, name: str, frames: tuple[int, ...]) -> NDArray[Any]:
    meta = getattr(header, "file_meta", None)
    syntax = getattr(meta, "TransferSyntaxUID", None) or pydicom().uid.ImplicitVRLittleEndian
    if not any(f"{kind}PixelData" in header for kind in ("", "Float", "DoubleFloat")):
        raise VolumeError(
            f"{name} has no pixels: it describes an image without holding it. Export it again."
        )
    count = _whole(header, "NumberOfFrames", 1)
    wanted_frames = frames or tuple(range(count))
    if syntax in WITH_PYDICOM:
        if not hasattr(meta, "TransferSyntaxUID"):
            header.file_meta = meta or pydicom().dataset.FileMetaDataset()
            header.file_meta.TransferSyntaxUID = syntax
        stored = np.asarray(
            pydicom().pixels.pixel_array(header, raw=True, correct_unused_bits=False)
        )
        stored = stored.reshape(count, *stored.shape[-2:])
        return stored[list(wanted_frames)]
    if syntax not in CODECS:
        raise VolumeError(
            f"The pixels of {name} are compressed as {syntax.name} ({syntax}), for which there is no codec. "
            "Convert the series to Explicit VR Little Endian, which every DICOM toolkit writes."
        )
    return np.stack([_decode_frame(header, syntax, frame, count) for frame in wanted_frames])


def _decode_frame(header: Any, syntax: Any, frame: int, count: int) -> NDArray[Any]:
    data = pydicom().encaps.get_frame(header.PixelData, frame, number_of_frames=count)
    return np.asarray(CODECS[syntax](data))


def _used_bits(header: Any, stored: NDArray[Any], name: str) -> NDArray[np.int64]:
    """Whole numbers of the bits that are used; the others may hold an overlay, or nothing of meaning."""
    bits = _whole(header, "BitsStored", 8 * stored.dtype.itemsize)
    high = _whole(header, "HighBit", bits - 1)
    if not 1 < bits <= 8 * stored.dtype.itemsize or high >= 8 * stored.dtype.itemsize:
        raise VolumeError(
            f"{name} says that {bits} bits of {8 * stored.dtype.itemsize} are used, with the highest "
            f"at {high}, which cannot be. Export the series again."
        )
    values = stored.astype(np.int64) >> max(high - bits + 1, 0)
    return to_signed(values, bits, signed=_is_signed(header))


def _whole(header: Any, keyword: str, default: int) -> int:
    return int(number(header, keyword, default, Path(str(header.filename))))


def _is_signed(header: Any) -> bool:
    return _whole(header, "PixelRepresentation", 0) == 1


def to_signed(values: NDArray[np.int64], bits: int, *, signed: bool) -> NDArray[np.int64]:
    """Whole numbers of so many bits; the highest is the sign of signed ones."""
    masked = values & ((1 << bits) - 1)
    return np.where(masked >> (bits - 1), masked - (1 << bits), masked) if signed else masked


def read_planes(
    planes: list[Plane], modality: str, outside: float
) -> tuple[NDArray[np.float32], list[str]]:
    """(n, rows, columns) values of slices in their order, and what was changed in them, in words.

    Args:
        planes: slices of one shape.
        modality: that of DICOM.
        outside: the value where the scanner saw nothing (padding).

    Raises:
        VolumeError: the pixels of a file cannot be decoded, or are shown inverted (MONOCHROME1) though they
            are measurements.
    """
    values = np.empty((len(planes), *planes[0].shape), dtype=np.float32)
    by_file: dict[Any, list[int]] = {}
    for place, plane in enumerate(planes):
        by_file.setdefault(plane.path, []).append(place)
    padded, inverted = 0, 0
    signs: dict[bool, Path] = {}
    highest: Path | None = (
        None  # of unsigned files: one whose values would be below 0 in a signed one
    )
    for path, places in by_file.items():
        header = read_header(path, pixels=True)
        frames = tuple(frame for place in places if (frame := planes[place].frame) is not None)
        stored = read_stored(header, path.name, frames)
        signs.setdefault(_is_signed(header), path)
        if _has_top_bit(header, stored):
            highest = highest or path
        if text(header, "PhotometricInterpretation") == "MONOCHROME1":
            stored, inverted = _invert(header, stored, modality, path.name), inverted + 1
        padding = _padding(header, stored)
        padded += int(padding.sum())
        for place, pixels, blank in zip(places, stored, padding, strict=True):
            scaled = pixels * np.float64(planes[place].slope) + planes[place].intercept
            values[place] = np.where(blank, outside, scaled)
    if highest and True in signs:
        raise VolumeError(
            f"{highest.name} says that its values are never below 0, {signs[True].name} of the same series "
            "that they may be (PixelRepresentation), and its highest would be. Export the series again."
        )
    notes = [f"{padded} padding pixels are {outside:g}"] if padded else []
    notes += [f"{inverted} files in MONOCHROME1 are inverted"] if inverted else []
    if modality == "CT" and (below := int((values < AIR_HU).sum())):
        values = np.maximum(values, np.float32(AIR_HU))
        notes.append(f"{below} values below {AIR_HU:g} HU, outside the scanner's circle, are air")
    return values, notes


def _has_top_bit(header: Any, stored: NDArray[Any]) -> bool:
    """Whether a file of unsigned numbers has one that would be below 0 in a signed one."""
    if stored.dtype.kind == "f" or _is_signed(header) or not stored.size:
        return False
    return bool(stored.max() >= 1 << (_whole(header, "BitsStored", 16) - 1))


def _invert(header: Any, stored: NDArray[Any], modality: str, name: str) -> NDArray[Any]:
    if modality in MEASURED:
        raise VolumeError(
            f"{name} is {modality} in MONOCHROME1, where high values are shown dark: whether its numbers "
            f"are inverted too cannot be known. If air is low in it, set PhotometricInterpretation to "
            "MONOCHROME2; if air is high, export the series again."
        )
    bits = int(header.BitsStored)
    low = -(1 << (bits - 1)) if _is_signed(header) else 0
    return (low + low + (1 << bits) - 1) - stored


def _padding(header: Any, stored: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels with the padding value, or in its range."""
    if text(header, "PixelPaddingValue") == "" or stored.dtype.kind == "f":
        return np.zeros(stored.shape, dtype=np.bool_)
    bits, signed = int(header.BitsStored), _is_signed(header)
    first = _whole(header, "PixelPaddingValue", 0)
    last = _whole(header, "PixelPaddingRangeLimit", first)
    limits = to_signed(np.array([first, last], dtype=np.int64), bits, signed=signed)
    padding: NDArray[np.bool_] = (stored >= limits.min()) & (stored <= limits.max())
    return padding
