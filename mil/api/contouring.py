"""Contours of CT and MRI: networks that are trained and judged by patient, and applied to new ones."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mil.api.options import StrPath, as_path, silence

if TYPE_CHECKING:
    from features.progress import Progress
    from mil.contouring.application import AppliedContours
    from mil.contouring.run import Contoured
    from mil.contouring.settings import ContourSettings


def contour_volumes(  # noqa: PLR0913 - what, and how it is run
    table: StrPath,
    *,
    out: StrPath,
    settings: "ContourSettings",
    folds: int = 5,
    roi: str = "",
    cases: StrPath | None = None,
    overwrite: bool = False,
    progress: "Progress | None" = None,
    notify: Callable[[str], None] | None = None,
) -> "Contoured":
    """Draw the region of CT or MRI by networks that have not seen the patient, and judge it by patient.

    Args:
        table: with case, modality, path and mask; volumes without a mask are contoured by a network of all
            that have one.
        out: the run folder to write: masks, scores.csv, and volumes.csv, which names the masks.
        settings: the modality, and how to train.
        folds: of whole patients.
        roi: the region, where the table names none.
        cases: a table with one row per case, whose columns are added.
        overwrite: replace a finished run.
        progress: shows volumes and steps.
        notify: called with what a reader should know, as ``print``.

    Raises:
        CohortError: fewer than two patients have a drawn region. A volume that cannot be read stops nothing:
            see ``failed`` of the result.
        LeakageError: a mask was drawn by a network, or two patients have one image.
        RunError: the folder holds another run.

    Example:
        settings = mil.ContourSettings(modality="T1", field_mm=32, width=2, steps=2)
        contoured = mil.contour_volumes("volumes.csv", out="contours", folds=2, settings=settings)
        print(contoured.folder, contoured.regions, contoured.undrawn)
    """
    from mil.contouring.run import contour_volumes as contour
    from mil.contouring.run import read_table_for
    from mil.runs.record import NewRun

    series, people = Path(table), as_path(cases)
    stored = {
        **asdict(settings),
        "table": str(series.absolute()),
        "out": str(Path(out).absolute()),
        "roi": roi,
        "cases": None if people is None else str(people.absolute()),
        "folds": folds,
    }
    return contour(
        NewRun(path=Path(out), settings=stored, overwrite=overwrite),
        read_table_for(series, settings.modality, roi, people),
        settings,
        n_folds=folds,
        progress=progress,
        notify=notify or silence,
    )


def apply_contours(
    table: StrPath,
    network: StrPath,
    *,
    out: StrPath,
    modality: str = "",
    roi: str = "",
    overwrite: bool = False,
    progress: "Progress | None" = None,
    notify: Callable[[str], None] | None = None,
) -> "AppliedContours":
    """Draw the region of new patients by a network that ``contour_volumes`` has trained.

    Args:
        table: with case, modality and path; where a person has drawn a mask, the network is judged by it,
            unless it has learnt from the patient.
        network: the run folder of ``contour_volumes``, or its network.safetensors.
        out: the run folder to write: masks, and volumes.csv, which names them.
        modality: of the table; that of the training if not given.
        roi: the region, where the table names none.
        overwrite: replace a finished run.
        progress: shows volumes.
        notify: called with what a reader should know, as ``print``.

    Raises:
        FitError: there is no such network.
        CohortError: the table cannot be read, or lacks the modality. A volume that cannot be read stops
            nothing: see ``failed`` of the result.
        LeakageError: a mask of the table was drawn by a network, or two patients have one image.
        RunError: the folder holds another run.

    Example:
        applied = mil.apply_contours("volumes.csv", "contours", out="applied")
        print(applied.drawn, applied.seen)
    """
    from mil.contouring.application import apply_contours as apply
    from mil.contouring.run import read_table_for
    from mil.contouring.stored import load_contours
    from mil.runs.record import NewRun

    contours = load_contours(Path(network))
    name = modality or contours.settings.modality
    stored = {
        "modality": name,
        "table": str(Path(table).absolute()),
        "apply": str(Path(network).absolute()),
        "out": str(Path(out).absolute()),
        "roi": roi,
    }
    return apply(
        NewRun(path=Path(out), settings=stored, overwrite=overwrite),
        read_table_for(Path(table), name, roi),
        contours,
        modality=name,
        progress=progress,
        notify=notify or silence,
    )
