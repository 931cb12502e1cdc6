"""Cases whose tiles each fold selects by a segmenter of its training cases, and their permutation test."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from features.errors import InputError
from features.extraction.jobs import JobSettings, jobs_of_rows
from features.progress import Notify, Progress
from features.stored import part_of_stored
from mil.data.cohort import Cohort
from mil.data.reading import TableReading
from mil.data.splits import Fold
from mil.data.table import training_rows
from mil.errors import CohortError
from mil.evaluation.predictions import Predictions
from mil.learning.crossval import fit_anew
from mil.runs.cases import cohort_as_tested
from mil.runs.clinical import clinical_facts
from mil.runs.cross_validation import (
    Computing,
    Plan,
    StoredCases,
    StoredFits,
    cohort_facts,
    cohort_settings,
)
from mil.runs.record import update_run
from mil.runs.run import Run
from mil.segmentation.learner import Learner
from mil.segmentation.per_fold import Segmenting, check_tissue, cross_validate_segmented
from mil.segmentation.run import MAPS, SegmentInput
from mil.segmentation.settings import SegmentSettings
from mil.segmentation.slides import DrawnSlide, annotations_sha256
from mil.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class SegmentConfig:
    """How each fold trains its segmenter.

    Attributes:
        source: the annotated slides; their folder also has the slides of the cohort.
        settings: of training.
        train_masks: what training slides are cut by: ``annotation`` or ``unseen``, see ``Segmenting``.
    """

    source: SegmentInput
    settings: SegmentSettings
    train_masks: str = "annotation"

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """The configuration that run.json holds, as ``to_settings`` or the command line wrote it.

        Raises:
            FitError: a setting is out of range.
        """
        return cls(
            source=SegmentInput(
                table=Path(settings["cohort"]),
                slides=Path(settings["slides"]),
                jobs=JobSettings(
                    annotations=Path(settings["annotations"]),
                    slide_mpp=settings.get("slide_mpp"),
                    slide_mpp_force=settings.get("slide_mpp_force"),
                ),
                reading=TableReading.from_settings(settings),
            ),
            settings=part_of_stored(SegmentSettings, settings),
            train_masks=settings.get("train_masks", "annotation"),
        )

    def to_settings(self) -> dict[str, Any]:
        """The configuration as run.json holds it, with absolute paths."""
        source, jobs = self.source, self.source.jobs
        assert jobs.annotations is not None
        return {
            "cohort": str(source.table.absolute()),
            "slides": str(source.slides.absolute()),
            "annotations": str(jobs.annotations.absolute()),
            "slide_mpp": jobs.slide_mpp,
            "slide_mpp_force": jobs.slide_mpp_force,
            "train_masks": self.train_masks,
            **asdict(self.settings),
            **asdict(source.reading),
        }

    def work(
        self,
        cohort: Cohort,
        folder: Path,
        store: Callable[[Fold], Path],
        notify: Notify,
        *,
        keep: Callable[[Fold], Path] | None = None,
    ) -> Segmenting:
        """What is done in every fold.

        Args:
            cohort: cases with bags of tissue.
            folder: that keeps what is computed of slides.
            store: the folder of each fold's bags.
            notify: called with what a reader should know.
            keep: as of ``Segmenting``.

        Raises:
            CohortError, InputError, SlideError, AnnotationError: a table or a slide cannot be used.
        """
        annotated = self.source.read(notify)
        return Segmenting(
            cohort=cohort,
            annotated=annotated,
            others=self._others(cohort, annotated),
            learner=Learner(self.settings, folder),
            store=store,
            keep=keep,
            train_masks=self.train_masks,
            notify=notify,
        )

    def _others(self, cohort: Cohort, annotated: Sequence[DrawnSlide]) -> list[DrawnSlide]:
        """The cohort's slides without a drawing."""
        table, _ = cohort.origin()
        drawn = {slide.job.slide for slide in annotated}
        used = {bag.slide for bag in cohort.bags}
        rows = [
            row
            for row in training_rows(table, None, cohort.reading)
            if row.slide in used and row.slide not in drawn
        ]
        if not rows:
            return []
        jobs = self.source.jobs
        scale = JobSettings(slide_mpp=jobs.slide_mpp, slide_mpp_force=jobs.slide_mpp_force)
        other_jobs = jobs_of_rows(rows, self.source.slides, scale)
        return [DrawnSlide(job=job, full=False) for job in other_jobs]


