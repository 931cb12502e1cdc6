"""Bags of external slides for a run that fine-tuned a backbone in each fold: every backbone makes its own.

<store>/r<repeat>-f<fold>/<slide>.h5
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from features.errors import AnnotationError, InputError
from features.extraction.identity import slide_fingerprints
from features.extraction.jobs import JobSettings, SlideJob, jobs_of_rows
from features.progress import NamedProgress, Progress, Silent
from mil.data.case import Row
from mil.data.cohort import Cohort, assemble
from mil.data.names import cases_among, patient_of
from mil.errors import CohortError, FitError, LeakageError, RunError
from mil.learning.fitted import FittedModel
from mil.runs.inputs import recipe_from
from mil.runs.run import Run


@dataclass(frozen=True, kw_only=True)
class ExternalSlides:
    """Where the slides of an external table are, and how they are read.

    Attributes:
        folder: with the slides, or with their tile images.
        annotations: folder with their annotations, where the run learnt from annotated tissue.
        slide_mpp: micrometres per level-0 pixel, where files give none; needed for tile images.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        workers: threads that read tiles; 0 takes one per core.
        progress: is advanced by each slide and tile.
    """

    folder: Path
    annotations: Path | None = None
    slide_mpp: float | None = None
    device: str = "auto"
    workers: int = 0
    progress: Progress = field(default_factory=Silent)

    def jobs(self, rows: Sequence[Row]) -> tuple[SlideJob, ...]:
        """The slides of the table's rows.

        Raises:
            InputError, SlideError: as ``jobs_of_rows``.
        """
        settings = JobSettings(annotations=self.annotations, slide_mpp=self.slide_mpp)
        return jobs_of_rows(rows, self.folder, settings)


def embed_by_folds(
    run: Run,
    members: Sequence[FittedModel],
    jobs: Sequence[SlideJob],
    slides: ExternalSlides,
    store: Path,
    *,
    allow_missing: bool = False,
) -> None:
    """Embed slides by the backbone of each fold, into one folder each, unless their bags are there.

    Args:
        run: that fine-tuned a backbone in each fold.
        members: a fit of each fold, in their order.
        jobs: the slides.
        slides: how they are read.
        store: of the folders.
        allow_missing: go on without slides that cannot be embedded.

    Raises:
        FitError: the weights of a fold are gone, or a slide cannot be used.
        AnnotationError, InputError: tiles are chosen in another way than in training.
    """
    from features.extraction.extract import extract  # imports every backbone

    _check_region(members[0], jobs)
    folds = run.folds
    for number, (fold, member) in enumerate(zip(folds, members, strict=True), start=1):
        weights, folder = run.fold_weights(fold), store / fold.name
        if not weights.is_file():
            raise FitError(
                f"{weights} is not there, so no slide can be embedded. Make the run again."
            )
        outcomes = extract(
            [replace(job, fixed=True) for job in jobs],
            recipe_from(member.recipe, str(weights), folder),
            folder,
            device=slides.device,
            workers=slides.workers,
            progress=NamedProgress(slides.progress, f"backbone {number}/{len(folds)}: "),
        )
        failed = [o.reason for o in outcomes if o.status in ("failed", "excluded")]
        if failed and not allow_missing:
            raise FitError(failed[0])


def fold_cohorts(
    run: Run, rows: Sequence[Row], store: Path, *, allow_missing: bool, source: str
) -> tuple[Cohort, ...]:
    """The same cases with the bags of each fold's backbone.

    Raises:
        RunError: a folder is missing.
        CohortError: the rows and the bags do not go together, or the folders hold different slides.
    """
    folds = run.folds
    if missing := [fold.name for fold in folds if not (store / fold.name).is_dir()]:
        raise RunError(
            f"{run.path} fine-tuned a backbone in each fold, so that each of its {len(folds)} fits needs "
            f"bags of its own, and {store} has no folder {missing[0]}. Set slides to the folder with the "
            "table's slides: they are then embedded by every backbone."
        )
    cohorts = tuple(
        assemble(
            rows,
            store / fold.name,
            task=run.task,
            allow_missing=allow_missing,
            allow_duplicates=run.settings.allow_duplicates or None,
            source=source,
        )
        for fold in folds
    )
    for fold, cohort in zip(folds, cohorts, strict=True):
        if differing := sorted(_tiles_of(cohort) ^ _tiles_of(cohorts[0])):
            raise CohortError(
                f"{store / fold.name} and {store / folds[0].name} hold different slides or tiles of "
                f"{differing[0][0]}. Remove both folders, and embed the slides again."
            )
    return cohorts


def check_unseen_files(run: Run, members: Sequence[FittedModel], jobs: Sequence[SlideJob]) -> None:
    """Refuse, before any slide is embedded, cases that the run has seen, by their names and files.

    Raises:
        LeakageError: naming them.
    """
    slides = {source for member in members for source in member.trained_on_slides}
    seen = {*cases_among(((job.case, job.slide) for job in jobs), names_seen(run, members))}
    seen |= {job.case for job in jobs if slide_fingerprints(job) & slides}
    if seen:
        raise LeakageError(
            f"{len(seen)} of {len({job.case for job in jobs})} cases were used to train this run, e.g. "
            f"{', '.join(sorted(seen)[:3])}. External cases are ones it has not seen: take these out of the "
            "table."
        )


def names_seen(run: Run, members: Sequence[FittedModel]) -> set[str]:
    """The cases that fits of a run have seen, and the patients in the barcodes of its slides."""
    patients = set(map(patient_of, run.bags)) - {""}
    return {*run.labels, *patients, *(name for member in members for name in member.trained_on)}


def _tiles_of(cohort: Cohort) -> set[tuple[str, str, int]]:
    """(case, slide, number of tiles)."""
    return {(case.name, bag.slide, len(bag)) for case in cohort.cases for bag in case.bags}


def _check_region(member: FittedModel, jobs: Sequence[SlideJob]) -> None:
    """Refuse slides whose tiles would be chosen otherwise than in training."""
    learnt, kinds = member.recipe.get("region"), {job.region for job in jobs}
    if kinds == {learnt}:
        return
    if learnt == "annotations":
        raise AnnotationError(
            "The run learnt from annotated tissue. Set annotations to the folder with the annotations of "
            "these slides."
        )
    if "annotations" in kinds:
        raise AnnotationError("The run learnt from all tissue: leave out annotations.")
    raise InputError(
        f"The run learnt from {learnt} and these slides are {' and '.join(sorted(kinds))}. Give slides of "
        "the same kind."
    )
