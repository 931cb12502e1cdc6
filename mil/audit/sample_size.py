"""Sample size: widths of intervals, the fewest correct cases that beat guessing, and learning curves."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from mil.data.splits import Fold
from mil.distributions import binomial_tail
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
    return next((k for k in range(n + 1) if binomial_tail(k - 1, n, share) <= ALPHA), None)


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
        reduced = [
            reduce_fold(fold, label_of, partial(_share_of, share), [fold.repeat, fold.index])
            for fold in folds
        ]
        estimate = score(reduced)
        if estimate.value is None or estimate.low is None or estimate.high is None:
            continue
        train = float(np.mean([len(fold.train) for fold in reduced]))
        points.append(Point(train, estimate.value, estimate.low, estimate.high))
    return tuple(points)


def _share_of(share: float, number: int) -> int:
    """The share of a number, one at least."""
    return max(1, round(share * number))


def reduce_fold(
    fold: Fold, label_of: Mapping[str, str], keep: Callable[[int], int], seeds: Sequence[int]
) -> Fold:
    """A fold with fewer training cases of every class; with the same seeds more contain fewer.

    Args:
        fold: whose test cases stay.
        label_of: class of each case.
        keep: how many of a number of cases of one class are kept.
        seeds: of the draw.
    """
    rng = np.random.default_rng(list(seeds))
    remaining: set[str] = set()
    for label in sorted({label_of[name] for name in fold.train}):
        members = [name for name in fold.train if label_of[name] == label]
        remaining |= {members[i] for i in rng.permutation(len(members))[: keep(len(members))]}
    return replace(fold, train=tuple(name for name in fold.train if name in remaining))
