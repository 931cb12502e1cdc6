"""The epochs of one fit: examples in, a trained head and its losses out."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.batches import collate
from mil.errors import FitError
from mil.heads.head import Head, HeadOutput
from mil.losses import cross_entropy, focal
from mil.settings import FitSettings

TILES_PER_STEP = 256  # where single tiles are the bags


@dataclass(frozen=True)
class Example:
    """One bag with its case's class and its weight in the loss."""

    features: NDArray[np.float16] | NDArray[np.float32]
    label: int
    weight: float


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
    history = History()
    if head.learns_from == "counts":
        return history
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs)
    best: dict[str, Tensor] = {}
    for _epoch in range(settings.epochs):
        head.train()
        steps = _tile_steps if head.learns_from == "tiles" else _bag_steps
        losses = [
            _train_step(head, optimizer, step, settings) for step in steps(examples, settings, rng)
        ]
        history.train.append(_finite(float(np.mean(losses)), len(history.train)))
        schedule.step()
        if held_out:
            history.valid.append(_finite(_validate(head, held_out, settings), len(history.valid)))
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


class _Step(tuple[Tensor, Tensor, Tensor, Tensor]):
    """features (B, N, D), mask (B, N), labels (B,), weights (B,)."""

    __slots__ = ()


def _train_step(
    head: Head, optimizer: torch.optim.Optimizer, step: _Step, settings: FitSettings
) -> float:
    features, mask, labels, weights = step
    output = head(features, mask)
    loss = weighted_loss(output, labels, weights, settings)
    loss = loss + head.auxiliary_loss(output, labels, mask)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.detach())


@torch.inference_mode()
def _validate(head: Head, held_out: Sequence[Example], settings: FitSettings) -> float:
    """Weighted loss over all tiles of the inner validation cases."""
    head.eval()
    total = sum(example.weight for example in held_out)
    losses = []
    for example in held_out:
        batch = collate([example.features])
        output = head(batch.features, batch.mask)
        weights = torch.tensor([example.weight])
        losses.append(weighted_loss(output, torch.tensor([example.label]), weights, settings))
    return float(torch.stack(losses).sum()) / total


def weighted_loss(
    output: HeadOutput, labels: Tensor, weights: Tensor, settings: FitSettings
) -> Tensor:
    """The loss asked for, of each bag times its weight, averaged over the batch."""
    if settings.loss == "focal":
        return focal(output.logits, labels, weights, gamma=settings.focal_gamma)
    return cross_entropy(output.logits, labels, weights, smoothing=settings.label_smoothing)


def _bag_steps(
    examples: Sequence[Example], settings: FitSettings, rng: np.random.Generator
) -> Iterator[_Step]:
    """All bags once, shuffled, a few per step."""
    order = rng.permutation(len(examples))
    for start in range(0, len(order), settings.batch_bags):
        chosen = [examples[i] for i in order[start : start + settings.batch_bags]]
        batch = collate([e.features for e in chosen], max_tiles=settings.train_tiles, rng=rng)
        labels = torch.tensor([e.label for e in chosen])
        weights = torch.tensor([e.weight for e in chosen], dtype=torch.float32)
        yield _Step((batch.features, batch.mask, labels, weights))


def _tile_steps(
    examples: Sequence[Example], settings: FitSettings, rng: np.random.Generator
) -> Iterator[_Step]:
    """Tiles of all bags, shuffled, each a bag of its own that carries its slide's label."""
    drawn = [collate([e.features], max_tiles=settings.train_tiles, rng=rng)[0][0] for e in examples]
    tiles = torch.cat(drawn)  # (M, D)
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
        features = tiles[chosen].unsqueeze(1)  # (B, 1, D)
        mask = torch.ones(len(chosen), 1, dtype=torch.bool)
        yield _Step((features, mask, labels[chosen], weights[chosen]))
