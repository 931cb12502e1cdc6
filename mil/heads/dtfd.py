"""Pseudo-bags in two tiers: H. Zhang et al., DTFD-MIL, CVPR 2022, with aggregated features (AFS)."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mil.heads.head import Head, HeadOutput, HeadSettings
from mil.heads.layers import GatedAttention, mask_scores, tile_embedding

N_PSEUDO = 5  # pseudo-bags, M; fewer where a bag has fewer tiles


class DoubleTier(Head):
    """Attention within each pseudo-bag, then attention between their embeddings (AFS).

    In training tiles are dealt to pseudo-bags at random, as in the paper. In evaluation they are dealt in
    turn from the most to the least attended of the first tier: a division training may draw as well,
    of pseudo-bags of the same size, each with its share of what stands out; it needs no chance and does
    not know the order of tiles.
    """

    learns_attention = True

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__(settings)
        self.embed = tile_embedding(settings.dim, settings.width, settings.dropout)
        self.attend_tiles = GatedAttention(settings.width)
        self.classify_pseudo = nn.Linear(settings.width, settings.n_outputs)
        self.attend_pseudo = GatedAttention(settings.width)
        self.classify = nn.Linear(settings.width, settings.n_outputs)

    def pool(self, features: Tensor, mask: Tensor, coords: Tensor | None) -> HeadOutput:
        """Deal, weigh within, weigh between."""
        del coords
        tiles = self.embed(features)  # (B, N, E)
        scores = self.attend_tiles(tiles)  # (B, 1, N)
        keys = torch.rand(mask.shape, device=mask.device) if self.training else scores.squeeze(1)
        dealt = deal(keys, mask)  # (B, N)
        pseudo = torch.arange(N_PSEUDO, device=mask.device)
        member = (dealt.unsqueeze(1) == pseudo.view(1, -1, 1)) & mask.unsqueeze(1)  # (B, M, N)
        filled = member.any(dim=-1)  # (B, M)
        # An empty pseudo-bag keeps its scores, so that the softmax is defined; it is left out below.
        outside = ~member & filled.unsqueeze(-1)
        within = torch.log_softmax(scores.masked_fill(outside, -torch.inf), dim=-1)  # (B, M, N)
        distilled = within.exp().masked_fill(~member, 0.0) @ tiles  # (B, M, E)
        second = mask_scores(self.attend_pseudo(distilled), filled)  # (B, 1, M)
        between = torch.log_softmax(second, dim=-1)  # (B, 1, M)
        embedding = (between.exp() @ distilled).squeeze(1)  # (B, E)
        # A tile's weight is its own within its pseudo-bag times that of the pseudo-bag.
        at = dealt.unsqueeze(1)  # (B, 1, N)
        shares = mask_scores(within.gather(1, at) + between.gather(2, at), mask)
        return HeadOutput(
            logits=self.classify(embedding),
            attention=shares.exp(),
            scores=shares,
            embedding=embedding,
            tile_logits=self.classify(tiles).masked_fill(~mask.unsqueeze(-1), 0.0),
            aux={"pseudo_logits": self.classify_pseudo(distilled), "filled": filled},
        )

    def auxiliary_loss(self, output: HeadOutput, labels: Tensor, mask: Tensor) -> Tensor:
        """The first tier: every pseudo-bag carries its bag's label."""
        del mask
        filled = output.aux["filled"]  # (B, M)
        logits = output.aux["pseudo_logits"].float().transpose(1, 2)  # (B, C, M)
        carried = labels.unsqueeze(1).expand(-1, N_PSEUDO)  # (B, M)
        losses = cross_entropy(logits, carried, reduction="none")
        return losses.masked_fill(~filled, 0.0).sum(dim=1) / filled.sum(dim=1)


def deal(keys: Tensor, mask: Tensor) -> Tensor:
    """The pseudo-bag (B, N) of each tile: dealt in turn from the highest key (B, N) to the lowest."""
    order = keys.detach().masked_fill(~mask, -torch.inf).argsort(dim=1, descending=True)
    return order.argsort(dim=1) % N_PSEUDO
