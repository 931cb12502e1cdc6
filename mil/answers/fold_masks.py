"""Bags of new slides for a run whose folds select tiles by segmenters of their own.

Each fit reads the tiles that the segmenter of its fold selects, as it has done for the cases it was tested
on, so that what those cases say of the worth of an answer holds for a new slide. Tissue is embedded once.
"""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from features.bags.bag import Bag
from features.errors import FeaturesError, NoTiles, SarcomilError
from features.extraction.jobs import SlideJob
from features.lowpower.segmenter import Segmenter, load_segmenter
from features.lowpower.tumour_map import TumourMap
from features.progress import Progress, Silent
from features.slides.slide import Slide
from mil.answers.answer import NewSlide, relation_of
from mil.answers.predictor import FitKey, Predictor
from mil.segmentation.application import AppliedSlide, apply_segmenter
from mil.segmentation.learner import read_for
from mil.segmentation.per_fold import selected, tumour_map
from mil.segmentation.settings import SegmentSettings
from mil.segmentation.slides import DrawnSlide

CELLS = "cells"


@dataclass(frozen=True, kw_only=True)
class FoldMasks:
    """What the segmenters of all folds make of slides.

    Attributes:
        bags: by slide, the bag that each fit reads.
        applied: what the segmenters of the fits that answer for a slide make of it together: the mean of
            their probabilities.
        unusable: by slide, why no segmenter has selected a tile.
    """

    bags: dict[str, Mapping[FitKey, Bag]] = field(default_factory=dict)
    applied: list[AppliedSlide] = field(default_factory=list)
    unusable: dict[str, SarcomilError] = field(default_factory=dict)


def select_by_folds(
    predictor: Predictor,
    jobs: Mapping[str, SlideJob],
    slides: Sequence[NewSlide],
    outlines: Path,
    progress: Progress | None = None,
) -> FoldMasks:
    """Select the tiles of slides anew for each fit, and outline what the segmenters call tumour on average.

    The outline of a case that some fits have seen is that of the segmenters of the others, as its answer is.

    Args:
        predictor: whose fits have each the file of a segmenter.
        jobs: the slides by name.
        slides: those that have tissue, with the bags of all of it.
        outlines: folder to write outlines into, as ``apply_segmenter``.
        progress: is advanced by each slide.

    Raises:
        FeaturesError: a file is no segmenter, or was changed.
    """
    fits = predictor.fits
    segmenters = {fit.key: load_segmenter(fit.segmenter) for fit in fits if fit.segmenter}
    recipe = {name: predictor.recipe[name] for name in ("region", "segmenter_sha256")}
    asked_of = _fits_asked(predictor, slides)
    masks = FoldMasks()
    outlines.mkdir(parents=True, exist_ok=True)
    with (progress or Silent()).task("slides at 4x", len(slides), "slides") as advance:
        for bag in (slide.bag for slide in slides):
            name = bag.slide
            try:
                maps = _maps_of(segmenters, jobs[name], bag, outlines.parent / CELLS)
                own = {
                    key: selected(bag, maps[key].region, recipe, segmenter.card)
                    for key, segmenter in segmenters.items()
                }
                keys = asked_of[name]
                mean = _mean([maps[key] for key in keys])  # drawn also where nothing is left of it
                together = _together([segmenters[key] for key in keys])
                masks.applied.extend(
                    apply_segmenter(together, [jobs[name]], outlines, find=partial(_given, mean))
                )
                if not any(is_tumour for _, is_tumour in own.values()):
                    raise NoTiles(f"{name}: no tile lies in what a segmenter marks as tumour.")
                masks.bags[name] = {key: one for key, (one, _) in own.items()}
            except FeaturesError as error:
                masks.unusable[name] = error
            advance(1)
    shutil.rmtree(outlines.parent / CELLS, ignore_errors=True)
    return masks


def _fits_asked(predictor: Predictor, slides: Sequence[NewSlide]) -> dict[str, tuple[FitKey, ...]]:
    """By slide, the fits that answer for its case: those that have not seen it, where there are some."""
    of_case: dict[str, list[NewSlide]] = {}
    for slide in slides:
        of_case.setdefault(slide.case or slide.bag.slide, []).append(slide)
    fits = {case: relation_of(predictor, group).fits for case, group in of_case.items()}
    return {
        slide.bag.slide: tuple(fit.key for fit in fits[case])
        for case, group in of_case.items()
        for slide in group
    }


def _maps_of(
    segmenters: Mapping[FitKey, Segmenter], job: SlideJob, bag: Bag, folder: Path
) -> dict[FitKey, TumourMap]:
    """What each segmenter makes of a slide, whose cells are read once."""
    drawn = DrawnSlide(job=replace(job, annotations=None, segmenter=None), full=False)
    maps, read = {}, {}
    for key, segmenter in segmenters.items():
        cells = segmenter.maps.sha256 if segmenter.maps else ""
        if cells not in read:
            [read[cells]] = read_for(segmenter, [drawn], folder, SegmentSettings())
        maps[key] = tumour_map(segmenter, read[cells], bag)
    return maps


def _given(tumour: TumourMap, _slide: Slide) -> TumourMap:
    """The map of a slide that is known already."""
    return tumour


def _mean(maps: Sequence[TumourMap]) -> TumourMap:
    """The mean of the probabilities, as far from what was learnt as the median of the maps."""
    ratios = [one.ratio for one in maps if not math.isnan(one.ratio)]
    return replace(
        maps[0],
        probability=np.mean([one.probability for one in maps], axis=0, dtype=np.float32),
        ratio=float(np.median(ratios)) if ratios else math.nan,
    )


def _together(segmenters: Sequence[Segmenter]) -> Segmenter:
    """The first segmenter, which has learnt from what all of them have."""
    slides = {source for one in segmenters for source in one.card.trained_on_slides}
    first = segmenters[0]
    return replace(first, card=replace(first.card, trained_on_slides=tuple(sorted(slides))))
