"""Numbers from true classes and probabilities, and nothing about their uncertainty.

Everywhere: truth is (n,) class indices, p is (n, C) probabilities, one row per case.
"""

import numpy as np
from scipy.stats import rankdata

from mil.evaluation.arrays import Bools, Floats, Ints

_TINY = 1e-300  # divides 0 by what would be 0


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


def brier(truth: Ints, p: Floats) -> Floats:
    """(n,) squared distance of the probabilities from the truth, summed over classes: 0 to 2.

    For two classes it is twice the square that is often printed.
    """
    distance: Floats = ((p - np.eye(p.shape[1])[truth]) ** 2).sum(axis=1)
    return distance


def macro_f1(counts: Floats | Ints) -> Floats:
    """Mean over the classes that have a case of 2 TP / (2 TP + FP + FN).

    Args:
        counts: (..., C, C) cases; rows are the truth.

    Returns:
        (...,) one number per matrix.
    """
    found, called = counts.sum(axis=-1), counts.sum(axis=-2)
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    f1 = 2 * right / np.maximum(found + called, _TINY)
    present = found > 0
    return np.asarray((f1 * present).sum(axis=-1) / present.sum(axis=-1))


def mcc(counts: Floats | Ints) -> Floats:
    """Matthews' correlation of C classes (Gorodkin 2004, doi:10.1016/j.compbiolchem.2004.09.006).

    Args:
        counts: (..., C, C) cases; rows are the truth.

    Returns:
        (...,) one number per matrix; 0 where only one class is called, or only one occurs.
    """
    found, called = counts.sum(axis=-1), counts.sum(axis=-2)
    n, right = found.sum(axis=-1), np.trace(counts, axis1=-2, axis2=-1)
    shared = right * n - (found * called).sum(axis=-1)
    both = (n**2 - (found**2).sum(axis=-1)) * (n**2 - (called**2).sum(axis=-1))
    return np.asarray(np.where(both > 0, shared / np.sqrt(np.maximum(both, _TINY)), 0.0))


def kappa(counts: Floats | Ints) -> Floats:
    """Cohen's kappa: agreement beyond what the two margins give (1960, doi:10.1177/001316446002000104).

    Args:
        counts: (..., C, C) cases; rows are the truth.

    Returns:
        (...,) one number per matrix; 0 where truth and calls are one and the same class.
    """
    found, called = counts.sum(axis=-1), counts.sum(axis=-2)
    n, right = found.sum(axis=-1), np.trace(counts, axis1=-2, axis2=-1)
    expected = (found * called).sum(axis=-1) / n
    return np.asarray((right - expected) / np.maximum(n - expected, _TINY))


def average_precision(positive: Bools, score: Floats, weights: Floats | None = None) -> Floats:
    """Sum over thresholds of precision times gain in recall, without interpolation.

    Args:
        positive: (n,) True for the class looked for, at least one.
        score: (n,) larger speaks for positive; equal scores share a threshold.
        weights: (..., n) how often each case counts; once each if not given.

    Returns:
        (...,) one number per row of weights; nan where no positive counts.
    """
    weights = np.ones(len(score)) if weights is None else weights
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    weighed = weights[..., order]
    called = np.cumsum(weighed, axis=-1)[..., ends]
    right = np.cumsum(weighed * positive[order], axis=-1)[..., ends]
    gained = np.diff(right, axis=-1, prepend=0.0)
    total = right[..., -1]
    summed = (gained * right / np.maximum(called, _TINY)).sum(axis=-1)
    return np.asarray(np.where(total > 0, summed / np.maximum(total, _TINY), np.nan))


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
    from sklearn.metrics import roc_curve

    fpr, tpr, _ = roc_curve(positive, p[:, class_index])
    return fpr, tpr
