"""A single predictor as a model of its own in the folds of a run."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import optimize, special

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
    for fold in folds:
        train, test = (np.array([place[name] for name in part]) for part in (fold.train, fold.test))
        rows = _encoded(predictor, train)
        classes, labels = np.unique(truth[train], return_inverse=True)
        logits = _fit_logits(rows, train, labels)
        by_repeat[fold.repeat][np.ix_(test, classes)] = special.softmax(logits[test], axis=1)
    return list(by_repeat.values())


def _fit_logits(rows: Floats, train: Ints, labels: Ints) -> Floats:
    """Logits (n, C) of all rows (n, E) by multinomial logistic regression on those that train.

    The loss is the sum over cases and half the squared length of the weights, as of scikit-learn, which takes
    a second to load; of two classes only the second has weights.
    """
    x = np.column_stack([np.ones(len(rows)), rows])
    truth = np.eye(int(labels.max()) + 1)[labels]  # (n, C)
    first = 1 if truth.shape[1] == 2 else 0
    shape = truth.shape[1] - first, x.shape[1]

    def logits_of(weights: Floats, x: Floats) -> Floats:
        return np.pad(x @ weights.reshape(shape).T, ((0, 0), (first, 0)))

    def loss(weights: Floats) -> tuple[float, Floats]:
        log_p = special.log_softmax(logits_of(weights, x[train]), axis=1)
        penalised = weights.reshape(shape) * (np.arange(shape[1]) > 0)
        gradient = (np.exp(log_p) - truth)[:, first:].T @ x[train] + penalised
        return float(np.square(penalised).sum() / 2 - (log_p * truth).sum()), gradient.ravel()

    fit = optimize.minimize(loss, np.zeros(math.prod(shape)), jac=True, method="L-BFGS-B")
    return logits_of(fit.x, x)


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
