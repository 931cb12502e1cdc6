"""The shares of the classes among the training cases: a prediction that sees no bag."""

import torch
from torch import Tensor

from mil.heads.head import Head, HeadOutput, HeadSettings, Outcome
from mil.heads.layers import masked_softmax, uniform_scores


class Majority(Head):
    """Predicts the training shares of the classes, or of the levels, for every bag; learns nothing else.

    For times every bag has the curve of all training cases.
    """

    learns_from = "counts"
    log_share: Tensor

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__(settings)
        self.register_buffer("log_share", torch.zeros(settings.n_outputs))

    @classmethod
    def supports(cls, outcome: Outcome) -> bool:
        """Every kind: no bag matters."""
        del outcome
        return True

    def pool(self, features: Tensor, mask: Tensor, coords: Tensor | None) -> HeadOutput:
        """The same logits for every bag."""
        del coords
        scores = uniform_scores(mask)  # (B, 1, N)
        return HeadOutput(
            logits=self.log_share.expand(len(features), -1),
            attention=masked_softmax(scores, mask),
            scores=scores,
            embedding=features.new_zeros(len(features), 1),
        )

    @torch.no_grad()
    def prepare(self, tiles: Tensor, class_counts: Tensor) -> None:
        """Count the classes, of which each has a training case; of ordered levels, those above each level."""
        del tiles
        if self.settings.outcome == "ordered":
            below = class_counts.cumsum(0)[:-1]  # (K - 1,)
            self.log_share.copy_(torch.log((class_counts.sum() - below) / below))
            return
        self.log_share.copy_(torch.log(class_counts / class_counts.sum()))
