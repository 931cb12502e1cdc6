"""One fit: from training cases to a fitted model. The test part cannot be passed in."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from features.threads import keep_freed_memory, one_thread
from mil.data.case import Case
from mil.data.encoding import ColumnEncoding, fit_encoding
from mil.errors import LeakageError
from mil.heads.batches import Features, draw
from mil.heads.ensemble import Ensemble
from mil.heads.head import Head, HeadSettings
from mil.heads.registry import build_head, check_names, check_rows, head_class, reads_table
from mil.learning.epochs import run_epochs
from mil.learning.fitted import FittedModel
from mil.learning.head_weights import read_head_weights, start_from
from mil.learning.objective import Objective, SeedFit
from mil.learning.stacked import group_fits, stack_fits, train_stack
from mil.settings import FitSettings
from mil.tasks.registry import task_class
from mil.tasks.task import Task

SCALE_TILES = 512  # per bag, to estimate mean and spread of features
ENOUGH_TILES = 10_000  # of all bags, for a model that standardises rows of its own


@dataclass(frozen=True)
class FitPart:
    """A part of the cases to fit a model on.

    Attributes:
        train: cases to learn from.
        valid: further training cases to choose the epoch by; empty trains a fixed number of epochs.
        seed: makes the fit repeatable.
    """

    train: Sequence[Case]
    valid: Sequence[Case]
    seed: int


def fit_model(
    model: str,
    train: Sequence[Case],
    valid: Sequence[Case],
    classes: Sequence[str],
    settings: FitSettings,
    *,
    seed: int,
    task: Task | None = None,
) -> FittedModel:
    """Train a model on cases.

    With validation cases the epoch of their lowest loss is kept; without, the last.

    Args:
        model: a name of ``mil.heads.registry``.
        train: cases to learn from.
        valid: further training cases to choose the epoch by; empty trains a fixed number of epochs.
        classes: of the cohort.
        settings: how to train.
        seed: makes the fit repeatable.
        task: what is asked of a case; a diagnosis if not given.

    Raises:
        FitError: an unknown model, one that cannot learn this outcome, training cases without an outcome
            that is needed, or a loss that is not finite.
        LeakageError: a case is in both parts.
    """
    return fit_models(model, [FitPart(train, valid, seed)], classes, settings, task=task)[0]


def fit_models(
    model: str,
    parts: Sequence[FitPart],
    classes: Sequence[str],
    settings: FitSettings,
    *,
    task: Task | None = None,
) -> list[FittedModel]:
    """``fit_model`` on several parts of the cases, whose fits are trained as one where they are small.

    Args:
        model: as of ``fit_model``.
        parts: each for a fit of its own.
        classes: likewise.
        settings: likewise.
        task: likewise.

    Raises:
        FitError, LeakageError: as ``fit_model``.
    """
    check_names([model])
    task = task or task_class()()
    task.check_models([model])
    start = read_head_weights(settings.head_weights) if settings.head_weights else None
    start = start if start and start.model == model else None
    keep_freed_memory()
    with torch.random.fork_rng(devices=[]), one_thread():
        begun = [_begin_part(model, part, classes, settings, task, start) for part in parts]
        _train_fits([fit for part in begun for fit in part.fits], settings)
    return [part.finish(model, settings, start) for part in begun]


@dataclass(frozen=True)
class _BegunPart:
    """A part of the cases with the fits that learn from it, one for each seed."""

    part: FitPart
    objective: Objective
    encoding: ColumnEncoding | None
    fits: Sequence[SeedFit]

    def finish(self, model: str, settings: FitSettings, start: FittedModel | None) -> FittedModel:
        """The one head that was trained, or the average of all, with mean losses per epoch."""
        cases = (*self.part.train, *self.part.valid)
        heads = [fit.head for fit in self.fits]
        head = (heads[0] if len(heads) == 1 else Ensemble(heads)).eval()
        bag = cases[0].bags[0]
        return FittedModel(
            model=model,
            head=head,
            readout=self.objective.readout(head, settings),
            recipe=bag.recipe,
            recipe_sha256=bag.recipe_sha256,
            trained_on=tuple(sorted(seen_by(cases, start))),
            settings=settings,
            seed=self.part.seed,
            losses=mean_by_epoch([fit.history.train for fit in self.fits]),
            valid_losses=mean_by_epoch([fit.history.valid for fit in self.fits]),
            encoding=self.encoding,
            trained_on_slides=tuple(sorted(slides_seen_by(cases, start))),
        )


def _begin_part(
    model: str,
    part: FitPart,
    classes: Sequence[str],
    settings: FitSettings,
    task: Task,
    start: FittedModel | None,
) -> _BegunPart:
    """Heads of all seeds, prepared for a part of the cases."""
    shared = {case.name for case in part.train} & {case.name for case in part.valid}
    if shared:
        raise LeakageError(
            f"In both the training and the early-stopping part: {', '.join(sorted(shared)[:5])}. A case "
            "belongs to one of them."
        )
    by_steps = head_class(model).takes_steps()
    encoding = fit_encoding(part.train, settings.clinical) if reads_table([model]) else None
    objective = task.objective(
        part.train, part.valid, classes, settings, encoding, by_steps=by_steps
    )
    check_rows([model], part.train[0].bags[0].recipe)
    shape = HeadSettings(
        dim=objective.slides[0].shape[1],
        n_outputs=len(objective.outputs),
        width=settings.width,
        dropout=settings.dropout,
        outcome=task.head_outcome,
    )
    fits: list[SeedFit] = []
    for number, seed in enumerate(derive_seeds(part.seed, settings.seeds if by_steps else 1)):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed asks for a GPU, 4 ms
        head, rng = build_head(model, shape), np.random.default_rng(seed)
        _prepare(head, objective, rng, fits[0].head if fits else None)
        if start:
            start_from(head, start=start, number=number, outputs=objective.outputs)
        generator = torch.Generator()
        generator.set_state(torch.default_generator.get_state())
        fits.append(SeedFit(objective, part.seed, head, rng, generator))
    return _BegunPart(part, objective, encoding, fits)


def _prepare(head: Head, objective: Objective, rng: np.random.Generator, like: Head | None) -> None:
    """Prepare a fresh head.

    Where no bag has more tiles than are drawn, every seed draws the same, and the scale is that of ``like``.
    """
    n_tiles = SCALE_TILES
    if not head.takes_steps():
        n_tiles = min(n_tiles, math.ceil(ENOUGH_TILES / len(objective.slides)))
    all_drawn = all(len(bag) <= n_tiles for bag in objective.slides)
    if like is not None and all_drawn and type(head).prepare is Head.prepare:
        head.scale_like(like)
    else:
        head.prepare(sample_tiles(objective.slides, rng, n_tiles), objective.counts)


def _train_fits(fits: Sequence[SeedFit], settings: FitSettings) -> None:
    """Train the heads together where that is the same and faster, else one by one."""
    for numbers in group_fits(fits, settings):
        group = [fits[number] for number in numbers]
        stacked = stack_fits(group, settings)
        if stacked is not None:
            train_stack(stacked, settings)
        else:
            for fit in group:
                _train_head(fit, settings)


def _train_head(fit: SeedFit, settings: FitSettings) -> None:
    """Train or solve a head."""
    head, objective = fit.head, fit.objective
    torch.default_generator.set_state(fit.generator.get_state())
    if head.learns_from in ("slides", "table"):
        head.solve(objective.training(fit.seed))
    elif head.takes_steps():
        validate = partial(objective.validate, head, settings) if objective.validates else None
        objective.prepare(head, settings)
        epoch = partial(objective.epoch, head, settings, fit.rng)
        fit.history = run_epochs(head, settings, epoch, validate)


def derive_seeds(seed: int, count: int) -> list[int]:
    """The seed itself, and further ones that follow from it."""
    further = np.random.SeedSequence(seed).generate_state(count - 1)
    return [seed, *map(int, further)]


def sample_tiles(bags: Sequence[Features], rng: np.random.Generator, most: int) -> Tensor:
    """(M, D) single precision: at most so many tiles of every bag (N, D)."""
    drawn = [draw(bag, most, rng) for bag in bags]
    return torch.from_numpy(np.concatenate(drawn, dtype=np.float32))


def mean_by_epoch(losses: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """The mean over the fits that reached an epoch; some stop before others."""
    by_epoch = zip_longest(*losses)
    return tuple(fmean(loss for loss in epoch if loss is not None) for epoch in by_epoch)


def seen_by(cases: Sequence[Case], start: FittedModel | None = None) -> set[str]:
    """The cases that a fit on these cases has seen: by itself, through its bags' backbone or its start."""
    through_backbone = {name for case in cases for bag in case.bags for name in bag.trained_on}
    return {case.name for case in cases} | through_backbone | set(start.trained_on if start else ())


def slides_seen_by(cases: Sequence[Case], start: FittedModel | None) -> set[str]:
    """The fingerprints of the slides of ``seen_by``, as far as they are known."""
    bags = [bag for case in cases for bag in case.bags]
    through_backbone = {source for bag in bags for source in bag.trained_on_slides}
    own = {source for bag in bags for source in bag.sources}
    return own | through_backbone | set(start.trained_on_slides if start else ())
