"""One process, or several that `torchrun` has started: the one file that knows torch.distributed."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from features.device import resolve_device
from mil.errors import FitError


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    Attributes:
        number: from 0; only the first one writes.
        size: number of processes.
        device: the device of this process.
        workers: its threads that read tiles; 0 takes one per core.
    """

    number: int
    size: int
    device: torch.device
    workers: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.number == 0

    def distribute(self, module: nn.Module) -> nn.Module:
        """The module such that ``backward`` averages gradients over all processes.

        On GPUs norms use the whole batch's statistics. gloo has no such norm: on CPUs each process
        normalises by its own share of the batch, and the first one's running statistics are kept.
        """
        if self.size == 1:
            return module
        if self.device.type == "cuda":
            from timm.layers.norm_act import convert_sync_batchnorm

            module = convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        # A network cut before its classifier may hold parameters that no feature depends on.
        return nn.parallel.DistributedDataParallel(module, find_unused_parameters=True)

    def total(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def wait(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()

    def check_equal(self, weights: Iterable[Tensor]) -> None:
        """Refuse to continue where the processes have different weights.

        Raises:
            FitError: the weights differ.
        """
        if self.size > 1:
            sums = torch.stack([weight.detach().double().sum() for weight in weights])
            least, most = sums.clone(), sums.clone()
            dist.all_reduce(least, dist.ReduceOp.MIN)
            dist.all_reduce(most, dist.ReduceOp.MAX)
            if not torch.equal(least, most):
                raise FitError(
                    "The weights of the processes have diverged. Start all of them with one command and "
                    "one version, or use a single process."
                )


@contextmanager
def ranks(device: str, workers: int = 0) -> Iterator[Ranks]:
    """This process alone, or its place among those of `torchrun`; ``auto`` gives each its own GPU.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        workers: threads that read tiles; 0 takes one per core.
    """
    where = resolve_device(device)
    if not dist.is_torchelastic_launched():
        yield Ranks(0, 1, where, workers)
        return
    if where.type == "cuda":
        where = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(where)
    dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), where, workers)
    finally:
        dist.destroy_process_group()
