"""Arms of a study that segment: a segmenter judged by itself, or one that selects the tiles of each fold."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.bags.store import Store
from features.extraction.jobs import SlideJob
from features.progress import Progress
from mil.data.case import Row
from mil.data.cohort import assemble
from mil.data.splits import Fold
from mil.errors import ProtocolError
from mil.protocols.arm import Arm
from mil.protocols.measures import ArmResult, Split
from mil.segmentation.cross_validation import OutOfFold, cross_validate, has_tumour, masks_of
from mil.segmentation.evaluation import SegmentEvaluation
from mil.segmentation.folds import case_folds
from mil.segmentation.learner import COLOUR, TISSUE, Learner
from mil.segmentation.per_fold import Segmenting, fold_cohort
from mil.segmentation.scores import Mask
from mil.segmentation.settings import SegmentSettings
from mil.segmentation.slides import COLUMN, PARTIAL, DrawnSlide, ReadSlide, check_negatives
from mil.settings import SplitSettings

FIELD_CELLS = 24  # 192 px at 4x: what a study cuts slides into and deals out as if each were a case
N_FIELD_FOLDS = 5  # four fifths to train on, as a split of 80 to 20


@dataclass(frozen=True, kw_only=True)
class SegmentationArm:
    """The segmentation of one arm.

    Attributes:
        arm: the arm.
        settings: of its segmenter.
        rows: of the table.
        jobs: the same slides, with annotations.
        folder: of the arm.
        maps: folder for what is computed of slides, common to all arms.
        progress: is advanced by each slide and step.
    """

    arm: Arm
    settings: SegmentSettings
    rows: Sequence[Row]
    jobs: Sequence[SlideJob]
    folder: Path
    maps: Path
    progress: Progress
    _selected: set[tuple[int, int]] = field(default_factory=set, repr=False)

    @cached_property
    def learner(self) -> Learner:
        """Of the segmenter."""
        return Learner(self.settings, self.maps)

    @cached_property
    def slides(self) -> list[ReadSlide]:
        """All slides, read. Tissue outside a drawing is taken for no tumour unless the table says partial.

        Raises:
            ProtocolError: no annotations are given.
            CohortError: nothing drawn is tumour.
        """
        if any(job.annotations is None for job in self.jobs):
            raise ProtocolError(
                "The study learns from drawn tumour. Set annotations to the folder with the drawings."
            )
        word = {row.slide: row.other.get(COLUMN, "").strip().casefold() for row in self.rows}
        drawn = [DrawnSlide(job=job, full=word[job.slide] != PARTIAL) for job in self.jobs]
        slides = self.learner.read(drawn, self.progress)
        check_negatives(slides)
        return slides

    def judge(self, split: SplitSettings) -> ArmResult:
        """Dice by case: on cases that were not trained on, or on other fields of all cases."""
        began, slides = time.perf_counter(), self.slides
        if self.arm.test == "fields":
            unseen = self._by_fields(split.seed)
        else:
            n_folds = int(split.folds) if split.folds.isdecimal() else len(slides)
            folds = case_folds(has_tumour(slides), n_folds, split.seed)
            unseen = cross_validate(self.learner, slides, folds, self.progress)
        evaluation = SegmentEvaluation(unseen.scores(), self.settings.kind)
        dice = evaluation.estimate(self.settings.kind, "dice")
        limits = dice.low is not None and dice.high is not None
        return ArmResult(
            arm=self.arm,
            measures={
                "dice": dice.value,
                "dice_colour": evaluation.estimate(COLOUR, "dice").value,
                "dice_tissue": evaluation.estimate(TISSUE, "dice").value,
            },
            intervals={"dice": (dice.low or 0.0, dice.high or 0.0)} if limits else {},
            predictions=None,
            n_tiles=sum(int(slide.target.known.sum()) for slide in slides),
            n_cases=len(evaluation.judged(self.settings.kind)),
            seconds=time.perf_counter() - began,
        )

    def _by_fields(self, seed: int) -> OutOfFold:
        """Masks of every field by a segmenter of other fields, of the same slides among others."""
        fold_of = {slide.name: deal_fields(slide, seed) for slide in self.slides}
        masks: dict[str, dict[str, Mask]] = {}
        for number in range(N_FIELD_FOLDS):
            train = [without_field(s, fold_of[s.name] == number) for s in self.slides]
            # Samples of a slide are remembered by its name, and these are other samples.
            segmenter = Learner(self.settings, self.maps).fit(train)
            for slide in self.slides:
                inside = fold_of[slide.name] == number
                for method, mask in masks_of(segmenter, slide).items():
                    whole = masks.setdefault(method, {}).setdefault(
                        slide.name, np.zeros(slide.grid.shape, dtype=np.bool_)
                    )
                    whole[inside] = mask[inside]
        return OutOfFold(self.slides, masks)

    def store(self, split: Split) -> Path:
        """The bags that a split's segmenter has selected."""
        return self.folder / f"r{split.repeat}-f{split.index}" / "segmented"

    def select(self, split: Split, tissue: Path, rows: Sequence[Row]) -> None:
        """Select the tiles of all slides by a segmenter of a split's training cases, once."""
        key = (split.repeat, split.index)
        if key in self._selected:
            return
        work = Segmenting(
            cohort=assemble(rows, Store(tissue).path, allow_missing=None, allow_duplicates=None),
            annotated=[slide.drawn for slide in self.slides],
            others=(),
            learner=self.learner,
            store=lambda _fold: self.store(split),
        )
        fold = Fold(repeat=split.repeat, index=split.index, train=split.train, test=split.test)
        fold_cohort(work, fold, self.slides, self.slides)
        self._selected.add(key)


def deal_fields(slide: ReadSlide, seed: int) -> NDArray[np.int64]:
    """(rows, columns) the fold of each cell: fields are dealt out at random, whatever slide they are of."""
    rng = np.random.default_rng([seed, *slide.name.encode()])
    rows, columns = (-(-side // FIELD_CELLS) for side in slide.grid.shape)
    dealt = rng.permutation(np.arange(rows * columns) % N_FIELD_FOLDS).reshape(rows, columns)
    whole = dealt.repeat(FIELD_CELLS, axis=0).repeat(FIELD_CELLS, axis=1)
    return np.asarray(whole[: slide.grid.shape[0], : slide.grid.shape[1]], dtype=np.int64)


def without_field(slide: ReadSlide, field: NDArray[np.bool_]) -> ReadSlide:
    """A slide of which some cells are unknown."""
    return replace(slide, target=replace(slide.target, known=slide.target.known & ~field))
