"""Cards of a diagnosis: the true class, and the probabilities and classes that each model gave."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mil.evaluation.classification.metrics import predicted
from mil.evaluation.classification.predictions import CaseScores, ClassPredictions
from mil.report.cards import CaseAnswers, CaseCard, make_cards


@dataclass(frozen=True)
class ClassVerdict:
    """The answer of one model for one case.

    Attributes:
        right: in more than half of the repeats, as in the paired tests.
        called: (C,) repeats in which each class was named.
        p: (C,) probability of each class, mean over repeats.
    """

    right: bool
    called: tuple[int, ...]
    p: tuple[float, ...]

    @property
    def wrong(self) -> bool:
        """Right in half of the repeats or fewer."""
        return not self.right


def case_cards(predictions: ClassPredictions) -> list[CaseCard[ClassVerdict]]:
    """One card per case, by name."""
    scores = {
        model: [predictions.case_scores(model, repeat) for repeat in predictions.repeats]
        for model in predictions.models
    }
    first = scores[predictions.models[0]]
    return make_cards(
        first[0].case,
        [("truth", predictions.classes[int(truth)]) for truth in first[0].truth],
        [repeat.fold.tolist() for repeat in first],
        predictions.table,
        [_verdicts(repeats, predictions.classes) for repeats in scores.values()],
    )


def case_answers(predictions: ClassPredictions) -> CaseAnswers:
    """Probabilities of each case by each model, and whether its prediction is right."""
    return {
        card.case: {
            model: {"p": [round(p, 4) for p in verdict.p], "right": verdict.right}
            for model, verdict in zip(predictions.models, card.verdicts, strict=True)
        }
        for card in case_cards(predictions)
    }


def _verdicts(repeats: Sequence[CaseScores], classes: tuple[str, ...]) -> list[ClassVerdict]:
    """The answers of one model."""
    called = np.stack([predicted(scores.p) for scores in repeats])  # (repeats, n)
    counts = np.stack([np.sum(called == index, axis=0) for index in range(len(classes))], axis=1)
    right = np.mean(called == repeats[0].truth, axis=0) > 0.5
    p = np.mean([scores.p for scores in repeats], axis=0)
    return [
        ClassVerdict(bool(right[row]), tuple(counts[row].tolist()), tuple(p[row].tolist()))
        for row in range(len(p))
    ]
