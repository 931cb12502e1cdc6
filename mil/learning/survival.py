"""One fit of survival: from training cases to a fitted model. The test part cannot be given."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from features.threads import one_thread
from mil.baselines.encoding import Encoding, fit_encoding
from mil.data.cohort import Case
from mil.data.outcomes import EVENT, Outcomes
from mil.errors import FitError, LeakageError
from mil.evaluation.arrays import Floats
from mil.heads.head import Head, HeadSettings, Training
from mil.heads.registry import check_names, check_outcomes, head_class, reads_table
from mil.learning.batches import TILES_AT_ONCE, Batch, Features, alike, collate, draw
from mil.learning.epochs import Example, History, autocast, run_bags, run_epochs
from mil.learning.fitted import Fitted
from mil.learning.losses import cox_efron, discrete_survival_nll
from mil.learning.risk_model import (
    Timeline,
    centred,
    happened,
    hazard_ratio,
    interval_cuts,
    interval_of,
)
from mil.learning.training import fit_seeds, scale_tiles
from mil.settings import FitSettings

# Cases that a step of the Cox loss compares with each other. A comparison within any random part is a
# likelihood of its own (L. Goldstein, B. Langholz, Ann Stat 1992), but small parts tell little: over 8
# planted cohorts of 40, steps of 4, 8, 16 and 32 cases gave abmil a mean C of .64, .68, .68 and .70, mean
# pooling .75 to .76, and all cases at once no more than 32.
RISK_SET = 32


@dataclass(frozen=True, eq=False)
class _Lesson:
    """Cases with what became of them.

    Attributes:
        bags: of each case, one array (N, D) per slide.
        outcomes: of each case.
        cuts: ends of the intervals; none of the Cox loss.
    """

    bags: Sequence[Sequence[Features]]
    outcomes: Outcomes
    cuts: Floats | None


def fit_survival(
    model: str,
    train: Sequence[Case],
    valid: Sequence[Case],
    settings: FitSettings,
    *,
    seed: int,
) -> Fitted:
    """Train a model on cases and the times of their events.

    The case is the unit: its logit is the mean of its slides', and every case weighs the same. With
    validation cases the epoch of their lowest loss is kept; without, the last.

    Args:
        model: a name of ``mil.heads.registry`` that can learn survival.
        train: cases to learn from, with time and label.
        valid: further training cases to choose the epoch by; empty trains a fixed number of epochs.
        settings: how to train.
        seed: makes the fit repeatable.

    Raises:
        FitError: an unknown model or one of classes only, no event, or a loss that is not finite.
        LeakageError: a case is in both parts.
    """
    if shared := {case.name for case in train} & {case.name for case in valid}:
        raise LeakageError(f"{', '.join(sorted(shared)[:5])} would train and choose the epoch.")
    check_names([model])
    check_outcomes([model])
    outcomes = outcomes_of(train)
    if not outcomes.event.any():
        raise FitError("No training case has an event. Use fewer folds.")
    discrete = settings.loss_name == "discrete" and head_class(model).takes_steps()
    cuts = interval_cuts(outcomes, settings.intervals) if discrete else None
    encoding = fit_encoding(train, settings.clinical) if reads_table([model]) else None
    lesson = _Lesson(_bags(train, encoding), outcomes, cuts)
    held_out = _Lesson(_bags(valid, encoding), outcomes_of(valid), cuts)
    names = ("risk",) if cuts is None else tuple(f"to {cut:g}" for cut in cuts)
    shape = HeadSettings(
        dim=lesson.bags[0][0].shape[1],
        n_classes=len(names),
        width=settings.width,
        dropout=settings.dropout,
        survival=True,
    )

    def learn(head: Head, rng: np.random.Generator, own_seed: int) -> History:
        return _train(head, lesson, held_out, settings, rng, own_seed)

    fitted = fit_seeds(model, shape, (*train, *valid), settings, learn, seed=seed)
    timeline = _timeline(fitted.head, lesson, settings)
    return replace(fitted, classes=names, encoding=encoding, timeline=timeline)


def outcomes_of(cases: Sequence[Case]) -> Outcomes:
    """The outcomes of cases that have them."""
    return Outcomes(
        np.array([case.time for case in cases], dtype=np.float64),
        np.array([case.label == EVENT for case in cases], dtype=np.bool_),
    )


def _bags(cases: Sequence[Case], encoding: Encoding | None) -> list[list[Features]]:
    """The bags of each case; with an encoding, what the table says of it, once."""
    if encoding:
        return [[encoding.row(case.name, case.other)] for case in cases]
    return [[bag.features for bag in case.bags] for case in cases]


def _train(
    head: Head,
    lesson: _Lesson,
    held_out: _Lesson,
    settings: FitSettings,
    rng: np.random.Generator,
    seed: int,
) -> History:
    """Prepare the head, then train or solve it."""
    slides = [Example(bag, 0, 1.0) for bags in lesson.bags for bag in bags]
    head.prepare(scale_tiles(slides, rng), torch.tensor([len(lesson.bags)], dtype=torch.float32))
    if head.learns_from in ("slides", "table"):
        head.solve(_training(lesson, seed))
        return History()
    if head.learns_from == "counts":
        return History()
    validate = partial(_validate, head, held_out, settings) if held_out.bags else None
    return run_epochs(head, settings, partial(_epoch, head, lesson, settings, rng), validate)


def _training(lesson: _Lesson, seed: int) -> Training:
    """What a head that is solved learns from."""
    slides = [len(bags) for bags in lesson.bags]
    weights = np.repeat([1 / n for n in slides], slides)
    return Training(
        features=[bag for bags in lesson.bags for bag in bags],
        labels=np.repeat(lesson.outcomes.event.astype(np.int64), slides),
        weights=weights / weights.mean(),
        cases=np.repeat(np.arange(len(slides)), slides),
        seed=seed,
        time=np.repeat(lesson.outcomes.time, slides),
    )


def _epoch(
    head: Head,
    lesson: _Lesson,
    settings: FitSettings,
    rng: np.random.Generator,
    optimizer: torch.optim.Optimizer,
) -> list[float]:
    """All cases once; the loss of each step."""
    size = RISK_SET if lesson.cuts is None else settings.batch_bags
    losses = []
    for chosen in _dealt(lesson.outcomes, size, rng):
        optimizer.zero_grad(set_to_none=True)
        bags = [[draw(b, settings.train_tiles, rng) for b in lesson.bags[int(i)]] for i in chosen]
        loss = _loss(_case_logits(head, bags, settings), lesson.outcomes[chosen], lesson.cuts)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def _dealt(
    outcomes: Outcomes, size: int, rng: np.random.Generator
) -> Iterator[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Cases in groups of about so many, each with its share of the events."""
    n_steps = max(1, min(round(len(outcomes) / size), int(outcomes.event.sum())))
    order = rng.permutation(len(outcomes))
    order = order[np.argsort(~outcomes.event[order], kind="stable")]
    for step in range(n_steps):
        yield order[step::n_steps]


