"""Predictions of one model with the quantities that several metrics share."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mil.evaluation.arrays import Floats, Ints
from mil.evaluation.classification import metrics
from mil.evaluation.classification.per_class import average_precisions
from mil.evaluation.classification.predictions import CaseScores
from mil.evaluation.intervals import Estimate

ONE_ANSWER = "undefined: all cases of a fold get one answer"


@dataclass(frozen=True, eq=False)
class ModelScores:
    """Predictions of one model for the same cases in each repeat.

    Attributes:
        repeats: one entry per repeat.
        classes: names, in the order of the probabilities.
    """

    repeats: tuple[CaseScores, ...]
    classes: tuple[str, ...]

    @property
    def truth(self) -> Ints:
        """(n,) class indices; cases are sorted, so they are the same in every repeat."""
        return self.repeats[0].truth

    @property
    def probabilities(self) -> list[Floats]:
        """(n, C) probabilities of each repeat."""
        return [scores.p for scores in self.repeats]

    @cached_property
    def counts(self) -> Ints:
        """(C,) cases per class."""
        return np.bincount(self.truth, minlength=len(self.classes)).astype(np.int64)

    @property
    def absent(self) -> list[str]:
        """Classes without a case."""
        return [name for name, n in zip(self.classes, self.counts, strict=True) if n == 0]

    @property
    def absent_note(self) -> str:
        """Remark on metrics that are means over the other classes; empty if no class is absent."""
        if not self.absent:
            return ""
        return f"no case of {', '.join(self.absent)}: mean of the other classes"

    @cached_property
    def confusions(self) -> list[Floats]:
        """Confusion matrix (C, C) of each repeat."""
        return [metrics.confusion(self.truth, p).astype(np.float64) for p in self.probabilities]

    @cached_property
    def confusion(self) -> Floats:
        """Confusion matrix (C, C), mean over repeats."""
        return np.asarray(np.mean(self.confusions, axis=0))

    @property
    def correct(self) -> float:
        """Cases classified correctly, mean over repeats."""
        return float(np.trace(self.confusion))

    def per_repeat(
        self, metric: Callable[[Ints, Floats], float | None]
    ) -> tuple[float | None, ...]:
        """Value of a metric of truth and probabilities in each repeat."""
        return tuple(metric(self.truth, p) for p in self.probabilities)

    @cached_property
    def unranked(self) -> str:
        """Why the ranking of the cases is undefined; empty where it is defined."""
        if self.absent:
            return f"undefined: no case of {', '.join(self.absent)}"
        return ONE_ANSWER if self.constant else ""

    @cached_property
    def constant(self) -> bool:
        """Whether all cases of a fold get one answer, in every repeat."""
        return all(depends_on_fold_alone(scores) for scores in self.repeats)

    @cached_property
    def precisions(self) -> tuple[Estimate, ...]:
        """Average precision of each class, and last their mean."""
        return average_precisions(self.truth, self.probabilities)


def depends_on_fold_alone(scores: CaseScores) -> bool:
    """Whether predictions follow from the class frequencies of the folds alone, as the majority rule's do.

    A pooled AUC would then only rank the folds, and in the wrong order: a fold that tests more cases of a
    class has trained on fewer.
    """
    n_classes = scores.p.shape[1]
    predictions: dict[bytes, list[int]] = {}
    folds = [np.flatnonzero(scores.fold == fold) for fold in np.unique(scores.fold)]
    if all(len({*scores.truth[tested].tolist()}) == 1 for tested in folds):
        return _reflects_counts_only(scores)
    for tested in folds:
        counts = np.bincount(scores.truth[tested], minlength=n_classes)
        predictions.setdefault(counts.tobytes(), []).extend(tested.tolist())
    alike = [scores.p[cases] for cases in predictions.values() if len(cases) > 1]
    return bool(alike) and all(np.ptp(p, axis=0).max() == 0 for p in alike)


def _reflects_counts_only(scores: CaseScores) -> bool:
    """The same for folds that test one class each, as in leave-one-out.

    A perfect model and one that knows only the class counts both give all cases of a class the same
    prediction; but with the counts a class is less probable where its own cases are left out.
    """
    n_classes = scores.p.shape[1]
    present = [k for k in range(n_classes) if (scores.truth == k).any()]
    by_class = [scores.p[scores.truth == k] for k in present]
    if any(np.ptp(p, axis=0).max() > 0 for p in by_class):
        return False
    prediction = np.array([p[0] for p in by_class])[:, present]  # (truth, prediction)
    return bool((np.diag(prediction) <= prediction.min(axis=0)).all())
