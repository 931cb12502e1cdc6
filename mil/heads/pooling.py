"""Bags by the mean, the maximum, or a smooth maximum of their embedded tiles."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mil.heads.head import Head, HeadOutput, HeadSettings
from mil.heads.layers import mask_scores, tile_embedding

SHARPNESS = 1.0  # r of log-sum-exp pooling: the mean at 0, the maximum at infinity


class WeightedPart(NamedTuple):
    """What some tiles of each bag add to a weighted mean over all of them.

    Attributes:
        scores: (B, 1, N) -inf on padding; the weights are their softmax over all parts.
        peak: (B, 1, 1) the largest score.
        total: (B, 1, E) sum of the embedded tiles, each times exp(score - peak).
        tile_logits: (B, N, C) 0 on padding; none in training.
    """

    scores: Tensor
    peak: Tensor
    total: Tensor
    tile_logits: Tensor


class WeightedPooling(Head):
    """A weighted mean of embedded tiles, then a linear classifier; the weights are ``score``'s softmax.

    Chunks of a bag are joined exactly (M. Milakov, N. Gimelshein, Online normalizer calculation for
    softmax, 2018, algorithm 3); a bag that is not divided is its only chunk.
    """

    adds_up = True

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__(settings)
        self.embed = tile_embedding(settings.dim, settings.width, settings.dropout)
        self.classify = nn.Linear(settings.width, settings.n_outputs)

    @abstractmethod
    def score(self, tiles: Tensor) -> Tensor:
        """(B, N, E) -> (B, N, 1)."""

    def pool(self, features: Tensor, mask: Tensor, coords: Tensor | None) -> HeadOutput:
        """Weigh the tiles, sum them, classify the sum."""
        del coords
        return self.merge([self.summarise(features, mask)])

    def summarise(self, features: Tensor, mask: Tensor) -> WeightedPart:
        """Sum some tiles by their scores."""
        tiles = self.embed(features)  # (B, N, E)
        scores = mask_scores(self.score(tiles).float().transpose(1, 2), mask)  # (B, 1, N)
        peak = scores.detach().amax(dim=-1, keepdim=True)  # (B, 1, 1); cancels in the mean
        total = torch.exp(scores - peak).to(tiles.dtype) @ tiles  # (B, 1, E)
        # No loss needs tile logits, and their memory for the gradient would be large.
        classified = tiles[:, :0] if self.training else tiles
        tile_logits = self.classify(classified).masked_fill(
            ~mask[:, : classified.shape[1], None], 0.0
        )
        return WeightedPart(scores, peak, total, tile_logits)

    def merge(self, parts: Sequence[tuple[Tensor, ...]]) -> HeadOutput:
        """Divide the sums by all weight there is."""
        chunks = [WeightedPart(*part) for part in parts]
        scores = torch.cat([part.scores for part in chunks], dim=-1)  # (B, 1, N)
        log_mass = torch.logsumexp(scores, dim=-1, keepdim=True)  # (B, 1, 1)
        shares = [part.total.float() * torch.exp(part.peak - log_mass) for part in chunks]
        embedding = torch.stack(shares).sum(dim=0).squeeze(1)  # (B, E), Ilse 2018, equation 7
        return HeadOutput(
            logits=self.classify(embedding),
            attention=torch.exp(scores - log_mass),
            scores=scores,
            embedding=embedding,
            # The classifier is linear, so attention times these sums to the logits exactly.
            tile_logits=None
            if self.training
            else torch.cat([part.tile_logits for part in chunks], dim=1),
        )


class MeanPooling(WeightedPooling):
    """The mean of the embedded tiles, then a linear classifier: every tile counts the same."""

    stacks = True

    def score(self, tiles: Tensor) -> Tensor:
        """(B, N, E) -> (B, N, 1) of zeros."""
        return tiles.new_zeros(*tiles.shape[:2], 1)


class MaxPooling(Head):
    """The maximum of each embedded dimension over tiles, then a linear classifier.

    Its attention is the share of dimensions in which a tile is the largest: a description, since no
    weight is learnt.
    """

    stacks = True

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__(settings)
        self.embed = tile_embedding(settings.dim, settings.width, settings.dropout)
        self.classify = nn.Linear(settings.width, settings.n_outputs)

    def pool(self, features: Tensor, mask: Tensor, coords: Tensor | None) -> HeadOutput:
        """Take the largest value per dimension over the real tiles."""
        del coords
        tiles = self.embed(features)  # (B, N, E)
        hidden = tiles.masked_fill(~mask.unsqueeze(-1), -torch.inf)  # (B, N, E)
        embedding = hidden.amax(dim=1)  # (B, E)
        # Tiles that tie share the dimension, so that the order of tiles does not matter.
        largest = (hidden == embedding.unsqueeze(1)).float()  # (B, N, E)
        shares = 1 / largest.sum(dim=1) / largest.shape[-1]  # (B, E)
        attention = (largest @ shares.unsqueeze(-1)).transpose(1, 2)  # (B, 1, N)
        return HeadOutput(
            logits=self.classify(embedding),
            attention=attention,
            scores=mask_scores(attention, mask),
            embedding=embedding,
            tile_logits=None  # no loss needs them
            if self.training
            else self.classify(tiles).masked_fill(~mask.unsqueeze(-1), 0.0),
        )


class LogSumExpPooling(Head):
    """A smooth maximum of each embedded dimension over tiles, then a linear classifier.

    (1 / r) log((1 / K) sum_k exp(r h_k)): P. Pinheiro, R. Collobert, From Image-level to Pixel-level Labeling
    with Convolutional Networks, CVPR 2015; for bags, J. Ramon, L. De Raedt, Multi Instance
    Neural Networks, 2000. Its attention is each tile's share of the gradient, averaged over dimensions: a
    description, since no weight is learnt.
    """

    stacks = True

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__(settings)
        self.embed = tile_embedding(settings.dim, settings.width, settings.dropout)
        self.classify = nn.Linear(settings.width, settings.n_outputs)

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
            tile_logits=None  # no loss needs them
            if self.training
            else self.classify(tiles).masked_fill(~mask.unsqueeze(-1), 0.0),
        )
