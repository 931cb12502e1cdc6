"""Pieces that heads share."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last axis that gives padding exactly zero weight.

    Args:
        scores: (B, A, N) unnormalised.
        mask: (B, N) bool, True where a tile is real; each row has one.

    Returns:
        (B, A, N) weights; each row sums to 1.
    """
    return torch.softmax(mask_scores(scores, mask), dim=-1)


def mask_scores(scores: Tensor, mask: Tensor) -> Tensor:
    """Scores (B, A, N) with padding at -inf."""
    return scores.masked_fill(~mask.unsqueeze(1), -torch.inf)


def uniform_scores(mask: Tensor) -> Tensor:
    """Scores (B, 1, N) that prefer no tile."""
    return mask_scores(torch.zeros(mask.shape, device=mask.device).unsqueeze(1), mask)


def tile_embedding(dim: int, width: int, dropout: float) -> nn.Sequential:
    """A tile's feature vector to the head's own width."""
    return nn.Sequential(nn.Linear(dim, width), nn.ReLU(inplace=True), Dropout(dropout))


def classify_maps(embeddings: Tensor, classify: nn.Linear) -> Tensor:
    """Logits (B, C) of embeddings (B, A, E): each class reads its own, or all the only one there is."""
    logits: Tensor = (embeddings * classify.weight).sum(dim=-1) + classify.bias
    return logits


class GatedAttention(nn.Module):
    """Scores of tiles, (B, N, E) -> (B, A, N): w^T (tanh(V h) * sigm(U h)) with a w for each map.

    M. Ilse, J. Tomczak, M. Welling, Attention-based Deep MIL, ICML 2018, equation 9.
    """

    def __init__(self, width: int, maps: int = 1) -> None:
        super().__init__()
        hidden = max(1, width // 2)
        self.project = nn.Linear(width, hidden)  # V
        self.gate = nn.Linear(width, hidden)  # U
        self.weigh = nn.Linear(hidden, maps, bias=False)  # w; a bias would vanish in the softmax

    def forward(self, tiles: Tensor) -> Tensor:
        """Score every tile, padding as well."""
        gated = torch.tanh(self.project(tiles)) * torch.sigmoid(self.gate(tiles))  # (B, N, H)
        scores: Tensor = self.weigh(gated).transpose(1, 2)
        return scores


class Dropout(nn.Module):
    """Dropout that draws 15 bits for each number, four at once: ``nn.Dropout`` takes seven times as long.

    The surviving share is rounded to 1 / 32768, and the survivors are scaled by that very share.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """Drop in training, and do nothing in evaluation."""
        if not self.training or self.share == 0:
            return x
        return x * keep_from(x.shape, self.share, x.dtype, device=x.device)


def keep_from(
    shape: Sequence[int],
    share: float,
    dtype: torch.dtype,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """What values are multiplied by when a share of them is dropped: 0, or what makes up for those.

    Args:
        shape: of the values.
        share: that is dropped.
        dtype: of the values.
        generator: PyTorch's own if not given.
        device: likewise.
    """
    n_values = math.prod(shape)
    words = torch.empty(math.ceil(n_values / 4), dtype=torch.int64, device=device)
    words.random_(-(2**63), None, generator=generator)
    return factors_of(words, share, dtype)[:n_values].view(tuple(shape))


def factors_of(words: Tensor, share: float, dtype: torch.dtype) -> Tensor:
    """(4 W,) what ``keep_from`` returns, from W random words, which it overwrites."""
    threshold = max(1, round((1 - share) * 2**15))
    # Arithmetic instead of a comparison, since torch is slow to make numbers of booleans on a CPU.
    bits = words.view(torch.int16).bitwise_and_(2**15 - 1)
    below = bits.sub_(threshold).bitwise_right_shift_(15)  # -1 where kept
    return below.to(dtype).mul_(-(2**15) / threshold)
