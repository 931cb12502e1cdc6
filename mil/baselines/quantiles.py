"""SAMPLER: a slide by the distribution of each feature over its tiles.

Mukashyaka et al. 2024, doi:10.1016/j.ebiom.2023.104908: ten quantiles of every feature, side by side,
and a logistic regression on them. A bag has one magnification, so one is used here.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.baselines.linear import LinearHead
from mil.heads.head import HeadSettings

LEVELS = np.arange(5, 100, 10) / 100  # the middles of the deciles, as in the paper
COLUMNS = 64  # features that are sorted at a time, so that the copy made by sorting stays small


class QuantileLogistic(LinearHead):
    """Logistic regression, or its counterpart for the outcome, on ten quantiles of every feature."""

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__(settings, len(LEVELS) * settings.dim)

    def describe(self, features: Tensor, mask: Tensor) -> Tensor:
        """The quantiles of each feature over the real tiles, (B, 10 D)."""
        rows = [
            np.concatenate(
                [
                    quantiles(part[real].detach().float().cpu().numpy())
                    for part in bag.split(COLUMNS, dim=1)
                ],
                axis=1,
            ).ravel()
            for bag, real in zip(features, mask, strict=True)
        ]
        return torch.from_numpy(np.stack(rows)).to(features.device)


def quantiles(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """(10, D) of values (N, D) along tiles, interpolated linearly."""
    # Sorted by numpy, which takes a twentieth of torch's time.
    ordered = np.sort(np.ascontiguousarray(values.T), axis=1)  # (D, N)
    places = LEVELS * (len(values) - 1)
    below = np.floor(places).astype(np.int64)
    above = np.minimum(below + 1, len(values) - 1)
    share = (places - below).astype(np.float32)
    low, high = ordered[:, below], ordered[:, above]
    between: NDArray[np.float32] = low + (high - low) * share
    return between.T
