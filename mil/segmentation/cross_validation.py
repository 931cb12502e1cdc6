"""Judge a segmenter on cases it has not seen, next to colour alone and to all tissue."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from features.lowpower.segmenter import Segmenter
from features.progress import Progress, Silent
from mil.data.splits import Fold
from mil.segmentation.evaluation import fold_evaluation
from mil.segmentation.learner import TISSUE, Learner, Probability, probabilities
from mil.segmentation.scores import Mask, MaskScores, score_case
from mil.segmentation.slides import ReadSlide


@dataclass(frozen=True)
class OutOfFold:
    """What each method makes of slides that it has not seen.

    Attributes:
        slides: all, in the order of the table.
        masks: by method and slide, (rows, columns) True where tumour is called.
    """

    slides: Sequence[ReadSlide]
    masks: Mapping[str, Mapping[str, Mask]]

    def scores(self) -> list[MaskScores]:
        """Of every case by every method."""
        cases: dict[str, list[ReadSlide]] = {}
        for slide in self.slides:
            cases.setdefault(slide.case, []).append(slide)
        return [
            score_case(case, method, [by_slide[s.name] for s in slides], [s.target for s in slides])
            for method, by_slide in self.masks.items()
            for case, slides in cases.items()
        ]


def has_tumour(slides: Sequence[ReadSlide]) -> dict[str, bool]:
    """Whether any slide of a case has drawn tumour, by case."""
    drawn: dict[str, bool] = {}
    for slide in slides:
        drawn[slide.case] = drawn.get(slide.case, False) or bool(slide.target.positive.any())
    return drawn


def cross_validate(
    learner: Learner,
    slides: Sequence[ReadSlide],
    folds: Sequence[Fold],
    progress: Progress | None = None,
) -> OutOfFold:
    """The masks of every slide by segmenters that have not seen its case.

    Args:
        learner: how each is fitted.
        slides: with their cells.
        folds: of cases; each is tested once.
        progress: is advanced by each fold and step.

    Raises:
        FitError: the training cases of a fold have no tumour, or no tissue without.
    """
    masks: dict[str, dict[str, Mask]] = {}
    steps = learner.settings.steps if learner.has_unet else 1
    with (progress or Silent()).task("cross-validation", steps * len(folds), "steps") as advance:
        for fold in folds:
            train, test = set(fold.train), set(fold.test)
            segmenter = learner.fit(
                [slide for slide in slides if slide.case in train],
                advance if learner.has_unet else lambda _steps: None,
            )
            for slide in slides:
                if slide.case in test:
                    for method, mask in masks_of(segmenter, slide).items():
                        masks.setdefault(method, {})[slide.name] = mask
            advance(0 if learner.has_unet else 1)
    return OutOfFold(slides, masks)


def judged(segmenter: Segmenter, tested: Sequence[ReadSlide]) -> Segmenter:
    """The segmenter with how well it finds the tumour of slides that it has not seen, in its card."""
    masks: dict[str, dict[str, Mask]] = {}
    for slide in tested:
        for method, mask in masks_of(segmenter, slide).items():
            masks.setdefault(method, {})[slide.name] = mask
    kind = segmenter.card.kind
    evaluation = fold_evaluation(OutOfFold(tested, masks).scores(), kind)
    return replace(segmenter, card=replace(segmenter.card, evaluation=evaluation))


def masks_of(segmenter: Segmenter, slide: ReadSlide) -> dict[str, Mask]:
    """Where each method marks as tumour on a slide, the segmenter's own first and all tissue last."""
    threshold = segmenter.card.threshold
    by_method: dict[str, Probability] = probabilities(segmenter, slide)
    masks = {method: np.asarray(p >= threshold) for method, p in by_method.items()}
    return {
        method: mask & slide.grid.tissue
        for method, mask in (masks | {TISSUE: slide.grid.tissue}).items()
    }
