"""Cases with the bags they were tested on, where a backbone was fine-tuned in each fold."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from mil.data.case import Case, Row
from mil.data.cohort import Cohort, assemble
from mil.data.splits import Fold
from mil.tasks.task import Task


def cohort_as_tested(
    rows: Sequence[Row], folds: Sequence[Fold], stores: Callable[[Fold], Path], task: Task
) -> Cohort:
    """Every case with the bags by which it was tested in the first repeat."""
    cases: list[Case] = []
    cohort = None
    for fold in (fold for fold in folds if fold.repeat == 0):
        cohort = assemble(rows, stores(fold), task=task, allow_missing=None, allow_duplicates=None)
        cases += cohort.named(fold.test)
    assert cohort
    return replace(cohort, cases=tuple(sorted(cases, key=lambda case: case.name)))
