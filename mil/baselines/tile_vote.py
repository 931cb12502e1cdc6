"""The report's tile classifier: every tile learns its slide's label, the slide sums up its tiles.

Pooled convolutional features of a frozen backbone, then two fully connected layers trained on single
tiles. A slide is the mean of its tiles' probabilities, their vote, or the mean of their logits. The
linear probe is the same with one layer: what the frozen features tell by themselves.
"""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from mil.heads.head import Head, HeadOutput, HeadSettings
from mil.heads.layers import masked_softmax, tile_embedding, uniform_scores


class TileClassifier(Head):
    """A classifier of single tiles, and a rule that sums them up.

    Trained on bags of one tile each, its loss is the tile's cross-entropy.
    """

    learns_from = "tiles"

    def __init__(self, settings: HeadSettings, embed: nn.Module, width: int) -> None:
        super().__init__(settings)
        self.embed = embed
        self.classify = nn.Linear(width, settings.n_outputs)

    @abstractmethod
    def sum_up(self, tile_logits: Tensor, attention: Tensor) -> Tensor:
        """Logits (B, C) of bags from those of tiles (B, N, C) and their equal shares (B, 1, N)."""

    def pool(self, features: Tensor, mask: Tensor, coords: Tensor | None) -> HeadOutput:
        """Classify every tile, then sum up."""
        del coords
        tiles = self.embed(features)  # (B, N, E)
        tile_logits = self.classify(tiles)  # (B, N, C)
        scores = uniform_scores(mask)  # (B, 1, N)
        attention = masked_softmax(scores, mask)  # (B, 1, N)
        return HeadOutput(
            logits=self.sum_up(tile_logits, attention),
            attention=attention,
            scores=scores,
            embedding=(attention @ tiles).squeeze(1),
            tile_logits=tile_logits.masked_fill(~mask.unsqueeze(-1), 0.0),
        )


def mean_of_probabilities(tile_logits: Tensor, attention: Tensor) -> Tensor:
    """The logarithm of the mean of the tiles' probabilities, without leaving log space."""
    weighted = torch.log_softmax(tile_logits, -1) + torch.log(attention).transpose(1, 2)
    return torch.logsumexp(weighted, dim=1)


class TileVote(TileClassifier):
    """Two fully connected layers per tile; the bag is the mean of tile probabilities."""

    stacks = True

    def __init__(self, settings: HeadSettings) -> None:
        embed = tile_embedding(settings.dim, settings.width, settings.dropout)
        super().__init__(settings, embed, settings.width)

    def sum_up(self, tile_logits: Tensor, attention: Tensor) -> Tensor:
        """Average the tiles' probabilities."""
        return mean_of_probabilities(tile_logits, attention)


class TileVotes(TileVote):
    """The same classifier; every tile has one vote, for its most probable class.

    One more vote is shared by all classes, so that none is impossible.
    """

    stacks = True

    def sum_up(self, tile_logits: Tensor, attention: Tensor) -> Tensor:
        """Count votes; the gradient, of which a vote has none, is that of the mean probability."""
        smooth = mean_of_probabilities(tile_logits, attention)
        if self.training:
            return smooth
        n_classes = tile_logits.shape[-1]
        votes = nn.functional.one_hot(tile_logits.argmax(dim=-1), n_classes).float()  # (B, N, C)
        n_tiles = (attention > 0).sum(dim=-1)  # (B, 1)
        counts = ((attention > 0).float() @ votes).squeeze(1)  # (B, C)
        return torch.log((counts + 1 / n_classes) / (n_tiles + 1)) + (smooth - smooth.detach())


class TileVoteLogits(TileVote):
    """The same classifier; the bag is the mean of tile logits: a geometric mean of probabilities."""

    stacks = True
    adds_up = True

    def sum_up(self, tile_logits: Tensor, attention: Tensor) -> Tensor:
        """Average the tiles' logits."""
        return (attention @ tile_logits).squeeze(1)


class LinearProbe(TileClassifier):
    """Multinomial logistic regression on single tiles; the bag is the mean of tile probabilities."""

    stacks = True

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__(settings, nn.Identity(), settings.dim)

    def sum_up(self, tile_logits: Tensor, attention: Tensor) -> Tensor:
        """Average the tiles' probabilities."""
        return mean_of_probabilities(tile_logits, attention)
