"""Atomic writing: a file appears complete or not at all."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

TEMPORARY = ".tmp"


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside a file; at the end of the block it replaces the file.

    The temporary file is flushed to disk, then renamed, then the folder is flushed: readers see the old file
    or the new one, also after a power failure. If the block fails, the old file stays and the temporary one
    is deleted; a killed process leaves ``.<name>.<process>.<thread>.tmp``.

    Args:
        path: the file; its folder is made if it does not exist.

    Raises:
        OSError: the disk is full or not writable.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}{TEMPORARY}")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
        flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: str | bytes | memoryview) -> None:
    """Write a file atomically; text as UTF-8.

    Raises:
        OSError: the disk is full or not writable.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def flush_folder(folder: Path) -> None:
    """Make the rename permanent; some network folders cannot be flushed."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
