"""Arguments that several functions take, and how they are passed on."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypedDict

from features.progress import Progress
from mil.data.reading import TableReading, TableWords

if TYPE_CHECKING:
    from features.extraction.jobs import JobSettings
    from mil.heads.head import Head
    from mil.settings import FitSettings
    from mil.tasks.task import Task

StrPath: TypeAlias = str | os.PathLike[str]
ModelLike: TypeAlias = "str | type[Head]"


class ReadingOptions(TableWords, total=False):
    """How a table is read, and what is shown meanwhile.

    Attributes:
        case_from: a regular expression that finds the patient in the names of the column case.
        label_is: labels that read like a word for a missing value and are meant.
        known_at_diagnosis: columns that are known when a case is diagnosed, whatever they are called.
        progress: shows how the work advances.
        notify: called with what a reader should know before any number, as ``print``.
    """

    progress: Progress | None
    notify: Callable[[str], None] | None


class SlideReading(ReadingOptions, total=False):
    """How a table and its slides are read, and what is shown meanwhile.

    Attributes:
        annotations: folder with the slides' annotations; all tissue is used if not given.
        slide_mpp: micrometres per level-0 pixel, where files give none; needed for tile images.
        slide_mpp_force: micrometres per level-0 pixel, whatever files say; a table's mpp column takes
            precedence.
        coordinates: folder of bags whose tiles are read again, instead of laying a grid.
        case_from: a regular expression that finds the patient in the names of the column case.
        label_is: labels that read like a word for a missing value and are meant.
        known_at_diagnosis: columns that are known when a case is diagnosed, whatever they are called.
        progress: shows how the work advances.
        notify: called with what a reader should know before any number, as ``print``.
    """

    annotations: StrPath | None
    slide_mpp: float | None
    slide_mpp_force: float | None
    coordinates: StrPath | None


class SlideFiles(TypedDict, total=False):
    """What it takes to read a slide as the bags of a run were made.

    Attributes:
        slides: folder with the bag's slide.
        annotations: folder with the slide's annotation, where a slide is given instead of a bag.
        classes: annotation classes to read as those the model learnt from, where the slide or the bag names
            the same tissue otherwise.
        weights: the backbone's weights file, if the bags were made with one.
        slide_mpp: micrometres per level-0 pixel, where the slide does not say.
    """

    slides: StrPath | None
    annotations: StrPath | None
    classes: Sequence[str]
    weights: str | None
    slide_mpp: float | None


def as_path(place: StrPath | None) -> Path | None:
    """A place as a path; None stays None."""
    return None if place is None else Path(place)


def table_reading(options: ReadingOptions) -> TableReading:
    """How a table is read."""
    return TableReading.of_words(options)


def job_settings(options: SlideReading) -> "JobSettings":
    """How slides are read."""
    from features.extraction.jobs import JobSettings

    return JobSettings(
        annotations=as_path(options.get("annotations")),
        slide_mpp=options.get("slide_mpp"),
        slide_mpp_force=options.get("slide_mpp_force"),
        coordinates=as_path(options.get("coordinates")),
    )


def notify_of(options: ReadingOptions) -> Callable[[str], None]:
    """Where notices go; nowhere if not given."""
    return options.get("notify") or silence


def silence(_notice: str) -> None:
    """The default of ``notify``."""


def task_or_default(task: "Task | None") -> "Task":
    """The task, or a diagnosis."""
    from mil.tasks.registry import task_class

    return task if task is not None else task_class()()


def model_names_of(models: "ModelLike | Sequence[ModelLike]") -> tuple[str, ...]:
    """The names of models, some of which may be heads of one's own."""
    from mil.heads.registry import model_name

    several = [models] if isinstance(models, str | type) else models
    return tuple(model_name(model) for model in several)


def settings_for(task: "Task", settings: "FitSettings | None") -> "FitSettings":
    """The settings of training for a task."""
    from mil.settings import FitSettings

    return replace(settings or FitSettings(), task=task.name)
