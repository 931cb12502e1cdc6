"""The classes' shares among the training cases: what can be said without looking."""

import torch
from torch import Tensor

from mil.heads.head import Head, HeadOutput, HeadSettings
from mil.heads.layers import masked_softmax, uniform_scores


class Majority(Head):
    """Predicts the training shares of the classes for every bag; learns nothing else.

    Of survival it gives every bag the curve of all training cases.
    """

    learns_from = "counts"
    log_share: Tensor

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__(settings)
        self.register_buffer("log_share", torch.zeros(settings.n_classes))

    @classmethod
    def takes_outcomes(cls) -> bool:
        """One hazard for all."""
        return True

    def pool(self, features: Tensor, mask: Tensor, coords: Tensor | None) -> HeadOutput:
        """Say the same of every bag."""
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
        """Take the classes' shares; each class has a training case."""
        del tiles
        self.log_share.copy_(torch.log(class_counts / class_counts.sum()))
