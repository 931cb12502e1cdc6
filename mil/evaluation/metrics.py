"""Numbers from true classes and probabilities, and nothing about their uncertainty.

Everywhere: truth is (n,) class indices, p is (n, C) probabilities, one row per case.
"""

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata
from sklearn.metrics import roc_curve

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def predicted(p: Floats) -> Ints:
    """(n,) index of the most probable class; among equals the lowest index."""
    called: Ints = np.argmax(p, axis=1)
    return called


def confusion(truth: Ints, p: Floats) -> Ints:
    """(C, C) counts; rows are the truth, columns the prediction."""
    counts = np.zeros((p.shape[1], p.shape[1]), dtype=np.int64)
    np.add.at(counts, (truth, predicted(p)), 1)
    return counts


def accuracy(truth: Ints, p: Floats) -> float:
    """Share of cases whose most probable class is the true one."""
    return float(np.mean(predicted(p) == truth))


def sensitivity(truth: Ints, p: Floats) -> Floats:
    """(C,) share of the cases of each class called by its name; nan where a class has no case."""
    counts = confusion(truth, p)
    totals = counts.sum(axis=1)
    return np.where(totals > 0, np.diag(counts) / np.maximum(totals, 1), np.nan)


def balanced_accuracy(truth: Ints, p: Floats) -> float:
    """Mean sensitivity over the classes that have a case."""
    return float(np.nanmean(sensitivity(truth, p)))


def placements(positive: Bools, score: Floats) -> tuple[Floats, Floats]:
    """How far each case stands on its own side of the other group, ties counting half.

    Both means are the AUC. By ranks, in O(n log n): Sun & Xu 2014, doi:10.1109/LSP.2014.2337313.

    Args:
        positive: (n,) True for the class looked for; both groups must have a case.
        score: (n,) larger speaks for positive.

    Returns:
        (m,) share of the negatives below each positive, (n - m,) share of the positives above
        each negative; in the order of the cases.
    """
    n_pos, n_neg = int(positive.sum()), int((~positive).sum())
    rank = rankdata(score)
    below = (rank[positive] - rankdata(score[positive])) / n_neg
    above = 1 - (rank[~positive] - rankdata(score[~positive])) / n_pos
    return below, above


def macro_auc(truth: Ints, p: Floats) -> float | None:
    """Mean over classes of the AUC of p[:, k] for class k against the rest.

    All cases are pooled; an AUC per fold of four cases would be noise. For two classes it is the
    AUC of class 1. None where a class has no case.
    """
    counts = np.bincount(truth, minlength=p.shape[1])
    if (counts == 0).any():
        return None
    asked = [1] if p.shape[1] == 2 else range(p.shape[1])
    return float(np.mean([placements(truth == k, p[:, k])[0].mean() for k in asked]))


def roc_points(truth: Ints, p: Floats, class_index: int) -> tuple[Floats, Floats]:
    """Corners of the ROC curve of one class against the rest, from (0, 0) to (1, 1).

    Returns:
        False positive rates and true positive rates; both empty where the class, or its rest,
        has no case.
    """
    positive = truth == class_index
    if positive.all() or not positive.any():
        return np.empty(0), np.empty(0)
    fpr, tpr, _ = roc_curve(positive, p[:, class_index])
    return fpr, tpr
