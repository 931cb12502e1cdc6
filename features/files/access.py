"""Errors of reading a file: those of a damaged one, and why the system does not let a sound one be read."""

import errno
import lzma
import struct
import zipfile
import zlib

# What reading a damaged file may raise, whatever its format.
READ_ERRORS = (
    *(OSError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(
        ValueError,
        ArithmeticError,
        LookupError,
        TypeError,
        AttributeError,
        RuntimeError,
        MemoryError,
    ),
    AssertionError,
    SyntaxError,
)

_IN_USE = (errno.EAGAIN, errno.EBUSY, errno.ETXTBSY, errno.EDEADLK)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_FORBIDDEN = (errno.EACCES, errno.EPERM)
_NO_ANSWER = (
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ECONNRESET, errno.EHOSTDOWN),
    *(
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENODEV,
        errno.ENXIO,
        errno.EINTR,
    ),
)
_SENTENCES = {
    _IN_USE: "is in use by another program. Close it there, or wait until that program has ended",
    _NO_LOCKS: "lies on a file system without locks, which another program asks for. Copy it to a local "
    "disk, or mount the share with locks",
    _FORBIDDEN: "may not be read by this user, or another program keeps it to itself. Have its permissions "
    "changed, or close it there",
    _NO_ANSWER: "could not be read because its disk or share did not answer. Check the connection and try "
    "again",
    (
        errno.EMFILE,
        errno.ENFILE,
    ): "could not be opened, as too many files are open. Raise the limit, as with `ulimit -n 4096`",
    (errno.ELOOP,): "is a link that leads in a circle. Give the file itself",
    (errno.ENOENT, errno.ENOTDIR): "is no longer there. Check the path",
    (errno.ENOMEM,): "could not be read for lack of memory. Close other programs and try again",
}


def access_problem(error: BaseException) -> str:
    """What to say after a file's name where the file may be sound but cannot be reached; else empty.

    Args:
        error: that reading raised; only an ``OSError`` of the system has a number.
    """
    number = error.errno if isinstance(error, OSError) else None
    for numbers, sentence in _SENTENCES.items():
        if number in numbers:
            return f"{sentence} ({error})."
    return ""
