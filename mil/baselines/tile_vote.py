"""The report's tile classifier: every tile learns its slide's label, the slide averages its tiles.

Pooled convolutional features of a frozen backbone, then two fully connected layers trained on single
tiles; a slide's probabilities are the mean of its tiles' probabilities.
"""

import torch
from torch import Tensor, nn

from mil.heads.head import Head, HeadOutput, HeadSettings
from mil.heads.layers import masked_softmax, tile_embedding, uniform_scores
from mil.heads.registry import register


@register("tile-vote")
class TileVote(Head):
    """Two fully connected layers per tile; the bag is the mean of tile probabilities.

    Trained on bags of one tile each, its loss is the tile's cross-entropy.
    """

    learns_from = "tiles"

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__(settings)
        self.embed = tile_embedding(settings.dim, settings.width, settings.dropout)
        self.classify = nn.Linear(settings.width, settings.n_classes)

    def pool(self, features: Tensor, mask: Tensor, coords: Tensor | None) -> HeadOutput:
        """Average the tiles' probabilities; the logits are the logarithm of that mean."""
        del coords
        tiles = self.embed(features)  # (B, N, E)
        tile_logits = self.classify(tiles)  # (B, N, C)
        scores = uniform_scores(mask)  # (B, 1, N)
        attention = masked_softmax(scores, mask)  # (B, 1, N)
        # log of a mean of probabilities, without leaving log space
        weighted = torch.log_softmax(tile_logits, -1) + torch.log(attention).transpose(1, 2)
        return HeadOutput(
            logits=torch.logsumexp(weighted, dim=1),
            attention=attention,
            scores=scores,
            embedding=(attention @ tiles).squeeze(1),
            tile_logits=tile_logits.masked_fill(~mask.unsqueeze(-1), 0.0),
        )
