"""Classification metrics from true classes and probabilities, without intervals.

Throughout: truth is (n,) class indices, p is (n, C) probabilities, one row per case.
"""

import numpy as np

from mil.distributions import rankdata
from mil.evaluation.arrays import Bools, Floats, Ints

_TINY = 1e-300  # divides 0 by what would be 0


def predicted(p: Floats) -> Ints:
    """Index (n,) of the most probable class; the lowest index among equals."""
    most_probable: Ints = np.argmax(p, axis=1)
    return most_probable


def confusion(truth: Ints, p: Floats) -> Ints:
    """Confusion matrix (C, C) of counts; rows are the truth, columns the prediction."""
    counts = np.zeros((p.shape[1], p.shape[1]), dtype=np.int64)
    np.add.at(counts, (truth, predicted(p)), 1)
    return counts


def accuracy(truth: Ints, p: Floats) -> float:
    """Share of cases whose most probable class is the true one."""
    return float(np.mean(predicted(p) == truth))


def sensitivity(truth: Ints, p: Floats) -> Floats:
    """Sensitivity (C,) of each class; nan where a class has no case."""
    counts = confusion(truth, p)
    totals = counts.sum(axis=1)
    return np.where(totals > 0, np.diag(counts) / np.maximum(totals, 1), np.nan)


def balanced_accuracy(truth: Ints, p: Floats) -> float:
    """Mean sensitivity over the classes that have a case."""
    return float(np.nanmean(sensitivity(truth, p)))


def brier(truth: Ints, p: Floats) -> Floats:
    """Brier score (n,) of each case, summed over classes: 0 to 2.

    For two classes it is twice the one-class Brier score that is often printed.
    """
    distance: Floats = ((p - np.eye(p.shape[1])[truth]) ** 2).sum(axis=1)
    return distance


def macro_f1(counts: Floats | Ints) -> Floats:
    """Mean F1, 2 TP / (2 TP + FP + FN), over the classes that have a case.

    Args:
        counts: (..., C, C) cases; rows are the truth.

    Returns:
        (...,) one number per matrix.
    """
    actual, called = counts.sum(axis=-1), counts.sum(axis=-2)
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    f1 = 2 * right / np.maximum(actual + called, _TINY)
    present = actual > 0
    return np.asarray((f1 * present).sum(axis=-1) / present.sum(axis=-1))


def mcc(counts: Floats | Ints) -> Floats:
    """Matthews correlation coefficient of C classes (Gorodkin 2004, doi:10.1016/j.compbiolchem.2004.09.006).

    Args:
        counts: (..., C, C) cases; rows are the truth.

    Returns:
        (...,) one number per matrix; 0 where only one class is predicted or only one occurs.
    """
    actual, called = counts.sum(axis=-1), counts.sum(axis=-2)
    n, right = actual.sum(axis=-1), np.trace(counts, axis1=-2, axis2=-1)
    shared = right * n - (actual * called).sum(axis=-1)
    both = (n**2 - (actual**2).sum(axis=-1)) * (n**2 - (called**2).sum(axis=-1))
    return np.asarray(np.where(both > 0, shared / np.sqrt(np.maximum(both, _TINY)), 0.0))


def kappa(counts: Floats | Ints) -> Floats:
    """Cohen's kappa: agreement beyond chance given the margins (1960, doi:10.1177/001316446002000104).

    Args:
        counts: (..., C, C) cases; rows are the truth.

    Returns:
        (...,) one number per matrix; 0 where the truth and the prediction are one and the same class.
    """
    actual, called = counts.sum(axis=-1), counts.sum(axis=-2)
    n, right = actual.sum(axis=-1), np.trace(counts, axis1=-2, axis2=-1)
    expected = (actual * called).sum(axis=-1) / n
    return np.asarray((right - expected) / np.maximum(n - expected, _TINY))


def average_precision(positive: Bools, score: Floats, weights: Floats | None = None) -> Floats:
    """Average precision: precision times gain in recall, summed over thresholds without interpolation.

    Args:
        positive: (n,) True for the positive class, at least one.
        score: (n,) larger for the positive class; equal scores share a threshold.
        weights: (..., n) how often each case counts; once by default.

    Returns:
        (...,) one number per row of weights; nan where no positive case counts.
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
    """Placement of each case among the cases of the other group, ties counting half.

    The mean of either is the AUC. By ranks in O(n log n): Sun & Xu 2014, doi:10.1109/LSP.2014.2337313.

    Args:
        positive: (n,) True for the positive class; both groups must have a case.
        score: (n,) larger for the positive class.

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

    All cases are pooled, because an AUC of a fold of four cases would be noise. For two classes it is
    the AUC of class 1. None where a class has no case.
    """
    counts = np.bincount(truth, minlength=p.shape[1])
    if (counts == 0).any():
        return None
    class_indices = [1] if p.shape[1] == 2 else range(p.shape[1])
    return float(np.mean([placements(truth == k, p[:, k])[0].mean() for k in class_indices]))


def roc_points(truth: Ints, p: Floats, class_index: int) -> tuple[Floats, Floats]:
    """ROC curve of one class against the rest, from (0, 0) to (1, 1).

    Returns:
        False positive rates and true positive rates; both empty where the class or the rest has no case.
    """
    positive = truth == class_index
    if positive.all() or not positive.any():
        return np.empty(0), np.empty(0)
    scores = p[:, class_index]
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # of equal scores
    hits = np.cumsum(positive[order])[last]
    points = np.stack([last + 1 - hits, hits])  # (2, n) cases above each score
    bends = np.diff(points, 2).any(axis=0)  # on a straight line the ends say all
    points = points[:, np.concatenate([[True], bends, [True]])] if points.shape[1] > 2 else points
    fpr, tpr = np.pad(points, ((0, 0), (1, 0))) / points[:, -1:]
    return fpr, tpr
