"""One fit: from training cases to a fitted model. The test part cannot be given."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import zip_longest
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from features.threads import keep_freed_memory, one_thread
from mil.baselines.encoding import Encoding, fit_encoding
from mil.data.cohort import Case
from mil.errors import FitError, LeakageError
from mil.heads.ensemble import Ensemble
from mil.heads.head import Head, HeadSettings, Training
from mil.heads.registry import build_head, check_names, head_class, reads_table
from mil.learning.batches import draw
from mil.learning.epochs import Example, History, train_by_steps
from mil.learning.fitted import Fitted
from mil.settings import FitSettings

SCALE_TILES = 512  # per bag, to estimate mean and spread of features


def fit(
    model: str,
    train: Sequence[Case],
    valid: Sequence[Case],
    classes: Sequence[str],
    settings: FitSettings,
    *,
    seed: int,
) -> Fitted:
    """Train a model on cases.

    Every case weighs the same within its class, and every class the same, however many slides and
    tiles they have. With validation cases the epoch of their lowest loss is kept; without, the last.

    Args:
        model: a name of ``mil.heads.registry``.
        train: cases to learn from; every class is among them.
        valid: further training cases to choose the epoch by; empty trains a fixed number of epochs.
        classes: names in the order of the logits.
        settings: how to train.
        seed: makes the fit repeatable.

    Raises:
        FitError: an unknown model, no training case of a class, or a loss that is not finite.
        LeakageError: a case is in both parts.
    """
    shared = {case.name for case in train} & {case.name for case in valid}
    if shared:
        raise LeakageError(f"{', '.join(sorted(shared)[:5])} would train and choose the epoch.")
    absent = set(classes) - {case.label for case in train}
    if absent:
        raise FitError(
            f"No case of {', '.join(sorted(absent))} to train on. Add one, or drop the class."
        )
    check_names([model])
    encoding = fit_encoding(train, settings.clinical) if reads_table([model]) else None
    examples, counts = _examples(train, classes, encoding)
    held_out, _ = _examples(valid, classes, encoding) if valid else ([], None)
    shape = HeadSettings(
        dim=examples[0].features.shape[1],
        n_classes=len(classes),
        width=settings.width,
        dropout=settings.dropout,
    )

    def learn(head: Head, rng: np.random.Generator, own_seed: int) -> History:
        head.prepare(scale_tiles(examples, rng), counts)
        if head.learns_from in ("slides", "table"):
            head.solve(_training(train, examples, own_seed))
            return History()
        return train_by_steps(head, examples, held_out, settings, rng)

    fitted = fit_seeds(model, shape, (*train, *valid), settings, learn, seed=seed)
    return replace(fitted, classes=tuple(classes), encoding=encoding)


def fit_seeds(
    model: str,
    shape: HeadSettings,
    cases: Sequence[Case],
    settings: FitSettings,
    learn: Callable[[Head, np.random.Generator, int], History],
    *,
    seed: int,
) -> Fitted:
    """One head, or as many as there are seeds, averaged; what they answer is still to be named.

    Args:
        model: a name of ``mil.heads.registry``.
        shape: of the head.
        cases: all that are seen.
        settings: how to train.
        learn: trains a fresh head, with a generator and its seed.
        seed: the first; others follow from it.
    """
    keep_freed_memory()
    heads, histories = [], []
    for own_seed in seeds_from(seed, settings.seeds if head_class(model).takes_steps() else 1):
        with torch.random.fork_rng(devices=[]), one_thread():
            torch.manual_seed(own_seed)
            heads.append(build_head(model, shape))
            histories.append(learn(heads[-1], np.random.default_rng(own_seed), own_seed))
    bag = cases[0].bags[0]
    return Fitted(
        model=model,
        head=(heads[0] if len(heads) == 1 else Ensemble(heads)).eval(),
        classes=(),
        recipe=bag.recipe,
        recipe_sha256=bag.recipe_sha256,
        trained_on=tuple(sorted(seen_by(cases))),
        settings=settings,
        seed=seed,
        losses=mean_by_epoch([history.train for history in histories]),
        valid_losses=mean_by_epoch([history.valid for history in histories]),
    )


def seeds_from(seed: int, count: int) -> list[int]:
    """The seed itself, and further ones that follow from it."""
    further = np.random.SeedSequence(seed).generate_state(count - 1)
    return [seed, *map(int, further)]


def scale_tiles(examples: Sequence[Example], rng: np.random.Generator) -> Tensor:
    """(M, D) single precision: some tiles of every bag."""
    drawn = [draw(example.features, SCALE_TILES, rng) for example in examples]
    return torch.from_numpy(np.concatenate(drawn, dtype=np.float32))


def mean_by_epoch(losses: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """The mean over the fits that came to an epoch; some stop before others."""
    by_epoch = zip_longest(*losses)
    return tuple(fmean(loss for loss in epoch if loss is not None) for epoch in by_epoch)


def seen_by(cases: Sequence[Case]) -> set[str]:
    """The cases a fit has seen, by itself or through the backbone of its bags."""
    through_backbone = {name for case in cases for bag in case.bags for name in bag.trained_on}
    return {case.name for case in cases} | through_backbone


def _training(cases: Sequence[Case], examples: Sequence[Example], seed: int) -> Training:
    """What a head that is solved learns from; the examples are the slides of the cases in order."""
    return Training(
        features=[example.features for example in examples],
        labels=np.array([example.label for example in examples], dtype=np.int64),
        weights=np.array([example.weight for example in examples]),
        cases=np.repeat(np.arange(len(cases)), [len(case.bags) for case in cases]),
        seed=seed,
    )


def _examples(
    cases: Sequence[Case], classes: Sequence[str], encoding: Encoding | None = None
) -> tuple[list[Example], Tensor]:
    """The bags of cases with balanced weights of mean 1, and the number of cases per class.

    With an encoding, a bag is what the table says of its case.
    """
    unknown = sorted({case.label for case in cases} - set(classes))
    if unknown:
        raise FitError(f"Label {unknown[0]!r} is none of the classes {', '.join(classes)}. Add it.")
    labels = [list(classes).index(case.label) for case in cases]
    counts = np.bincount(labels, minlength=len(classes))
    examples = []
    present = int((counts > 0).sum())
    for case, label in zip(cases, labels, strict=True):
        of_case = len(cases) / present / counts[label]
        for bag in case.bags:
            features = encoding.row(case.name, case.other) if encoding else bag.features
            examples.append(Example(features, label, of_case / len(case.bags)))
    mean = sum(example.weight for example in examples) / len(examples)
    scaled = [Example(e.features, e.label, e.weight / mean) for e in examples]
    return scaled, torch.tensor(counts, dtype=torch.float32)
