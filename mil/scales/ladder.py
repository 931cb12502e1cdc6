"""The same cases at several scales: what each costs, and how well its models tell the cases apart."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from features.errors import InputError
from features.extraction.jobs import JobSettings, SlideJob, jobs_of_rows
from features.extraction.run import Extraction, extract_jobs
from features.extraction.survey import count_tiles
from features.files.parse import parse_json
from features.progress import Notify, Progress, Silent
from features.recipe import Recipe
from features.summary import listed
from mil.data.table import read_table, split_train_test
from mil.errors import RunError
from mil.evaluation.display import Table, format_estimate, format_p
from mil.evaluation.intervals import Estimate
from mil.evaluation.judge import compare_tables, evaluate
from mil.runs.cross_validation import Computing, Plan, StoredCases, run_cross_validation
from mil.runs.files import write_json
from mil.runs.record import NewRun
from mil.runs.run import Run, open_run
from mil.study import Study

MAGNIFICATION_UM = 10.0  # 40x is nominally 0.25 micrometres per pixel
ACCURACY = "accuracy"
SIDES_PX = (224, 192, 160, 128, 96, 64, 32)  # of tiles; the first of which all slides have enough
LEAST_TILES = 4  # of a slide: enough
COST = "cost.json"  # in the folder of a scale: what its extraction took


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One scale.

    Attributes:
        mpp: micrometres per pixel.
        tile_px: side of a tile in pixels.
        tiles: median number per slide.
        seconds_per_slide: to read and embed its tiles, on this machine.
        run: the cross-validation of its models.
        accuracy: of the model, by the metric of the ladder.
        p: that this scale and the first differ on the same cases; None for the first.
    """

    mpp: float
    tile_px: int
    tiles: float
    seconds_per_slide: float
    run: Run
    accuracy: Estimate
    p: float | None

    @property
    def magnification(self) -> str:
        """Nominal, as 40x."""
        return f"{MAGNIFICATION_UM / self.mpp:g}x"


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """All scales.

    Attributes:
        path: the folder.
        model: that was cross-validated at every scale.
        metric: name of the measure.
        label: its name for people.
        n_cases: cases.
        rungs: from the first scale that was asked for to the last.
    """

    path: Path
    model: str
    metric: str
    label: str
    n_cases: int
    rungs: tuple[Rung, ...]

    @property
    def sides(self) -> str:
        """What tiles of several sides mean for the comparison, in a sentence; empty where all have one."""
        largest = max(rung.tile_px for rung in self.rungs)
        smaller = [rung for rung in self.rungs if rung.tile_px < largest]
        if not smaller:
            return ""
        named = listed([f"{rung.magnification} ({rung.tile_px} px)" for rung in smaller])
        return (
            f"At {named} tiles are smaller than the {largest} px of the others, and the backbone sees them "
            "enlarged: these scales differ in what a tile shows of the tissue, too."
        )

    def table(self) -> Table:
        """One row per scale."""
        first = self.rungs[0].magnification
        return Table(
            "",
            (
                "scale",
                "mpp",
                "side of a tile",
                "tiles",
                "seconds a slide",
                self.label,
                f"p against {first}",
            ),
            [
                (
                    rung.magnification,
                    f"{rung.mpp:g}",
                    f"{rung.tile_px} px, {rung.tile_px * rung.mpp:.0f} µm",
                    f"{rung.tiles:.0f}",
                    f"{rung.seconds_per_slide:.1f}",
                    format_estimate(rung.accuracy),
                    "" if rung.p is None else format_p(rung.p),
                )
                for rung in self.rungs
            ],
            (
                f"{self.model}, {self.n_cases} cases in the same folds at every scale. Tiles: the median of "
                "a slide. Seconds: to read and embed it on this machine.",
                *filter(None, [self.sides]),
            ),
        )

    def rows(self) -> list[dict[str, object]]:
        """Every number, one row per scale."""
        return [
            {
                "scale": rung.magnification,
                "mpp": rung.mpp,
                "tile_px": rung.tile_px,
                "tiles": rung.tiles,
                "seconds_per_slide": round(rung.seconds_per_slide, 3),
                self.metric: rung.accuracy.value,
                "low": rung.accuracy.low,
                "high": rung.accuracy.high,
                "p": rung.p,
            }
            for rung in self.rungs
        ]


@dataclass(frozen=True, kw_only=True)
class ScaledSlides:
    """Slides and the scales at which they are tiled.

    Attributes:
        slides: folder with the slides.
        settings: annotations and scale of the slides.
        recipe: how to tile and embed, apart from the scale.
        mpps: micrometres per pixel, in the order of the ladder; two or more.
        tiles_px: side of a tile at each of them; empty for the largest of which all slides have enough.
    """

    slides: Path
    settings: JobSettings
    recipe: Recipe
    mpps: tuple[float, ...]
    tiles_px: tuple[int, ...]


