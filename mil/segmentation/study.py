"""Segmenters from Python: train one on annotated slides, judge it on others, apply it to any."""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias, Unpack

from features.extraction.jobs import JobSettings, jobs_of_paths
from features.lowpower.segmenter import load_segmenter
from features.progress import Progress
from mil.data.reading import TableReading, TableWords
from mil.runs.record import NewRun
from mil.segmentation import application, run
from mil.segmentation.application import AppliedSlide
from mil.segmentation.evaluation import SegmentEvaluation, write_scores
from mil.segmentation.run import SCORES, SegmentInput, TrainedSegmenter
from mil.segmentation.settings import SegmentSettings

StrPath: TypeAlias = str | os.PathLike[str]


class DrawnOptions(TableWords, total=False):
    """What may be said of annotated slides and their table.

    Attributes:
        slide_mpp: micrometres per level-0 pixel of slides whose files do not say.
        slide_mpp_force: micrometres per level-0 pixel of all slides, whatever their files say.
        case_from: a regular expression that finds the patient in the names of the column case.
        label_is: labels that read like a word for a missing value and are meant.
        known_at_diagnosis: columns that are known when a case is diagnosed, whatever they are called.
        progress: shows slides and steps.
        notify: called with what a reader should know.
    """

    slide_mpp: float | None
    slide_mpp_force: float | None
    progress: Progress | None
    notify: Callable[[str], None]


def train_segmenter(
    cohort: StrPath,
    *,
    slides: StrPath,
    annotations: StrPath,
    out: StrPath,
    settings: SegmentSettings | None = None,
    folds: int = 5,
    overwrite: bool = False,
    **options: Unpack[DrawnOptions],
) -> TrainedSegmenter:
    """Cross-validate a segmenter of tumour by case, then fit it to all cases.

    Args:
        cohort: table with case and slide, and a column annotated: full where all tumour of the slide is
            drawn, partial, or empty, where some may not be.
        slides: folder with the table's slides.
        annotations: folder with their annotations.
        out: the run folder to write: segmenter.safetensors and its scores.
        settings: how to train.
        folds: of whole cases; 0 trains without judging.
        overwrite: replace a finished run.
        **options: see ``mil.segmentation.study.DrawnOptions``.

    Raises:
        CohortError: nothing says what is no tumour, or too few cases have some.
        LeakageError: the backbone has seen a case that would be tested, or one kept for validation.
        RunError: the folder holds another run, or another process writes it.
        SlideError, AnnotationError, FitError: a slide or a fit fails.

    Example:
        settings = mil.SegmentSettings(weights="random", cells=100)
        trained = mil.train_segmenter(
            "outlined.csv", slides="outlined", annotations="outlined", out="segmenter", folds=2,
            settings=settings,
        )
        dice = trained.evaluation.estimate("map", "dice")
        print(trained.path, dice.value, dice.low, dice.high, trained.evaluation.beats_colour)
    """
    settings = settings or SegmentSettings()
    source = _source(cohort, slides, annotations, options)
    stored = _stored(source, settings, folds) | {"out": str(Path(out).absolute())}
    return run.train_segmenter(
        NewRun(path=Path(out), settings=stored, overwrite=overwrite),
        source,
        settings,
        n_folds=folds,
        progress=options.get("progress"),
        notify=options.get("notify") or (lambda _note: None),
    )


