"""What the frozen first layers of a network give for a tile: computed once, in half precision, on disk.

Where no tile varies from one draw to the next, all layers before the first that learns give the same for a
tile in every epoch. A file per slide has one slot per tile: a checksum, then the numbers. A slot that a
killed process has half written does not match its checksum and is computed again.
"""

import os
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from features.backbones.registry import Backbone
from features.device import move_array
from features.extraction.embed import preprocess
from features.files.checksum import fingerprint
from mil.errors import FitError
from mil.finetune.network import Stage, TileClassifier
from mil.finetune.tiles import GIGABYTE, TileBatch, TilePool

CHECKSUM_BYTES = 4
Halves = NDArray[np.float16]


class FrozenStore:
    """A bounded cache of the numbers of tiles. A context manager: it closes its files.

    Args:
        folder: of the files; trainings that start alike may share it, one after another or at once.
        key: of all that shapes the numbers but the slide.
        slides: fingerprint and number of tiles of each slide.
        shape: of a tile's numbers.
        gigabytes: all files of the folder together; slides beyond it are not cached.
    """

    def __init__(
        self,
        folder: Path,
        key: str,
        slides: Sequence[tuple[str, int]],
        shape: tuple[int, ...],
        gigabytes: float,
    ) -> None:
        self.shape = shape
        self._slot_bytes = CHECKSUM_BYTES + 2 * int(np.prod(shape))
        self._files: dict[int, int] = {}
        folder.mkdir(parents=True, exist_ok=True)
        left = gigabytes * GIGABYTE - sum(path.stat().st_size for path in folder.iterdir())
        for number, (slide, n_tiles) in enumerate(slides):
            path = folder / f"{fingerprint({'key': key, 'slide': slide})[:32]}.fp16"
            n_bytes = n_tiles * self._slot_bytes
            if not path.exists():
                if n_bytes > left:
                    continue
                left -= n_bytes
            self._files[number] = os.open(path, os.O_RDWR | os.O_CREAT)
            os.ftruncate(self._files[number], n_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for file in self._files.values():
            os.close(file)
        self._files.clear()

    def get(self, slide: int, number: int) -> Halves | None:
        """The numbers of a tile, if they are there."""
        if slide not in self._files:
            return None
        slot = os.pread(self._files[slide], self._slot_bytes, number * self._slot_bytes)
        checksum, content = slot[:CHECKSUM_BYTES], slot[CHECKSUM_BYTES:]
        if zlib.crc32(content).to_bytes(CHECKSUM_BYTES, "little") != checksum:
            return None
        return np.frombuffer(content, np.float16).reshape(self.shape)

    def put(self, slide: int, number: int, values: Halves) -> None:
        """Cache the numbers of a tile, if its slide has room."""
        if slide not in self._files:
            return
        content = np.ascontiguousarray(values).tobytes()
        slot = zlib.crc32(content).to_bytes(CHECKSUM_BYTES, "little") + content
        os.pwrite(self._files[slide], slot, number * self._slot_bytes)


class FrozenLayers:
    """The layers of a classifier before the first that learns, applied to batches of a pool.

    Args:
        classifier: on its device.
        stage: up to which nothing learns.
        backbone: says how images are prepared.
        batch_tiles: images in each pass, whatever the cache lacks, so that its state changes no number.
        autocast: a function that gives the context of the forward pass.
    """

    def __init__(
        self,
        classifier: TileClassifier,
        stage: Stage,
        backbone: Backbone,
        batch_tiles: int,
        autocast: Any,
    ) -> None:
        self.classifier, self.stage, self.backbone = classifier, stage, backbone
        self.batch_tiles, self.autocast = batch_tiles, autocast
        self.store: FrozenStore | None = None

    def open_store(self, folder: Path, pool: TilePool, key: str, gigabytes: float) -> FrozenStore:
        """The cache for the tiles of a pool, which reads from it from now on."""
        side = self.backbone.input_px
        device = next(self.classifier.parameters()).device
        shape = tuple(self._pass(torch.zeros(1, 3, side, side, device=device)).shape[1:])
        slides = [(pool.identity(n), pool.counts[n]) for n in range(len(pool.slides))]
        self.store = FrozenStore(folder, f"{key} {self.stage}", slides, shape, gigabytes)
        pool.frozen = self.store.get
        return self.store

    def __call__(self, batch: TileBatch, device: torch.device) -> Tensor:
        """(B, ...) what the layers give for each tile of a batch, rounded to half precision.

        Raises:
            FitError: a number is beyond half precision.
        """
        assert self.store
        values = np.zeros((len(batch.tiles), *self.store.shape), np.float16)
        for place, known in batch.frozen.items():
            values[place] = known
        missing = [n for n in np.flatnonzero(batch.usable).tolist() if n not in batch.frozen]
        for start in range(0, len(missing), self.batch_tiles):
            rows = missing[start : start + self.batch_tiles]
            values[rows] = self._compute(batch.tiles[rows], device)
            for row in rows:
                self.store.put(int(batch.slides[row]), int(batch.numbers[row]), values[row])
        return move_array(values, device).float()

    def _compute(self, tiles: NDArray[np.uint8], device: torch.device) -> Halves:
        full = np.zeros((self.batch_tiles, *tiles.shape[1:]), np.uint8)
        full[: len(tiles)] = tiles
        values = self._pass(preprocess(move_array(full, device), self.backbone))
        halves: Halves = values[: len(tiles)].half().cpu().numpy()
        if not np.isfinite(halves).all():
            raise FitError(
                f"The frozen layers of {self.backbone.name} overflow half precision, in which "
                "they are cached. Set augment to flips, so that they are computed in each epoch."
            )
        return halves

    @torch.no_grad()
    def _pass(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        with self.autocast():
            return self.classifier.until(self.stage, images)


def remove_frozen(folder: Path) -> None:
    """Let a cache go when all that share it are finished."""
    shutil.rmtree(folder, ignore_errors=True)
