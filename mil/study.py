"""A study: a table, the bags of its slides or how each fold makes them, and what is learnt."""

from dataclasses import dataclass, replace
from pathlib import Path

from features.errors import InputError
from features.progress import Notify
from mil.data.cohort import Cohort, load_cohort
from mil.data.reading import AS_WRITTEN, TableReading
from mil.finetune.config import FinetuneConfig
from mil.finetune.cross_validation import TunedCases
from mil.learning.fitted import FittedModel
from mil.runs.cross_validation import (
    Computing,
    CrossValidation,
    Plan,
    StoredCases,
    run_cross_validation,
    train_on_all,
)
from mil.runs.record import NewRun
from mil.runs.run import Run
from mil.segmentation.cases import SegmentConfig, SegmentedCases
from mil.settings import FitSettings
from mil.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class Study:
    """What models learn from.

    Attributes:
        table: CSV with case, slide and the columns of the task; rows kept for testing are left out.
        task: what is asked of a case.
        store: folder with one ``<slide>.h5`` per slide.
        tuning: instead of a store, how each fold fine-tunes a backbone and makes its own bags.
        segmenting: with a store of all tissue, how each fold selects its tiles.
        reading: what the table's names and words mean.
        allow_missing: go on without slides that lack a bag or an outcome; not with ``tuning`` or
            ``segmenting``.
        allow_duplicates: go on with slides whose bags are identical; not with these either.

    Raises:
        InputError: what is set does not go together.
    """

    table: Path
    task: Task
    store: Path | None = None
    tuning: FinetuneConfig | None = None
    segmenting: SegmentConfig | None = None
    reading: TableReading = AS_WRITTEN
    allow_missing: bool = False
    allow_duplicates: bool = False

    def __post_init__(self) -> None:
        if (self.store is None) == (self.tuning is None):
            raise InputError("Bags come from a store or from tuning. Give one of them.")
        if self.segmenting and self.tuning:
            raise InputError("Each fold segments or fine-tunes, not both. Give one of them.")
        for name in ("allow_missing", "allow_duplicates"):
            if getattr(self, name) and (self.tuning or self.segmenting):
                raise InputError(
                    "Where each fold makes its own bags, every row of the table is needed and no slide may "
                    f"appear twice. Leave out {name}, and take the other rows out of the table."
                )

    def cross_validate(self, plan: Plan, folder: NewRun, computing: Computing) -> CrossValidation:
        """Cross-validate models and write the run folder; an interrupted run goes on.

        Raises:
            InputError: with tuning, the table is none, or there is no folder with its slides.
            FitError, CohortError, LeakageError, RunError: as ``run_cross_validation``.
        """
        if self.segmenting:
            segmented = SegmentedCases(cohort=self.cohort(computing.notify), config=self.segmenting)
            return run_cross_validation(segmented, plan, folder, computing)
        if self.tuning is None:
            return run_cross_validation(
                StoredCases(self.cohort(computing.notify)), plan, folder, computing
            )
        config = replace(self.tuning, reading=self.reading)
        cases = TunedCases.read(self.table, config, self.task, computing.notify)
        return run_cross_validation(cases, plan, folder, computing)

    def train(
        self, model: str, folder: NewRun, *, fit: FitSettings, seed: int, notify: Notify
    ) -> tuple[Run, FittedModel]:
        """Fit one model on all cases, as ``train_on_all``."""
        return train_on_all(self.cohort(notify), model, folder, fit=fit, seed=seed, notify=notify)

    def cohort(self, notify: Notify) -> Cohort:
        """The cases with the bags of the store, as ``load_cohort``."""
        if self.store is None:
            raise InputError("All cases are trained on bags of a store. Give one.")
        return load_cohort(
            self.table,
            self.store,
            task=self.task,
            allow_missing=self.allow_missing,
            allow_duplicates=self.allow_duplicates,
            notify=notify,
            **self.reading.words(),
        )
