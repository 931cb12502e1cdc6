"""The contract of every head, in one place.

    forward(features (B, N, D), mask (B, N) bool, coords (B, N, 2) or None) -> HeadOutput

- mask is True where a tile is real; the content of padding changes nothing;
- the order of tiles changes nothing, unless the head is ``positional``;
- every head returns a complete HeadOutput; no labels go in, so predictions cannot depend on the truth;
- evaluation is deterministic; a bag of one tile works; a bag without tiles is refused.
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
from mil.heads.brief import Tiles
from mil.heads.scaling import fit_scaling, to_scores

RANKS = ("knots", "scores")  # buffers whose length the features decide
SCALE = ("shift", "scale", *RANKS)
ROWS_AT_ONCE = 256  # tiles that are scaled while they are in the processor's cache
# What the logits are of: classes, by log probabilities; times until an event, by a risk or by hazards; or
# ordered levels 0 to K - 1, by the K - 1 logits of P(level > k), which never rise with k.
Outcome = Literal["classes", "times", "ordered"]


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """Shape of a head.

    Attributes:
        dim: length of a feature vector.
        n_outputs: number of logits; a score that is no class has one.
        width: length of a tile's embedding.
        dropout: of the embedding, in training.
        outcome: what the logits are of.
    """

    dim: int
    n_outputs: int
    width: int = 128
    dropout: float = 0.25
    outcome: Outcome = "classes"


@dataclass(frozen=True, kw_only=True)
class HeadOutput:
    """The output of a head for a batch of bags.

    Attributes:
        logits: (B, C).
        attention: (B, A, N) one map, or one per class; each sums to 1 over tiles, 0 on padding.
        scores: (B, A, N) the same before normalisation; -inf on padding.
        embedding: (B, E) from which the logits are computed.
        tile_logits: (B, N, C) the classifier applied to single tiles, if the head has one; 0 on padding.
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
    """The training part of a fold, for heads that are fitted at once and not by steps.

    Attributes:
        features: one (N, D) array per slide, as stored.
        labels: (slides,) index of each slide's class or level; of times 1 where the event was observed.
        weights: (slides,) of mean 1. Every case weighs the same; of classes, every class does, and every case
            within its class.
        cases: (slides,) index of each slide's case. Any further division is by case.
        seed: of all random draws.
        time: (slides,) until the event of the slide's case or the end of its observation, if it is of times.
        outcome: the kind of outcome, which decides how a linear model is fitted.
    """

    features: Sequence[NDArray[Any]]
    labels: NDArray[np.int64]
    weights: NDArray[np.float64]
    cases: NDArray[np.int64]
    seed: int
    time: NDArray[np.float64] | None = None
    outcome: Outcome = "classes"

    def __post_init__(self) -> None:
        if self.time is not None:
            object.__setattr__(self, "outcome", "times")


