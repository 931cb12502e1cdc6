"""Bags of different length as padded batches, and bags too long to be taken at once."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mil.heads.brief import Tiles, brief_of
from mil.heads.head import Head, HeadOutput

Features = NDArray[np.float16] | NDArray[np.float32]

MOST_PADDING = 0.1  # of a batch's tiles
TILES_AT_ONCE = 4096  # bags beyond this fill the processor alone, and would only need more memory
TILES_PER_STEP = 256  # where single tiles are the bags
READY_VALUES = (
    2**27
)  # of standardised bags that stay in memory for a fit; more are made at each step


class Batch(NamedTuple):
    """Padded bags: features (B, N, D), mask (B, N) True where a tile is real."""

    features: Tensor
    mask: Tensor


class ReadyBatch(NamedTuple):
    """A batch whose features the head has standardised already."""

    features: Tensor
    mask: Tensor


class ReadyBags:
    """The bags of a fit, standardised once for all its steps, if they are small enough.

    Args:
        bags: (N, D) each.
        standardise: the head's own; None where each step has to standardise.
    """

    def __init__(
        self,
        bags: Sequence[Features] = (),
        standardise: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        self._ready: dict[int, tuple[Features, Tensor]] = {}
        self._joined: tuple[list[int], Tensor] | None = None
        if standardise and sum(bag.size for bag in bags) <= READY_VALUES:
            for bag in bags:
                ready = standardise(*collate([bag]))[0]
                self._ready[id(bag)] = bag, ready  # while the bag is held, its number is its own

    def of(self, bags: Sequence[Features]) -> list[Tensor]:
        """(N, D) each, or nothing unless every one of the bags is ready."""
        if not all(id(bag) in self._ready for bag in bags):
            return []
        return [self._ready[id(bag)][1] for bag in bags]

    def joined(self, bags: Sequence[Features]) -> Tensor | None:
        """(M, D) the tiles of the bags, joined once for all epochs; None unless all are ready."""
        numbers = [id(bag) for bag in bags]
        if self._joined is None or self._joined[0] != numbers:
            tiles = self.of(bags)
            if not tiles:
                return None
            self._joined = numbers, torch.cat(tiles)
        return self._joined[1]

    def collate(self, bags: Sequence[Features]) -> Batch | ReadyBatch:
        """As the function; ready if every one of the bags is."""
        tiles = self.of(bags)
        if not tiles:
            return collate(bags)
        return pad_ready(tiles)


UNREADY = ReadyBags()


def pad_ready(tiles: Sequence[Tensor]) -> ReadyBatch:
    """Standardised bags (N_b, D) padded to the longest of them."""
    mask = torch.arange(max(map(len, tiles))) < torch.tensor([[len(bag)] for bag in tiles])
    return ReadyBatch(nn.utils.rnn.pad_sequence(list(tiles), batch_first=True), mask)


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


def in_brief(head: Head, bag: Features) -> Features:
    """As few tiles as the head's logits need: those of its ``brief``, or the bag (N, D) itself.

    A class speaks for itself alone: what derives from it may read more of a bag.
    """
    own: staticmethod[[Tiles], NDArray[np.float32]] | None = vars(type(head)).get("brief")
    return brief_of(bag, own.__func__) if own else bag


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
