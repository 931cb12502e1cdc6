"""Headers in words, of NRRD and MetaImage: whether they state a place, and whether all voxels are there.

Readers put a file that states no origin, or no size of its voxels, at 0 and at 1 mm.

Source: NRRD (teem.sourceforge.net/nrrd/format.html); MetaImage (itk.org/Wiki/ITK/MetaIO/Documentation).
"""

import bz2
import gzip
import math
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from features.errors import VolumeError

NRRD_SUFFIXES = (".nrrd", ".nhdr")
META_SUFFIXES = (".mha", ".mhd")
LONGEST = 2**18  # bytes of a header
CHUNK = 2**22  # bytes that are unpacked at once
ZLIB_OR_GZIP = 47  # for zlib: which of them is in the stream
TEXT_ENCODINGS = ("ascii", "text", "txt", "hex")
SPACES = {
    "left-posterior-superior", "right-anterior-superior", "left-anterior-superior", "lps", "ras", "las",
}  # fmt: skip
NRRD_PLACE = ("space directions", "space origin")
SPACE_UNITS_MM = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001, "µm": 0.001, "": 1.0}
META_SCALE = {"elementtointensityfunctionslope": 1.0, "elementtointensityfunctionoffset": 0.0}
META_PLACE = {  # what a reader takes each from
    "ElementSpacing": ("elementspacing",),
    "Offset": ("offset", "position", "origin"),
    "TransformMatrix": ("transformmatrix", "rotation", "orientation"),
}
QUOTED = re.compile(r'"([^"]*)"')
DATA_FILE = ("elementdatafile", "data file", "datafile")
FIELD = re.compile(r"^([^#:=\r\n]+?)[ \t]*(?:=|:(?!=))[ \t]*(.*?)[ \t\r]*$", re.MULTILINE)
END = re.compile(rb"\r?\n\r?\n|^ElementDataFile[^\n]*\n", re.MULTILINE | re.IGNORECASE)
AGAIN = "Convert the series from DICOM again."


@dataclass(frozen=True)
class _Header:
    """Fields by their names in small letters, and the bytes before the voxels in the same file."""

    fields: dict[str, str]
    length: int


def has_text_header(path: Path) -> bool:
    """Whether a file is NRRD or MetaImage, by its name."""
    return path.name.lower().endswith(NRRD_SUFFIXES + META_SUFFIXES)


def check_place(path: Path) -> None:
    """Raise where a header leaves open where the voxels lie, or how large they are.

    Raises:
        VolumeError: it does.
    """
    fields = _read(path).fields
    if path.name.lower().endswith(NRRD_SUFFIXES):
        _check_nrrd(path.name, fields)
        return
    missing = [name for name, keys in META_PLACE.items() if not fields.keys() & set(keys)]
    if missing:
        raise VolumeError(
            f"{path.name} has no {' and no '.join(missing)}: where it lies in the patient is not known. "
            f"{AGAIN}"
        )
    if scaled := [
        key for key, plain in META_SCALE.items() if _number(fields.get(key, str(plain))) != plain
    ]:
        raise VolumeError(
            f"{path.name} scales its values by a function ({scaled[0]}), which is not read. {AGAIN}"
        )
    if any(_number(part) <= 0 for part in fields["elementspacing"].split()):
        raise VolumeError(
            f"{path.name}: its voxels are {fields['elementspacing']} mm (ElementSpacing), but each side must "
            f"be above 0. {AGAIN}"
        )


def unit_mm(path: Path) -> float:
    """Millimetres of the unit that a header states for its places; readers take all numbers as millimetres.

    Raises:
        VolumeError: its axes have several units, or one that is no length.
    """
    units = {
        unit.lower() for unit in QUOTED.findall(_read(path).fields.get("space units", ""))
    } or {""}
    unit = units.pop()
    if units or unit not in SPACE_UNITS_MM:
        raise VolumeError(
            f"{path.name} states its places in {', '.join(sorted({unit, *units}))} (space units). Write "
            "all in mm."
        )
    return SPACE_UNITS_MM[unit]


def _check_nrrd(name: str, fields: dict[str, str]) -> None:
    space = fields.get("space", "none")
    if space.lower() not in SPACES:
        raise VolumeError(
            f"{name} does not record left and right (its space is {space!r}). {AGAIN}"
        )
    missing = [key for key in NRRD_PLACE if "none" in fields.get(key, "none").lower()]
    if missing:
        raise VolumeError(
            f"{name} has no {' and no '.join(missing)} for each of its axes: where it lies in the patient is "
            f"not known. {AGAIN}"
        )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def check_length(path: Path, n_bytes: int) -> None:
    """Raise where a file ends before its voxels do.

    Args:
        path: of the header.
        n_bytes: of all voxels, unpacked.

    Raises:
        VolumeError: it is cut off.
    """
    header = _read(path)
    encoding = header.fields.get("encoding", "raw").lower()
    if header.fields.get("compresseddata", "false").lower() == "true":
        encoding = "zlib"
    if encoding in TEXT_ENCODINGS:
        return
    start = 0 if _data_file(header) else header.length
    files = data_files(path) if _data_file(header) else [path]
    try:
        there = sum(_voxel_bytes(file, start, encoding) for file in files)
    except (OSError, EOFError, zlib.error) as error:
        raise VolumeError(
            f"{path.name}: its packed voxels are damaged ({error}). Copy or convert it again."
        ) from error
    if there < n_bytes:
        raise VolumeError(
            f"{path.name} is cut off: it has {there} of {n_bytes} bytes of voxels. Copy or convert it again."
        )


def _voxel_bytes(file: Path, start: int, encoding: str) -> int:
    """The bytes of voxels in a file; of packed ones unpacked to their end, where their checksum is."""
    if encoding == "raw":
        return file.stat().st_size - start
    with file.open("rb") as packed:
        packed.seek(start)
        if encoding == "zlib":
            return _inflated_bytes(packed)
        length = 0
        with (bz2 if encoding.startswith("bz") else gzip).open(packed) as unpacked:
            while part := unpacked.read(CHUNK):
                length += len(part)
        return length


def _inflated_bytes(packed: IO[bytes]) -> int:
    """Of a stream of zlib or gzip, as MetaImage has it."""
    unpacker, length = zlib.decompressobj(ZLIB_OR_GZIP), 0
    while not unpacker.eof and (part := packed.read(CHUNK)):
        length += len(unpacker.decompress(part))
    if not unpacker.eof:
        raise EOFError("they end early")
    return length


def data_files(path: Path) -> list[Path]:
    """The files with the voxels of a header of MetaImage or NRRD that has none itself."""
    named = _data_file(_read(path)) if has_text_header(path) and path.is_file() else ""
    if not named:
        return []
    beside = path.parent / named
    if beside.is_file():
        return [beside]
    return sorted(p for p in path.parent.iterdir() if p.is_file() and p != path)  # a list of slices


def _data_file(header: _Header) -> str:
    """The file with the voxels, or LIST; empty where they follow the header."""
    named = next((header.fields[key] for key in DATA_FILE if key in header.fields), "")
    return "" if named.upper() == "LOCAL" else named


def _read(path: Path) -> _Header:
    with path.open("rb") as file:
        start = file.read(LONGEST)
    end = END.search(start)
    length = end.end() if end else len(start)
    text = start[:length].decode("utf-8", errors="replace")
    return _Header({key.lower(): value for key, value in FIELD.findall(text)}, length)
