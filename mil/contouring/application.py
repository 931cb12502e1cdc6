"""A trained network on new patients: masks for a table, and scores where somebody has drawn too."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from features.files.atomic import write_atomic
from features.progress import Notify, Progress
from features.summary import note_lines
from mil.contouring.cases import read_cases
from mil.contouring.evaluation import ContourEvaluation, write_scores
from mil.contouring.network import confidence_of
from mil.contouring.run import EVALUATION, SCORES
from mil.contouring.scores import UNET, score
from mil.contouring.stored import ContourNetwork
from mil.contouring.writing import (
    clear_contours,
    facts_of,
    write_contour,
    write_contoured,
    write_outcomes,
)  # fmt: skip
from mil.data.volumes import VolumeTable
from mil.runs.record import NewRun, finish_run


@dataclass(frozen=True)
class AppliedContours:
    """What a network has drawn on new patients.

    Attributes:
        folder: of the run.
        evaluation: of the volumes that somebody has drawn too, and whose patients it has not seen.
        drawn: volumes with a mask of the network.
        seen: those of them whose patients it has learnt from.
        failed: why volumes could not be read, by volume.
    """

    folder: Path
    evaluation: ContourEvaluation
    drawn: tuple[str, ...]
    seen: tuple[str, ...]
    failed: Mapping[str, str] = field(default_factory=dict)


def apply_contours(
    new_run: NewRun,
    table: VolumeTable,
    contours: ContourNetwork,
    *,
    modality: str,
    progress: Progress | None = None,
    notify: Notify = lambda _message: None,
) -> AppliedContours:
    """Contour the volumes of a table by a trained network, and judge those that somebody has drawn.

    A patient that the network has learnt from is contoured and not judged. A volume that cannot be read does
    not stop the others.

    Args:
        new_run: the folder to write.
        table: of series; see ``read_table_for``.
        contours: the network.
        modality: of the table.
        progress: is advanced by each volume.
        notify: called with what a reader should know.

    Raises:
        LeakageError: a mask of the table was drawn by a network, or two patients have one image.
        RunError: the folder holds another run, or another process writes it.
    """
    read = read_cases(table.jobs, replace(contours.settings, modality=modality), progress)
    run = new_run.start("contour", facts_of(read))
    clear_contours(new_run.path)
    for line in note_lines((case.name, case.notes) for case in read.cases):
        notify(line)
    for case in read.cases:
        if (share := case.beyond) is not None:
            notify(
                f"{case.name}: {share:.0%} of what is drawn lies beyond the field of "
                f"{contours.settings.field_mm:g} mm round the middle of the image, which is all that the "
                "network looks at. Crop the image as those were that it has learnt from."
            )
    scores, seen = [], []
    for case in read.cases:
        confidence = case.on_image(confidence_of(contours.network, case))
        write_contour(new_run.path, case, confidence, contours.card)
        if contours.has_seen(case):
            seen.append(case.name)
        elif case.drawn is not None:
            scores.append(score(case, UNET, confidence))
    evaluation = ContourEvaluation(scores)
    if scores:
        write_scores(new_run.path / SCORES, scores)
        write_atomic(new_run.path / EVALUATION, json.dumps(evaluation.to_json(), indent=1) + "\n")
    write_outcomes(new_run.path, table, read, seen)
    write_contoured(new_run.path, table, modality, set(read.failed))
    finish_run(run, trained_on=list(contours.card.trained_on))
    names = tuple(case.name for case in read.cases)
    return AppliedContours(new_run.path, evaluation, names, tuple(seen), read.failed)