class Head(nn.Module, ABC):
    """Base of all heads: checks the batch, standardises features, then calls ``pool``.

    The scale of features is part of the model: ``prepare`` estimates it from the training tiles, so it is
    fitted inside the fold and saved with the weights. Features with heavy tails are ranked first.

    Attributes:
        positional: whether the order or position of tiles matters.
        learns_from: ``bags``, trained by steps; ``tiles``, the same with each tile as a bag that has its
            slide's label; ``counts`` of the classes alone; ``slides``, fitted at once by ``solve``; or
            ``table``, fitted at once too, where a slide is one row of the table's columns.
        learns_attention: whether attention is learnt, so that it can explain.
        adds_up: whether a tile's score depends on that tile alone and the logits are attention times
            ``tile_logits``, summed over tiles. Then the contribution of each tile is exact.
        embed: if a head has it, the first step of ``pool``, on each tile by itself. Features enter nowhere
            else, so a bag is embedded once when tiles are left out one by one.
        stacks: whether fits of it may be trained as one: pooling knows no bag of another, and weights are
            those of linear layers, which are called and not read; not inherited.
        brief: if a head has it, makes a few tiles of a bag, of which the head's logits are those of the bag;
            it may know nothing of other bags, and is not inherited.

    Example:
        import torch

        class MeanOfTiles(mil.Head):
            def __init__(self, settings: mil.HeadSettings) -> None:
                super().__init__(settings)
                self.classify = torch.nn.Linear(settings.dim, settings.n_outputs)

            def pool(self, features, mask, coords):
                scores = torch.zeros_like(mask, dtype=features.dtype).masked_fill(~mask, -torch.inf)
                attention = scores.softmax(dim=-1).unsqueeze(1)  # (B, 1, N)
                embedding = (attention @ features).squeeze(1)  # (B, D)
                return mil.HeadOutput(
                    logits=self.classify(embedding),
                    attention=attention,
                    scores=scores.unsqueeze(1),
                    embedding=embedding,
                )

        mil.check_head(MeanOfTiles)
        cohort = mil.load_cohort("cohort.csv", "store")
        fitted = mil.fit(cohort, MeanOfTiles, settings=mil.FitSettings(epochs=2, seeds=1))
    """

    positional: bool = False
    learns_from: ClassVar[Literal["bags", "tiles", "counts", "slides", "table"]] = "bags"
    learns_attention: bool = False
    adds_up: ClassVar[bool] = False
    stacks: ClassVar[bool] = False
    embed: nn.Module
    brief: ClassVar["staticmethod[[Tiles], NDArray[np.float32]] | None"] = None
    shift: Tensor
    scale: Tensor
    knots: Tensor
    scores: Tensor

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("shift", torch.zeros(settings.dim))
        self.register_buffer("scale", torch.ones(settings.dim))
        for name in RANKS:
            self.register_buffer(name, torch.empty(settings.dim, 0))

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

        Rows of large bags a few at a time: they stay in the cache, and no such bag is copied to single
        precision if the computation is in half precision.
        """
        kind = features.device.type
        lower = torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if lower else torch.float32
        if features.shape[1] <= ROWS_AT_ONCE:
            scaled = self._scale(features).to(dtype)
        else:
            scaled = features.new_empty(features.shape, dtype=dtype)  # (B, N, D)
            for start in range(0, features.shape[1], ROWS_AT_ONCE):
                rows = slice(start, start + ROWS_AT_ONCE)
                scaled[:, rows] = self._scale(features[:, rows])
        # Padding may contain anything, even NaN, and NaN times zero is NaN.
        return scaled if mask.all() else scaled.masked_fill(~mask.unsqueeze(-1), 0.0)

    def _scale(self, rows: Tensor) -> Tensor:
        """(B, N, D) float32, centred and scaled."""
        rows = rows.float()
        if self.knots.numel():
            rows = to_scores(rows, self.knots, self.scores)
        return (rows - self.shift).div_(self.scale)

    @classmethod
    def takes_steps(cls) -> bool:
        """Whether it is trained by gradient, epoch after epoch."""
        return cls.learns_from in ("bags", "tiles")

    @classmethod
    def supports(cls, outcome: Outcome) -> bool:
        """Whether it can learn this kind of outcome. Classes always; others if a loss of cases trains it."""
        return outcome == "classes" or cls.supports_case_loss()

    @classmethod
    def supports_case_loss(cls) -> bool:
        """Whether a loss of cases can train it: it learns from bags, and no loss of its own needs a class."""
        return cls.learns_from == "bags" and cls.auxiliary_loss is Head.auxiliary_loss

    @abstractmethod
    def pool(self, features: Tensor, mask: Tensor, coords: Tensor | None) -> HeadOutput:
        """The head itself, on standardised features that are zero on padding."""

    def summarise(self, features: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """The share of some tiles in the answer, for bags divided into chunks; arguments as ``pool``.

        Raises:
            FitError: the head looks at all tiles of a bag together.
        """
        del features, mask
        raise FitError(
            f"{type(self).__name__} looks at all tiles of a bag together, so a bag cannot be divided into "
            "chunks. Set chunk_tiles to 0, or set train_tiles lower."
        )

    def takes_chunks(self) -> bool:
        """Whether a bag can be divided into chunks of tiles."""
        return type(self).summarise is not Head.summarise

    def merge(self, parts: Sequence[tuple[Tensor, ...]]) -> HeadOutput:
        """The answer to bags from the summaries of their chunks.

        Raises:
            FitError: the head has no such answer.
        """
        del parts
        raise FitError(
            f"{type(self).__name__} cannot join the chunks of a bag. A head that defines summarise must "
            "define merge."
        )

    def auxiliary_loss(self, output: HeadOutput, labels: Tensor, mask: Tensor) -> Tensor:
        """(B,) further loss of each bag, added in training with the bag's weight; none by default."""
        del labels, mask
        return output.logits.new_zeros(len(output.logits))

    def solve(self, training: Training) -> None:
        """Fit at once, if ``learns_from`` is ``slides`` or ``table``: set the buffers that ``pool`` reads.

        Raises:
            FitError: the head is trained by steps.
        """
        del training
        raise FitError(
            f"{type(self).__name__} learns from {self.learns_from}, by steps. A head that learns from slides "
            "or from a table must define solve."
        )

    @torch.no_grad()
    def prepare(self, tiles: Tensor, class_counts: Tensor) -> None:
        """Estimate from the training part what is not learnt by gradient.

        Args:
            tiles: (M, D) training tiles; a model that is not trained by steps takes their values as they are.
            class_counts: (C,) training cases per class.
        """
        del class_counts
        scaling = fit_scaling(tiles, ranks=self.takes_steps())
        self.shift.copy_(scaling.shift)
        self.scale.copy_(scaling.scale)
        self.knots, self.scores = scaling.knots, scaling.scores

    def scale_like(self, other: "Head") -> None:
        """Take the scale of features from a head that was prepared with the same tiles."""
        for name in SCALE:
            setattr(self, name, getattr(other, name).clone())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *more: Any) -> None:
        """Ranks have as many knots as the file says; older files have none."""
        for name in RANKS:
            own = getattr(self, name)
            stored = state_dict.setdefault(prefix + name, own.new_empty(len(own), 0))
            setattr(self, name, own.new_empty(stored.shape))
        super()._load_from_state_dict(state_dict, prefix, *more)
