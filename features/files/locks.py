"""Locks of the operating system on open files: a lock ends with its process, even a killed one."""

import os
from pathlib import Path
from typing import IO, Any


def lock(file: IO[Any], *, shared: bool = False, wait: bool = True) -> bool:
    """Lock a file until it is closed; False if ``wait`` is off and another process has the lock.

    Raises:
        ImportError: the operating system has no such locks.
        OSError: the file system has none.
    """
    import fcntl

    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_at(file: IO[Any], path: Path) -> bool:
    """Whether an open file is the one at a path: its last owner may have removed it before it was locked."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
