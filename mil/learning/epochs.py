"""The epochs of one fit: examples in, a trained head and its losses out."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from features.precision import resolve_precision
from mil.errors import FitError
from mil.heads.head import Head, HeadOutput
from mil.learning.batches import TILES_AT_ONCE, Batch, Features, alike, collate, draw, run_in_chunks
from mil.learning.losses import cross_entropy, focal
from mil.settings import FitSettings

TILES_PER_STEP = 256  # where single tiles are the bags


@dataclass(frozen=True)
class Example:
    """One bag with its case's class and its weight in the loss."""

    features: Features
    label: int
    weight: float


class Group(NamedTuple):
    """The part of a step that is computed at once.

    Attributes:
        bags: padded, or one bag (N, D) that is too long to be taken at once.
        labels: (B,)
        weights: (B,)
    """

    bags: Batch | Features
    labels: Tensor
    weights: Tensor


@dataclass
class History:
    """Mean losses per epoch: of training, and of the inner validation cases where there are any."""

    train: list[float] = field(default_factory=list)
    valid: list[float] = field(default_factory=list)


def train_by_steps(
    head: Head,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    settings: FitSettings,
    rng: np.random.Generator,
) -> History:
    """Run the epochs; leaves the head as it was after the best or the last of them."""
    if head.learns_from == "counts":
        return History()
    steps = _tile_steps if head.learns_from == "tiles" else _bag_steps

    def learn(optimizer: torch.optim.Optimizer) -> list[float]:
        return [
            _train_step(head, optimizer, step, settings) for step in steps(examples, settings, rng)
        ]

    return run_epochs(
        head, settings, learn, (lambda: _validate(head, held_out, settings)) if held_out else None
    )


def run_epochs(
    head: Head,
    settings: FitSettings,
    learn: Callable[[torch.optim.Optimizer], list[float]],
    validate: Callable[[], float] | None,
) -> History:
    """Run the epochs; leaves the head as it was after the best or the last of them.

    Args:
        head: to be trained.
        settings: how.
        learn: takes the steps of one epoch; their losses.
        validate: the loss on the inner validation cases; None trains all epochs.
    """
    history = History()
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs)
    best: dict[str, Tensor] = {}
    for _epoch in range(settings.epochs):
        head.train()
        history.train.append(_finite(float(np.mean(learn(optimizer))), len(history.train)))
        schedule.step()
        if validate:
            history.valid.append(_finite(validate(), len(history.valid)))
            since_best = len(history.valid) - 1 - int(np.argmin(history.valid))
            if since_best == 0:
                best = copy.deepcopy(head.state_dict())
            if since_best >= settings.patience:
                break
    if best:
        head.load_state_dict(best)
    if not all(bool(torch.isfinite(weight).all()) for weight in head.parameters()):
        raise FitError(
            "The last step left weights that are not finite. Use a smaller --learning-rate."
        )
    return history


def _finite(loss: float, epochs: int) -> float:
    """The loss after so many epochs, unless it has diverged."""
    if not np.isfinite(loss):
        raise FitError(f"The loss is {loss} in epoch {epochs + 1}. Use a smaller --learning-rate.")
    return loss


def _train_step(
    head: Head, optimizer: torch.optim.Optimizer, step: Sequence[Group], settings: FitSettings
) -> float:
    """One step on the mean loss over all bags of its groups; returns that loss."""
    optimizer.zero_grad(set_to_none=True)
    n_bags = sum(len(group.labels) for group in step)
    total = 0.0
    for group in step:
        with autocast(settings):
            output, mask = run_bags(head, group.bags, settings)
            loss = weighted_loss(output, group.labels, group.weights, settings)
            own = head.auxiliary_loss(output, group.labels, mask)  # (B,)
            loss = loss + (own * group.weights).mean()
        share = loss * (len(group.labels) / n_bags)
        share.backward()  # type: ignore[no-untyped-call]
        total += float(share.detach())
    optimizer.step()
    return total


