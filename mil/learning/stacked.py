"""Fits of several seeds and folds trained as one, where the cohort is small and the head allows it."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch

from mil.heads.batches import TILES_AT_ONCE, TILES_PER_STEP, ReadyBags
from mil.heads.head import SCALE, Head
from mil.heads.stack import Stack, stacks
from mil.learning.adamw import AdamW
from mil.learning.epochs import prepare_bags, run_epochs
from mil.learning.objective import SeedFit, StackedFits, StackObjective
from mil.settings import FitSettings

MOST_PADDED = (
    1.5  # length of the longest bag, of the mean: beyond, padding costs more than single calls
)
ROWS_TOGETHER = 3 * TILES_AT_ONCE  # tiles of all members in one step: more would leave the cache


def fits_together(head: type[Head], lengths: Sequence[int], settings: FitSettings) -> int:
    """How many fits are best trained as one; 1 where each had better be trained by itself.

    Args:
        head: of all of them.
        lengths: tiles of the bags that they see.
        settings: how they are trained.
    """
    longest = max(lengths)
    drawn = min(filter(None, (settings.train_tiles, settings.chunk_tiles)), default=longest)
    if drawn < longest:
        return 1
    if head.learns_from == "tiles":
        return ROWS_TOGETHER // TILES_PER_STEP if longest <= TILES_AT_ONCE else 1
    rows = settings.batch_bags * longest
    if rows > TILES_AT_ONCE or longest > MOST_PADDED * np.mean(lengths):
        return 1
    return ROWS_TOGETHER // rows


def group_fits(fits: Sequence[SeedFit], settings: FitSettings) -> list[list[int]]:
    """The numbers of the fits that are trained as one: of as many steps, and no more than pay."""
    objectives = {id(fit.objective): fit.objective for fit in fits}
    if any(not isinstance(o, StackObjective) or o.validates for o in objectives.values()):
        return [[number] for number in range(len(fits))]
    by_steps: dict[int, list[int]] = {}
    for number, fit in enumerate(fits):
        n_steps = cast("StackObjective", fit.objective).n_steps(fit.head, settings)
        by_steps.setdefault(n_steps, []).append(number)
    lengths = [len(bag) for objective in objectives.values() for bag in objective.slides]
    most = fits_together(type(fits[0].head), lengths, settings)
    return [
        numbers[start : start + most]
        for numbers in by_steps.values()
        for start in range(0, len(numbers), most)
    ]


def stack_fits(fits: Sequence[SeedFit], settings: FitSettings) -> StackedFits | None:
    """The fits of a group as one; None where there is one alone, or where the head forbids it."""
    if len(fits) < 2 or not stacks(fits[0].head):
        return None
    ready: list[ReadyBags] = []
    for number, fit in enumerate(fits):
        alike = number > 0 and _same_bags(fits[number - 1], fit)
        bags = fit.objective.slides
        ready.append(ready[-1] if alike else prepare_bags(fit.head, bags, settings))
        if not ready[-1].of(bags):
            return None
    stack = Stack([fit.head for fit in fits], [fit.generator for fit in fits])
    return StackedFits(stack, fits, ready)


def _same_bags(first: SeedFit, second: SeedFit) -> bool:
    """Whether both standardise the same bags in the same way, as where every tile of them was drawn."""
    return first.objective is second.objective and all(
        torch.equal(getattr(first.head, name), getattr(second.head, name)) for name in SCALE
    )


def train_stack(members: StackedFits, settings: FitSettings) -> None:
    """Train all members to the end, each with the history of its own."""
    objective = cast("StackObjective", members.fits[0].objective)

    def train_epoch(optimizer: AdamW) -> list[float]:
        losses = np.array(objective.epoch_together(members, settings, optimizer))  # (steps, S)
        for fit, loss in zip(members.fits, losses.mean(axis=0), strict=True):
            fit.history.train.append(float(loss))
        return [float(loss) for loss in losses.mean(axis=1)]

    run_epochs(members.stack.head, settings, train_epoch, None)
    members.stack.unstack()
