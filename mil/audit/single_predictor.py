"""A single predictor as a model of its own in the folds of a run."""

from collections.abc import Sequence

import numpy as np

from mil.audit.association import CaseVariable
from mil.data.splits import Fold
from mil.evaluation.arrays import Floats, Ints


def count_correct_alone(
    predictor: CaseVariable, names: Sequence[str], truth: Ints, folds: Sequence[Fold]
) -> float:
    """Cases classified correctly by logistic regression on one predictor, averaged over repeats.

    Args:
        predictor: a variable with values for n cases.
        names: names of the n cases in the order of the values.
        truth: (n,) class indices.
        folds: folds of these cases.
    """
    repeats = predict_alone(predictor, names, truth, folds)
    return sum(int(np.sum(p.argmax(axis=1) == truth)) for p in repeats) / len(repeats)


def predict_alone(
    predictor: CaseVariable, names: Sequence[str], truth: Ints, folds: Sequence[Fold]
) -> list[Floats]:
    """Probabilities (n, K) out of fold of logistic regression on one predictor, for each repeat.

    Scale, the median for missing values and categories are fitted on the training cases of each fold.

    Args:
        predictor: a variable with values for n cases.
        names: names of the n cases in the order of the values.
        truth: (n,) class indices below K.
        folds: folds of these cases.
    """
    place = {name: i for i, name in enumerate(names)}
    shape = (len(names), int(truth.max()) + 1)
    by_repeat = {repeat: np.zeros(shape) for repeat in sorted({fold.repeat for fold in folds})}
    from sklearn.linear_model import LogisticRegression

    for fold in folds:
        train, test = (np.array([place[name] for name in part]) for part in (fold.train, fold.test))
        rows = _encoded(predictor, train)
        model = LogisticRegression(max_iter=1000).fit(rows[train], truth[train])
        by_repeat[fold.repeat][np.ix_(test, model.classes_)] = model.predict_proba(rows[test])
    return list(by_repeat.values())


def _encoded(predictor: CaseVariable, train: Ints) -> Floats:
    """Rows (n, ...) for a linear model, fitted on the training cases."""
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
