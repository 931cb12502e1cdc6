"""Pieces that heads share."""

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
    return nn.Sequential(nn.Linear(dim, width), nn.ReLU(), nn.Dropout(dropout))
