"""How a table's slides become a fine-tuned backbone: slides, recipe, training and device in one value."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from features.errors import InputError
from features.extraction.jobs import JobSettings, SlideJob
from features.recipe import Recipe
from features.stored import part_of_stored
from mil.data.case import Row
from mil.data.jobs import TABLE_SUFFIXES, read_jobs
from mil.data.reading import AS_WRITTEN, TableReading
from mil.data.table import split_train_test
from mil.errors import CohortError, FitError
from mil.finetune.settings import FinetuneSettings
from mil.finetune.tiles import LabelledSlide
from mil.tasks.registry import task_class
from mil.tasks.task import Task

NEEDS_TABLE = "Fine-tuning needs labels: give a table with case, slide and label."


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """All that fine-tuning needs beside the table.

    Attributes:
        slides: folder with the table's slides.
        recipe: the backbone, its first weights, and which tiles; also the seed.
        settings: how to train.
        annotations: folder with the annotations; without it, all tissue is used.
        slide_mpp: micrometres per level-0 pixel, where files give none; needed for tile images.
        slide_mpp_force: micrometres per level-0 pixel, whatever the files say; a table's mpp column
            takes precedence.
        coordinates: folder of bags whose tiles are read again, instead of laying a grid.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        workers: threads that read tiles; 0 takes one per core.
        reading: what the names and words of the table mean.
    """

    slides: Path | None
    recipe: Recipe
    settings: FinetuneSettings
    annotations: Path | None = None
    slide_mpp: float | None = None
    slide_mpp_force: float | None = None
    coordinates: Path | None = None
    device: str = "auto"
    workers: int = 0
    reading: TableReading = AS_WRITTEN

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """The configuration that run.json holds, as ``to_settings`` or the command line wrote it.

        Raises:
            FitError: several scales, or a setting that cannot be trained with.
            FeaturesError: a setting of tiles is out of range.
        """
        scales = settings.get("mpp", Recipe.mpp)
        scales = scales if isinstance(scales, list | tuple) else [scales]
        if len(scales) != 1:
            raise FitError(
                f"A backbone is fine-tuned at one scale; got mpp {', '.join(map(str, scales))}. Set mpp to "
                "one of them."
            )
        paths = {
            name: Path(settings[name]) if settings.get(name) else None
            for name in ("slides", "annotations", "coordinates")
        }
        return cls(
            recipe=part_of_stored(Recipe, {**settings, "mpp": scales[0]}),
            settings=part_of_stored(FinetuneSettings, settings),
            slide_mpp=settings.get("slide_mpp"),
            slide_mpp_force=settings.get("slide_mpp_force"),
            device=settings.get("device", "auto"),
            workers=settings.get("workers", 0),
            reading=TableReading.from_settings(settings),
            **paths,
        )

    def to_settings(self) -> dict[str, Any]:
        """The configuration as run.json holds it, with absolute paths."""
        paths = {name: getattr(self, name) for name in ("slides", "annotations", "coordinates")}
        values = {
            **asdict(self.recipe),
            "mpp": [self.recipe.mpp],
            **asdict(self.settings),
            **asdict(self.reading),
            **{name: str(path.absolute()) if path else None for name, path in paths.items()},
            "slide_mpp": self.slide_mpp,
            "slide_mpp_force": self.slide_mpp_force,
            "device": self.device,
            "workers": self.workers,
        }
        return {n: list(v) if isinstance(v, tuple) else v for n, v in values.items()}

    def read_jobs(self, table: Path) -> tuple[SlideJob, ...]:
        """The slides of a table.

        Raises:
            InputError: it is no table, or there is no folder with its slides.
            SlideError: the folder has none of the slides, or two files for one of them.
            CohortError: the table cannot be read.
        """
        if table.suffix.lower() not in TABLE_SUFFIXES:
            raise InputError(NEEDS_TABLE)
        settings = JobSettings(
            annotations=self.annotations,
            slide_mpp=self.slide_mpp,
            slide_mpp_force=self.slide_mpp_force,
            coordinates=self.coordinates,
        )
        return read_jobs([table], self.slides, settings, self.reading)


def label_slides(
    jobs: Sequence[SlideJob],
    rows: Sequence[Row],
    task: Task | None = None,
    *,
    source: str = "the table",
) -> list[LabelledSlide]:
    """The slides to train on with the outcomes of a table; rows kept for testing are left out.

    Args:
        jobs: the slides of the table.
        rows: all rows of the table.
        task: which outcome is learnt; a diagnosis if not given.
        source: the table, for messages.

    Raises:
        CohortError: a slide has no case, or a row has no outcome.
    """
    if not all(job.case for job in jobs):
        raise CohortError(NEEDS_TABLE)
    task = task or task_class()()
    labelled = {row.slide: row for row in task.label_rows(split_train_test(rows)[0], source)}
    unlabelled = sorted(slide for slide, row in labelled.items() if not row.label)
    if unlabelled:
        raise CohortError(
            f"{len(unlabelled)} of {len(labelled)} slides have no {task.outcome}, e.g. {unlabelled[0]}. Fill "
            "the column in, or take them out of the table."
        )
    return [
        LabelledSlide(job, labelled[job.slide].label, labelled[job.slide].time)
        for job in jobs
        if job.slide in labelled
    ]
