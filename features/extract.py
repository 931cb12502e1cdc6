"""A cohort of slides to a store of bags: one bad slide never stops the run, a second run resumes."""

import csv
import hashlib
import io
import os
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image
from shapely.affinity import translate

from features import annotations, bags
from features.backbones.registry import Backbone, load_backbone
from features.bags import Bag
from features.embed import DTYPES, embed, resolve_device, resolve_precision
from features.errors import BagError, FeaturesError, ScaleError, SlideError
from features.folders import open_folder
from features.masks import tissue_region
from features.progress import Progress, Silent
from features.recipe import Recipe
from features.slides import Slide, open_slide
from features.tiling import SlideTiles, TileSource, lay_grid, sample

THUMBNAIL_PX = 512
IDENTITY_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class SlideJob:
    """One slide to extract.

    Attributes:
        slide: the bag's name.
        files: the slide file, or the tile images of one slide.
        annotations: folder with the slide's annotation; None uses the tissue.
        mpp: micrometres per level-0 pixel, overriding the file; needed for tile images.
        case: if known.
    """

    slide: str
    files: tuple[Path, ...]
    annotations: Path | None = None
    mpp: float | None = None
    case: str = ""
    from_tiles: bool = False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one slide: ``done``, ``resumed`` (a bag answered already) or ``failed``."""

    slide: str
    status: str
    n_tiles: int = 0
    seconds: float = 0.0
    reason: str = ""
    details: str = ""


def extract(
    jobs: Sequence[SlideJob],
    recipe: Recipe,
    out: Path,
    *,
    device: str = "auto",
    workers: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[Outcome, ...]:
    """Extract every slide into ``<out>/<slide>.h5``; failures go to ``<out>/failures.csv``.

    A bag that answers the same request (recipe, slide, annotation, scale) is kept as it is.

    Args:
        jobs: the slides, each name once.
        recipe: how to tile and embed.
        out: the bag store.
        device: torch device, or ``auto``.
        workers: threads that read tiles and run the network; 0 takes one per core.
        overwrite: redo bags of another recipe instead of refusing the store.
        progress: told of slides and tiles.

    Raises:
        BagError: the store holds bags of another recipe, or two jobs have one name.
        BackboneError: the backbone cannot be loaded.
    """
    _check_names(jobs)
    progress = progress or Silent()
    backbone = load_backbone(recipe.backbone, recipe.weights, seed=recipe.seed)
    resolved = resolved_recipe(recipe, backbone, jobs, device)
    if not overwrite:
        _check_store(out, resolved)
    out.mkdir(parents=True, exist_ok=True)
    run = _Run(recipe, resolved, backbone, out, device, workers, progress)
    outcomes = []
    with progress.task("slides", len(jobs), "slides") as advance_slides:
        for job in jobs:
            outcomes.append(_guarded(run, job))
            advance_slides(1)
    _write_failures(out / "failures.csv", outcomes)
    return tuple(outcomes)


def _guarded(run: "_Run", job: SlideJob) -> Outcome:
    """Extract one slide; whatever goes wrong is that slide's outcome."""
    started = time.perf_counter()
    outcome = Outcome(slide=job.slide, status="failed")
    try:
        n_tiles, fresh = run.extract(job)
        outcome = replace(outcome, status="done" if fresh else "resumed", n_tiles=n_tiles)
    except FeaturesError as error:
        outcome = replace(outcome, reason=str(error))
    except Exception as error:  # noqa: BLE001 - the one guard: a bad slide must not cost the night
        reason = f"{type(error).__name__}: {error}"
        outcome = replace(outcome, reason=reason, details=traceback.format_exc())
    return replace(outcome, seconds=time.perf_counter() - started)


