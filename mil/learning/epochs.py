"""The epochs of one fit, whatever it minimises."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from features.precision import resolve_precision
from mil.errors import FitError
from mil.heads.batches import Batch, Features, ReadyBags, ReadyBatch, run_in_chunks
from mil.heads.head import Head, HeadOutput
from mil.learning.adamw import AdamW
from mil.settings import FitSettings


@dataclass
class History:
    """Mean losses per epoch: of training, and of the inner validation cases where there are any."""

    train: list[float] = field(default_factory=list)
    valid: list[float] = field(default_factory=list)


def run_epochs(
    head: Head,
    settings: FitSettings,
    train_epoch: Callable[[AdamW], list[float]],
    validate: Callable[[], float] | None,
) -> History:
    """Run the epochs; leaves the head as it was after the best or the last of them.

    Args:
        head: to be trained.
        settings: how.
        train_epoch: takes the steps of one epoch and returns their losses.
        validate: the loss on the inner validation cases; None trains all epochs.

    Raises:
        FitError: a loss or a weight is not finite.
    """
    history = History()
    optimizer = AdamW(
        head.parameters(),
        rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        epochs=settings.epochs,
    )
    best: dict[str, Tensor] = {}
    for _epoch in range(settings.epochs):
        head.train()
        loss = float(np.mean(train_epoch(optimizer)))
        history.train.append(_check_finite(loss, len(history.train)))
        optimizer.end_epoch()
        if validate:
            history.valid.append(_check_finite(validate(), len(history.valid)))
            since_best = len(history.valid) - 1 - int(np.argmin(history.valid))
            if since_best == 0:
                best = copy.deepcopy(head.state_dict())
            if since_best >= settings.patience:
                break
    if best:
        head.load_state_dict(best)
    if not all(bool(torch.isfinite(weight).all()) for weight in head.parameters()):
        raise FitError(
            "The last step left weights that are not finite. Use a smaller learning_rate."
        )
    return history


def run_bags(
    head: Head, bags: Batch | ReadyBatch | Features, settings: FitSettings
) -> tuple[HeadOutput, Tensor]:
    """The head's output for a group of bags, and their mask (B, N)."""
    if isinstance(bags, ReadyBatch):
        return head.pool(*bags, None), bags.mask
    if isinstance(bags, Batch):
        return head(*bags), bags.mask
    mask = torch.ones(1, len(bags), dtype=torch.bool)
    return run_in_chunks(head, bags, settings.chunk_tiles), mask


def prepare_bags(head: Head, bags: Sequence[Features], settings: FitSettings) -> ReadyBags:
    """The bags as the head takes them; nothing is done ahead for a head that sees them in its own way."""
    own = type(head).forward is not Head.forward or type(head).standardise is not Head.standardise
    with autocast(settings):
        return ReadyBags(bags, None if own else head.standardise)


def autocast(settings: FitSettings) -> torch.autocast:
    """Compute in the number format of the settings."""
    dtype = resolve_precision(settings.precision, torch.device("cpu"))
    return torch.autocast("cpu", dtype, enabled=dtype != torch.float32)


def _check_finite(loss: float, n_epochs: int) -> float:
    """The loss after so many epochs, unless it has diverged."""
    if not np.isfinite(loss):
        raise FitError(f"The loss is {loss} in epoch {n_epochs + 1}. Use a smaller learning_rate.")
    return loss
