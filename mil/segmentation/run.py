"""A run folder of a segmenter: annotated slides in, a segmenter that knows its cases and its figures out.

<out>/segmenter.safetensors  the segmenter, whole in itself, with its card
<out>/scores.csv             one row per case and method, on cases the segmenter had not seen
<out>/evaluation.json        the figures over cases
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from features.backbones.registry import Backbone
from features.extraction.identity import slide_fingerprints
from features.extraction.jobs import JobSettings
from features.files.atomic import write_atomic
from features.lowpower.segmenter import (
    Segmenter,
    load_segmenter,
    read_segmenter_card,
    save_segmenter,
)
from features.progress import Notify, Progress, Silent
from features.stored import all_of_stored
from mil.data.case import Row
from mil.data.names import cases_among
from mil.data.reading import AS_WRITTEN, TableReading
from mil.data.table import read_table, reserved_rows, rows_to_judge, training_rows
from mil.errors import CohortError, LeakageError
from mil.runs.record import NewRun, finish_run
from mil.segmentation.cross_validation import OutOfFold, cross_validate, has_tumour, masks_of
from mil.segmentation.evaluation import SegmentEvaluation, write_scores
from mil.segmentation.folds import case_folds
from mil.segmentation.learner import Learner, read_for, with_reference
from mil.segmentation.settings import SegmentSettings
from mil.segmentation.slides import (
    DrawnSlide,
    ReadSlide,
    annotations_sha256,
    check_negatives,
    drawn_slides,
    note_drawings,
)

SEGMENTER, SCORES, EVALUATION, MAPS = (
    "segmenter.safetensors",
    "scores.csv",
    "evaluation.json",
    "maps",
)


@dataclass(frozen=True, kw_only=True)
class SegmentInput:
    """Where annotated slides are.

    Attributes:
        table: CSV with case and slide, and a column ``annotated`` that says full or partial.
        slides: folder with the slides.
        jobs: with the folder of annotations, and the scale of slides that state none.
        reading: what the names and words of the table mean.
    """

    table: Path
    slides: Path
    jobs: JobSettings
    reading: TableReading = AS_WRITTEN

    def read(self, notify: Notify, *, to_judge: bool = False) -> list[DrawnSlide]:
        """The slides to learn from; or those to judge on: kept for testing, or all if none are.

        Raises:
            CohortError, InputError, SlideError, AnnotationError: the table or a slide cannot be used.
        """
        if to_judge:
            rows = rows_to_judge(read_table(self.table, self.reading, notify))
        else:
            rows = training_rows(self.table, notify, self.reading)
        return drawn_slides(rows, self.slides, self.jobs, notify)

    def reserved(self) -> tuple[Row, ...]:
        """The rows that are kept for external validation."""
        return reserved_rows(self.table, self.reading)


@dataclass(frozen=True)
class TrainedSegmenter:
    """What training has written.

    Attributes:
        path: of the segmenter.
        segmenter: fitted to all cases.
        evaluation: on cases that segmenters of its kind had not seen; None without folds.
    """

    path: Path
    segmenter: Segmenter
    evaluation: SegmentEvaluation | None


def train_segmenter(
    new_run: NewRun,
    source: SegmentInput,
    settings: SegmentSettings,
    *,
    n_folds: int = 5,
    progress: Progress | None = None,
    notify: Notify = lambda _message: None,
) -> TrainedSegmenter:
    """Cross-validate a segmenter by case, then fit it to all cases.

    Args:
        new_run: the folder to write.
        source: the annotated slides.
        settings: how to train.
        n_folds: of cases; 0 leaves out the cross-validation.
        progress: is advanced by each slide and step.
        notify: called with what a reader should know before training.

    Raises:
        CohortError: nothing says what is no tumour, or too few cases have some.
        LeakageError: the backbone has seen a case that would be tested, or one kept for validation.
        RunError: the folder holds another run, or another process writes it.
        SlideError, AnnotationError, FitError: a slide or a fit fails.
    """
    drawn = source.read(notify)
    run = new_run.start("segment", {"cases": _cases(drawn), "drawn": annotations_sha256(drawn)})
    learner = Learner(settings, new_run.path / MAPS)
    if learner.backbone.weights.startswith("random"):
        notify(
            f"The weights of {learner.backbone.name} are random: it has never seen a picture, and finds less "
            "than with learnt ones."
        )
    slides = learner.read(drawn, progress)
    for note in note_drawings(slides, settings.exclude):
        notify(note)
    check_backbone(learner.backbone, slides if n_folds else (), source.reserved())
    check_negatives(slides)
    evaluation = None
    if n_folds:
        folds = case_folds(
            has_tumour(slides),
            n_folds,
            settings.seed,
            otherwise="Set folds to none to train it without.",
        )
        unseen = cross_validate(learner, slides, folds, progress)
        evaluation = SegmentEvaluation(unseen.scores(), settings.kind)
        write_scores(new_run.path / SCORES, evaluation.scores)
        figures = {"folds": len(folds), **evaluation.to_json()}
        write_atomic(new_run.path / EVALUATION, json.dumps(figures, indent=1) + "\n")
    with (progress or Silent()).task("all cases", settings.steps, "steps") as advance:
        segmenter = with_reference(learner.fit(slides, advance), slides)
    if evaluation:
        card = replace(segmenter.card, evaluation=evaluation.to_json())
        segmenter = replace(segmenter, card=card)
    path = new_run.path / SEGMENTER
    save_segmenter(path, segmenter)
    shutil.rmtree(new_run.path / MAPS, ignore_errors=True)
    finish_run(run, trained_on=list(segmenter.card.trained_on))
    return TrainedSegmenter(path, segmenter, evaluation)


def evaluate_segmenter(
    file: Path,
    source: SegmentInput,
    folder: Path,
    *,
    progress: Progress | None = None,
    notify: Notify = lambda _message: None,
) -> SegmentEvaluation:
    """Judge a segmenter on annotated cases that it has not seen.

    Args:
        file: of the segmenter.
        source: the annotated slides.
        folder: for what is computed on the way; removed at the end.
        progress: is advanced by each slide.
        notify: called with what a reader should know.

    Raises:
        LeakageError: it has seen one of the cases or slides.
        FeaturesError: the file is no segmenter.
        CohortError, SlideError, AnnotationError: the table or a slide cannot be used.
    """
    drawn = source.read(notify, to_judge=True)
    refuse_seen(file, drawn)
    segmenter = load_segmenter(file)
    settings = all_of_stored(SegmentSettings, segmenter.card.settings, CohortError)
    slides = read_for(segmenter, drawn, folder, settings, progress)
    for note in note_drawings(slides, settings.exclude):
        notify(note)
    masks: dict[str, dict[str, Any]] = {}
    for slide in slides:
        for method, mask in masks_of(segmenter, slide).items():
            masks.setdefault(method, {})[slide.name] = mask
    shutil.rmtree(folder, ignore_errors=True)
    return SegmentEvaluation(OutOfFold(slides, masks).scores(), segmenter.card.kind)


def check_backbone(
    backbone: Backbone, tested: Sequence[ReadSlide], reserved: Sequence[Row]
) -> None:
    """Refuse weights that were fitted on a case that is to be tested, now or later.

    Args:
        backbone: that a segmenter starts from.
        tested: slides of the cases that the cross-validation tests.
        reserved: rows of the table that are kept for external validation.

    Raises:
        LeakageError: naming the cases.
    """
    slides = [(slide.case, slide.name) for slide in tested]
    slides += [(row.case, row.slide) for row in reserved]
    seen = set(cases_among(slides, backbone.trained_on))
    sources = set(backbone.trained_on_slides)
    seen |= {slide.case for slide in tested if slide.sources & sources}
    if seen:
        raise LeakageError(
            f"The backbone was trained on {len(seen)} of the cases that are tested or kept for external "
            f"validation, e.g. {', '.join(sorted(seen)[:3])}. Use weights of other cases."
        )


def refuse_seen(file: Path, drawn: Sequence[DrawnSlide]) -> None:
    """Refuse to judge a segmenter on what it has learnt from.

    Raises:
        LeakageError: naming the cases.
    """
    card, _ = read_segmenter_card(file)
    seen = set(cases_among(((slide.case, slide.job.slide) for slide in drawn), card.trained_on))
    sources = set(card.trained_on_slides)
    seen |= {slide.case for slide in drawn if slide_fingerprints(slide.job) & sources}
    if seen:
        names = sorted(seen)
        raise LeakageError(
            f"{file} was trained on {len(names)} of these cases, e.g. {', '.join(names[:3])}. Judge it on "
            "cases it has not seen, or by the cross-validation of its training."
        )


def _cases(drawn: Sequence[DrawnSlide]) -> dict[str, str]:
    return {slide.job.slide: slide.case for slide in drawn}