@torch.inference_mode()
def _validate(head: Head, held_out: Sequence[Example], settings: FitSettings) -> float:
    """Weighted loss over all tiles of the inner validation cases."""
    head.eval()
    losses = []
    for group in _groups(held_out, [example.features for example in held_out], settings):
        with autocast(settings):
            output, _ = run_bags(head, group.bags, settings)
        loss = weighted_loss(output, group.labels, group.weights, settings)
        losses.append(float(loss) * len(group.labels))
    return sum(losses) / sum(example.weight for example in held_out)


def run_bags(
    head: Head, bags: Batch | Features, settings: FitSettings
) -> tuple[HeadOutput, Tensor]:
    """What the head says of a group's bags, and their mask."""
    if isinstance(bags, Batch):
        return head(*bags), bags.mask
    mask = torch.ones(1, len(bags), dtype=torch.bool)
    return run_in_chunks(head, bags, settings.chunk_tiles), mask


def autocast(settings: FitSettings) -> torch.autocast:
    """Compute in the number format that the settings ask for."""
    dtype = resolve_precision(settings.precision, torch.device("cpu"))
    return torch.autocast("cpu", dtype, enabled=dtype != torch.float32)


def weighted_loss(
    output: HeadOutput, labels: Tensor, weights: Tensor, settings: FitSettings
) -> Tensor:
    """The loss asked for, of each bag times its weight, averaged over the batch."""
    logits = output.logits.float()
    if settings.loss == "focal":
        return focal(logits, labels, weights, gamma=settings.focal_gamma)
    return cross_entropy(logits, labels, weights, smoothing=settings.label_smoothing)


def _bag_steps(
    examples: Sequence[Example], settings: FitSettings, rng: np.random.Generator
) -> Iterator[list[Group]]:
    """All bags once, shuffled, a few per step."""
    order = rng.permutation(len(examples))
    for start in range(0, len(order), settings.batch_bags):
        chosen = [examples[i] for i in order[start : start + settings.batch_bags]]
        drawn = [draw(e.features, settings.train_tiles, rng) for e in chosen]
        yield list(_groups(chosen, drawn, settings))


def _groups(
    examples: Sequence[Example], drawn: Sequence[Features], settings: FitSettings
) -> Iterator[Group]:
    """The examples with the tiles drawn of each, those of like length together."""
    for members in alike([len(bag) for bag in drawn], settings.chunk_tiles or TILES_AT_ONCE):
        bags: Batch | Features = drawn[members[0]]
        if not 0 < settings.chunk_tiles < len(bags):
            bags = collate([drawn[i] for i in members])
        labels = torch.tensor([examples[i].label for i in members])
        weights = torch.tensor([examples[i].weight for i in members], dtype=torch.float32)
        yield Group(bags, labels, weights)


def _tile_steps(
    examples: Sequence[Example], settings: FitSettings, rng: np.random.Generator
) -> Iterator[list[Group]]:
    """Tiles of all bags, shuffled, each a bag of its own that carries its slide's label."""
    drawn = [draw(e.features, settings.train_tiles, rng) for e in examples]
    tiles = torch.cat([collate([bag]).features[0] for bag in drawn])  # (M, D)
    labels = torch.cat(
        [torch.full((len(d),), e.label) for d, e in zip(drawn, examples, strict=True)]
    )
    # A slide with many tiles weighs no more than one with few; the mean weight stays 1.
    weights = torch.cat(
        [
            torch.full((len(d),), e.weight * len(tiles) / len(examples) / len(d))
            for d, e in zip(drawn, examples, strict=True)
        ]
    )
    order = torch.from_numpy(rng.permutation(len(tiles)))
    for chosen in torch.split(order, TILES_PER_STEP):
        mask = torch.ones(len(chosen), 1, dtype=torch.bool)
        batch = Batch(tiles[chosen].unsqueeze(1), mask)  # (B, 1, D)
        yield [Group(batch, labels[chosen], weights[chosen])]
