"""Before learning: check a cohort, list volumes, fine-tune a backbone."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from mil.api.options import (
    SlideReading,
    StrPath,
    as_path,
    job_settings,
    notify_of,
    table_reading,
    task_or_default,
)

if TYPE_CHECKING:
    from features.recipe import Recipe
    from features.volumes.listing import ListedSeries
    from mil.audit.cohort_check import CohortCheck
    from mil.data.cohort import Cohort
    from mil.finetune.config import FinetuneConfig
    from mil.finetune.cross_validation import TunedCases
    from mil.finetune.run import TunedBackbone
    from mil.finetune.settings import FinetuneSettings
    from mil.segmentation.cases import SegmentedCases
    from mil.segmentation.settings import SegmentSettings
    from mil.tasks.task import Task


def check_cohort(
    cohort: "StrPath | Sequence[StrPath]",
    *,
    out: StrPath,
    recipe: "Recipe | Sequence[Recipe]",
    slides: StrPath | None = None,
    folds: int | str = 5,
    task: "Task | None" = None,
    tiles_per_second: float = 13.0,
    **options: Unpack[SlideReading],
) -> "CohortCheck":
    """Open every slide and annotation and say what an extraction would do, before any model is loaded.

    Args:
        cohort: the table with case and slide, or slide files and folders.
        out: folder for check.csv, index.html and a picture of each slide.
        recipe: by which the slides would be tiled; several that differ in mpp are checked at once.
        slides: folder with the table's slides.
        folds: the intended folds of the cross-validation: a number, ``"loo"`` or ``"site"``.
        task: what will be predicted; a diagnosis if not given.
        tiles_per_second: the rate of extraction on this machine, to estimate its time.
        **options: see ``mil.api.options.SlideReading``.

    Returns:
        One check per slide; ``summary.problems`` is empty where none would fail.

    Raises:
        InputError: the arguments exclude each other, or name files that do not exist.
        SlideError: the folder has none of the table's slides.
        CohortError: the table cannot be read.

    Example:
        recipe = mil.Recipe(backbone="resnet18", weights="random", mpp=0.5, tile=64)
        checked = mil.check_cohort("cohort.csv", slides="slides", out="checked", recipe=recipe, folds=2)
        print(checked.summary.facts, checked.summary.problems)
    """
    from features.recipe import Recipe
    from mil.audit.cohort_check import check_cohort as check
    from mil.report.check import write_check

    inputs = [
        Path(path) for path in ([cohort] if isinstance(cohort, str | os.PathLike) else cohort)
    ]
    result = check(
        inputs,
        [recipe] if isinstance(recipe, Recipe) else list(recipe),
        Path(out),
        slides=as_path(slides),
        settings=job_settings(options),
        folds=str(folds),
        tiles_per_second=tiles_per_second,
        reading=table_reading(options),
        task=task_or_default(task),
        progress=options.get("progress"),
    )
    write_check(f"Check of {inputs[0].name}", result, Path(out))
    return result


def list_series(folder: StrPath, *, out: StrPath | None = None) -> "tuple[ListedSeries, ...]":
    """The series of CT and MRI of patients: modality, file, region, and what is wrong with each.

    Args:
        folder: one folder per patient, of DICOM, NIfTI, NRRD or MetaImage files; or that of one patient.
        out: the table to write, for ``mil.extract_volumes``; nothing is written if not given.

    Raises:
        VolumeError: there is no series in the folder, or a package is missing.

    Example:
        for series in mil.list_series("patients", out="series.csv"):
            print(series.case, series.modality, series.path, series.problems)
    """
    from features.volumes.listing import list_series as list_them
    from features.volumes.listing import write_list

    rows = list_them(Path(folder))
    if out is not None:
        write_list(Path(out), rows)
    return rows


def finetune_backbone(  # noqa: PLR0913 - what, and how it is run
    cohort: StrPath,
    *,
    slides: StrPath | None,
    out: StrPath,
    recipe: "Recipe",
    settings: "FinetuneSettings | None" = None,
    task: "Task | None" = None,
    device: str = "auto",
    workers: int = 0,
    overwrite: bool = False,
    **options: Unpack[SlideReading],
) -> "TunedBackbone | None":
    """Train a backbone on tiles labelled with their case's outcome; its weights know their cases.

    Args:
        cohort: table with case, slide and the outcome; rows whose column split says test are not used.
        slides: folder with the table's slides.
        out: the run folder to write: weights.safetensors and its card.
        recipe: the backbone, its first weights, and which tiles.
        settings: how to train.
        task: which outcome is learnt; a diagnosis if not given.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        workers: threads that read tiles; 0 takes one per core.
        overwrite: replace a finished run.
        **options: see ``mil.api.options.SlideReading``.

    Returns:
        The weights and their card; None in processes other than the first, where several share the work.

    Raises:
        LeakageError: the first weights know a case that is kept for external validation.
        FitError, CohortError: the slides cannot be learnt from.
        RunError: the folder holds another run.

    Example:
        recipe = mil.Recipe(backbone="test_resnet", weights="random", mpp=0.5, tile=64)
        tuned = mil.finetune_backbone(
            "cohort.csv", slides="slides", out="tuned", recipe=recipe,
            settings=mil.FinetuneSettings(epochs=1, tiles_per_slide=2),
        )
        print(tuned.weights, tuned.losses, tuned.trained_on)
    """
    from mil.finetune.run import TunedBackbone, finetune_run
    from mil.runs.record import NewRun

    config = _finetuning(slides, recipe, settings, options, device=device, workers=workers)
    chosen = task_or_default(task)
    stored = {
        **config.to_settings(),
        **chosen.to_settings(),
        "task": chosen.name,
        "inputs": [str(Path(cohort).absolute())],
        "out": str(Path(out).absolute()),
    }
    card = finetune_run(
        NewRun(path=Path(out), settings=stored, overwrite=overwrite),
        Path(cohort),
        config,
        task=chosen,
        progress=options.get("progress"),
        notify=notify_of(options),
    )
    return None if card is None else TunedBackbone(Path(out) / "weights.safetensors", card)


def finetune_per_fold(
    cohort: StrPath,
    *,
    slides: StrPath,
    recipe: "Recipe",
    settings: "FinetuneSettings | None" = None,
    task: "Task | None" = None,
    device: str = "auto",
    workers: int = 0,
    **options: Unpack[SlideReading],
) -> "TunedCases":
    """Cases for ``mil.cross_validate`` whose bags each fold makes with a backbone that it fine-tunes.

    Args:
        cohort: table as of ``finetune_backbone``; every row is needed.
        slides: folder with the table's slides.
        recipe: the backbone, its first weights, and which tiles.
        settings: how to train.
        task: which outcome is learnt; a diagnosis if not given.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        workers: threads that read tiles; 0 takes one per core.
        **options: see ``mil.api.options.SlideReading``.

    Raises:
        CohortError: the table cannot be read, or a row has no outcome.
        LeakageError: the first weights know a case that is kept for external validation.

    Example:
        recipe = mil.Recipe(backbone="test_resnet", weights="random", mpp=0.5, tile=64)
        cases = mil.finetune_per_fold(
            "cohort.csv", slides="slides", recipe=recipe,
            settings=mil.FinetuneSettings(epochs=1, tiles_per_slide=2),
        )
        run = mil.cross_validate(
            cases, ["tile-vote"], folds=2, out="tuned-run", settings=mil.FitSettings(epochs=1, seeds=1)
        )
    """
    from mil.finetune.cross_validation import TunedCases

    config = _finetuning(slides, recipe, settings, options, device=device, workers=workers)
    return TunedCases.read(Path(cohort), config, task_or_default(task), notify_of(options))


def segment_per_fold(
    cohort: "Cohort",
    table: StrPath,
    *,
    slides: StrPath,
    annotations: StrPath,
    settings: "SegmentSettings | None" = None,
    train_masks: Literal["annotation", "unseen"] = "annotation",
    slide_mpp: float | None = None,
    slide_mpp_force: float | None = None,
) -> "SegmentedCases":
    """Cases for ``mil.cross_validate`` whose tiles each fold selects by a segmenter that it trains.

    Args:
        cohort: with bags of all tissue, from ``mil.load_cohort``.
        table: of annotated slides, as of ``mil.train_segmenter``.
        slides: folder with the slides of both tables.
        annotations: folder with the annotations.
        settings: how to train.
        train_masks: what training slides are cut by: their annotation, or segmenters that have not seen them.
        slide_mpp: micrometres per level-0 pixel of slides whose files do not say.
        slide_mpp_force: micrometres per level-0 pixel of all slides, whatever their files say.

    Raises:
        FitError: a setting is out of range.

    Example:
        recipe = mil.Recipe(backbone="test_resnet", weights="random", mpp=5, tile=32)
        mil.extract("outlined.csv", slides="outlined", out="tissue", recipe=recipe)
        cases = mil.segment_per_fold(
            mil.load_cohort("outlined.csv", "tissue"), "outlined.csv", slides="outlined",
            annotations="outlined", settings=mil.SegmentSettings(weights="random", cells=100),
        )
        run = mil.cross_validate(cases, ["majority", "pooled-logistic"], folds=2, out="segmented-run")
    """
    from features.extraction.jobs import JobSettings
    from mil.segmentation.cases import SegmentConfig, SegmentedCases
    from mil.segmentation.run import SegmentInput
    from mil.segmentation.settings import SegmentSettings

    jobs = JobSettings(
        annotations=Path(annotations), slide_mpp=slide_mpp, slide_mpp_force=slide_mpp_force
    )
    source = SegmentInput(table=Path(table), slides=Path(slides), jobs=jobs, reading=cohort.reading)
    config = SegmentConfig(
        source=source, settings=settings or SegmentSettings(), train_masks=train_masks
    )
    return SegmentedCases(cohort=cohort, config=config)


def _finetuning(
    slides: StrPath | None,
    recipe: "Recipe",
    settings: "FinetuneSettings | None",
    options: SlideReading,
    **computing: Any,
) -> "FinetuneConfig":
    """How slides become a fine-tuned backbone."""
    from mil.finetune.config import FinetuneConfig
    from mil.finetune.settings import FinetuneSettings

    jobs = job_settings(options)
    return FinetuneConfig(
        slides=as_path(slides),
        recipe=recipe,
        settings=settings or FinetuneSettings(),
        annotations=jobs.annotations,
        slide_mpp=jobs.slide_mpp,
        slide_mpp_force=jobs.slide_mpp_force,
        coordinates=jobs.coordinates,
        reading=table_reading(options),
        **computing,
    )
