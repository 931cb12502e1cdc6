"""Bags by the mean, the maximum, or a smooth maximum of their embedded tiles."""

import torch
from torch import Tensor, nn

from mil.heads.head import Head, HeadOutput, HeadSettings
from mil.heads.layers import mask_scores, masked_softmax, tile_embedding, uniform_scores
from mil.heads.registry import register

SHARPNESS = 1.0  # r of log-sum-exp pooling: the mean at 0, the maximum at infinity


@register("mean")
class MeanPooling(Head):
    """The mean of the embedded tiles, then a linear classifier: every tile counts the same."""

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__(settings)
        self.embed = tile_embedding(settings.dim, settings.width, settings.dropout)
        self.classify = nn.Linear(settings.width, settings.n_classes)

    def pool(self, features: Tensor, mask: Tensor, coords: Tensor | None) -> HeadOutput:
        """Average over the real tiles."""
        del coords
        tiles = self.embed(features)  # (B, N, E)
        scores = uniform_scores(mask)  # (B, 1, N)
        attention = masked_softmax(scores, mask)  # (B, 1, N)
        embedding = (attention @ tiles).squeeze(1)  # (B, E)
        return HeadOutput(
            logits=self.classify(embedding),
            attention=attention,
            scores=scores,
            embedding=embedding,
            tile_logits=self.classify(tiles).masked_fill(~mask.unsqueeze(-1), 0.0),
        )


@register("max")
class MaxPooling(Head):
    """The maximum of each embedded dimension over tiles, then a linear classifier.

    Its attention is the share of dimensions in which a tile is the largest: a description, since no
    weight is learnt.
    """

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__(settings)
        self.embed = tile_embedding(settings.dim, settings.width, settings.dropout)
        self.classify = nn.Linear(settings.width, settings.n_classes)

    def pool(self, features: Tensor, mask: Tensor, coords: Tensor | None) -> HeadOutput:
        """Take the largest value per dimension over the real tiles."""
        del coords
        tiles = self.embed(features)  # (B, N, E)
        hidden = tiles.masked_fill(~mask.unsqueeze(-1), -torch.inf)  # (B, N, E)
        embedding = hidden.amax(dim=1)  # (B, E)
        # Tiles that tie share the dimension, so that the order of tiles does not matter.
        largest = (hidden == embedding.unsqueeze(1)).float()  # (B, N, E)
        attention = (
            (largest / largest.sum(dim=1, keepdim=True)).mean(dim=-1).unsqueeze(1)
        )  # (B, 1, N)
        return HeadOutput(
            logits=self.classify(embedding),
            attention=attention,
            scores=mask_scores(attention, mask),
            embedding=embedding,
            tile_logits=self.classify(tiles).masked_fill(~mask.unsqueeze(-1), 0.0),
        )


@register("lse")
class LogSumExpPooling(Head):
    """A smooth maximum of each embedded dimension over tiles, then a linear classifier.

    (1 / r) log((1 / K) sum_k exp(r h_k)): P. Pinheiro, R. Collobert, From Image-level to Pixel-level Labeling
    with Convolutional Networks, CVPR 2015; for bags, J. Ramon, L. De Raedt, Multi Instance
    Neural Networks, 2000. Its attention is each tile's share of the gradient, averaged over dimensions: a
    description, since no weight is learnt.
    """

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__(settings)
        self.embed = tile_embedding(settings.dim, settings.width, settings.dropout)
        self.classify = nn.Linear(settings.width, settings.n_classes)

    def pool(self, features: Tensor, mask: Tensor, coords: Tensor | None) -> HeadOutput:
        """Take the smooth maximum over the real tiles."""
        del coords
        tiles = self.embed(features)  # (B, N, E)
        sharpened = (SHARPNESS * tiles.float()).masked_fill(~mask.unsqueeze(-1), -torch.inf)
        n_tiles = mask.sum(dim=1, keepdim=True)  # (B, 1)
        embedding = (torch.logsumexp(sharpened, dim=1) - n_tiles.log()) / SHARPNESS  # (B, E)
        attention = torch.softmax(sharpened, dim=1).mean(dim=-1).unsqueeze(1)  # (B, 1, N)
        return HeadOutput(
            logits=self.classify(embedding),
            attention=attention,
            scores=mask_scores(attention, mask),
            embedding=embedding,
            tile_logits=self.classify(tiles).masked_fill(~mask.unsqueeze(-1), 0.0),
        )
