"""Tiles to features: threads read ahead while the network works."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from features.backbones.registry import Backbone
from features.errors import FeaturesError
from features.progress import Advance
from features.tiling import TileSource

BATCH_TILES = 16
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BATCHES_AHEAD = 2  # enough to hide reading, few enough to bound memory


def embed(
    source: TileSource,
    backbone: Backbone,
    *,
    precision: str = "auto",
    device: str = "auto",
    readers: int = 2,
    advance: Advance = lambda _count: None,
) -> NDArray[np.float32]:
    """Embed every tile of a source, in the source's order.

    Args:
        source: hands out (tile_px, tile_px, 3) RGB tiles.
        backbone: the network and its preprocessing.
        precision: ``auto`` (bf16 where the hardware has it natively), ``fp32``, ``bf16``, ``fp16``.
        device: ``auto`` (a GPU if there is one), or a torch device.
        readers: threads that read and decode tiles.
        advance: told the number of tiles after each batch.

    Returns:
        (N, dim) features.

    Raises:
        FeaturesError: a feature is not finite.
    """
    where = resolve_device(device)
    dtype = resolve_precision(precision, where)
    network = backbone.module.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    features = np.empty((len(source.grid), backbone.dim), dtype=np.float32)
    start = 0
    with torch.inference_mode():
        for tiles in _batches(source, readers):
            images = preprocess(tiles.to(where), backbone)
            with torch.autocast(where.type, dtype, enabled=dtype is not torch.float32):
                batch = network(images)
            features[start : start + len(tiles)] = batch.float().cpu().numpy()
            start += len(tiles)
            advance(len(tiles))
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
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = (
            torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        )
        native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return torch.bfloat16 if native else torch.float32


def _batches(source: TileSource, readers: int) -> Iterator[Tensor]:
    """Batches of tiles in grid order, read a few batches ahead of the network."""
    with ThreadPoolExecutor(readers) as pool:
        pending: deque[Future[NDArray[np.uint8]]] = deque()
        unread = iter(range(len(source.grid)))
        try:
            while True:
                room = BATCH_TILES * (1 + BATCHES_AHEAD) - len(pending)
                pending.extend(pool.submit(source.read, i) for i in islice(unread, room))
                if not pending:
                    return
                ready = [pending.popleft() for _ in range(min(BATCH_TILES, len(pending)))]
                yield torch.from_numpy(np.stack([tile.result() for tile in ready]))
        finally:
            for tile in pending:  # an unreadable tile or an interrupt must not wait for the rest
                tile.cancel()
