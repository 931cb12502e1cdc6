"""Attention pooling: M. Ilse, J. Tomczak, M. Welling, Attention-based Deep MIL, ICML 2018."""

import torch
from torch import Tensor, nn

from mil.heads.head import Head, HeadOutput, HeadSettings
from mil.heads.layers import mask_scores, masked_softmax, tile_embedding
from mil.heads.registry import register


@register("abmil")
class AttentionPooling(Head):
    """A weighted mean of embedded tiles, the weights learnt (Ilse 2018, equations 7 and 8)."""

    learns_attention = True

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__(settings)
        hidden = max(1, settings.width // 2)
        self.embed = tile_embedding(settings.dim, settings.width, settings.dropout)
        self.project = nn.Linear(settings.width, hidden)  # V
        self.weigh = nn.Linear(hidden, 1, bias=False)  # w; a bias would vanish in the softmax
        self.classify = nn.Linear(settings.width, settings.n_classes)

    def score(self, tiles: Tensor) -> Tensor:
        """(B, N, E) -> (B, N, 1): w^T tanh(V h), equation 8."""
        scores: Tensor = self.weigh(torch.tanh(self.project(tiles)))
        return scores

    def pool(self, features: Tensor, mask: Tensor, coords: Tensor | None) -> HeadOutput:
        """Weigh the tiles, sum them, classify the sum."""
        del coords
        tiles = self.embed(features)  # (B, N, E)
        scores = self.score(tiles).transpose(1, 2)  # (B, 1, N)
        attention = masked_softmax(scores, mask)  # (B, 1, N)
        embedding = (attention @ tiles).squeeze(1)  # (B, E), equation 7
        return HeadOutput(
            logits=self.classify(embedding),
            attention=attention,
            scores=mask_scores(scores, mask),
            embedding=embedding,
            # The classifier is linear, so attention times these sums to the logits exactly.
            tile_logits=self.classify(tiles).masked_fill(~mask.unsqueeze(-1), 0.0),
        )


@register("gated-abmil")
class GatedAttentionPooling(AttentionPooling):
    """Attention with a sigmoid gate beside the tanh (Ilse 2018, equation 9)."""

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__(settings)
        self.gate = nn.Linear(settings.width, self.project.out_features)  # U

    def score(self, tiles: Tensor) -> Tensor:
        """(B, N, E) -> (B, N, 1): w^T (tanh(V h) * sigm(U h)), equation 9."""
        gated = torch.tanh(self.project(tiles)) * torch.sigmoid(self.gate(tiles))
        scores: Tensor = self.weigh(gated)
        return scores
