"""What so many cases can show: widths of intervals, and the fewest right answers that beat guessing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from mil.data.splits import Fold
from mil.evaluation.classification.evaluate import evaluate
from mil.evaluation.intervals import wilson
from mil.evaluation.predictions import Predictions

SIZES = (10, 20, 30, 50, 100, 250, 500)
SHARES = (0.25, 0.5, 0.75, 1.0)
ALPHA = 0.05


@dataclass(frozen=True)
class Width:
    """The Wilson interval that an accuracy would have at n cases."""

    n: int
    low: float
    high: float


@dataclass(frozen=True)
class Point:
    """One model learnt from a share of its training cases.

    Attributes:
        train: mean number of training cases.
        accuracy: on all cases, mean over repeats.
        low, high: Wilson limits.
    """

    train: float
    accuracy: float
    low: float
    high: float


def widths(accuracy: float, n: int) -> tuple[Width, ...]:
    """The interval of an accuracy at several numbers of cases, n among them."""
    found = [(size, wilson(accuracy * size, size)) for size in sorted({*SIZES, n})]
    return tuple(Width(size, interval.low, interval.high) for size, interval in found)


def cases_for(accuracy: float, half_width: float) -> int:
    """The fewest cases at which the interval of an accuracy is no wider than twice this."""
    n = 1
    while (found := wilson(accuracy * n, n)).high - found.low > 2 * half_width:
        n += 1
    return n


def least_right(n: int, share: float) -> int | None:
    """The fewest of n right that guessing rightly with this probability reaches in at most 5 %.

    None where not even n of n is so rare.
    """
    k = int(binom.isf(ALPHA, n, share)) + 1  # P(X >= k) <= ALPHA
    return k if k <= n else None


def learning_curve(
    folds: Sequence[Fold],
    label_of: dict[str, str],
    crossval: Callable[[Sequence[Fold]], Predictions],
) -> tuple[Point, ...]:
    """The same cross-validation with a quarter, a half, three quarters and all of the training cases.

    Each part holds the ones before it and at least one case of every class; test cases stay the same.

    Args:
        folds: of a run.
        label_of: class of each case.
        crossval: predicts the test cases of some folds by one model.
    """
    points = []
    for share in SHARES:
        reduced = [_reduced(fold, label_of, share) for fold in folds]
        [result] = evaluate(crossval(reduced)).models
        interval = wilson(result.correct, result.n)
        points.append(
            Point(
                float(np.mean([len(fold.train) for fold in reduced])),
                result.correct / result.n,
                interval.low,
                interval.high,
            )
        )
    return tuple(points)


def _reduced(fold: Fold, label_of: dict[str, str], share: float) -> Fold:
    """A fold with a share of its training cases, of every class alike."""
    rng = np.random.default_rng([fold.repeat, fold.index])
    kept: set[str] = set()
    for label in sorted({label_of[name] for name in fold.train}):
        mine = [
            str(name) for name in rng.permutation([n for n in fold.train if label_of[n] == label])
        ]
        kept |= set(mine[: max(1, round(share * len(mine)))])
    train = tuple(name for name in fold.train if name in kept)
    return Fold(repeat=fold.repeat, index=fold.index, train=train, test=fold.test)
