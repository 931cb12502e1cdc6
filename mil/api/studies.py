"""Whole studies from Python: the same cases at several scales, and published protocols repeated."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from mil.api.options import (
    ModelLike,
    ReadingOptions,
    SlideReading,
    StrPath,
    as_path,
    job_settings,
    model_names_of,
    notify_of,
    settings_for,
    table_reading,
    task_or_default,
)

if TYPE_CHECKING:
    from features.extraction.jobs import SlideJob
    from features.recipe import Recipe
    from mil.data.case import Row
    from mil.data.volumes import VolumeTable
    from mil.protocols.protocol import Protocol
    from mil.protocols.run import ProtocolResult
    from mil.scales.ladder import Ladder
    from mil.settings import FitSettings, SplitSettings
    from mil.tasks.task import Task


def compare_scales(  # noqa: PLR0913 - what, and how it is run
    cohort: StrPath,
    model: ModelLike = "abmil",
    *,
    slides: StrPath,
    out: StrPath,
    recipe: "Recipe",
    mpp: Sequence[float] = (0.25, 0.5, 0.625, 1.0, 2.5),
    tile: int | Sequence[int] = (),
    task: "Task | None" = None,
    settings: "FitSettings | None" = None,
    split: "SplitSettings | None" = None,
    allow_missing: bool = False,
    allow_duplicates: bool = False,
    overwrite: bool = False,
    **options: Unpack[SlideReading],
) -> "Ladder":
    """Extract a cohort at several scales, and cross-validate one model at each in the same folds.

    What an interrupted call has finished is used again. ``ladder.csv``, ``ladder.json`` and ``ladder.png``
    in the folder show how many tiles and seconds a slide takes at each scale, and how well the model does.

    Args:
        cohort: table with case, slide and the outcome.
        model: a name of ``mil.list_models()``, or a head of your own as a class.
        slides: folder with the table's slides.
        out: the folder; each scale has a store and a run in it.
        recipe: how to tile and embed, apart from scale and side.
        mpp: micrometres per pixel, two or more; the first is the baseline that the others are tested against.
        tile: side of a tile in pixels: one for all scales, or one for each; if not given 224, or less at a
            scale where a slide would have fewer than four tiles.
        task: what is learnt; a diagnosis if not given.
        settings: how the model is trained.
        split: folds, repeats and seed.
        allow_missing: go on without slides that lack an outcome.
        allow_duplicates: go on with slides whose bags are identical.
        overwrite: cross-validate again.
        **options: see ``mil.api.options.SlideReading``.

    Raises:
        InputError: a scale is named twice, there is only one, or sides and scales do not go together.
        RunError: a slide has no bag at one of the scales.
        SarcomilError: as ``mil.extract`` and ``mil.cross_validate``.

    Example:
        ladder = mil.compare_scales(
            "cohort.csv", "pooled-logistic", slides="slides", annotations="annotations", out="ladder",
            recipe=mil.Recipe(backbone="test_resnet", weights="random"), mpp=(0.5, 1.0), tile=32,
            split=mil.SplitSettings(folds="2"),
        )
        for rung in ladder.rungs:
            print(rung.magnification, rung.tiles, rung.accuracy.value, rung.p)
    """
    from features.progress import Silent
    from mil.report.ladder import write_ladder
    from mil.runs.cross_validation import Computing, Plan
    from mil.scales.ladder import ScaledSlides, climb_ladder
    from mil.settings import SplitSettings
    from mil.study import Study

    chosen, reading = task_or_default(task), table_reading(options)
    sides = (tile,) if isinstance(tile, int) else tuple(tile)
    study = Study(
        table=Path(cohort),
        task=chosen,
        store=Path(out),  # replaced by that of each scale
        reading=reading,
        allow_missing=allow_missing,
        allow_duplicates=allow_duplicates,
    )
    scaled = ScaledSlides(
        slides=Path(slides),
        settings=job_settings(options),
        recipe=recipe,
        mpps=tuple(mpp),
        tiles_px=sides * len(mpp) if len(sides) == 1 else sides,
    )
    plan = Plan(
        models=model_names_of(model),
        fit=settings_for(chosen, settings),
        split=split or SplitSettings(),
    )
    computing = Computing(progress=options.get("progress") or Silent(), notify=notify_of(options))
    ladder = climb_ladder(study, scaled, plan, Path(out), overwrite=overwrite, computing=computing)
    write_ladder(ladder)
    return ladder


def list_protocols() -> tuple[str, ...]:
    """Names of the published studies that can be repeated.

    Example:
        print(", ".join(mil.list_protocols()))
    """
    from mil.protocols.protocol import protocol_names

    return tuple(protocol_names())


def run_protocol(  # noqa: PLR0913 - what, and how it is run
    name: str,
    cohort: StrPath,
    *,
    out: StrPath,
    slides: StrPath | None = None,
    annotations: StrPath | None = None,
    changes: Sequence[str] = (),
    slide_mpp: float | None = None,
    roi: str = "",
    cases: StrPath | None = None,
    device: str = "auto",
    workers: int = 0,
    overwrite: bool = False,
    **options: Unpack[ReadingOptions],
) -> "ProtocolResult":
    """Repeat a published study on your own cases; printed and measured figures stand side by side.

    The same call continues an interrupted run.

    Args:
        name: a name of ``mil.list_protocols()``; ``mil.load_protocol`` shows the study.
        cohort: table with case, slide and label; for a study on CT or MRI a table of series with label.
        out: the folder to write.
        slides: folder with the table's slides; not for a study on CT or MRI.
        annotations: folder with their annotations; all tissue is used if not given.
        changes: of settings, as ``"extract.weights=random"``; the result lists them.
        slide_mpp: micrometres per level-0 pixel, where the slides do not say.
        roi: of CT or MRI, the region, where the table names none.
        cases: of CT or MRI, a table with one row per case, whose columns are added.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        workers: threads; 0 is one per core.
        overwrite: replace a finished run.
        **options: see ``mil.api.options.ReadingOptions``.

    Raises:
        InputError: slides are given for a study on CT or MRI, or none for one on slides.
        ProtocolError: there is no such study or setting, a slide has no label, or the cohort cannot carry it.
        RunError: the folder holds another run.
        LeakageError: weights have seen a case that would be tested.

    Example:
        quick = ["arms=ResNet50V2", "arms.backbone=test_resnet", "fit.epochs=1", "split.folds=2"]
        quick += ["extract.weights=random", "extract.tile=64", "extract.mpp=0.5"]
        result = mil.run_protocol(
            "usta-phase1", "cohort.csv", slides="slides", annotations="annotations", out="repeated",
            changes=quick,
        )
        print(result.rows(), result.limitations())
    """
    from mil.protocols.protocol import load_protocol, with_changes
    from mil.protocols.run import run_protocol as repeat
    from mil.runs.record import NewRun

    protocol = with_changes(load_protocol(name), changes)
    protocol.check()
    places = {"cohort": cohort, "slides": slides, "annotations": annotations, "cases": cases}
    reading = table_reading(options)
    stored: dict[str, Any] = {
        "name": name,
        **{key: None if place is None else _absolute(place) for key, place in places.items()},
        "out": _absolute(out),
        "set": list(changes),
        "slide_mpp": slide_mpp,
        "case_from": reading.case_from,
        "label_is": list(reading.label_is),
        "known_at_diagnosis": list(reading.known_at_diagnosis),
        "roi": roi,
        "device": device,
        "workers": workers,
    }
    rows, jobs = _cases_of(protocol, Path(cohort), stored, options)
    return repeat(
        NewRun(path=Path(out), settings=stored, overwrite=overwrite),
        protocol,
        rows,
        jobs,
        device=device,
        workers=workers,
        progress=options.get("progress"),
        notify=notify_of(options),
    )


def _absolute(place: StrPath) -> str:
    return str(Path(place).absolute())


def _cases_of(
    protocol: "Protocol", cohort: Path, stored: dict[str, Any], options: ReadingOptions
) -> "tuple[Sequence[Row], Sequence[SlideJob] | VolumeTable]":
    """The rows of the table, and their slides or series."""
    from features.errors import InputError
    from features.extraction.jobs import JobSettings
    from mil.data.jobs import read_jobs
    from mil.data.table import read_table
    from mil.data.volumes import read_volume_table, rows_of

    slides, annotations = as_path(stored["slides"]), as_path(stored["annotations"])
    if any(arm.shows for arm in protocol.arms):
        if slides or annotations:
            raise InputError(
                f"{protocol.name} is a study on CT or MRI: its table names series. Leave out slides=... and "
                "annotations=...."
            )
        volumes = read_volume_table(cohort, stored["roi"], as_path(stored["cases"]))
        return rows_of(volumes), volumes
    if slides is None:
        raise InputError(f"{protocol.name} reads slides. Set slides to their folder.")
    reading = table_reading(options)
    settings = JobSettings(annotations=annotations, slide_mpp=stored["slide_mpp"])
    rows = read_table(cohort, reading, notify_of(options))
    return rows, read_jobs([cohort], slides, settings, reading)
