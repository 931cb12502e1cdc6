"""A run folder of contours: volumes with drawn regions in, contours by networks that had not seen them out.

<out>/masks/<volume>.nii.gz        0 and 1 on the grid of the image, and beside it what its network has seen
<out>/confidence/<volume>.nii.gz   from 0 to 1 on the same grid
<out>/outcomes.csv                 what became of each volume, and why one failed
<out>/volumes.csv                  the table with these masks, to extract bags from
<out>/scores.csv                   one row per volume and method
<out>/evaluation.json              the figures over patients
<out>/network.safetensors          a network of all drawn patients, for new ones
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from features.files.atomic import write_atomic
from features.progress import Notify, Progress, Silent
from features.summary import note_lines
from mil.contouring.cases import ContourCase, read_cases
from mil.contouring.evaluation import ContourEvaluation, write_scores
from mil.contouring.network import confidence_of
from mil.contouring.scores import UNET, ContourScores, contours_of, score
from mil.contouring.settings import ContourSettings
from mil.contouring.stored import NETWORK, fit_contours, save_contours
from mil.contouring.writing import (
    clear_contours,
    facts_of,
    write_contour,
    write_contoured,
    write_outcomes,
)  # fmt: skip
from mil.data.splits import Fold
from mil.data.table import split_train_test
from mil.data.volumes import VolumeTable, read_volume_table, rows_of
from mil.errors import CohortError
from mil.evaluation.display import format_count
from mil.runs.record import NewRun, finish_run
from mil.segmentation.folds import case_folds

SCORES, EVALUATION = "scores.csv", "evaluation.json"


@dataclass(frozen=True)
class Contoured:
    """What a run has written.

    Attributes:
        folder: of the run.
        evaluation: of the volumes with a drawing, each by a network that had not seen its patient.
        regions: the names of what was trained on, by their files, and in how many volumes.
        undrawn: volumes without a drawing, contoured by a network of all others.
        failed: why volumes could not be read, by volume.
    """

    folder: Path
    evaluation: ContourEvaluation
    regions: tuple[tuple[str, int], ...]
    undrawn: tuple[str, ...]
    failed: Mapping[str, str] = field(default_factory=dict)


def contour_volumes(
    new_run: NewRun,
    table: VolumeTable,
    settings: ContourSettings,
    *,
    n_folds: int = 5,
    progress: Progress | None = None,
    notify: Notify = lambda _message: None,
) -> Contoured:
    """Contour the volumes of a table by networks that have not seen them, and judge that by patient.

    Volumes without a drawn region are contoured by a network of all that have one, and not judged. A volume
    that cannot be read does not stop the others. Rows kept for external validation are not read.

    Args:
        new_run: the folder to write.
        table: of series; see ``read_volume_table``.
        settings: of the network.
        n_folds: of whole patients.
        progress: is advanced by each volume and step.
        notify: called with what a reader should know.

    Raises:
        CohortError: fewer than two patients have a drawn region.
        LeakageError: a mask was drawn by a network, or two patients have one image.
        RunError: the folder holds another run, or another process writes it.
    """
    table = _without_reserved(table, notify)
    read = read_cases(table.jobs, settings, progress)
    drawn = [case for case in read.cases if case.drawn is not None]
    folds = _folds(drawn, n_folds, settings.seed, read.failed)
    run = new_run.start("contour", facts_of(read))
    clear_contours(new_run.path)
    for line in note_lines((case.name, case.notes) for case in read.cases):
        notify(line)
    _note_beyond(drawn, notify)
    work = _Work(new_run.path, settings, progress or Silent())
    scores = work.cross_validate(drawn, folds)
    undrawn = work.contour_undrawn(drawn, [case for case in read.cases if case.drawn is None])
    evaluation = ContourEvaluation(scores)
    write_scores(new_run.path / SCORES, scores)
    write_atomic(new_run.path / EVALUATION, json.dumps(evaluation.to_json(), indent=1) + "\n")
    write_outcomes(new_run.path, table, read)
    write_contoured(new_run.path, table, settings.modality, set(read.failed))
    finish_run(run, trained_on=sorted({case.case for case in drawn}))
    return Contoured(new_run.path, evaluation, _regions(drawn), undrawn, read.failed)


@dataclass(frozen=True)
class _Work:
    """Where contours are written, and by what settings."""

    folder: Path
    settings: ContourSettings
    progress: Progress

    def cross_validate(
        self, drawn: Sequence[ContourCase], folds: Sequence[Fold]
    ) -> list[ContourScores]:
        """Contour every volume by a network of other patients, and score it."""
        scores = []
        steps = self.settings.steps * len(folds)
        with self.progress.task("cross-validation", steps, "steps") as advance:
            for fold in folds:
                train = [case for case in drawn if case.case in set(fold.train)]
                test = [case for case in drawn if case.case in set(fold.test)]
                contours = fit_contours(train, self.settings, advance)
                for case in test:
                    maps = contours_of(contours.network, train, [case])[case.name]
                    scores += [score(case, method, values) for method, values in maps.items()]
                    write_contour(self.folder, case, maps[UNET], contours.card)
        return scores

    def contour_undrawn(
        self, drawn: Sequence[ContourCase], undrawn: Sequence[ContourCase]
    ) -> tuple[str, ...]:
        """Contour volumes that nobody has drawn by a network of all others; it is kept for new patients."""
        with self.progress.task("all patients", self.settings.steps, "steps") as advance:
            contours = fit_contours(drawn, self.settings, advance)
        save_contours(self.folder / NETWORK, contours)
        for case in undrawn:
            confidence = case.on_image(confidence_of(contours.network, case))
            write_contour(self.folder, case, confidence, contours.card)
        return tuple(case.name for case in undrawn)


def _folds(
    drawn: Sequence[ContourCase], n_folds: int, seed: int, failed: Mapping[str, str]
) -> tuple[Fold, ...]:
    """Folds of patients; those with a region are spread evenly."""
    exists = {case.case: False for case in drawn}
    for case in drawn:
        exists[case.case] |= bool(case.region is not None and case.region.any())
    remedy = "Draw the region in the field of more patients."
    if failed:
        name, reason = next(iter(failed.items()))
        remedy = f"{format_count(len(failed), 'volume')} cannot be read. {name}: {reason}"
    return case_folds(exists, n_folds, seed, otherwise=remedy)


def _without_reserved(table: VolumeTable, notify: Notify) -> VolumeTable:
    """The rows to learn from."""
    training, test = split_train_test(rows_of(table))
    names = {row.slide for row in training}
    if not names:
        raise CohortError(
            "Every row has split=test, so no case is left to train on. Change column split."
        )
    if test:
        n_cases = format_count(len({row.case for row in test}), "case")
        notify(f"{n_cases} with split=test: kept for external validation.")
    return replace(table, jobs=tuple(job for job in table.jobs if job.name in names))


def _note_beyond(drawn: Sequence[ContourCase], notify: Notify) -> None:
    """Name the volumes whose region reaches beyond the field."""
    for case in drawn:
        if (share := case.beyond) is not None:
            notify(
                f"{case.name}: {share:.0%} of the region lies beyond the field and counts as missed. Set "
                "field_mm wider."
            )


def _regions(drawn: Sequence[ContourCase]) -> tuple[tuple[str, int], ...]:
    names = [case.region_name for case in drawn if case.region_name]
    return tuple((name, names.count(name)) for name in sorted(set(names)))


def read_table_for(
    path: Path, modality: str, roi: str = "", cases: Path | None = None
) -> VolumeTable:
    """A table of series whose rows have a modality.

    Raises:
        CohortError: the table cannot be read, or no row has the modality.
    """
    table = read_volume_table(path, roi, cases)
    jobs = tuple(job for job in table.jobs if modality in job.modalities)
    if not jobs:
        names = sorted({name for job in table.jobs for name in job.modalities})
        raise CohortError(
            f"{path} has no modality {modality!r}, only {', '.join(names)}. Name one of these."
        )
    return replace(table, jobs=jobs)
