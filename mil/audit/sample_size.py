"""Sample size: widths of intervals, the fewest correct cases that beat guessing, and learning curves."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from mil.data.splits import Fold
from mil.evaluation.intervals import Estimate, wilson

SIZES = (10, 20, 30, 50, 100, 250, 500)
SHARES = (0.25, 0.5, 0.75, 1.0)
ALPHA = 0.05


@dataclass(frozen=True)
class Width:
    """Wilson interval of an accuracy at n cases."""

    n: int
    low: float
    high: float


@dataclass(frozen=True)
class Point:
    """Accuracy, or Harrell's C, of a model trained on a share of its training cases.

    Attributes:
        train: mean number of training cases.
        score: accuracy or C on all cases, mean over repeats.
        low: lower limit.
        high: upper limit.
    """

    train: float
    score: float
    low: float
    high: float


def interval_widths(accuracy: float, n: int) -> tuple[Width, ...]:
    """Wilson intervals of an accuracy at several numbers of cases, n among them."""
    intervals = [(size, wilson(accuracy * size, size)) for size in sorted({*SIZES, n})]
    return tuple(Width(size, interval.low, interval.high) for size, interval in intervals)


def cases_for_width(accuracy: float, half_width: float) -> int:
    """The fewest cases at which half the width of the interval of an accuracy is at most ``half_width``."""
    n = 1
    while (interval := wilson(accuracy * n, n)).high - interval.low > 2 * half_width:
        n += 1
    return n


def fewest_correct(n: int, share: float) -> int | None:
    """The fewest correct of n cases that guessing reaches with a probability of at most 5 %.

    None where guessing gets all n right more often than that. ``share`` is the probability that one guess is
    right.
    """
    k = int(binom.isf(ALPHA, n, share)) + 1  # P(X >= k) <= ALPHA
    return k if k <= n else None


def learning_curve(
    folds: Sequence[Fold],
    label_of: Mapping[str, str],
    score: Callable[[Sequence[Fold]], Estimate],
) -> tuple[Point, ...]:
    """Repeat a cross-validation with a quarter, a half, three quarters and all of the training cases.

    Each subset contains the smaller ones and at least one case of every class; test cases stay the same.
    A share at which the score has no interval is left out.

    Args:
        folds: folds of a run.
        label_of: class of each case.
        score: cross-validates one model in the folds and returns its accuracy, or Harrell's C.
    """
    points = []
    for share in SHARES:
        reduced = [_reduce_fold(fold, label_of, share) for fold in folds]
        estimate = score(reduced)
        if estimate.value is None or estimate.low is None or estimate.high is None:
            continue
        train = float(np.mean([len(fold.train) for fold in reduced]))
        points.append(Point(train, estimate.value, estimate.low, estimate.high))
    return tuple(points)


def _reduce_fold(fold: Fold, label_of: Mapping[str, str], share: float) -> Fold:
    """A fold with the same share of the training cases of every class."""
    rng = np.random.default_rng([fold.repeat, fold.index])
    remaining: set[str] = set()
    for label in sorted({label_of[name] for name in fold.train}):
        members = [
            str(name) for name in rng.permutation([n for n in fold.train if label_of[n] == label])
        ]
        remaining |= set(members[: max(1, round(share * len(members)))])
    train = tuple(name for name in fold.train if name in remaining)
    return Fold(repeat=fold.repeat, index=fold.index, train=train, test=fold.test)