@torch.inference_mode()
def _validate(head: Head, held_out: _Lesson, settings: FitSettings) -> float:
    """The loss over all tiles of the inner validation cases, compared with each other."""
    head.eval()
    logits = _case_logits(head, held_out.bags, settings)
    return float(_loss(logits, held_out.outcomes, held_out.cuts))


@torch.inference_mode()
def _timeline(head: Head, lesson: _Lesson, settings: FitSettings) -> Timeline:
    """How the head's logits lie among those of the cases it was trained on."""
    with one_thread():
        exact = FitSettings(chunk_tiles=settings.chunk_tiles, precision="fp32")
        logits = _case_logits(head, lesson.bags, exact).double().numpy()
    if lesson.cuts is None:
        return hazard_ratio(logits, lesson.outcomes)
    return centred(lesson.cuts, logits)


def _case_logits(head: Head, bags: Sequence[Sequence[Features]], settings: FitSettings) -> Tensor:
    """(n, C) the mean of each case's slides."""
    slides = [bag for of_case in bags for bag in of_case]
    order, logits = [], []
    for members in alike([len(bag) for bag in slides], settings.chunk_tiles or TILES_AT_ONCE):
        group: Batch | Features = slides[members[0]]
        if not 0 < settings.chunk_tiles < len(group):
            group = collate([slides[i] for i in members])
        with autocast(settings):
            output, _ = run_bags(head, group, settings)
        order += members
        logits.append(output.logits.float())
    counts = [len(of_case) for of_case in bags]
    case = torch.arange(len(bags)).repeat_interleave(torch.tensor(counts))[torch.tensor(order)]
    told = torch.cat(logits)  # (slides, C)
    sums = told.new_zeros(len(bags), told.shape[1]).index_add(0, case, told)
    return sums / torch.tensor(counts).unsqueeze(1)


def _loss(logits: Tensor, outcomes: Outcomes, cuts: Floats | None) -> Tensor:
    """The mean loss per event (Cox), or per case."""
    time, event = torch.from_numpy(outcomes.time), torch.from_numpy(outcomes.event)
    if cuts is None:
        return cox_efron(logits[:, 0], time, event) / max(1, int(event.sum()))
    interval = torch.from_numpy(interval_of(outcomes, cuts))
    return discrete_survival_nll(logits, interval, torch.from_numpy(happened(outcomes, cuts)))
