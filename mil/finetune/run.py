"""A run folder of fine-tuning: labelled slides in, weights that know their cases out."""

from collections.abc import Mapping, Sequence
from typing import Any

from features.extraction.jobs import SlideJob
from features.progress import Progress, Silent
from features.recipe import Recipe
from mil.data.case import Row
from mil.data.table import split_train_test
from mil.errors import CohortError
from mil.finetune.distributed import Ranks
from mil.finetune.settings import FinetuneSettings
from mil.finetune.tiles import LabelledSlide
from mil.finetune.training import finetune
from mil.runs.record import NewRun, finish_run


def finetune_run(
    new_run: NewRun,
    slides: Sequence[LabelledSlide],
    recipe: Recipe,
    settings: FinetuneSettings,
    *,
    ranks: Ranks,
    workers: int = 0,
    progress: Progress | None = None,
) -> Mapping[str, Any]:
    """Train a backbone and write its run folder; every process computes, the first one writes.

    Args:
        new_run: the folder to write.
        slides: all of which may be trained on.
        recipe: the backbone, its first weights, and which tiles; also the seed.
        settings: how to train.
        ranks: this process among those that train together.
        workers: threads that read tiles; 0 takes one per core.
        progress: told of slides and steps, in the first process.

    Returns:
        The card of the weights in the folder.

    Raises:
        RunError: the folder holds another run, or another process writes it.
        FitError, CohortError: as ``mil.finetune.training.finetune``.
    """
    if ranks.first:
        run = new_run.start("finetune", slide_facts(slides))
    ranks.wait()
    card = finetune(
        slides,
        recipe,
        settings,
        new_run.path,
        ranks=ranks,
        workers=workers,
        progress=progress if ranks.first else Silent(),
    )
    if ranks.first:
        finish_run(run, trained_on=card["trained_on"])
    return card


def label_slides(jobs: Sequence[SlideJob], rows: Sequence[Row]) -> list[LabelledSlide]:
    """The slides to train on with the labels of a table; rows kept for testing are left out.

    Args:
        jobs: the slides of the table.
        rows: all rows of the table.

    Raises:
        CohortError: a slide has no case, or a row has no label.
    """
    if not all(job.case for job in jobs):
        raise CohortError("Fine-tuning needs labels: give a table with case, slide and label.")
    label_of = {row.slide: row.label for row in split_train_test(rows)[0]}
    unlabelled = sorted(slide for slide, label in label_of.items() if not label)
    if unlabelled:
        raise CohortError(
            f"{len(unlabelled)} of {len(label_of)} slides have no label, e.g. {unlabelled[0]}. Fill the "
            "label column, or take them out of the table."
        )
    return [LabelledSlide(job, label_of[job.slide]) for job in jobs if job.slide in label_of]


def slide_facts(slides: Sequence[LabelledSlide]) -> dict[str, Any]:
    """What run.json says of labelled slides."""
    return {
        "classes": sorted({slide.label for slide in slides}),
        "labels": {slide.job.case: slide.label for slide in slides},
        "cases": {slide.job.slide: slide.job.case for slide in slides},
        "excluded": [],
    }
