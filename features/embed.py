"""Tiles to features: every worker reads a batch of tiles and runs the network on it."""

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from features.backbones.registry import Backbone
from features.errors import FeaturesError
from features.progress import Advance
from features.threads import one_torch_thread
from features.tiling import TileSource

BATCH_TILES = 16
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MOST_WORKERS = 8  # beyond this the disk or the GPU binds, and each holds a batch in memory


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

    Reading and computing overlap because each worker does both, for a batch of its own; the batches,
    and so the features, are the same for any number of workers.

    Args:
        source: hands out (tile_px, tile_px, 3) RGB tiles.
        backbone: the network and its preprocessing.
        precision: ``auto`` (bf16 where the hardware has it natively), ``fp32``, ``bf16``, ``fp16``.
        device: ``auto`` (a GPU if there is one), or a torch device.
        workers: threads; 0 takes one per core.
        advance: told the number of tiles after each batch.

    Returns:
        (N, dim) features.

    Raises:
        FeaturesError: a feature is not finite.
    """
    where = resolve_device(device)
    dtype = resolve_precision(precision, where)
    network = backbone.module.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def embed_batch(numbers: range) -> NDArray[np.float32]:
        tiles = torch.from_numpy(np.stack([source.read(number) for number in numbers]))
        lower = torch.autocast(where.type, dtype) if dtype != torch.float32 else _AS_IT_IS
        with torch.inference_mode(), lower:
            batch: NDArray[np.float32] = (
                network(preprocess(tiles.to(where), backbone)).float().cpu().numpy()
            )
        return batch

    n_tiles = len(source.grid)
    features = np.empty((n_tiles, backbone.dim), dtype=np.float32)
    batches = [
        range(start, min(start + BATCH_TILES, n_tiles)) for start in range(0, n_tiles, BATCH_TILES)
    ]
    with one_torch_thread(), ThreadPoolExecutor(workers or _workers()) as pool:
        jobs = [pool.submit(embed_batch, numbers) for numbers in batches]
        try:
            for numbers, job in zip(batches, jobs, strict=True):
                features[numbers.start : numbers.stop] = job.result()
                advance(len(numbers))
        finally:  # an unreadable tile or an interrupt must not wait for the rest
            for job in jobs:
                job.cancel()
    if not np.isfinite(features).all():
        raise FeaturesError(
            f"{backbone.name} ({backbone.weights}) gave features that are not finite in "
            f"{str(dtype).removeprefix('torch.')}. Use --precision fp32, or other weights."
        )
    return features


def preprocess(tiles: Tensor, backbone: Backbone) -> Tensor:
    """RGB bytes to what the weights expect.

    Args:
        tiles: (B, H, W, 3) uint8.
        backbone: gives input size, mean and std.

    Returns:
        (B, 3, input_px, input_px) float32, channels last in memory.
    """
    images = tiles.permute(0, 3, 1, 2).float() / 255
    if images.shape[-1] != backbone.input_px:
        size = (backbone.input_px, backbone.input_px)
        images = nn.functional.interpolate(images, size, mode="bilinear", antialias=True)
    mean = torch.tensor(backbone.mean, device=tiles.device).view(3, 1, 1)
    std = torch.tensor(backbone.std, device=tiles.device).view(3, 1, 1)
    return (images - mean) / std


def resolve_device(device: str) -> torch.device:
    """The torch device meant by a name; ``auto`` is the GPU if there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise FeaturesError(
            f"device {device!r} is unknown to torch. Use auto, cpu or cuda."
        ) from error
    if where.type == "cuda" and not torch.cuda.is_available():
        raise FeaturesError(f"device {device!r}, but torch sees no GPU. Use --device cpu.")
    return where


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """The number format of the network; ``auto`` is bf16 where it is native, else fp32."""
    if precision in DTYPES:
        return DTYPES[precision]
    if precision != "auto":
        raise FeaturesError(f"precision is auto, {', '.join(DTYPES)}; got {precision!r}. Use auto.")
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = (
            torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        )
        native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return torch.bfloat16 if native else torch.float32


def _workers() -> int:
    return min(os.cpu_count() or 1, MOST_WORKERS)


_AS_IT_IS = contextlib.nullcontext()
