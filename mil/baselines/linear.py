"""Linear models with an L2 penalty on one row per slide, for every kind of outcome."""

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from mil.baselines.cox import solve_cox
from mil.baselines.logistic import solve_logistic
from mil.baselines.nested_cv import Floats, counted_by_case
from mil.baselines.ordinal import solve_ordinal
from mil.baselines.ridge import USUAL_COST, LinearFit
from mil.heads.batches import collate, in_brief
from mil.heads.head import Head, HeadOutput, HeadSettings, Outcome, Training
from mil.heads.layers import masked_softmax, uniform_scores

# How the model is fitted to each kind of outcome, on rows (slides, E).
SOLVERS: dict[Outcome, Callable[[Floats, Training], LinearFit]] = {
    "classes": solve_logistic,
    "times": solve_cox,
    "ordered": solve_ordinal,
}


class LinearHead(Head):
    """A linear model with an L2 penalty on the row that ``describe`` makes of a bag.

    Classes are fitted by multinomial logistic regression, times by Cox regression, ordered outcomes by
    proportional odds. Which of ``COSTS`` is taken is decided on inner folds of the training cases.

    Attributes:
        weight: (C, E) on rows as ``describe`` makes them.
        bias: (C,).
        cost: () the one that was chosen.
    """

    learns_from: ClassVar[Literal["slides", "table"]] = "slides"
    weight: Tensor
    bias: Tensor
    cost: Tensor

    def __init__(self, settings: HeadSettings, length: int) -> None:
        super().__init__(settings)
        self.register_buffer("weight", torch.zeros(settings.n_outputs, length))
        self.register_buffer("bias", torch.zeros(settings.n_outputs))
        self.register_buffer("cost", torch.tensor(USUAL_COST))

    @classmethod
    def supports(cls, outcome: Outcome) -> bool:
        """Outcomes that have a solver."""
        return outcome in SOLVERS

    @abstractmethod
    def describe(self, features: Tensor, mask: Tensor) -> Tensor:
        """The rows (B, E) of standardised bags (B, N, D)."""

    def pool(self, features: Tensor, mask: Tensor, coords: Tensor | None) -> HeadOutput:
        """Describe each bag, then weigh its row."""
        del coords
        rows = self.describe(features, mask)  # (B, E)
        scores = uniform_scores(mask)  # (B, 1, N)
        return HeadOutput(
            logits=rows @ self.weight.T + self.bias,
            attention=masked_softmax(scores, mask),
            scores=scores,
            embedding=rows,
        )

    @torch.no_grad()
    def solve(self, training: Training) -> None:
        """Choose the cost and fit on all training slides."""
        training = counted_by_case(training)
        fitted = SOLVERS[training.outcome](describe_slides(self, training), training)
        self.weight.copy_(torch.from_numpy(fitted.weight))
        self.bias.copy_(torch.from_numpy(fitted.bias))
        self.cost.fill_(fitted.cost)


def mean_of_tiles(features: Tensor, mask: Tensor) -> Tensor:
    """(B, D) of bags (B, N, D) that are zero on padding."""
    return features.sum(dim=1) / mask.sum(dim=1, keepdim=True)


def describe_slides(head: Head, training: Training) -> Floats:
    """The embedding of each training slide, (slides, E); one bag in memory at a time."""
    rows = []
    for bag in training.features:
        batch = collate([in_brief(head, bag)])
        rows.append(head(batch.features, batch.mask).embedding[0].double().numpy())
    return np.stack(rows)
