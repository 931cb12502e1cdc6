"""The files of contours: masks with what is known of their network, confidences, outcomes, and a table."""

import os
import shutil
from collections.abc import Collection, Set
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.files.checksum import fingerprint
from features.files.tables import write_table
from features.slides.names import file_name
from features.volumes.image_files import write_image_file
from features.volumes.jobs import VolumeJob
from features.volumes.predicted import MaskCard, write_predicted
from mil.contouring.cases import ContourCase, ReadCases
from mil.contouring.scores import CUT
from mil.data.volumes import VolumeTable

MASKS, CONFIDENCE = "masks", "confidence"
TABLE, OUTCOMES = "volumes.csv", "outcomes.csv"
STEP = 2**-10  # of confidence, as it is stored; rounded down, so that no voxel passes the cut by it
COLUMNS = ("case", "timepoint", "modality", "path", "series", "mask", "roi")


def clear_contours(folder: Path) -> None:
    """Remove the masks of an earlier run."""
    for name in (MASKS, CONFIDENCE):
        shutil.rmtree(folder / name, ignore_errors=True)


def write_contour(
    folder: Path, case: ContourCase, confidence: NDArray[np.float32], card: MaskCard
) -> None:
    """Write the contour and the confidence of one volume.

    Args:
        folder: of the run.
        case: the volume.
        confidence: (z, y, x) from 0 to 1, on the grid of the image.
        card: of the network.
    """
    name = f"{file_name(case.name)}.nii.gz"
    write_predicted(folder / MASKS / name, confidence >= CUT, case.image_grid, card)
    values = (np.floor(confidence / STEP) * STEP).astype(np.float32)
    write_image_file(folder / CONFIDENCE / name, values, case.image_grid)


def facts_of(read: ReadCases) -> dict[str, object]:
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


def write_outcomes(
    folder: Path, table: VolumeTable, read: ReadCases, seen: Collection[str] = ()
) -> None:
    """Write what became of each volume.

    Args:
        folder: of the run.
        table: of series.
        read: its volumes.
        seen: those of patients that the network has learnt from, which are not judged.
    """
    of = {case.name: case for case in read.cases}
    rows = []
    for job in table.jobs:
        case = of.get(job.name)
        judged = case is not None and case.drawn is not None and job.name not in seen
        status = "failed" if case is None else "judged" if judged else "contoured"
        notes = "; ".join(case.notes) if case else ""
        rows.append([job.name, job.case, status, notes, read.failed.get(job.name, "")])
    write_table(folder / OUTCOMES, ["volume", "case", "status", "notes", "reason"], rows)


def write_contoured(folder: Path, table: VolumeTable, modality: str, failed: Set[str]) -> None:
    """The table whose only masks are the contours, on the modality that they were made on."""
    columns = list(dict.fromkeys(name for job in table.jobs for name in table.cells[job.name]))
    rows = [
        [*row, *(table.cells[job.name].get(name, "") for name in columns)]
        for job in table.jobs
        for row in _rows(job, folder, "" if job.name in failed else modality)
    ]
    write_table(folder / TABLE, [*COLUMNS, *columns], rows)


def _rows(job: VolumeJob, folder: Path, modality: str) -> list[list[str]]:
    timepoint = "" if job.name == job.case else job.name.removeprefix(f"{job.case}-")
    mask = f"{MASKS}/{file_name(job.name)}.nii.gz"
    return [
        [job.case, timepoint, name, os.path.relpath(files.path, folder), files.series,
         mask if name == modality else "", ""]
        for name, files in job.modalities.items()
    ]  # fmt: skip
