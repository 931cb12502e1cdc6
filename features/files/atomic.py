"""Files that appear whole or not at all."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

TEMPORARY = ".tmp"


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary place beside a file; what the block writes there takes the file's place at its end.

    Flushed to the disk, then renamed, and the folder flushed too: a reader, and whoever looks after a
    power cut, finds the old file or the new one. Where the block fails, the old one stays and nothing
    is left behind; a killed process leaves ``.<name>.<process>.<thread>.tmp``.

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
        _flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: str | bytes | memoryview) -> None:
    """Write a file that appears whole; text as UTF-8.

    Raises:
        OSError: the disk is full or not writable.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def _flush_folder(folder: Path) -> None:
    """Make the rename last; some network folders cannot be flushed."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