def climb_ladder(
    study: Study,
    scaled: ScaledSlides,
    plan: Plan,
    out: Path,
    *,
    overwrite: bool = False,
    computing: Computing | None = None,
) -> Ladder:
    """Extract a cohort at several scales, and cross-validate one model at each in the same folds.

    What an interrupted call has finished is used again.

    Args:
        study: the table and the task; its store is not read.
        scaled: its slides, and the scales.
        plan: one model, its training and the folds.
        out: the folder; each scale has a store and a run in it.
        overwrite: cross-validate again.
        computing: how fits are computed.

    Raises:
        InputError: a scale is named twice or alone, sides and scales do not go together, or there are two
            models.
        RunError: a slide has no bag at one of the scales.
        SarcomilError: as the extraction and the cross-validation.
    """
    computing = computing or Computing()
    mpps = scaled.mpps
    if len(set(mpps)) < max(len(mpps), 2) or len(plan.models) != 1:
        raise InputError(
            "A ladder has one model, and two scales or more, all different; got "
            f"mpp={','.join(f'{mpp:g}' for mpp in mpps)} and {len(plan.models)} models."
        )
    if scaled.tiles_px and len(scaled.tiles_px) != len(mpps):
        raise InputError(
            f"tile is one number, or one for each of {len(mpps)} scales; got {len(scaled.tiles_px)}."
        )
    rows, _ = split_train_test(read_table(study.table, study.reading))
    jobs = jobs_of_rows(rows, scaled.slides, scaled.settings)
    sides = scaled.tiles_px or choose_sides(jobs, scaled.recipe, mpps)
    costs, runs = [], []
    for mpp, tile_px in zip(mpps, sides, strict=True):
        folder = out / f"mpp-{mpp:g}"
        at_scale = replace(scaled.recipe, mpp=mpp, tile=tile_px)
        costs.append(_extract(jobs, at_scale, folder, computing.progress, computing.notify))
        here = replace(study, store=folder / "store")
        runs.append(_cross_validate(here, plan, folder / "run", computing, overwrite=overwrite))
    return _judge(out, study, plan.models[0], list(zip(mpps, sides, strict=True)), costs, runs)


def choose_sides(
    jobs: Sequence[SlideJob], recipe: Recipe, mpps: Sequence[float]
) -> tuple[int, ...]:
    """Of each scale, the largest side of a tile of which every slide has enough; else of which it has most.

    Slides that have no tile at all are left to the extraction, which names them.
    """
    recipes = [replace(recipe, mpp=mpp, tile=side) for mpp in mpps for side in SIDES_PX]
    counts = np.array([count_tiles(job, recipes, LEAST_TILES) for job in jobs])
    counts = counts.reshape(len(jobs), len(mpps), len(SIDES_PX))  # 0 to all of a slide's tiles
    some = counts[counts.any(axis=(1, 2))]
    if not len(some):
        return SIDES_PX[:1] * len(mpps)
    enough = np.minimum(some.min(axis=0), LEAST_TILES).argmax(axis=1)  # the first of the highest
    return tuple(SIDES_PX[place] for place in enough)


def _extract(
    jobs: Any, recipe: Recipe, folder: Path, progress: Progress | None, notify: Notify
) -> dict[str, float]:
    """Fill the store of a scale; returns tiles and seconds per slide, as they were when it was filled."""
    extraction: Extraction = extract_jobs(
        jobs, recipe, folder / "store", progress=progress or Silent(), notify=notify
    )
    if extraction.failed:
        first = extraction.failed[0]
        raise RunError(
            f"{len(extraction.failed)} slides have no bag at {recipe.mpp:g} micrometres per pixel, e.g. "
            f"{first.slide}: {first.reason} Scales are compared on the same cases: leave this scale out, or "
            "take smaller tiles at it."
        )
    done = extraction.with_status("done")
    earlier = (
        parse_json((folder / COST).read_text(encoding="utf-8")) if (folder / COST).is_file() else {}
    )
    seconds = [*earlier.get("seconds", []), *(outcome.seconds for outcome in done)]
    tiles = [outcome.n_tiles for outcome in extraction.outcomes if outcome.n_tiles]
    write_json(folder / COST, {"seconds": seconds})
    return {"tiles": float(median(tiles)), "seconds": sum(seconds) / max(len(seconds), 1)}


def _cross_validate(
    study: Study, plan: Plan, folder: Path, computing: Computing, *, overwrite: bool
) -> Run:
    """The run of a scale, made now unless it is there."""
    if (folder / "run.json").is_file() and not overwrite:
        run = open_run(folder)
        if run.complete:
            return run
    cases = StoredCases(study.cohort(computing.notify))
    new = NewRun(path=folder, overwrite=overwrite)
    return run_cross_validation(cases, plan, new, computing).run


def _judge(
    out: Path,
    study: Study,
    model: str,
    scales: Sequence[tuple[float, int]],
    costs: Sequence[dict[str, float]],
    runs: Sequence[Run],
) -> Ladder:
    """The ladder of the runs."""
    predictions = [run.predictions().select([model]) for run in runs]
    estimates = [evaluate(table)[model].metrics for table in predictions]
    metric = ACCURACY if ACCURACY in estimates[0] else study.task.null_metric[0]
    rungs = []
    for number, ((mpp, tile_px), cost, run) in enumerate(zip(scales, costs, runs, strict=True)):
        p = None
        if number:
            [pair] = compare_tables(predictions[number], predictions[0]).pairs
            p = pair.p
        rungs.append(
            Rung(
                mpp=mpp,
                tile_px=tile_px,
                tiles=cost["tiles"],
                seconds_per_slide=cost["seconds"],
                run=run,
                accuracy=estimates[number][metric],
                p=p,
            )
        )
    return Ladder(
        path=out,
        model=model,
        metric=metric,
        label=metric.replace("_", " "),
        n_cases=len(runs[0].labels),
        rungs=tuple(rungs),
    )
