"""Limits on the threads and the freed memory of native libraries."""

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from functools import lru_cache

from threadpoolctl import ThreadpoolController


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run each operation of torch and of linear algebra on one thread within the block.

    Several threads that share one short operation wait for each other, and much longer on a busy machine
    (measured: 37 s instead of 1 s for a small fit; 2.7 s instead of 0.6 s for logistic regressions). Whole
    batches and fits are run in parallel instead. torch takes seconds to load and is not loaded for this: a
    block that needs it comes after its import.
    """
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch else 0
    if torch:
        torch.set_num_threads(1)
    try:
        with _controller(len(sys.modules)).limit(limits=1):
            yield
    finally:
        if torch:
            torch.set_num_threads(threads)


@lru_cache(maxsize=1)
def _controller(n_modules: int) -> ThreadpoolController:  # noqa: ARG001 - imports may add pools
    """The thread pools of all libraries; to list them takes milliseconds."""
    return ThreadpoolController()


def keep_freed_memory() -> None:
    """Make the C library keep freed memory for the next batch instead of returning it to the system.

    A convolutional network allocates and frees the same tens of megabytes for every batch. Getting them from
    the system each time, page by page, costs about a tenth of the CPU time (``benchmarks.extraction``). The
    setting lasts for the life of the process; C libraries other than glibc are left unchanged.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, _NEVER_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _NEVER_BYTES)
        libc.mallopt(_M_ARENA_MAX, 1)  # heaps of further arenas are too small for feature maps


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_NEVER_BYTES = 1 << 30
