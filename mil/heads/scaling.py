"""How features are scaled, as fitted to the training tiles and stored with a model's weights.

Each feature is centred, and one spread scales all of them: with a spread for each, a feature that hardly
varied in training would be blown up by the first tile in which it does. Where a few values or a few features
have most of the variance, one spread would leave next to nothing of the others: features have units of their
own, heavy tails, or gross outliers. There, each feature first becomes the normal score of its rank among the
training tiles, if the model is trained by steps; one that is fitted at once standardises its own rows.
Encoders of images are far from that. The choice is measured in ``benchmarks/heavy_tails.py``.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

LARGEST, HEAVY = 0.01, 0.5  # share of the values, and of the variance if features are heavy
FEW_FEATURES, FEW_OF_ALL = 3, 0.25  # as many that share the variance evenly, and as a share of all
KNOTS = 33  # ranks at which a feature's distribution is stored; linear between them
LEAST_RANK = (
    0.005  # of the smallest training value: a new one is not further out than 2.6 deviations
)
TAIL_TILES, RANK_TILES = (
    1024,
    4096,
)  # evenly taken of the training tiles, to judge tails and to rank


class Scaling(NamedTuple):
    """Of D features: a value becomes its score, which is then shifted and divided by the scale.

    Attributes:
        shift, scale: (D,).
        knots: (D, K) rising values of each feature; K is 0 where values are taken as they are.
        scores: (D, K) the scores of the knots; beyond the ends they stay what they are there.
    """

    shift: Tensor
    scale: Tensor
    knots: Tensor
    scores: Tensor


def fit_scaling(tiles: Tensor, *, ranks: bool = True) -> Scaling:
    """The scaling that suits some training tiles (M, D).

    Args:
        tiles: single precision.
        ranks: whether ranks may take the place of values.
    """
    knots = scores = tiles.new_empty(tiles.shape[1], 0)
    if ranks and are_heavy(tiles):
        tiles = _take(tiles, RANK_TILES)
        knots, scores = (part.to(tiles.device) for part in _fit_ranks(tiles))
        tiles = to_scores(tiles, knots, scores)
    spread = tiles.std(dim=0, correction=0).square().mean().sqrt().clamp_min(1e-6)
    return Scaling(tiles.mean(dim=0), spread.expand(tiles.shape[1]), knots, scores)


def are_heavy(tiles: Tensor) -> bool:
    """Whether a hundredth of the values (M, D) has more than half of the variance, or hardly any features do.

    How many features have the variance is their participation ratio: D if all vary alike.
    """
    values = _take(tiles, TAIL_TILES).cpu().double().numpy()
    squares = np.square(values - values.mean(axis=0))
    by_feature = squares.sum(axis=0)
    few = min(FEW_FEATURES, FEW_OF_ALL * len(by_feature))
    if by_feature.sum() ** 2 < few * np.square(by_feature).sum():
        return True
    squares = squares.ravel()
    first = len(squares) - math.ceil(LARGEST * len(squares))
    largest = np.partition(squares, first)[first:]  # a fifth of the time of torch's
    return bool(largest.sum() > HEAVY * squares.sum())


def _take(tiles: Tensor, most: int) -> Tensor:
    return tiles[:: math.ceil(len(tiles) / most)]


def _fit_ranks(tiles: Tensor) -> tuple[Tensor, Tensor]:
    """(D, K) values at equal steps of rank, and their normal scores; equal values have their mean score."""
    ranks = torch.linspace(0, 1, KNOTS, dtype=torch.float64)
    # numpy's, since torch's takes sixteen million values at most
    knots = torch.from_numpy(
        np.quantile(tiles.cpu().numpy(), ranks.numpy(), axis=0).T.copy()
    ).float()
    of_ranks = torch.special.ndtri(ranks.clamp(LEAST_RANK, 1 - LEAST_RANK))  # (K,)
    scores = torch.empty_like(knots)
    for feature, own in zip(knots, scores, strict=True):
        _, group, sizes = feature.unique_consecutive(return_inverse=True, return_counts=True)
        sums = torch.zeros(len(sizes), dtype=torch.float64).index_add(0, group, of_ranks)
        own.copy_((sums / sizes)[group])
    return knots, scores


def to_scores(rows: Tensor, knots: Tensor, scores: Tensor) -> Tensor:
    """(..., D) the scores of values: linear between knots (D, K), flat beyond them."""
    values = rows.movedim(-1, 0).flatten(1).contiguous()  # (D, n)
    above = torch.searchsorted(knots, values.detach(), right=True).clamp_max_(knots.shape[1] - 1)
    below = (above - 1).clamp_min_(0)
    left, right = knots.gather(1, below), knots.gather(1, above)
    low, high = scores.gather(1, below), scores.gather(1, above)
    share = ((values - left) / (right - left).clamp_min(1e-30)).clamp(0, 1)
    return (low + share * (high - low)).reshape(len(knots), *rows.shape[:-1]).movedim(0, -1)
