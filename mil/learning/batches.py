"""Bags of different length as padded batches, and bags too long to be taken at once."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mil.heads.head import Head, HeadOutput

Features = NDArray[np.float16] | NDArray[np.float32]

MOST_PADDING = 0.1  # of a batch's tiles
TILES_AT_ONCE = 4096  # bags beyond this fill the processor alone, and would only need more memory


class Batch(NamedTuple):
    """Padded bags: features (B, N, D), mask (B, N) True where a tile is real."""

    features: Tensor
    mask: Tensor


def collate(bags: Sequence[Features]) -> Batch:
    """Pad bags (N_b, D) to the longest of them; in half precision where all of them are."""
    longest = max(len(bag) for bag in bags)
    kind = np.result_type(*(bag.dtype for bag in bags))
    # Filled before it is a tensor: bags may be read-only maps of a file, which torch will not take.
    features = np.empty((len(bags), longest, bags[0].shape[1]), dtype=kind)
    mask = np.zeros((len(bags), longest), dtype=np.bool_)
    for row, bag in enumerate(bags):
        features[row, : len(bag)] = bag
        features[row, len(bag) :] = 0
        mask[row, : len(bag)] = True
    return Batch(torch.from_numpy(features), torch.from_numpy(mask))


def draw(bag: Features, most: int, rng: np.random.Generator) -> Features:
    """At most so many tiles of a bag, in their order; 0 is all of them."""
    if most == 0 or len(bag) <= most:
        return bag
    return bag[np.sort(rng.choice(len(bag), most, replace=False))]


def alike(lengths: Sequence[int], at_once: int = TILES_AT_ONCE) -> list[list[int]]:
    """Bags in groups of like length, by number: at most ``MOST_PADDING`` of a group is padding.

    A group has at most ``at_once`` tiles, or is one bag.
    """
    groups: list[list[int]] = []
    for index in np.argsort(lengths, kind="stable")[::-1]:
        with_it = [*groups[-1], int(index)] if groups else []
        tiles = len(with_it) * lengths[with_it[0]] if with_it else 0
        real = sum(lengths[i] for i in with_it)
        if with_it and tiles <= at_once and tiles - real <= MOST_PADDING * tiles:
            groups[-1] = with_it
        else:
            groups.append([int(index)])
    return groups


def run_in_chunks(head: Head, bag: Features, chunk_tiles: int) -> HeadOutput:
    """The head on one bag (N, D), a chunk of tiles after the other; the same as on all at once.

    In training a chunk is computed again for its gradient, so that only one is held at a time.

    Raises:
        FitError: the head looks at all tiles of a bag together.
    """

    def part(start: int) -> tuple[Tensor, ...]:
        features, mask = collate([bag[start : start + chunk_tiles]])
        return head.summarise(head.standardise(features, mask), mask)

    starts = range(0, len(bag), chunk_tiles)
    if torch.is_grad_enabled():
        return head.merge([checkpoint(part, start, use_reentrant=False) for start in starts])
    return head.merge([part(start) for start in starts])
