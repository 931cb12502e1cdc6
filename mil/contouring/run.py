"""A run folder of contours: volumes with drawn regions in, contours by networks that had not seen them out.

<out>/masks/<volume>.nii.gz        0 and 1 on the grid of the image, and beside it what its network has seen
<out>/confidence/<volume>.nii.gz   from 0 to 1 on the same grid
<out>/outcomes.csv                 what became of each volume, and why one failed
<out>/volumes.csv                  the table with these masks, to extract bags from
<out>/scores.csv                   one row per volume and method
<out>/evaluation.json              the figures over patients
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.bags.bag import PIXELS
from features.files.atomic import write_atomic
from features.files.checksum import fingerprint
from features.files.tables import write_table
from features.progress import Notify, Progress, Silent
from features.slides.names import file_name
from features.summary import note_lines
from features.volumes.image_files import write_image_file
from features.volumes.jobs import VolumeJob
from features.volumes.predicted import MaskCard, write_predicted
from mil.contouring.cases import ContourCase, ReadCases, read_cases
from mil.contouring.evaluation import ContourEvaluation, write_scores
from mil.contouring.network import SliceUNet, confidence_of, train_network
from mil.contouring.scores import CUT, UNET, ContourScores, contours_of, score
from mil.contouring.settings import ContourSettings
from mil.data.splits import Fold
from mil.data.table import split_train_test
from mil.data.volumes import VolumeTable, read_volume_table, rows_of
from mil.errors import CohortError
from mil.evaluation.display import format_count
from mil.runs.record import NewRun, finish_run
from mil.segmentation.folds import case_folds

MASKS, CONFIDENCE = "masks", "confidence"
TABLE, SCORES, EVALUATION = "volumes.csv", "scores.csv", "evaluation.json"
OUTCOMES = "outcomes.csv"
STEP = 2**-10  # of confidence, as it is stored; rounded down, so that no voxel passes the cut by it
COLUMNS = ("case", "timepoint", "modality", "path", "series", "mask", "roi")


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
    run = new_run.start("contour", _facts(read))
    for name in (MASKS, CONFIDENCE):
        shutil.rmtree(new_run.path / name, ignore_errors=True)
    for line in note_lines((case.name, case.notes) for case in read.cases):
        notify(line)
    _note_beyond(drawn, notify)
    work = _Work(new_run.path, settings, progress or Silent())
    scores = work.cross_validate(drawn, folds)
    undrawn = work.contour_undrawn(drawn, [case for case in read.cases if case.drawn is None])
    evaluation = ContourEvaluation(scores)
    write_scores(new_run.path / SCORES, scores)
    write_atomic(new_run.path / EVALUATION, json.dumps(evaluation.to_json(), indent=1) + "\n")
    _write_outcomes(new_run.path / OUTCOMES, table, read)
    _write_table(new_run.path / TABLE, table, settings.modality, set(read.failed))
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
                network = train_network(train, self.settings, advance)
                for case in test:
                    maps = contours_of(network, train, [case])[case.name]
                    scores += [score(case, method, values) for method, values in maps.items()]
                    self._write(case, maps[UNET], train)
        return scores

    def contour_undrawn(
        self, drawn: Sequence[ContourCase], undrawn: Sequence[ContourCase]
    ) -> tuple[str, ...]:
        """Contour volumes that nobody has drawn by a network of all others."""
        if undrawn:
            with self.progress.task("all patients", self.settings.steps, "steps") as advance:
                network: SliceUNet = train_network(drawn, self.settings, advance)
            for case in undrawn:
                self._write(case, case.on_image(confidence_of(network, case)), drawn)
        return tuple(case.name for case in undrawn)

    def _write(
        self, case: ContourCase, confidence: NDArray[np.float32], train: Sequence[ContourCase]
    ) -> None:
        """The contour and the confidence of one volume."""
        name = f"{file_name(case.name)}.nii.gz"
        card = MaskCard(
            trained_on=tuple(sorted({one.case for one in train})),
            trained_on_slides=tuple(sorted({PIXELS + one.source for one in train})),
            facts=asdict(self.settings),
        )
        write_predicted(self.folder / MASKS / name, confidence >= CUT, case.image_grid, card)
        values = (np.floor(confidence / STEP) * STEP).astype(np.float32)
        write_image_file(self.folder / CONFIDENCE / name, values, case.image_grid)


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


def _facts(read: ReadCases) -> dict[str, object]:
    """What a run was made of: images, and which mask of each was trained on."""
    cases = read.cases
    return {
        "failed": dict(read.failed),
        "cases": {case.name: case.case for case in cases},
        "images": {case.name: case.source for case in cases},
        "masks": {
            case.name: {
                "region": case.region_name,
                "sha256": fingerprint({"mask": np.flatnonzero(case.drawn).tolist()}),
            }
            for case in cases
            if case.drawn is not None
        },
        "notes": {case.name: list(case.notes) for case in cases if case.notes},
    }


def _note_beyond(drawn: Sequence[ContourCase], notify: Notify) -> None:
    """Name the volumes whose region reaches beyond the field."""
    for case in drawn:
        assert case.region is not None
        assert case.drawn is not None
        inside = int(case.region.sum()) * case.grid.voxel_ml
        whole = int(case.drawn.sum()) * case.image_grid.voxel_ml
        if not whole:
            continue
        touches = case.region[:, [0, -1]].any() or case.region[:, :, [0, -1]].any()
        if touches or not case.region.any():
            notify(
                f"{case.name}: {max(0.0, 1 - inside / whole):.0%} of the region lies beyond the field and "
                "counts as missed. Set field_mm wider."
            )


def _regions(drawn: Sequence[ContourCase]) -> tuple[tuple[str, int], ...]:
    names = [case.region_name for case in drawn if case.region_name]
    return tuple((name, names.count(name)) for name in sorted(set(names)))


def _write_outcomes(path: Path, table: VolumeTable, read: ReadCases) -> None:
    """What became of each volume."""
    of = {case.name: case for case in read.cases}
    rows = []
    for job in table.jobs:
        case = of.get(job.name)
        status = "failed" if case is None else "contoured" if case.drawn is None else "judged"
        notes = "; ".join(case.notes) if case else ""
        rows.append([job.name, job.case, status, notes, read.failed.get(job.name, "")])
    write_table(path, ["volume", "case", "status", "notes", "reason"], rows)


def _write_table(path: Path, table: VolumeTable, modality: str, failed: Set[str]) -> None:
    """The table whose only masks are the contours, on the modality that they were made on."""
    columns = list(dict.fromkeys(name for job in table.jobs for name in table.cells[job.name]))
    rows = [
        [*row, *(table.cells[job.name].get(name, "") for name in columns)]
        for job in table.jobs
        for row in _rows(job, path.parent, "" if job.name in failed else modality)
    ]
    write_table(path, [*COLUMNS, *columns], rows)


def _rows(job: VolumeJob, folder: Path, modality: str) -> list[list[str]]:
    timepoint = "" if job.name == job.case else job.name.removeprefix(f"{job.case}-")
    mask = f"{MASKS}/{file_name(job.name)}.nii.gz"
    return [
        [job.case, timepoint, name, os.path.relpath(files.path, folder), files.series,
         mask if name == modality else "", ""]
        for name, files in job.modalities.items()
    ]  # fmt: skip


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
