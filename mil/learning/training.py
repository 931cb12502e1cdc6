"""One fit: from training cases to a fitted model. The test part cannot be passed in."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import zip_longest
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from features.threads import keep_freed_memory, one_thread
from mil.data.case import Case
from mil.data.encoding import fit_encoding
from mil.errors import LeakageError
from mil.heads.batches import Features, draw
from mil.heads.ensemble import Ensemble
from mil.heads.head import Head, HeadSettings
from mil.heads.registry import build_head, check_names, check_rows, head_class, reads_table
from mil.learning.epochs import History, run_epochs
from mil.learning.fitted import FittedModel
from mil.learning.head_weights import read_head_weights, start_from
from mil.learning.objective import Objective, StackObjective
from mil.learning.stacked import UntrainedFit, stack_fits
from mil.settings import FitSettings
from mil.tasks.registry import task_class
from mil.tasks.task import Task

SCALE_TILES = 512  # per bag, to estimate mean and spread of features
ENOUGH_TILES = 10_000  # of all bags, for a model that standardises rows of its own


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
    shared = {case.name for case in train} & {case.name for case in valid}
    if shared:
        raise LeakageError(f"{', '.join(sorted(shared)[:5])} would train and choose the epoch.")
    check_names([model])
    task = task or task_class()()
    task.check_models([model])
    encoding = fit_encoding(train, settings.clinical) if reads_table([model]) else None
    objective = task.objective(
        train, valid, classes, settings, encoding, by_steps=head_class(model).takes_steps()
    )
    check_rows([model], train[0].bags[0].recipe)
    start = read_head_weights(settings.head_weights) if settings.head_weights else None
    start = start if start and start.model == model else None
    head, history = _fit_seeds(model, task, objective, settings, seed, start)
    bag = train[0].bags[0]
    return FittedModel(
        model=model,
        head=head,
        readout=objective.readout(head, settings),
        recipe=bag.recipe,
        recipe_sha256=bag.recipe_sha256,
        trained_on=tuple(sorted(seen_by((*train, *valid), start))),
        settings=settings,
        seed=seed,
        losses=tuple(history.train),
        valid_losses=tuple(history.valid),
        encoding=encoding,
        trained_on_slides=tuple(sorted(slides_seen_by((*train, *valid), start))),
    )


def _fit_seeds(
    model: str,
    task: Task,
    objective: Objective,
    settings: FitSettings,
    seed: int,
    start: FittedModel | None,
) -> tuple[Head, History]:
    """One head, or the average of as many as there are seeds, with mean losses per epoch."""
    shape = HeadSettings(
        dim=objective.slides[0].shape[1],
        n_outputs=len(objective.outputs),
        width=settings.width,
        dropout=settings.dropout,
        outcome=task.head_outcome,
    )
    keep_freed_memory()
    n_fits = settings.seeds if head_class(model).takes_steps() else 1
    with torch.random.fork_rng(devices=[]), one_thread():
        fits: list[UntrainedFit] = []
        for number, member_seed in enumerate(derive_seeds(seed, n_fits)):
            begin = (
                partial(start_from, start=start, number=number, outputs=objective.outputs)
                if start
                else None
            )
            like = fits[0].head if fits else None
            fits.append(_begin_fit(model, shape, objective, member_seed, begin, like))
        histories = _train_fits(fits, objective, settings, seed)
    heads = [fit.head for fit in fits]
    head = (heads[0] if len(heads) == 1 else Ensemble(heads)).eval()
    return head, History(
        list(mean_by_epoch([history.train for history in histories])),
        list(mean_by_epoch([history.valid for history in histories])),
    )


def _begin_fit(
    model: str,
    shape: HeadSettings,
    objective: Objective,
    seed: int,
    begin: Callable[[Head], None] | None,
    like: Head | None,
) -> UntrainedFit:
    """A fresh head that is prepared; ``begin`` gives it weights to start from.

    Where no bag has more tiles than are drawn, every seed draws the same, and the scale is that of ``like``.
    """
    torch.default_generator.manual_seed(seed)  # torch.manual_seed asks for a GPU, 4 ms
    head, rng = build_head(model, shape), np.random.default_rng(seed)
    n_tiles = SCALE_TILES
    if not head.takes_steps():
        n_tiles = min(n_tiles, math.ceil(ENOUGH_TILES / len(objective.slides)))
    all_drawn = all(len(bag) <= n_tiles for bag in objective.slides)
    if like is not None and all_drawn and type(head).prepare is Head.prepare:
        head.scale_like(like)
    else:
        head.prepare(sample_tiles(objective.slides, rng, n_tiles), objective.counts)
    if begin:
        begin(head)
    generator = torch.Generator()
    generator.set_state(torch.default_generator.get_state())
    return UntrainedFit(head, rng, generator)


def _train_fits(
    fits: Sequence[UntrainedFit], objective: Objective, settings: FitSettings, seed: int
) -> list[History]:
    """Train the heads together where that is the same and faster, else one by one."""
    if isinstance(objective, StackObjective) and not objective.validates:
        stacked = stack_fits(fits, objective.slides, settings)
        if stacked is not None:
            epoch = partial(objective.epoch_together, stacked, settings)
            history = run_epochs(stacked.stack.head, settings, epoch, None)
            stacked.stack.unstack()
            return [history]
    return [_train_head(fit, objective, settings, seed) for fit in fits]


def _train_head(
    fit: UntrainedFit, objective: Objective, settings: FitSettings, seed: int
) -> History:
    """Train or solve a head."""
    head = fit.head
    torch.default_generator.set_state(fit.generator.get_state())
    if head.learns_from in ("slides", "table"):
        head.solve(objective.training(seed))
        return History()
    if head.learns_from == "counts":
        return History()
    validate: Callable[[], float] | None = None
    if objective.validates:
        validate = partial(objective.validate, head, settings)
    objective.prepare(head, settings)
    return run_epochs(head, settings, partial(objective.epoch, head, settings, fit.rng), validate)


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
