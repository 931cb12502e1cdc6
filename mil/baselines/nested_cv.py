"""The training part of a fold, divided once more to choose a setting by; and its rows standardised."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mil.heads.head import Training

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_FOLDS = 5
LEAST_SPREAD = (
    1e-3  # of the features' usual one; what varies less is a constant with rounding on it
)


def counted_by_case(training: Training) -> Training:
    """The same with weights that sum to the number of cases.

    A penalty weighs against the sum of the losses: more slides of the same cases must not weaken it.
    """
    n_cases = len(np.unique(training.cases))
    return replace(training, weights=training.weights * n_cases / training.weights.sum())


class InnerFold(NamedTuple):
    """Indices of slides; a case has all of its slides on one side."""

    train: Ints
    test: Ints


def inner_folds(training: Training) -> tuple[InnerFold, ...]:
    """Stratified folds of the training cases: five, or as many as the smallest class has cases.

    None where a class has a single case: without it there would be nothing to test, or to learn from.
    """
    from sklearn.model_selection import StratifiedKFold

    names, first = np.unique(training.cases, return_index=True)
    labels = training.labels[first]
    n_folds = min(MOST_FOLDS, int(np.unique(labels, return_counts=True)[1].min()))
    if n_folds < 2:
        return ()
    splitter = StratifiedKFold(n_folds, shuffle=True, random_state=training.seed)
    tests = [np.isin(training.cases, names[test]) for _, test in splitter.split(names, labels)]
    return tuple(InnerFold(np.flatnonzero(~test), np.flatnonzero(test)) for test in tests)


class Standard(NamedTuple):
    """Centre and spread of each feature, (E,) each."""

    centre: Floats
    spread: Floats

    def __call__(self, rows: Floats) -> Floats:
        """Rows (n, E) with every feature centred and of spread 1."""
        return (rows - self.centre) / self.spread


def standard_of(rows: Floats, weights: Floats) -> Standard:
    """Weighted mean and standard deviation of rows (n, E); a feature that is constant keeps its scale."""
    centre = np.average(rows, axis=0, weights=weights)
    spread = np.sqrt(np.average((rows - centre) ** 2, axis=0, weights=weights))
    least = LEAST_SPREAD * np.sqrt(np.mean(spread**2))
    return Standard(centre, np.where(spread > least, spread, 1.0))
