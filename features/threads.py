"""What libraries may use of the process: threads, and memory they have freed."""

import contextlib
import ctypes
from collections.abc import Iterator

import torch
from threadpoolctl import threadpool_limits


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let each operation of torch and of linear algebra run on one thread, and put the numbers back after.

    Several threads that share one short operation wait for each other, and far longer on a busy machine
    (measured: 37 s instead of 1 s for a small fit; 2.7 s instead of 0.6 s for logistic regressions). Work is
    shared out in whole batches and fits instead.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)


def keep_freed_memory() -> None:
    """Let the C library keep what a network frees, for its next batch, instead of giving it back.

    A convolutional network allocates and frees the same tens of megabytes for every batch; each time
    from the system, page by page, it costs a CPU about a tenth of the work (``benchmarks.extraction``).
    Holds for the whole process from then on; a C library other than glibc is left alone.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, _NEVER_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _NEVER_BYTES)
        libc.mallopt(_M_ARENA_MAX, 1)  # the heaps of further arenas are too small for feature maps


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_NEVER_BYTES = 1 << 30
