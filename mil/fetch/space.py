"""Room on the disk for what is fetched."""

import errno
import shutil
from pathlib import Path

from features.summary import SPARE_BYTES, format_bytes
from mil.errors import FetchError


def check_space(folder: Path, needed: int) -> None:
    """Refuse work that the disk has no room for.

    Raises:
        FetchError: it has too few free bytes.
    """
    if problem := space_problem(folder, needed):
        raise FetchError(problem)


def space_problem(folder: Path, needed: int) -> str:
    """Why the disk has no room for so many bytes; empty if it has."""
    free = free_bytes(folder)
    if not needed or needed + SPARE_BYTES <= free:
        return ""
    return (
        f"The files need {format_bytes(needed)}, and {format_bytes(free)} are free at {folder}, of which "
        f"{format_bytes(SPARE_BYTES)} are kept free. Free some, fetch fewer cases, or write them elsewhere."
    )


def free_bytes(folder: Path) -> int:
    """Free bytes of the disk that a folder is, or would be, on."""
    folder = folder.absolute()
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def disk_error(error: OSError, path: Path) -> Exception:
    """The error of a disk that is full, with the file that has no room; another error as it is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FetchError(
            f"{path}: the disk is full. Free some space and run the same call again: it continues from there."
        )
    return error
