"""A fact of the case as a model of its own, in the folds of a run: what it gets right alone."""

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression

from mil.audit.association import Predictor
from mil.data.splits import Fold
from mil.evaluation.arrays import Floats, Ints


def right_alone(
    predictor: Predictor, names: Sequence[str], truth: Ints, folds: Sequence[Fold]
) -> float:
    """Cases called rightly by logistic regression on the predictor alone, averaged over repeats.

    Everything is fitted on the training cases of a fold: scale, median for what is not known, categories.

    Args:
        predictor: with values of n cases.
        names: n cases, in the order of the values.
        truth: (n,) class indices.
        folds: of these cases.
    """
    place = {name: i for i, name in enumerate(names)}
    right = 0
    for fold in folds:
        train, test = (np.array([place[name] for name in part]) for part in (fold.train, fold.test))
        rows = _encoded(predictor, train)
        model = LogisticRegression(max_iter=1000).fit(rows[train], truth[train])
        right += int(np.sum(model.predict(rows[test]) == truth[test]))
    return right / len({fold.repeat for fold in folds})


def _encoded(predictor: Predictor, train: Ints) -> Floats:
    """(n, ...) rows for a linear model, by what the training cases say."""
    assert predictor.values is not None
    values = predictor.values
    if predictor.categorical:
        kinds = np.unique(values[train, 0])
        member: Floats = (values == kinds).astype(np.float64)
        return member
    filled = np.where(np.isnan(values), np.nanmedian(values[train], axis=0), values)
    spread = filled[train].std(axis=0)
    scaled: Floats = (filled - filled[train].mean(axis=0)) / np.where(spread > 0, spread, 1)
    return scaled
