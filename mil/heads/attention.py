"""Attention pooling: M. Ilse, J. Tomczak, M. Welling, Attention-based Deep MIL, ICML 2018."""

import torch
from torch import Tensor, nn

from mil.heads.head import HeadSettings
from mil.heads.pooling import WeightedPooling


class AttentionPooling(WeightedPooling):
    """A weighted mean of embedded tiles, the weights learnt (Ilse 2018, equations 7 and 8)."""

    stacks = True
    learns_attention = True

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__(settings)
        hidden = max(1, settings.width // 2)
        self.project = nn.Linear(settings.width, hidden)  # V
        self.weigh = nn.Linear(hidden, 1, bias=False)  # w; a bias would vanish in the softmax

    def score(self, tiles: Tensor) -> Tensor:
        """(B, N, E) -> (B, N, 1): w^T tanh(V h), equation 8."""
        scores: Tensor = self.weigh(torch.tanh(self.project(tiles)))
        return scores


class GatedAttentionPooling(AttentionPooling):
    """Attention with a sigmoid gate beside the tanh (Ilse 2018, equation 9)."""

    stacks = True

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__(settings)
        self.gate = nn.Linear(settings.width, self.project.out_features)  # U

    def score(self, tiles: Tensor) -> Tensor:
        """(B, N, E) -> (B, N, 1): w^T (tanh(V h) * sigm(U h)), equation 9."""
        gated = torch.tanh(self.project(tiles)) * torch.sigmoid(self.gate(tiles))
        scores: Tensor = self.weigh(gated)
        return scores
