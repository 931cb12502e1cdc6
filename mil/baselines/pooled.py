"""The mean of a slide's tiles, and the plainest classifier on it; and the same with nothing to learn."""

from dataclasses import replace

import numpy as np
from torch import Tensor

from mil.baselines.logistic import LogisticHead, mean_of_tiles
from mil.heads.head import HeadSettings, Training


class PooledLogistic(LogisticHead):
    """Logistic regression on the mean of the tiles."""

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__(settings, settings.dim)

    def describe(self, features: Tensor, mask: Tensor) -> Tensor:
        """The mean of the tiles, (B, D)."""
        return mean_of_tiles(features, mask)


class Chance(PooledLogistic):
    """The same where the training cases' labels were dealt out anew: there is nothing to learn.

    How far such a model strays from guessing is how far any other may by luck. The majority model has
    no such luck: it says the same of every case.
    """

    def solve(self, training: Training) -> None:
        """Shuffle the labels, case by case, then fit."""
        super().solve(shuffled(training))


def shuffled(training: Training) -> Training:
    """The same slides, the labels dealt out anew to the cases; as many cases per class as before.

    Of survival, the times and events.
    """
    _, first, case = np.unique(training.cases, return_index=True, return_inverse=True)
    dealt = np.random.default_rng(training.seed).permutation(first)
    labels = training.labels[dealt]
    if training.time is not None:
        return replace(training, labels=labels[case], time=training.time[dealt][case])
    weights = 1 / (np.bincount(labels)[labels] * np.bincount(case))[case]
    return replace(training, labels=labels[case], weights=weights / weights.mean())
