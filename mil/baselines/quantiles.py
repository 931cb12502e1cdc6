"""SAMPLER: a slide by the distribution of each feature over its tiles.

Mukashyaka et al. 2024, doi:10.1016/j.ebiom.2023.104908: ten quantiles of every feature, side by side,
and a logistic regression on them. A bag has one magnification, so one is used here.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.baselines.linear import LinearHead
from mil.heads.brief import Tiles
from mil.heads.head import HeadSettings

LEVELS = np.arange(5, 100, 10) / 100  # the middles of the deciles, as in the paper
AT_ONCE = 2**19  # values that are sorted at a time, so that the copies made by sorting stay small


def quantile_tiles(bag: Tiles) -> NDArray[np.float32]:
    """(21, D) tiles whose quantiles are those of a bag (N, D): of 21, every other is one of the ten."""
    rows = quantiles(np.asarray(bag[:]))
    return rows[np.minimum(np.arange(2 * len(LEVELS) + 1) // 2, len(LEVELS) - 1)]


class QuantileLogistic(LinearHead):
    """Logistic regression, or its counterpart for the outcome, on ten quantiles of every feature."""

    brief = staticmethod(quantile_tiles)

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__(settings, len(LEVELS) * settings.dim)

    def describe(self, features: Tensor, mask: Tensor) -> Tensor:
        """The quantiles of each feature over the real tiles, (B, 10 D)."""
        rows = [
            quantiles(bag[real].detach().float().cpu().numpy()).ravel()
            for bag, real in zip(features, mask, strict=True)
        ]
        return torch.from_numpy(np.stack(rows)).to(features.device)


def quantiles(values: Tiles) -> NDArray[np.float32]:
    """(10, D) of values (N, D) along tiles, interpolated linearly."""
    places = LEVELS * (len(values) - 1)
    below = np.floor(places).astype(np.int64)
    above = np.minimum(below + 1, len(values) - 1)
    share = (places - below).astype(np.float32)
    ranks = np.concatenate([below, above])
    starts = range(0, values.shape[1], max(1, AT_ONCE // len(values)))
    parts = [_ranked(values[:, start : start + starts.step], ranks) for start in starts]
    low, high = np.split(np.concatenate(parts), 2, axis=1)
    between: NDArray[np.float32] = low + (high - low) * share
    return between.T


def _ranked(values: Tiles, ranks: NDArray[np.int64]) -> NDArray[np.float32]:
    """(D, R) the values (N, D) of these ranks among the tiles, from 0.

    Numbers in half precision are sorted as the integers of their bits, in half the time: those of negative
    ones, which fall where the numbers rise, are turned round. All by numpy, which takes a twentieth of
    torch's time.
    """
    columns = torch.from_numpy(np.array(values)).T.contiguous().numpy()  # (D, N)
    if columns.dtype != np.float16:
        return np.sort(columns, axis=1)[:, ranks]
    bits = columns.view(np.int16)
    bits ^= (bits >> 15) & 0x7FFF
    chosen = np.sort(bits, axis=1)[:, ranks]
    chosen ^= (chosen >> 15) & 0x7FFF
    return chosen.view(np.float16).astype(np.float32)