def resolved_recipe(
    recipe: Recipe, backbone: Backbone, jobs: Sequence[SlideJob], device: str
) -> dict[str, Any]:
    """The recipe with every choice made: what two bags must share to be used together."""
    dtype = resolve_precision(recipe.precision, resolve_device(device))
    precision = next(name for name, meant in DTYPES.items() if meant is dtype)
    regions = {
        "tiles" if job.from_tiles else "annotations" if job.annotations else "tissue"
        for job in jobs
    }
    if len(regions) > 1:
        raise BagError(
            f"One store takes one kind of region; got {' and '.join(sorted(regions))}. Extract them "
            "into two stores."
        )
    region = regions.pop() if regions else "tissue"
    settings = asdict(recipe) | {
        "backbone": backbone.name,
        "weights": backbone.weights,
        "weights_sha256": backbone.weights_sha256,
        "input_px": backbone.input_px,
        "mean": backbone.mean,
        "std": backbone.std,
        "precision": precision,
        "region": region,
    }
    if region == "tissue":
        settings |= {"classes": (), "exclude": ()}
    if region == "tiles":  # their scale and extent are those of the image files
        settings |= {"classes": (), "exclude": (), "mpp": None, "min_coverage": None}
    return {
        key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()
    }


@dataclass(frozen=True)
class _Run:
    """What all slides of a run share."""

    recipe: Recipe
    resolved: Mapping[str, Any]
    backbone: Backbone
    out: Path
    device: str
    workers: int
    progress: Progress

    def extract(self, job: SlideJob) -> tuple[int, bool]:
        """Extract a slide unless its bag answers already; the number of tiles, and whether it is new."""
        path = self.out / f"{job.slide}.h5"
        annotation = None
        if job.annotations:
            annotation = annotations.find_annotation(job.annotations, job.files[0].name, job.slide)
        drawn = annotations.annotation_sha256(annotation) if annotation else ""
        sources = _identities(job)
        request = bags.fingerprint(
            {
                "recipe": dict(self.resolved),
                "slide": job.slide,
                "case": job.case,
                "files": sources,
                "mpp": job.mpp,
                "annotation_sha256": drawn,
            }
        )
        if bags.request_of(path) == request:
            return len(bags.read_bag(path)), False
        bag = self.bag_of_tiles(job) if job.from_tiles else self.bag_of_slide(job, annotation)
        stamped = replace(
            bag,
            request_sha256=request,
            annotation_sha256=drawn,
            source_sha256=bags.fingerprint({"files": sources}),
        )
        bags.write_bag(path, stamped)
        return len(bag), True

    def bag_of_slide(self, job: SlideJob, annotation: Path | None) -> Bag:
        """Lay tiles over the slide's tumour, or its tissue, and embed them."""
        recipe = self.recipe
        with open_slide(job.files[0], mpp=job.mpp) as slide:
            area = _area(slide, annotation, recipe)
            grid = lay_grid(
                area, slide, tile_px=recipe.tile, mpp=recipe.mpp, min_coverage=recipe.min_coverage
            )
            if not len(grid):
                inside = "tissue" if annotation is None else " or ".join(recipe.classes)
                remedy = (
                    "Tissue is found by colour on a bright background: pass --annotations where it is not so"
                    if annotation is None
                    else "Check the annotation"
                )
                raise SlideError(
                    f"{job.slide}: no tile of {recipe.tile} px at {recipe.mpp:g} micrometres per pixel "
                    f"is {recipe.min_coverage:.0%} {inside}. {remedy}, use a finer --mpp, or lower "
                    "--min-coverage."
                )
            grid = sample(grid, recipe.max_tiles, seed=recipe.seed, name=job.slide)
            bag = self.embedded(job, SlideTiles(slide, grid), slide.size_l0, slide.mpp)
            thumbnail = _jpeg(slide.thumbnail(THUMBNAIL_PX))
            return replace(
                bag,
                mpp_source=slide.mpp_source,
                bounds_l0=slide.bounds_l0,
                thumbnail=thumbnail,
            )

    def bag_of_tiles(self, job: SlideJob) -> Bag:
        """Embed the tile images of one slide."""
        if job.mpp is None:
            raise ScaleError(
                f"{job.slide}: tile images carry no micrometres per pixel. Pass --slide-mpp, e.g. 0.5 "
                "for 20x."
            )
        source = open_folder(job.files, mpp=job.mpp, tile_px=self.recipe.tile)
        return self.embedded(job, source, source.size_l0, (job.mpp, job.mpp))

    def embedded(
        self,
        job: SlideJob,
        source: TileSource,
        size_l0: tuple[int, int],
        mpp_l0: tuple[float, float],
    ) -> Bag:
        """The bag of a tile source."""
        grid = source.grid
        with self.progress.task(job.slide, len(grid), "tiles") as advance:
            features = embed(
                source,
                self.backbone,
                precision=self.resolved["precision"],
                device=self.device,
                workers=self.workers,
                advance=advance,
            )
        return Bag(
            slide=job.slide,
            features=bags.compact(features),
            coords_l0=grid.coords_l0,
            coverage=grid.coverage,
            side_l0=grid.side_l0,
            size_l0=size_l0,
            mpp_l0=mpp_l0,
            mpp_source="given",
            tile_px=grid.tile_px,
            target_mpp=grid.mpp,
            recipe=self.resolved,
            case=job.case,
            trained_on=self.backbone.trained_on,
        )


