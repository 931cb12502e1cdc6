"""Locks of the operating system on open files: a lock ends with its process, even a killed one."""

import errno
import importlib
import os
from pathlib import Path
from typing import IO, Any

BYTE = (
    2**31 - 2
)  # that Windows locks: what is locked cannot be read, so it lies behind all that is written
BUSY = (errno.EACCES, errno.EDEADLK, errno.EAGAIN)


def lock(file: IO[Any], *, shared: bool = False, wait: bool = True) -> bool:
    """Lock a file until it is closed; False if ``wait`` is off and another process has the lock.

    Raises:
        ImportError: the operating system has no such locks; Windows has none that can be shared.
        OSError: the file system has none.
    """
    try:
        import fcntl
    except ImportError:
        if shared:
            raise
        return _lock_byte(file, wait=wait)
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_byte(file: IO[Any], *, wait: bool) -> bool:
    """Lock as Windows does."""
    windows, handle = importlib.import_module("msvcrt"), file.fileno()
    place = os.lseek(handle, 0, os.SEEK_CUR)
    while True:
        os.lseek(handle, BYTE, os.SEEK_SET)
        try:
            windows.locking(handle, windows.LK_LOCK if wait else windows.LK_NBLCK, 1)
        except OSError as error:
            if error.errno not in BUSY:
                raise
            if not wait:
                return False
        else:
            return True
        finally:
            os.lseek(handle, place, os.SEEK_SET)


def is_at(file: IO[Any], path: Path) -> bool:
    """Whether an open file is the one at a path: its last owner may have removed it before it was locked."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