@dataclass(frozen=True, kw_only=True)
class SegmentedCases:
    """Cases with bags of tissue, from which each fold selects tiles by a segmenter of its own.

    Attributes:
        cohort: loaded from a table and a store.
        config: of the segmenter.
    """

    cohort: Cohort
    config: SegmentConfig

    @property
    def task(self) -> Task:
        """What is asked of a case."""
        return self.cohort.task

    def to_settings(self, out: Path) -> dict[str, Any]:
        """Where they come from, as run.json holds it."""
        return {**cohort_settings(self.cohort, out), "segment": "per-fold"}

    def split(self, plan: Plan, notify: Notify) -> tuple[Fold, ...]:
        """Folds of the cases; bags that are not of all tissue are refused.

        Raises:
            InputError: the plan combines a score with columns.
            CohortError: rows of the table are left out, or the bags are of another region.
        """
        check_tissue(self.cohort)
        if self.cohort.excluded or self.cohort.duplicates:
            raise CohortError(
                "Segmentation in each fold needs a bag and an outcome for every row, and no slide twice. "
                "Take the other rows out of the table."
            )
        if plan.combine:
            raise InputError(
                f"combine={plan.combine} does not work where each fold selects its tiles. Leave one of "
                "them out."
            )
        return StoredCases(self.cohort).split(plan, notify)

    def facts(self, plan: Plan, out: Path, notify: Notify) -> dict[str, Any]:
        """Outcomes, bags of tissue, and how each fold segments."""
        annotated = self.config.source.read(lambda _note: None)
        return StoredCases(self.cohort).facts(plan, out, notify) | {
            "segmenting": self.config.to_settings(),
            "drawn": annotations_sha256(annotated),
            "tissue_bags": {bag.slide: bag.data_sha256 for bag in self.cohort.bags},
        }

    def predict(
        self, run: Run, plan: Plan, folds: Sequence[Fold], computing: Computing
    ) -> tuple[Run, Cohort, Predictions]:
        """Every case by a segmenter and models that have not seen it; stored fits are used again."""
        cohort, notify = self.cohort, computing.notify
        work = self.config.work(
            cohort, run.path / MAPS, run.fold_store, notify, keep=run.fold_segmenter
        )
        predictions = cross_validate_segmented(
            work, folds, plan.models, plan.fit, seed=plan.split.seed, fitter=StoredFits(run),
            engine=computing.engine, workers=computing.workers, progress=computing.progress,
        )  # fmt: skip
        shutil.rmtree(run.path / MAPS, ignore_errors=True)
        tested = cohort_as_tested(run.rows(), folds, run.fold_store, cohort.task)
        columns = clinical_facts(tested, plan.models, plan.fit.clinical, lambda _note: None)
        return update_run(run, **cohort_facts(tested), **columns), tested, predictions


@dataclass(frozen=True)
class SegmentedPipeline:
    """A run's own segmentation and cross-validation of its cases with other outcomes.

    Attributes:
        run: a finished cross-validation that segmented in each fold.
        tissue: its cases with the bags of tissue that tiles are selected from.
        folder: for what each shuffle makes, which is removed when it is finished.
        progress: is advanced by each slide and fit.
    """

    run: Run
    tissue: Cohort
    folder: Path
    progress: Progress

    def __call__(self, cohort: Cohort, folds: Sequence[Fold], number: int) -> Predictions:
        """Predict every case of the cohort; the seed is that of the run plus the shuffle's number."""
        run, folder = self.run, self.folder / str(number)
        bags = {case.name: case.bags for case in self.tissue.cases}
        shuffled = Cohort(
            cases=tuple(replace(case, bags=bags[case.name]) for case in cohort.cases),
            classes=cohort.classes,
            task=cohort.task,
            reserved=self.tissue.reserved,
            table=self.tissue.table,
            store=self.tissue.store,
            reading=self.tissue.reading,
        )
        config = SegmentConfig.from_settings(run.segmenting)
        work = config.work(shuffled, self.folder / MAPS, _stores_in(folder), lambda _note: None)
        predictions = cross_validate_segmented(
            work, folds, run.models, run.settings.fit, seed=run.settings.split.seed + number,
            fitter=fit_anew, progress=self.progress,
        )  # fmt: skip
        shutil.rmtree(folder)
        return predictions


def _stores_in(folder: Path) -> Callable[[Fold], Path]:
    """The bag store of each fold in a folder."""
    return lambda fold: folder / fold.name / "bags"
