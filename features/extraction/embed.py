"""Embed tiles: every worker thread reads a batch of tiles and runs the network on it."""

import contextlib
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import lru_cache
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from features.backbones.folding import to_half_precision
from features.backbones.registry import Backbone
from features.device import resolve_device
from features.errors import FeaturesError, TileError
from features.extraction.resizing import resize_images, resize_tiles
from features.precision import resolve_precision
from features.progress import Advance
from features.threads import keep_freed_memory, one_thread
from features.tiles.grid import BLOCK_L0, TileSource, reading_order

BATCH_TILES = 8  # more costs memory on a CPU and gains nothing
GPU_BATCH_TILES = 128
MAX_WORKERS = (
    16  # beyond this the disk or the GPU is the limit, and each worker needs memory for a batch
)
MAX_UNREADABLE = 0.01  # fraction of a slide's tiles; beyond it, the slide fails
Tiles = NDArray[np.uint8]


class Clock:
    """Seconds by stage, summed over threads."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time a block as part of a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[stage] += time.perf_counter() - started


class Embedder:
    """A backbone on its device: (B, H, W, 3) uint8 tiles -> (B, dim) float32, from any thread.

    In half precision batch norms are folded and weights cast once; fp32 runs the network unchanged. On a
    GPU every thread has its own stream and page-locked memory, so that copies and kernels overlap.

    Raises:
        FeaturesError: a feature is not finite.
    """

    def __init__(self, backbone: Backbone, *, precision: str, device: str) -> None:
        self.backbone = backbone
        self.device = resolve_device(device)
        self.dtype = resolve_precision(precision, self.device)
        network = backbone.module
        if self.dtype != torch.float32:
            network = to_half_precision(network, self.dtype)
        self.network: nn.Module = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.batch_tiles = GPU_BATCH_TILES if self.device.type == "cuda" else BATCH_TILES
        self._local = threading.local()

    def __call__(self, tiles: Tiles, clock: Clock) -> NDArray[np.float32]:
        """Embed a batch; the clock counts its time as ``prepare`` and ``forward``."""
        autocast = (
            torch.autocast(self.device.type, self.dtype)
            if self.dtype != torch.float32
            else contextlib.nullcontext()
        )
        with torch.inference_mode(), self._stream(), autocast:
            with clock("prepare"):
                shown = resize_tiles(tiles, self.backbone.recipe)
                images = _normalise(self._to_device(shown), self.backbone)
            with clock("forward"):
                features: NDArray[np.float32] = self.network(images).float().cpu().numpy()
        if not np.isfinite(features).all():
            raise FeaturesError(
                f"{self.backbone.name} ({self.backbone.weights}) gave features that are not finite in "
                f"{str(self.dtype).removeprefix('torch.')}. Set precision to fp32, or use other weights."
            )
        return features

    def _stream(self) -> Any:
        if self.device.type != "cuda":
            return contextlib.nullcontext()
        if not hasattr(self._local, "stream"):
            self._local.stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        return torch.cuda.stream(self._local.stream)

    def _to_device(self, tiles: Tiles) -> Tensor:
        plain = tiles.flags.writeable and tiles.flags.c_contiguous
        batch = torch.from_numpy(tiles if plain else tiles.copy())
        if self.device.type != "cuda":
            return batch.to(self.device)
        pinned = getattr(self._local, "pinned", None)
        if pinned is None or pinned.shape[1:] != batch.shape[1:] or len(pinned) < len(batch):
            pinned = self._local.pinned = batch.pin_memory()
        else:
            pinned[: len(batch)].copy_(batch)
        return pinned[: len(batch)].to(self.device, non_blocking=True)


@dataclass
class Work:
    """The tiles of one slide at one scale, with the functions that process them.

    Attributes:
        source: returns (tile_px, tile_px, 3) RGB tiles.
        put: takes row numbers of the grid and their (B, dim) features, from any thread.
        advance: called with the number of tiles after each batch.
        flag: (B, H, W, 3) tiles -> (B,) uint8, before ``normalise``.
        normalise: (B, H, W, 3) tiles -> the same, before the network.
        clock: how long the stages took.
        flags: (N,) the results of ``flag``.
        unreadable: the error of each tile that could not be decoded, by row number.
        failed: a batch failed, and with it the slide.
    """

    source: TileSource
    put: Callable[[NDArray[np.int64], NDArray[np.float32]], None]
    advance: Advance = lambda _count: None
    flag: Callable[[Tiles], NDArray[np.uint8]] | None = None
    normalise: Callable[[Tiles], Tiles] | None = None
    clock: Clock = field(init=False, default_factory=Clock)
    flags: NDArray[np.uint8] = field(init=False)
    unreadable: dict[int, str] = field(init=False, default_factory=dict)
    failed: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.flags = np.zeros(len(self.source.grid), dtype=np.uint8)


class Workers:
    """Threads that embed one slide after another without a pause. A context manager.

    Reading and computing overlap because each worker does both for its own batch. The batches, and so the
    features, are the same for any number of workers.

    Args:
        embedder: the network.
        count: threads; 0 takes one per core.
    """

    def __init__(self, embedder: Embedder, count: int = 0) -> None:
        self.embedder = embedder
        self._pool = ThreadPoolExecutor(count or min(os.cpu_count() or 1, MAX_WORKERS), "embed")
        self._one_thread = one_thread()
        self._stopped = False

    def __enter__(self) -> "Workers":
        self._one_thread.__enter__()
        if self.embedder.device.type == "cpu":
            keep_freed_memory()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()
        self._pool.shutdown()
        self._one_thread.__exit__(kind, error, at)

    def stop(self) -> None:
        """Stop after the running batches; threads that wait for others get ``CancelledError``."""
        self._stopped = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def embed(self, *works: Work) -> None:
        """Embed all tiles; several scales of one slide are read together, block by block.

        Raises:
            TileError: more than ``MAX_UNREADABLE`` of the tiles cannot be read.
            FeaturesError: features are not finite, or a source fails in another way.
            CancelledError: the workers were stopped.
        """
        batches = sorted(
            (batch for work in works for batch in self._batches(work)), key=lambda batch: batch[0]
        )
        jobs: list[Future[None]] = []
        try:
            for _, work, rows in batches:
                jobs.append(self._pool.submit(self._embed_batch, work, rows))
            _wait_for_all(jobs)
        except RuntimeError as error:
            if self._stopped:  # stopped meanwhile: the pool refuses new batches
                raise CancelledError from error
            raise
        finally:  # an unreadable slide or an interrupt must not wait for the other batches
            # Batches removed from a stopped pool never end, so only those that run are waited for.
            wait([job for job in jobs if not job.cancel()])

    def _batches(self, work: Work) -> Iterator[tuple[tuple[int, int], Work, NDArray[np.int64]]]:
        grid = work.source.grid
        order, step = reading_order(grid), self.embedder.batch_tiles
        for start in range(0, len(order), step):
            rows = order[start : start + step]
            x, y = grid.coords_l0[rows[0]] // BLOCK_L0
            yield (int(y), int(x)), work, rows

    def _embed_batch(self, work: Work, rows: NDArray[np.int64]) -> None:
        if work.failed:
            return
        try:
            self._embed_tiles(work, rows)
        except BaseException:
            work.failed = True  # the other workers skip the batches of this slide
            raise

    def _embed_tiles(self, work: Work, rows: NDArray[np.int64]) -> None:
        tiles, readable = [], []
        with work.clock("read"):
            for row in rows:
                try:
                    tiles.append(work.source.read(int(row)))
                    readable.append(row)
                except TileError as error:
                    work.unreadable[int(row)] = str(error)
                    failed, n_tiles = len(work.unreadable), len(work.source.grid)
                    if failed > MAX_UNREADABLE * n_tiles:
                        raise TileError(
                            f"{failed} or more of {n_tiles} tiles cannot be decoded, and at most "
                            f"{MAX_UNREADABLE:.0%} may be left out: {error}"
                        ) from error
        if tiles:
            numbers, batch = np.array(readable), np.stack(tiles)
            with work.clock("prepare"):
                if work.flag:
                    work.flags[numbers] = work.flag(batch)
                if work.normalise:
                    batch = work.normalise(batch)
            features = self.embedder(batch, work.clock)
            with work.clock("write"):
                work.put(numbers, features)
        work.advance(len(rows))


def _wait_for_all(jobs: Sequence["Future[None]"]) -> None:
    """Wait for all jobs, or until one fails; its error is raised."""
    for job in jobs:
        job.result()


def embed(
    source: TileSource,
    backbone: Backbone,
    *,
    precision: str = "auto",
    device: str = "auto",
    workers: int = 0,
    advance: Advance = lambda _count: None,
) -> NDArray[np.float32]:
    """Embed every tile of a source, in the source's order.

    Args:
        source: returns (tile_px, tile_px, 3) RGB tiles.
        backbone: the network and its preprocessing.
        precision: ``auto`` (bf16 if the hardware has it natively), ``fp32``, ``bf16``, ``fp16``.
        device: ``auto`` (a GPU if there is one), or a torch device.
        workers: threads; 0 takes one per core.
        advance: called with the number of tiles after each batch.

    Returns:
        (N, dim) features.

    Raises:
        FeaturesError: a feature is not finite, or a tile cannot be read.
    """
    features = np.empty((len(source.grid), backbone.dim), dtype=np.float32)

    def put(rows: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        features[rows] = values

    work = Work(source, put, advance)
    with Workers(Embedder(backbone, precision=precision, device=device), workers) as pool:
        pool.embed(work)
    for reason in work.unreadable.values():
        raise TileError(reason)
    return features


def preprocess(tiles: Tensor, backbone: Backbone) -> Tensor:
    """Resize, crop and normalise RGB tiles as the weights expect.

    Args:
        tiles: (B, H, W, 3) uint8, H = W.
        backbone: gives sides, interpolation, mean and std.

    Returns:
        (B, 3, input_px, input_px) float32, channels last in memory.
    """
    if backbone.recipe.interpolation != "float":
        shown = resize_tiles(tiles.cpu().numpy(), backbone.recipe)
        tiles = torch.from_numpy(np.ascontiguousarray(shown)).to(tiles.device)
    return _normalise(tiles, backbone)


def _normalise(tiles: Tensor, backbone: Backbone) -> Tensor:
    """The rest of ``preprocess``, after ``resize_tiles``."""
    images = resize_images(tiles.permute(0, 3, 1, 2).float() / 255, backbone.recipe)
    mean, std = _mean_and_std(tuple(backbone.mean), tuple(backbone.std), tiles.device)
    return (images - mean) / std


@lru_cache(maxsize=8)
def _mean_and_std(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """(3, 1, 1) each; moved once, as every copy to a GPU ends its queue of work."""
    with torch.inference_mode(mode=False):
        centre, spread = (
            torch.tensor(values, device=device).view(3, 1, 1) for values in (mean, std)
        )
    return centre, spread
