"""Cards of ordered grades: the true grade, and the grade and the probabilities that each model gave."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mil.evaluation.classification.predictions import CaseScores
from mil.evaluation.grade.metrics import median_grade
from mil.evaluation.grade.predictions import GradePredictions
from mil.report.cards import CaseAnswers, CaseCard, make_cards


@dataclass(frozen=True)
class GradeVerdict:
    """The answer of one model for one case.

    Attributes:
        right: the true grade in more than half of the repeats, as in the paired tests.
        distance: grades between the predicted and the true grade, mean over repeats.
        called: (K,) repeats in which each grade was predicted.
        p: (K,) probability of each grade, mean over repeats.
    """

    right: bool
    distance: float
    called: tuple[int, ...]
    p: tuple[float, ...]

    @property
    def wrong(self) -> bool:
        """Right in half of the repeats or fewer."""
        return not self.right


def grade_cards(predictions: GradePredictions) -> list[CaseCard[GradeVerdict]]:
    """One card per case, by name."""
    scores = {
        model: [predictions.case_scores(model, repeat) for repeat in predictions.repeats]
        for model in predictions.models
    }
    first = scores[predictions.models[0]]
    return make_cards(
        first[0].case,
        [("truth", predictions.grades[int(truth)]) for truth in first[0].truth],
        [repeat.fold.tolist() for repeat in first],
        predictions.table,
        [_verdicts(repeats, len(predictions.grades)) for repeats in scores.values()],
    )


def case_answers(predictions: GradePredictions) -> CaseAnswers:
    """Probabilities of each case by each model, and whether its prediction is right."""
    return {
        card.case: {
            model: {"p": [round(p, 4) for p in verdict.p], "right": verdict.right}
            for model, verdict in zip(predictions.models, card.verdicts, strict=True)
        }
        for card in grade_cards(predictions)
    }


def _verdicts(repeats: Sequence[CaseScores], n_grades: int) -> list[GradeVerdict]:
    """The answers of one model."""
    called = np.stack([median_grade(scores.p) for scores in repeats])  # (repeats, n)
    counts = np.stack([np.sum(called == grade, axis=0) for grade in range(n_grades)], axis=1)
    right = np.mean(called == repeats[0].truth, axis=0) > 0.5
    distance = np.abs(called - repeats[0].truth).mean(axis=0)
    p = np.mean([scores.p for scores in repeats], axis=0)
    return [
        GradeVerdict(
            right=bool(right[i]),
            distance=float(distance[i]),
            called=tuple(counts[i].tolist()),
            p=tuple(p[i].tolist()),
        )
        for i in range(len(p))
    ]
