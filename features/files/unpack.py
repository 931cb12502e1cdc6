"""Reading annotation files that may be packed as ``.gz`` or ``.zip``."""

import gzip
import lzma
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from features.errors import AnnotationError

LARGEST_BYTES = 2 << 30  # unpacked: a million cells take 1 GiB; more is a mistake or a zip bomb
EXPORT = "In QuPath: File > Export objects as GeoJSON."


def read_unpacked(path: Path) -> bytearray:
    """Read the bytes of a file, unpacked if it is a ``.gz`` or a ``.zip`` of one file.

    Raises:
        AnnotationError: the file is missing, damaged, over ``LARGEST_BYTES``, or not one file.
    """
    try:
        if path.suffix.lower() == ".gz":
            with gzip.open(path) as stream:
                return _read_all(path, stream.read)
        if path.suffix.lower() == ".zip":
            return _read_zipped(path)
        with path.open("rb") as stream:
            return _read_all(path, stream.read)
    except (
        OSError,
        ValueError,  # a path with a null character
        EOFError,
        RuntimeError,  # a zip with a password, or packed by a method Python does not know
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
    ) as error:
        raise AnnotationError(
            f"{path.name}: cannot be read ({error}). Copy or unpack the file again. {EXPORT}"
        ) from error


def _read_zipped(path: Path) -> bytearray:
    with zipfile.ZipFile(path) as archive:
        # macOS adds a shadow file for each file it zips.
        members = [n for n in archive.namelist() if not n.endswith("/") and "__MACOSX/" not in n]
        if len(members) != 1:
            raise AnnotationError(
                f"{path.name}: contains {len(members)} files instead of one. "
                "Unpack it and keep one annotation file per slide."
            )
        with archive.open(members[0]) as stream:
            return _read_all(path, stream.read)


def _read_all(path: Path, read: Callable[[int], bytes]) -> bytearray:
    """Read a stream in pieces, so that a zip bomb is stopped before it fills the memory."""
    raw = bytearray()
    while piece := read(1 << 20):
        raw += piece
        if len(raw) > LARGEST_BYTES:
            raise AnnotationError(
                f"{path.name}: more than {LARGEST_BYTES / 2**30:g} GiB once unpacked. "
                "Export the annotations without detections and cells."
            )
    return raw