def _area(slide: Slide, annotation: Path | None, recipe: Recipe) -> annotations.Region:
    """The region to tile: the drawn classes less the excluded ones, or the tissue."""
    if annotation is None:
        return tissue_region(slide)
    held = annotations.read_annotations(annotation)
    drawn = annotations.region(held, recipe.classes, source=annotation.name)
    kept = annotations.polygons_of(drawn - annotations.excluded_region(held, recipe.exclude))
    return annotations.polygons_of(
        translate(kept, *slide.bounds_l0)
    )  # from QuPath's frame to level 0


def _identities(job: SlideJob) -> list[str]:
    """What tells the slide's files from others."""
    missing = [str(path) for path in job.files if not path.is_file()]
    if missing:
        raise SlideError(
            f"{job.slide}: no such file {missing[0]}. Check the path, or --slides and the slide column."
        )
    return [_identity(path) for path in job.files]


def _identity(path: Path) -> str:
    """Size and both ends of a file: changes with its content, yet costs nothing on a slide of gigabytes."""
    with path.open("rb") as file:
        ends = file.read(IDENTITY_BYTES)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - IDENTITY_BYTES))
        ends += file.read(IDENTITY_BYTES)
    return f"{size}-{hashlib.sha256(ends).hexdigest()}"


def _check_names(jobs: Sequence[SlideJob]) -> None:
    seen: dict[str, SlideJob] = {}
    for job in jobs:
        if job.slide in seen:
            raise BagError(
                f"Two slides are named {job.slide!r}: {seen[job.slide].files[0]} and {job.files[0]}. "
                "Rename one, or extract them into two stores."
            )
        seen[job.slide] = job


def _check_store(out: Path, resolved: Mapping[str, Any]) -> None:
    for path in sorted(out.glob("*.h5")):
        try:
            held = bags.read_bag(path).recipe
        except BagError:
            continue  # broken: it will be made again
        differing = [key for key, value in resolved.items() if held.get(key) != value]
        if differing:
            changes = ", ".join(
                f"{key} {held.get(key)} -> {resolved[key]}" for key in differing[:4]
            )
            raise BagError(
                f"{out} holds bags of another recipe ({path.name}: {changes}). Use another --out, or "
                "--overwrite to make them again."
            )


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _write_failures(path: Path, outcomes: Sequence[Outcome]) -> None:
    """The failed slides with their reasons; no file when there is none."""
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if not failed:
        path.unlink(missing_ok=True)
        return
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["slide", "reason", "details"])
        writer.writeheader()
        for outcome in failed:
            row = {"slide": outcome.slide, "reason": outcome.reason, "details": outcome.details}
            writer.writerow(row)
