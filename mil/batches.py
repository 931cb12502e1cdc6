"""Bags of different length as one padded batch."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Batch(NamedTuple):
    """Padded bags: features (B, N, D) float32, mask (B, N) True where a tile is real."""

    features: Tensor
    mask: Tensor


def collate(
    bags: Sequence[NDArray[np.float16] | NDArray[np.float32]],
    *,
    max_tiles: int | None = None,
    rng: np.random.Generator | None = None,
) -> Batch:
    """Pad bags to the longest of them.

    Args:
        bags: B arrays (N_b, D).
        max_tiles: draw at most this many tiles of each bag, with ``rng``.
        rng: source of the draw.

    Raises:
        ValueError: tiles are to be drawn without a source.
    """
    drawn = [bag if max_tiles is None else _draw(bag, max_tiles, rng) for bag in bags]
    longest = max(len(bag) for bag in drawn)
    # Filled before it is a tensor: bags may be read-only maps of a file, which torch will not take.
    features = np.zeros((len(drawn), longest, drawn[0].shape[1]), dtype=np.float32)
    mask = np.zeros((len(drawn), longest), dtype=np.bool_)
    for row, bag in enumerate(drawn):
        features[row, : len(bag)] = bag
        mask[row, : len(bag)] = True
    return Batch(torch.from_numpy(features), torch.from_numpy(mask))


def _draw(
    bag: NDArray[np.float16] | NDArray[np.float32], max_tiles: int, rng: np.random.Generator | None
) -> NDArray[np.float16] | NDArray[np.float32]:
    if rng is None:
        raise ValueError(f"{max_tiles} tiles are to be drawn from a bag; give rng to draw with.")
    if len(bag) <= max_tiles:
        return bag
    return bag[np.sort(rng.choice(len(bag), max_tiles, replace=False))]
