"""Which DICOM files are one slide: those of one series. Reads the few elements that say so.

Source: DICOM PS3.5 (encoding of elements and sequences) and PS3.10 (the file's head).
"""

import contextlib
import os
import struct
from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from features.summary import listed

SERIES, TRANSFER_SYNTAX, MODALITY = (0x0020, 0x000E), (0x0002, 0x0010), (0x0008, 0x0060)
SLIDES = "SM"  # slide microscopy
LONG_VRS = {
    b"OB",
    b"OD",
    b"OF",
    b"OL",
    b"OV",
    b"OW",
    b"SQ",
    b"SV",
    b"UC",
    b"UN",
    b"UR",
    b"UT",
    b"UV",
}
UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
IMPLICIT = "1.2.840.10008.1.2"
DECODED = ("uncompressed", "JPEG", "JPEG 2000")
MAX_ELEMENTS, MAX_VALUE = 2000, 1 << 20  # before the series' number; of an element that is read
SYNTAXES = {
    "1.2.840.10008.1.2": "uncompressed", "1.2.840.10008.1.2.1": "uncompressed",
    "1.2.840.10008.1.2.1.99": "deflated", "1.2.840.10008.1.2.2": "uncompressed, big-endian",
    "1.2.840.10008.1.2.4.50": "JPEG", "1.2.840.10008.1.2.4.51": "JPEG with 12 bits",
    "1.2.840.10008.1.2.4.57": "lossless JPEG", "1.2.840.10008.1.2.4.70": "lossless JPEG",
    "1.2.840.10008.1.2.4.80": "JPEG-LS", "1.2.840.10008.1.2.4.81": "JPEG-LS",
    "1.2.840.10008.1.2.4.90": "JPEG 2000", "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.110": "JPEG XL", "1.2.840.10008.1.2.4.111": "JPEG XL",
    "1.2.840.10008.1.2.4.112": "JPEG XL", "1.2.840.10008.1.2.4.201": "HTJ2K",
    "1.2.840.10008.1.2.4.202": "HTJ2K", "1.2.840.10008.1.2.4.203": "HTJ2K",
    "1.2.840.10008.1.2.5": "run-length encoding",
}  # fmt: skip


def series_files(path: Path) -> tuple[Path, ...]:
    """The files of the slide that a file belongs to, in the order of their names: those of its series.

    Returns:
        The file alone where it is no DICOM file.
    """
    if path.suffix.lower() != ".dcm":
        return (path,)
    try:
        changed = path.parent.stat().st_mtime_ns
    except OSError:
        return (path,)
    groups = series_of_folder(path.parent, changed)
    return next((files for files in groups if path in files), (path,))


@lru_cache(maxsize=256)
def series_of_folder(folder: Path, _changed: int) -> tuple[tuple[Path, ...], ...]:
    """The DICOM files of a folder by series; a file that names none is alone."""
    groups: defaultdict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() == ".dcm" and not path.name.startswith(".") and path.is_file():
            groups[read_elements(path).get(SERIES) or f"alone: {path.name}"].append(path)
    return tuple(tuple(files) for files in groups.values())


def other_modality(path: Path) -> str:
    """``CT``, if a file is DICOM of another modality than slide microscopy; else empty."""
    modality = read_elements(path).get(MODALITY, "") if path.suffix.lower() == ".dcm" else ""
    return modality if modality != SLIDES else ""


def note_unnamed(folder: Path) -> str:
    """A sentence, after a blank, on DICOM files without an ending, as archives export them; empty if none."""
    names = [
        path.name
        for path in sorted(folder.rglob("*"))
        if not path.suffix and path.is_file() and MODALITY in read_elements(path)
    ]
    if not names:
        return ""
    return (
        f" Files without an ending are DICOM ({listed(names)}): give their names the ending .dcm."
    )


def transfer_syntax_kind(path: Path) -> str:
    """``HTJ2K pixels (1.2.840.10008.1.2.4.201)``, if DICOM pixels are stored as no slide reader decodes."""
    if path.suffix.lower() != ".dcm":
        return ""
    uid = read_elements(path).get(TRANSFER_SYNTAX, "")
    words = SYNTAXES.get(uid, "")
    return "" if not uid or words in DECODED else f"{words} pixels ({uid})".strip()


def read_elements(path: Path) -> dict[tuple[int, int], str]:
    """The transfer syntax, modality and series of a DICOM file; those it does not give are missing."""
    found: dict[tuple[int, int], str] = {}
    # A file may be cut off or damaged: what was read before stands.
    with (
        contextlib.suppress(OSError, struct.error, ValueError, OverflowError),
        path.open("rb") as file,
    ):
        file.seek(128)
        if file.read(4) == b"DICM":
            _scan(file, found)
    return found


def _scan(file: BinaryIO, found: dict[tuple[int, int], str]) -> None:
    """Read elements in their order, up to that of the series."""
    for _ in range(MAX_ELEMENTS):
        implicit = found.get(TRANSFER_SYNTAX) == IMPLICIT
        tag, length = _element(file, implicit=implicit)
        if tag > SERIES:
            return
        if length == UNDEFINED:
            _skip_items(file, implicit=implicit)
        elif tag in (SERIES, TRANSFER_SYNTAX, MODALITY) and length < MAX_VALUE:
            found[tag] = file.read(length).rstrip(b"\0 ").decode("ascii", errors="replace")
        else:
            file.seek(length, os.SEEK_CUR)


def _element(file: BinaryIO, *, implicit: bool) -> tuple[tuple[int, int], int]:
    """The tag and the length of the next element; the file's head is always explicit."""
    group, number = struct.unpack("<HH", file.read(4))
    if group == 0xFFFE or (implicit and group != 2):
        return (group, number), struct.unpack("<I", file.read(4))[0]
    kind = file.read(2)
    if kind in LONG_VRS:
        file.read(2)
        return (group, number), struct.unpack("<I", file.read(4))[0]
    return (group, number), struct.unpack("<H", file.read(2))[0]


def _skip_items(file: BinaryIO, *, implicit: bool) -> None:
    """Skip the items of a sequence without a length, and sequences in them."""
    depth = 1
    for _ in range(MAX_ELEMENTS * 10):
        tag, length = _element(file, implicit=implicit)
        if tag == SEQUENCE_END:
            depth -= 1
            if not depth:
                return
        elif tag in (ITEM, ITEM_END):
            if length not in (0, UNDEFINED):
                file.seek(length, os.SEEK_CUR)
        elif length == UNDEFINED:
            depth += 1
        else:
            file.seek(length, os.SEEK_CUR)
