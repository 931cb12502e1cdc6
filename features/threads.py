"""How many threads torch itself may use."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """Let each torch operation run on one thread, and put the number back after.

    Several threads that share one short operation wait for each other, and far longer on a busy machine
    (measured: 37 s instead of 1 s for a small fit). Work is shared out in whole batches and fits instead.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
