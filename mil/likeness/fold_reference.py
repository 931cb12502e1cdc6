"""Whether a new slide is like training slides, where every fold has features of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.bags.bag import Bag
from features.reference import Reference
from mil.data.splits import Fold
from mil.likeness.reference import Likeness, SlideReference, describe


@dataclass(frozen=True, eq=False)
class FoldSlides:
    """The slides of a run as one fold's backbone sees them.

    Attributes:
        trained: descriptors of the slides that the backbone was trained on.
        tested: by name, how far each slide that the fold tests lies from them, as ``Reference.ratio``.
    """

    trained: Reference
    tested: Mapping[str, float]

    @classmethod
    def of_bags(cls, fold: Fold, bags: Sequence[Bag], cases: Sequence[str]) -> "FoldSlides":
        """Those of bags by the fold's backbone, whose cases are named in the same order."""
        rows: list[NDArray[np.float32]] = []
        names: list[str] = []
        tested = {}
        for bag, case in zip(bags, cases, strict=True):
            if case in fold.train:
                rows.append(describe(bag))
                names.append(case)
            elif case in fold.test:
                tested[bag.slide] = describe(bag)
        trained = Reference(np.stack(rows), tuple(names))
        return cls(trained, {slide: trained.ratio(row) for slide, row in tested.items()})


@dataclass(frozen=True, eq=False)
class FoldReference:
    """Facts of a run's slides by each of its folds.

    A backbone draws the slides that it was trained on together, so that any other slide lies far from them.
    What a new slide is compared with is therefore how far each slide of the run lay from the others when it
    was tested, by a backbone that had not seen it.

    Attributes:
        facts: what does not depend on the backbone, and the rest by the first fold's.
        folds: in the order of the run's.
    """

    facts: SlideReference
    folds: tuple[FoldSlides, ...]

    @property
    def largest(self) -> float:
        """How far the oddest slide of the run lay when it was tested; NaN where that is not known."""
        by_slide: dict[str, list[float]] = {}
        for fold in self.folds:
            for slide, ratio in fold.tested.items():
                by_slide.setdefault(slide, []).append(ratio)
        return max((float(np.median(ratios)) for ratios in by_slide.values()), default=float("nan"))

    def ratio(self, bags: Sequence[Bag | None]) -> float:
        """How far a slide lies from those of the run, in multiples of ``largest``.

        Args:
            bags: of the slide, by each fold's backbone; None for a fold that is not asked.
        """
        ratios = [
            fold.trained.ratio(describe(bag))
            for fold, bag in zip(self.folds, bags, strict=True)
            if bag is not None
        ]
        return float(np.median(ratios)) / self.largest

    def compare(self, bags: Sequence[Bag]) -> Likeness:
        """How a slide compares with those of the run.

        Args:
            bags: of the slide, by each fold's backbone.
        """
        return self.facts.compare(bags[0], ratio=self.ratio(bags))
