"""The contract of every head, in one place.

    forward(features (B, N, D), mask (B, N) bool, coords (B, N, 2) or None) -> HeadOutput

- mask is True where a tile is real; what lies in padding changes nothing;
- the order of tiles changes nothing, unless the head declares ``positional``;
- one return type, whole, whatever the head; no labels inside, so inference cannot depend on truth;
- evaluation is deterministic; a bag of one tile works; a bag without a tile is refused.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mil.errors import FitError

ROWS_AT_ONCE = 256  # tiles that are scaled while they are in the cache


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """Shape of a head.

    Attributes:
        dim: length of a feature vector.
        n_classes: classes.
        width: length of a tile's embedding.
        dropout: on the embedding, in training.
        outcome: how the logits are read: ``classes`` by softmax, ``times`` as hazards, ``ordered`` as the
            log odds of exceeding each grade but the last.
    """

    dim: int
    n_classes: int
    width: int = 128
    dropout: float = 0.25
    outcome: str = "classes"


@dataclass(frozen=True, kw_only=True)
class HeadOutput:
    """What a head says of a batch of bags.

    Attributes:
        logits: (B, C).
        attention: (B, A, N) one map, or one per class; each sums to 1 over tiles, 0 on padding.
        scores: (B, A, N) the same before normalisation; -inf on padding.
        embedding: (B, E) what the logits are read from.
        tile_logits: (B, N, C) the classifier on single tiles, where the head has such; 0 on padding.
        aux: further tensors for the head's own losses.
    """

    logits: Tensor
    attention: Tensor
    scores: Tensor
    embedding: Tensor
    tile_logits: Tensor | None = None
    aux: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Training:
    """The training part of a fold, for heads that are solved.

    Attributes:
        features: one (N, D) array per slide, as stored.
        labels: (slides,) index of each slide's class.
        weights: (slides,) of mean 1; every class weighs the same, and every case within it.
        cases: (slides,) index of each slide's case; whatever is divided further is divided by case.
        seed: of everything that is drawn.
        time: (slides,) until the event of each slide's case or the end of its observation, of survival; the
            labels are then 1 where the event was seen, and every case weighs the same.
    """

    features: Sequence[NDArray[Any]]
    labels: NDArray[np.int64]
    weights: NDArray[np.float64]
    cases: NDArray[np.int64]
    seed: int
    time: NDArray[np.float64] | None = None


class Head(nn.Module, ABC):
    """Base of all heads: checks the batch, standardises features, then calls ``pool``.

    The scale of features is part of the model: ``prepare`` takes it from the training tiles, so that it
    is fitted inside the fold and saved with the weights.

    Attributes:
        positional: whether the order or place of tiles matters.
        learns_from: ``bags``; ``tiles``, each a bag of its own with its slide's label; ``counts`` of
            classes alone; ``slides``, all at once and without steps, by ``solve``; or ``table``, likewise,
            a slide being one row of what the table says of its case.
        learns_attention: whether the attention is learnt, so that it can explain.
        adds_up: whether the score of a tile is its own, and the logits are attention times ``tile_logits``
            summed over tiles: then what each tile contributes is known exactly.
        embed: where a head has it, what ``pool`` does first, to each tile by itself; the features enter
            nowhere else, so a bag whose tiles are left out by turns is embedded once.
    """

    positional: bool = False
    learns_from: ClassVar[Literal["bags", "tiles", "counts", "slides", "table"]] = "bags"
    learns_attention: bool = False
    adds_up: ClassVar[bool] = False
    embed: nn.Module
    shift: Tensor
    scale: Tensor

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("shift", torch.zeros(settings.dim))
        self.register_buffer("scale", torch.ones(settings.dim))

    def forward(self, features: Tensor, mask: Tensor, coords: Tensor | None = None) -> HeadOutput:
        """Run the head on a batch of padded bags.

        Args:
            features: (B, N, D), any float type.
            mask: (B, N) bool, True where a tile is real.
            coords: (B, N, 2) level-0 positions; only positional heads read them.

        Raises:
            ValueError: shapes do not fit, or a bag has no tile.
        """
        if features.ndim != 3 or features.shape[-1] != self.settings.dim:
            raise ValueError(
                f"features are (B, N, {self.settings.dim}); got {tuple(features.shape)}. "
                "A single bag needs a leading axis of 1."
            )
        if mask.shape != features.shape[:2] or mask.dtype != torch.bool:
            raise ValueError(
                f"mask is bool of shape {tuple(features.shape[:2])}; got {mask.dtype} of "
                f"{tuple(mask.shape)}."
            )
        if not bool(mask.any(dim=1).all()):
            raise ValueError("a bag has no tile: its mask is False throughout. Leave the bag out.")
        return self.pool(self.standardise(features, mask), mask, coords)

    def standardise(self, features: Tensor, mask: Tensor) -> Tensor:
        """(B, N, D) centred and scaled, zero on padding; in the format of autocast where that is on.

        A few rows at a time, so that they stay in the cache and no bag is held in single precision that
        is computed on in half.
        """
        kind = features.device.type
        lower = torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if lower else torch.float32
        scaled = features.new_empty(features.shape, dtype=dtype)  # (B, N, D)
        for start in range(0, features.shape[1], ROWS_AT_ONCE):
            rows = features[:, start : start + ROWS_AT_ONCE].float()
            scaled[:, start : start + ROWS_AT_ONCE] = (rows - self.shift) / self.scale
        # Padding may hold anything, also NaN, and NaN times zero is NaN.
        return scaled if mask.all() else scaled.masked_fill(~mask.unsqueeze(-1), 0.0)

    @classmethod
    def takes_steps(cls) -> bool:
        """Whether it is trained by gradient, epoch after epoch."""
        return cls.learns_from in ("bags", "tiles")

    @classmethod
    def takes_outcomes(cls) -> bool:
        """Whether it can learn survival: of bags, and by no loss of its own on classes."""
        return cls.learns_from == "bags" and cls.auxiliary_loss is Head.auxiliary_loss

    @abstractmethod
    def pool(self, features: Tensor, mask: Tensor, coords: Tensor | None) -> HeadOutput:
        """The head itself, on standardised features that are zero on padding."""

    def summarise(self, features: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """What some tiles of each bag add to it, for bags that are taken in chunks; arguments as ``pool``.

        Raises:
            FitError: the head looks at all tiles of a bag together.
        """
        del features, mask
        raise FitError(
            f"{type(self).__name__} looks at all tiles of a bag together and takes no chunks of it. "
            "Leave --chunk-tiles out, or draw fewer with --train-tiles."
        )

    def takes_chunks(self) -> bool:
        """Whether a bag may be taken a chunk of tiles after the other."""
        return type(self).summarise is not Head.summarise

    def merge(self, parts: Sequence[tuple[Tensor, ...]]) -> HeadOutput:
        """The answer to bags from what ``summarise`` said of their tiles, chunk after chunk.

        Raises:
            FitError: the head has no such answer.
        """
        del parts
        raise FitError(
            f"{type(self).__name__} joins no chunks of a bag: whoever defines summarise defines merge, too."
        )

    def auxiliary_loss(self, output: HeadOutput, labels: Tensor, mask: Tensor) -> Tensor:
        """(B,) a loss of the head's own on each bag, added in training with its weight; none by default."""
        del labels, mask
        return output.logits.new_zeros(len(output.logits))

    def solve(self, training: Training) -> None:
        """Learn without steps, where ``learns_from`` says so: set the buffers that ``pool`` reads.

        Raises:
            FitError: the head is trained by steps.
        """
        del training
        raise FitError(
            f"{type(self).__name__} learns from {self.learns_from}, by steps. A head that learns from slides "
            "or a table defines solve."
        )

    @torch.no_grad()
    def prepare(self, tiles: Tensor, class_counts: Tensor) -> None:
        """Take from the training part what is not learnt by gradient.

        Args:
            tiles: (M, D) training tiles; each feature is centred, and one spread scales them all.
            class_counts: (C,) training cases per class.
        """
        del class_counts
        self.shift.copy_(tiles.mean(dim=0))
        # One scale for all: with a scale for each, a feature that hardly varied is blown up by the first
        # tile in which it does.
        spread = tiles.std(dim=0, correction=0).square().mean().sqrt()
        self.scale.fill_(float(spread.clamp_min(1e-6)))
