"""All fits of an ensemble trained as one, where the cohort is small and the head allows it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mil.heads.batches import TILES_AT_ONCE, Features, ReadyBags
from mil.heads.head import SCALE, Head
from mil.heads.stack import Stack, stacks
from mil.learning.epochs import prepare_bags
from mil.settings import FitSettings

MOST_PADDED = (
    1.5  # length of the longest bag, of the mean: beyond, padding costs more than single calls
)


@dataclass(frozen=True)
class UntrainedFit:
    """A head before its first step.

    Attributes:
        head: its scale is known.
        rng: of tiles and order.
        generator: of what the head draws.
    """

    head: Head
    rng: np.random.Generator
    generator: torch.Generator


@dataclass(frozen=True)
class StackedFits:
    """Fits of one head on the same cases, to be trained as one.

    Attributes:
        stack: of their heads.
        rngs: of their tiles and order.
        ready: the bags as each of them takes them.
    """

    stack: Stack
    rngs: Sequence[np.random.Generator]
    ready: Sequence[ReadyBags]


def stack_fits(
    fits: Sequence[UntrainedFit], bags: Sequence[Features], settings: FitSettings
) -> StackedFits | None:
    """The fits as one; None where they had better be trained one by one.

    Args:
        fits: of one model.
        bags: (N, D) all that they see.
        settings: how they are trained.
    """
    lengths = [len(bag) for bag in bags]
    longest = max(lengths)
    at_once = 1 if fits[0].head.learns_from == "tiles" else settings.batch_bags
    drawn = min(filter(None, (settings.train_tiles, settings.chunk_tiles)), default=longest)
    if (
        len(fits) < 2
        or not stacks(fits[0].head)
        or drawn < longest
        or at_once * longest > TILES_AT_ONCE
        or longest > MOST_PADDED * np.mean(lengths)
    ):
        return None
    ready: list[ReadyBags] = []
    for number, fit in enumerate(fits):
        alike = number > 0 and _same_scale(fits[number - 1].head, fit.head)
        ready.append(ready[-1] if alike else prepare_bags(fit.head, bags, settings))
        if not ready[-1].of(bags):
            return None
    stack = Stack([fit.head for fit in fits], [fit.generator for fit in fits])
    return StackedFits(stack, [fit.rng for fit in fits], ready)


def _same_scale(first: Head, second: Head) -> bool:
    """Whether both standardise bags in the same way, as where every tile of them was drawn."""
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in SCALE)
