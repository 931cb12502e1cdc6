"""Additive attention: S. Javed et al., Additive MIL, NeurIPS 2022."""

import torch
from torch import Tensor, nn

from mil.heads.head import Head, HeadOutput, HeadSettings
from mil.heads.layers import GatedAttention, mask_scores, masked_softmax, tile_embedding


class AdditiveAttention(Head):
    """Weighs tiles first, classifies each by a network of two layers, and adds up (its additive form).

    The paper's bag is sum_k psi(a_k h_k). Here the first layer of psi has no bias, so psi(a h) is a psi(h),
    and the bias of the second is shared out by attention: a bias for each tile would grow with their
    number. So attention times ``tile_logits`` is each tile's contribution, and their sum the logits.
    """

    stacks = True
    learns_attention = True
    adds_up = True

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__(settings)
        hidden = max(1, settings.width // 2)
        self.embed = tile_embedding(settings.dim, settings.width, settings.dropout)
        self.attend = GatedAttention(settings.width)
        self.hide = nn.Linear(settings.width, hidden, bias=False)
        self.classify = nn.Linear(hidden, settings.n_outputs)

    def pool(self, features: Tensor, mask: Tensor, coords: Tensor | None) -> HeadOutput:
        """Add up what the tiles contribute."""
        del coords
        tiles = self.embed(features)  # (B, N, E)
        scores = self.attend(tiles)  # (B, 1, N)
        attention = masked_softmax(scores, mask)  # (B, 1, N)
        hidden = torch.relu(self.hide(tiles))  # (B, N, H)
        embedding = (attention @ hidden).squeeze(1)  # (B, H)
        return HeadOutput(
            # The last layer is linear: of the sum it is the sum of the tiles' contributions.
            logits=self.classify(embedding),
            attention=attention,
            scores=mask_scores(scores, mask),
            embedding=embedding,
            tile_logits=self.classify(hidden).masked_fill(~mask.unsqueeze(-1), 0.0),
        )