def evaluate_segmenter(
    segmenter: StrPath,
    cohort: StrPath,
    *,
    slides: StrPath,
    annotations: StrPath,
    out: StrPath | None = None,
    **options: Unpack[DrawnOptions],
) -> SegmentEvaluation:
    """Judge a segmenter on annotated cases that it has not seen.

    These are the rows whose column split says test; without such a row, all.

    Args:
        segmenter: its file.
        cohort: table as of ``train_segmenter``.
        slides: folder with the table's slides.
        annotations: folder with their annotations.
        out: folder for scores.csv; nothing is written if not given.
        **options: see ``mil.segmentation.study.DrawnOptions``.

    Returns:
        The scores of every case, next to those of colour alone and of all tissue.

    Raises:
        LeakageError: it has seen one of the cases or slides.
        FeaturesError: the file is no segmenter.
        CohortError, SlideError, AnnotationError: the table or a slide cannot be used.

    Example:
        judged = mil.evaluate_segmenter(
            "segmenter/segmenter.safetensors", "outlined.csv", slides="outlined", annotations="outlined"
        )
        print([(scores.case, scores.dice) for scores in judged.judged("map")])
    """
    with (
        tempfile.TemporaryDirectory() as folder
    ):  # maps are large: beside the scores, if there are any
        evaluation = run.evaluate_segmenter(
            Path(segmenter),
            _source(cohort, slides, annotations, options),
            Path(folder if out is None else out) / "maps",
            progress=options.get("progress"),
            notify=options.get("notify") or (lambda _note: None),
        )
    if out is not None:
        write_scores(Path(out) / SCORES, evaluation.scores)
    return evaluation


def apply_segmenter(
    segmenter: StrPath,
    slides: StrPath | Sequence[StrPath],
    *,
    out: StrPath,
    slide_mpp: float | None = None,
    slide_mpp_force: float | None = None,
    progress: Progress | None = None,
) -> tuple[AppliedSlide, ...]:
    """Write where a segmenter finds tumour; a slide that fails does not stop the others.

    Each slide becomes ``<slide>.geojson`` for QuPath, ``<slide>-overlay.png`` and
    ``<slide>-probability.png``; ``segments.csv`` has a row for each. Corrected in QuPath, the outlines are
    annotations like any others.

    Args:
        segmenter: its file.
        slides: slide files, or folders of slides.
        out: the folder to write.
        slide_mpp: micrometres per level-0 pixel of slides whose files do not say.
        slide_mpp_force: micrometres per level-0 pixel of all slides, whatever their files say.
        progress: shows slides.

    Raises:
        InputError: there are no slides.
        FeaturesError: the file is no segmenter.

    Example:
        for slide in mil.apply_segmenter(
            "segmenter/segmenter.safetensors", ["outlined/case-1.tiff", "outlined/case-2.tiff"], out="found"
        ):
            print(slide.slide, slide.status, slide.tumour_mm2, slide.trained_on_it)
    """
    paths = [slides] if isinstance(slides, str | os.PathLike) else slides
    scale = JobSettings(slide_mpp=slide_mpp, slide_mpp_force=slide_mpp_force)
    jobs = jobs_of_paths([Path(path) for path in paths], scale)
    loaded = load_segmenter(Path(segmenter))
    return tuple(application.apply_segmenter(loaded, jobs, Path(out), progress))


def _source(
    cohort: StrPath, slides: StrPath, annotations: StrPath, options: DrawnOptions
) -> SegmentInput:
    """Where the annotated slides are."""
    return SegmentInput(
        table=Path(cohort),
        slides=Path(slides),
        jobs=JobSettings(
            annotations=Path(annotations),
            slide_mpp=options.get("slide_mpp"),
            slide_mpp_force=options.get("slide_mpp_force"),
        ),
        reading=TableReading.of_words(options),
    )


def _stored(source: SegmentInput, settings: SegmentSettings, folds: int) -> dict[str, Any]:
    """The settings of a run folder, by which the command line and each fold repeat the training."""
    assert source.jobs.annotations
    values = asdict(source.reading) | asdict(settings)
    return {
        "cohort": str(source.table.absolute()),
        "slides": str(source.slides.absolute()),
        "annotations": str(source.jobs.annotations.absolute()),
        "slide_mpp": source.jobs.slide_mpp,
        "slide_mpp_force": source.jobs.slide_mpp_force,
        "folds": str(folds) if folds else "none",
        **{name: list(v) if isinstance(v, tuple) else v for name, v in values.items()},
    }
