"""Sets of classes for new cases: how often they hold the true class, and how often they are one class.

Cohorts of 20 and 40 cases of four classes, cross-validated in five folds with a logistic regression on 16
features; new cases are read by the ensemble of the five fits, as `mil predict` reads them. Beside it stands
the naive reading, which compares the ensemble with the scores out of fold. Easy and hard differ in how far
the classes lie apart; at 0 there is nothing to learn.

    python -m benchmarks.prediction_sets [--cohorts 300]
"""

import argparse

import numpy as np
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from benchmarks.table import print_table, save
from mil.answers.classes import ClassReader, KnownCases
from mil.answers.reading import FitAnswer
from mil.evaluation.intervals import wilson

CLASSES, FEATURES, FOLDS, NEW = 4, 16, 5, 40
TASKS = {"nothing to learn": 0.0, "hard": 0.75, "easy": 1.6}
NAMES = tuple(f"p_{k}" for k in range(CLASSES))


def draw_cases(n: int, distance: float, rng: np.random.Generator):
    """(n,) classes, as equal in number as can be, and (n, FEATURES) features."""
    truth = rng.permutation(np.arange(n) % CLASSES)
    centres = distance * np.eye(CLASSES, FEATURES)
    return truth, centres[truth] + rng.normal(size=(n, FEATURES)) / np.sqrt(2)


def one_cohort(n: int, distance: float, rng: np.random.Generator):
    """Per new case: whether the set holds the class, its size, whether one class is right; and the naive."""
    truth, features = draw_cases(n, distance, rng)
    folds = np.empty(n, int)
    for k in range(CLASSES):
        members = rng.permutation(np.flatnonzero(truth == k))
        folds[members] = (np.arange(len(members)) + k) % FOLDS
    fits, p = [], np.empty((n, CLASSES))
    for fold in range(FOLDS):
        train = folds != fold
        fit = LogisticRegression(C=1.0, max_iter=500).fit(features[train], truth[train])
        p[~train] = fit.predict_proba(features[~train])
        fits.append(fit)
    reader = ClassReader(
        NAMES,
        tuple("abcd"),
        KnownCases(tuple(map(str, range(n))), truth, folds[None], p[None]),
    )
    new_truth, new_features = draw_cases(NEW, distance, rng)
    of_fits = np.stack([fit.predict_proba(new_features) for fit in fits])  # (F, NEW, C)
    mean = softmax(np.log(np.maximum(of_fits, 1e-6)).mean(axis=0), axis=1)
    own = np.sort(p[np.arange(n), truth])
    naive = (np.searchsorted(own, mean, side="right") + 1) / (n + 1) > 0.1 + 1e-9
    rows = []
    for i in range(NEW):
        answers = [
            FitAnswer(0, fold, dict(zip(NAMES, of_fits[fold, i], strict=True)))
            for fold in range(FOLDS)
        ]
        chosen = [ord(name) - ord("a") for name in reader.read(answers).candidates]
        rows.append(
            (new_truth[i] in chosen, len(chosen), chosen == [new_truth[i]], naive[i, new_truth[i]])
        )
    return np.array(rows, float)


HEADER = (
    "task", "cases", "coverage", "naive", "worst 5 % of cohorts", "classes in a set", "one class",
    "of these right",
)  # fmt: skip


def row_of(task: str, n: int, cohorts: int) -> tuple[str, ...]:
    """Cohorts of n cases of a task."""
    rng = np.random.default_rng([n, int(100 * TASKS[task])])
    readings = np.stack([one_cohort(n, TASKS[task], rng) for _ in range(cohorts)])
    covered, size, right, covered_naively = np.moveaxis(readings, -1, 0)
    single = size == 1
    limits = wilson(covered.sum(), covered.size)
    return (
        task,
        str(n),
        f"{covered.mean():.3f} ({limits.low:.3f} to {limits.high:.3f})",
        f"{covered_naively.mean():.3f}",
        f"{np.quantile(covered.mean(axis=1), 0.05):.2f}",
        f"{size.mean():.2f}",
        f"{single.mean():.2f}",
        f"{right.sum() / max(single.sum(), 1):.2f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohorts", type=int, default=300)
    cohorts = parser.parse_args().cohorts
    table = [row_of(task, n, cohorts) for task in TASKS for n in (20, 40)]
    print_table(HEADER, table)
    settings = {"cohorts": cohorts, "new_cases": NEW, "classes": CLASSES, "folds": FOLDS}
    save("prediction-sets", HEADER, table, settings)


if __name__ == "__main__":
    main()
