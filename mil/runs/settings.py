"""The settings of a run, typed, as run.json holds them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.stored import part_of_stored
from mil.data.reading import TableReading
from mil.errors import RunError
from mil.settings import FitSettings, SplitSettings
from mil.tasks.registry import task_from
from mil.tasks.task import Task


@dataclass(frozen=True)
class RunSettings:
    """What a run was told to do.

    Attributes:
        stored: every setting under the name it has in run.json; repeating a run starts from these.
    """

    stored: Mapping[str, Any]

    @property
    def fit(self) -> FitSettings:
        """How each model was trained."""
        return part_of_stored(FitSettings, self.stored)

    @property
    def split(self) -> SplitSettings:
        """How cases were divided into folds."""
        return part_of_stored(SplitSettings, self.stored)

    @property
    def task(self) -> Task:
        """What was asked of a case."""
        return task_from(self.stored)

    @property
    def models(self) -> tuple[str, ...]:
        """The models that were fitted; one where all cases were trained on."""
        return tuple(self.stored.get("models") or [self.stored["model"]])

    @property
    def cohort(self) -> Path:
        """The cohort table as it was called then.

        Raises:
            RunError: run.json names none.
        """
        if not self.stored.get("cohort"):
            raise RunError(
                "run.json names no cohort table. Name it (cohort), or make the run again."
            )
        return Path(self.stored["cohort"])

    @property
    def reading(self) -> TableReading:
        """What the names and words of the table mean."""
        return TableReading.from_settings(self.stored)

    @property
    def store(self) -> Path | None:
        """The bag store; None where each fold has made its own bags."""
        return Path(self.stored["store"]) if self.stored.get("store") else None

    @property
    def allow_missing(self) -> bool:
        """Whether slides without a bag or a label were left out rather than refused."""
        return bool(self.stored.get("allow_missing"))

    @property
    def allow_duplicates(self) -> bool:
        """Whether slides with identical bags were used rather than refused."""
        return bool(self.stored.get("allow_duplicates"))

    @property
    def finetunes(self) -> bool:
        """Whether a backbone was fine-tuned in each fold."""
        return bool(self.stored.get("finetune", "off") != "off")

    @property
    def segments(self) -> bool:
        """Whether each fold has selected its tiles by a segmenter of its own."""
        return bool(self.stored.get("segment", "off") != "off")

    @property
    def own_bags(self) -> bool:
        """Whether each fold has made bags of its own, which are in the run folder."""
        return self.finetunes or self.segments

    @property
    def seed(self) -> int:
        """Seed of folds and fits."""
        return int(self.stored.get("seed", 0))
