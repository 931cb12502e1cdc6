"""The mean of a slide's tiles with a linear model, and the same with shuffled labels."""

from dataclasses import replace

import numpy as np
from torch import Tensor

from mil.baselines.linear import LinearHead, mean_of_tiles
from mil.heads.brief import mean_tile
from mil.heads.head import HeadSettings, Training


class PooledLogistic(LinearHead):
    """Logistic regression, or its counterpart for the outcome, on the mean of the tiles."""

    brief = staticmethod(mean_tile)

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__(settings, settings.dim)

    def describe(self, features: Tensor, mask: Tensor) -> Tensor:
        """The mean of the tiles, (B, D)."""
        return mean_of_tiles(features, mask)


class Chance(PooledLogistic):
    """The same after the labels of the training cases were shuffled: there is nothing to learn.

    Any other model may differ from guessing by luck as much as this one does. The majority model has no such
    luck: it predicts the same for every case.
    """

    brief = staticmethod(mean_tile)

    def solve(self, training: Training) -> None:
        """Shuffle the labels, case by case, then fit."""
        super().solve(shuffle_outcomes(training))


def shuffle_outcomes(training: Training) -> Training:
    """The same slides with the outcomes of cases permuted, so there are as many cases per class as before."""
    _, first, case = np.unique(training.cases, return_index=True, return_inverse=True)
    permuted = np.random.default_rng(training.seed).permutation(first)
    labels = training.labels[permuted]
    if training.outcome != "classes":  # every case weighs the same, whatever its outcome
        time = None if training.time is None else training.time[permuted][case]
        return replace(training, labels=labels[case], time=time)
    weights = 1 / (np.bincount(labels)[labels] * np.bincount(case))[case]
    return replace(training, labels=labels[case], weights=weights / weights.mean())
