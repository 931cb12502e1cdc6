"""A cohort of slides to a store of bags: one bad slide never stops the run, a second run resumes."""

import contextlib
import errno
import io
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features import bags
from features.annotations import annotation_sha256
from features.backbones.registry import Backbone, load_backbone
from features.bags import Bag
from features.colour import to_srgb
from features.embed import Embedder, Tiles, Work, Workers, resolve_device
from features.errors import (
    BagError,
    FeaturesError,
    ScaleError,
    SlideError,
    SlideExcluded,
    TileError,
)
from features.folders import FolderTiles, open_folder
from features.plan import SlideJob, identities, share_per_case, survey, tiles_of
from features.precision import DTYPES, resolve_precision
from features.progress import Progress, Silent
from features.quality import bits, quality_flags
from features.recipe import Recipe
from features.rows import Rows
from features.slides import Slide, open_slide
from features.stain import (
    Stain,
    StainReference,
    fit_stain,
    load_reference,
    normalise,
    save_reference,
)
from features.store import Outcome, Store, differences
from features.tiling import SlideTiles, TileGrid, TileSource, drawn, held_out

THUMBNAIL_PX = 512
SLIDES_AT_ONCE = 2  # while one is embedded, the next is opened and the last one written
STAIN_TILES = 32  # of a slide, from which its stain is estimated
TABLES_EVERY_S = 10.0
WAIT_S = 0.5  # between looks at slides another process works on
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
OUTDATED = ".outdated"
HELD_OUT = "-HOLD-OUT-SHARES-CASES"


@dataclass(frozen=True)
class Target:
    """One store to fill: a recipe, and which of a slide's tiles it takes.

    Attributes:
        recipe: what was asked.
        store: where.
        held_out: 0 for the tiles drawn by the recipe; else this many of those it leaves.
    """

    recipe: Recipe
    store: Store
    held_out: int = 0


def targets(recipes: Sequence[Recipe], out: Path, *, hold_out_tiles: int = 0) -> tuple[Target, ...]:
    """The stores of a run: ``out`` itself, or one folder in it per scale, and their hold-outs beside them."""
    found = []
    for recipe in recipes:
        path = out if len(recipes) == 1 else out / f"mpp-{recipe.mpp:g}"
        found.append(Target(recipe, Store(path)))
        if hold_out_tiles:
            held = path.absolute().with_name(path.absolute().name + HELD_OUT)
            found.append(Target(recipe, Store(held), hold_out_tiles))
    return tuple(found)


def extract(  # noqa: PLR0913 - one argument per choice
    jobs: Sequence[SlideJob],
    recipe: Recipe | Sequence[Recipe],
    out: Path,
    *,
    device: str = "auto",
    workers: int = 0,
    overwrite: bool = False,
    hold_out_tiles: int = 0,
    part: tuple[int, int] = (1, 1),
    progress: Progress | None = None,
) -> tuple[Outcome, ...]:
    """Extract every slide into ``<out>/<slide>.h5``; all outcomes go to ``<out>/extract.csv``.

    A bag that answers the same request (recipe, slide, annotation, scale) is kept as it is. Several
    processes may fill one store: each slide is done once, by whoever claims it first.

    Args:
        jobs: the slides, each name once; the largest is begun first.
        recipe: how to tile and embed; several that differ in mpp are read side by side, each into
            ``<out>/mpp-<mpp>``.
        out: the bag store.
        device: torch device, or ``auto``.
        workers: threads that read tiles and run the network; 0 takes one per core.
        overwrite: redo bags of another recipe instead of refusing the store.
        hold_out_tiles: that many of each slide's other tiles go into a store of their own, whose name
            says that it shares its cases.
        part: (i, n) does the i-th of n parts; stains and shares of cases are those of all slides.
        progress: told of slides and tiles.

    Returns:
        One outcome per slide of the part and store, in the order of ``jobs``.

    Raises:
        BagError: the store holds bags of another recipe, or two jobs have one name.
        BackboneError: the backbone cannot be loaded.
    """
    recipes = (recipe,) if isinstance(recipe, Recipe) else tuple(recipe)
    run = Run(
        jobs, targets(recipes, out, hold_out_tiles=hold_out_tiles), device, overwrite=overwrite
    )
    progress = progress or Silent()
    found: dict[str, list[Outcome]] = {}
    mine, written = shard(run.jobs, *part), time.monotonic()
    try:
        with (
            run.embedding(workers, progress),
            progress.task("slides", len(mine), "slides") as advance,
            contextlib.closing(_each(run, largest_first(mine))) as each,
        ):
            for job, outcomes in each:
                found[job.slide] = outcomes
                advance(1)
                if time.monotonic() - written > TABLES_EVERY_S:
                    run.write_tables()
                    written = time.monotonic()
    finally:  # also when interrupted: what is done is on record
        run.write_tables()
    return tuple(o for job in jobs if job.slide in found for o in found[job.slide])


def largest_first(jobs: Sequence[SlideJob]) -> list[SlideJob]:
    """Jobs by size of their files: what is done last should not be the longest."""

    def size(job: SlideJob) -> int:
        return sum(path.stat().st_size for path in job.files if path.is_file())

    return sorted(jobs, key=size, reverse=True)


def shard(jobs: Sequence[SlideJob], number: int, of: int) -> list[SlideJob]:
    """Part ``number`` (from 1) of ``of`` parts of about equal work; every slide is in exactly one."""
    return largest_first(sorted(jobs, key=lambda job: job.slide))[number - 1 :: of]


def _each(
    run: "Run", jobs: Sequence[SlideJob]
) -> Generator[tuple[SlideJob, list[Outcome]], None, None]:
    """The outcomes of all jobs as they come; what another process works on comes last."""
    elsewhere = []
    working: dict[Future[list[Outcome] | None], SlideJob] = {}
    with ThreadPoolExecutor(SLIDES_AT_ONCE, "slide") as pool:
        try:
            for job in jobs:
                working[pool.submit(run.slide, job)] = job
            for future in as_completed(working):
                outcomes = future.result()
                if outcomes is None:
                    elsewhere.append(working[future])
                else:
                    yield working[future], outcomes
        except BaseException:
            run.stop()
            for future in working:
                future.cancel()
            raise
    while elsewhere:
        job = elsewhere.pop(0)
        outcomes = run.slide(job)
        if outcomes is not None:
            yield job, outcomes
        else:
            elsewhere.append(job)
            time.sleep(WAIT_S)


@dataclass
class _Part:
    """One slide's share in one store, on its way to a bag."""

    target: Target
    resolved: Mapping[str, Any]
    at_most: int  # tiles
    outcome: Outcome
    request: str = ""
    grid: TileGrid | None = None
    work: Work | None = None
    rows: Rows | None = None
    finished: bool = False

    @property
    def path(self) -> Path:
        return self.target.store.bag(self.outcome.slide)

    def set_aside(self) -> None:
        """A bag made of what the slide or its annotation was before must not be taken for one of now."""
        if self.request:
            with contextlib.suppress(OSError):  # there was none
                self.path.replace(self.path.with_name(self.path.name + OUTDATED))

    def find(self, files: Sequence[Path]) -> bool:
        """Whether the bag asked for is there, or was set aside; one that lacks tiles may be mended."""
        aside = self.path.with_name(self.path.name + OUTDATED)
        if bags.request_of(self.path) != self.request:
            if bags.request_of(aside) != self.request:
                return False
            aside.replace(self.path)
        newest = max(path.stat().st_mtime for path in files)
        return not (bags.read_bag(self.path).n_failed and newest > self.path.stat().st_mtime)

    def finish(self, **changes: Any) -> None:
        """Settle the outcome."""
        self.outcome, self.finished = replace(self.outcome, **changes), True

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Whatever goes wrong inside is this part's outcome: a bad slide must not cost the night."""
        try:
            yield
        except CancelledError:
            raise  # the run was stopped: no outcome
        except SlideExcluded as error:
            self.finish(status="excluded", reason=str(error))
        except FeaturesError as error:
            self.finish(status="failed", reason=str(error))
        except Exception as error:  # noqa: BLE001 - the one guard
            reason = f"{type(error).__name__}: {error}"
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                reason = (
                    f"{self.outcome.slide}: no room in {self.target.store.path} ({error}). Free some, "
                    "then run the same command again."
                )
            self.finish(status="failed", reason=reason, details=traceback.format_exc())


class Run:
    """What all slides of a run share. Made once per process, also by the workers of a cluster.

    Raises:
        BagError: a store holds bags of another recipe, or two jobs have one name.
        BackboneError: the backbone cannot be loaded.
    """

    def __init__(
        self,
        jobs: Sequence[SlideJob],
        filled: Sequence[Target],
        device: str,
        *,
        overwrite: bool = False,
    ) -> None:
        check_names(jobs)
        if any(job.coordinates for job in jobs) and any(target.held_out for target in filled):
            raise BagError(
                "Given coordinates say which tiles to read: there are no others to hold out. Leave out "
                "--hold-out-tiles or --coordinates."
            )
        recipe = filled[0].recipe
        self.started = time.time()
        self.targets = filled
        self.backbone = load_backbone(recipe.backbone, recipe.weights, seed=recipe.seed)
        self.embedder = Embedder(self.backbone, precision=recipe.precision, device=device)
        self.reference = stain_reference(recipe, jobs) if recipe.stain != "off" else None
        self.resolved = [
            resolved_recipe(target, self.backbone, jobs, device, self.reference)
            for target in filled
        ]
        with contextlib.ExitStack() as filling:
            for target, resolved in zip(filled, self.resolved, strict=True):
                filling.enter_context(target.store.filling(resolved))
                if not overwrite:
                    _check_store(target.store, resolved)
                if self.reference:
                    with target.store.alone():
                        save_reference(target.store.path / "stain-reference.json", self.reference)
            self._filling = filling.pop_all()
        self.jobs = list(jobs)
        self.shares = [share_per_case(jobs, target.recipe) for target in filled]
        self.workers: Workers | None = None
        self.progress: Progress = Silent()

    @contextlib.contextmanager
    def embedding(self, workers: int, progress: Progress) -> Iterator[None]:
        """Have the threads that embed."""
        self.progress = progress
        with self._filling, Workers(self.embedder, workers) as self.workers:
            yield

    def stop(self) -> None:
        """Let the slides in work end without a bag."""
        if self.workers:
            self.workers.stop()

    def write_tables(self) -> None:
        """Write every store's tables."""
        for target in self.targets:
            target.store.write_tables()

    def slide(self, job: SlideJob) -> list[Outcome] | None:
        """Extract one slide for every target; None where another process works on it."""
        started = time.perf_counter()
        with contextlib.ExitStack() as held:
            for target in self.targets:
                if not held.enter_context(target.store.claim(job.slide)):
                    return None
            parts = [
                _Part(
                    target,
                    resolved,
                    share.get(job.slide, target.recipe.max_tiles),
                    Outcome(
                        slide=job.slide,
                        case=job.case,
                        status="failed",
                        store=str(target.store.path),
                    ),
                )
                for target, resolved, share in zip(
                    self.targets, self.resolved, self.shares, strict=True
                )
            ]
            _guarding(parts, lambda: self._make(job, parts))
            for part in parts:
                if part.outcome.status != "skipped":
                    part.outcome = replace(part.outcome, seconds=time.perf_counter() - started)
                part.target.store.record(part.outcome, since=self.started)
                if part.outcome.status in ("excluded", "failed"):
                    part.set_aside()
        return [part.outcome for part in parts]

    def _make(self, job: SlideJob, parts: Sequence[_Part]) -> None:
        """The bags of a slide that are not there yet."""
        annotation = job.annotation()
        drawn_sha256 = annotation_sha256(annotation) if annotation else ""
        sources = identities(job)
        for part in parts:
            part.request = _request(part, job, sources, drawn_sha256)
            if part.find(job.files):
                _tell_of_bag(part)
        parts = [part for part in parts if not part.finished]
        if not parts:
            return
        with contextlib.ExitStack() as opened:
            base = {
                "annotation_sha256": drawn_sha256,
                "source_sha256": bags.fingerprint({"files": sources}),
            }
            make = self._of_tiles if job.from_tiles else self._of_slide
            make(job, parts, base, opened)

    def _of_slide(
        self,
        job: SlideJob,
        parts: Sequence[_Part],
        base: dict[str, Any],
        opened: contextlib.ExitStack,
    ) -> None:
        """Lay tiles over the slide's tumour, or its tissue; embed them at all scales together."""
        began = time.perf_counter()
        slide = opened.enter_context(
            open_slide(job.files[0], mpp=job.mpp, mpp_source=job.mpp_source)
        )
        seen = survey(slide, job, parts[0].target.recipe)
        for part in parts:
            part.outcome = replace(
                part.outcome,
                tumour_of_tissue=seen.tumour_of_tissue,
                mpp=slide.mpp[0],
                mpp_source=slide.mpp_source,
                annotation_origin=seen.origin,
                reader=_reader(slide, part.target.recipe),
                notes=" ".join([*seen.notes, *_colour_note(slide, part.target.recipe)]),
            )
            with part.guarded():
                grid = tiles_of(slide, job, seen, part.target.recipe)
                part.grid = grid[_drawn(part, len(grid), job)]
                self._prepare(part, SlideTiles(slide, part.grid), slide, opened)
        overview = seen.overview.copy()
        overview.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
        spent = time.perf_counter() - began
        base |= {
            "size_l0": slide.size_l0,
            "mpp_l0": slide.mpp,
            "mpp_source": slide.mpp_source,
            "bounds_l0": slide.bounds_l0,
            "thumbnail": _jpeg(overview),
            "tumour_of_tissue": seen.tumour_of_tissue,
            "annotation_origin": seen.origin,
        }
        self._embed(job, parts, base, spent)

    def _of_tiles(
        self,
        job: SlideJob,
        parts: Sequence[_Part],
        base: dict[str, Any],
        opened: contextlib.ExitStack,
    ) -> None:
        """Embed the tile images of one slide."""
        if job.mpp is None:
            raise ScaleError(
                f"{job.slide}: tile images carry no micrometres per pixel. Pass --slide-mpp, e.g. 0.5 "
                "for 20x."
            )
        for part in parts:
            source = open_folder(job.files, mpp=job.mpp, tile_px=part.target.recipe.tile)
            part.outcome = replace(part.outcome, mpp=job.mpp, mpp_source=job.mpp_source)
            with part.guarded():
                rows = _drawn(part, len(source.grid), job)
                files = tuple(source.files[row] for row in rows)
                part.grid = source.grid[rows]
                self._prepare(part, FolderTiles(part.grid, files, job.mpp), None, opened)
            base |= {"size_l0": source.size_l0, "mpp_l0": (job.mpp, job.mpp)}
        self._embed(job, parts, base | {"mpp_source": job.mpp_source}, 0.0)

    def _prepare(
        self, part: _Part, source: TileSource, slide: Slide | None, opened: contextlib.ExitStack
    ) -> None:
        """All that embedding one part needs."""
        recipe, n_tiles = part.target.recipe, len(source.grid)
        recolour = to_srgb(slide.color_profile) if slide and recipe.icc == "srgb" else None
        if self.reference:
            recolour = _stained(self.reference.target, source, recolour)
        folder = part.path.parent
        folder.mkdir(parents=True, exist_ok=True)
        part.rows = opened.enter_context(Rows(folder, n_tiles, self.backbone.dim))
        name = f"{part.outcome.slide}" + (f" at {recipe.mpp:g}" if len(self.targets) > 1 else "")
        advance = opened.enter_context(self.progress.task(name, n_tiles, "tiles"))
        part.work = Work(source, part.rows.put, advance, flag=quality_flags, recolour=recolour)

    def _embed(
        self, job: SlideJob, parts: Sequence[_Part], base: Mapping[str, Any], opening_s: float
    ) -> None:
        """Run the network over all parts, and write their bags."""
        assert self.workers is not None
        ready = [part for part in parts if part.work and not part.finished]
        self.workers.embed(*(part.work for part in ready if part.work))
        for part in ready:
            assert part.work is not None
            with part.guarded():
                began = time.perf_counter()
                bag = self._bag(job, part, base)
                bags.write_bag(part.path, bag)
                stages = part.work.clock.seconds
                stages["open"] += opening_s / len(ready)
                stages["write"] += time.perf_counter() - began
                part.finish(
                    status="done", n_tiles=len(bag), n_unreadable=bag.n_failed, stages=dict(stages)
                )

    def _bag(self, job: SlideJob, part: _Part, base: Mapping[str, Any]) -> Bag:
        """The bag of one part: what was read, less what the recipe drops."""
        assert part.work
        assert part.rows
        assert part.grid is not None
        recipe, flags = part.target.recipe, part.work.flags
        assert part.rows.filled.sum() + len(part.work.unreadable) == len(flags), "a tile was lost"
        keep = part.rows.filled & ((flags & bits(recipe.drop)) == 0)
        if not keep.any():
            raise SlideExcluded(
                f"{job.slide}: --drop {', '.join(recipe.drop)} leaves none of {len(flags)} tiles."
            )
        grid = part.grid[np.flatnonzero(keep)]
        return Bag(
            slide=job.slide,
            features=bags.compact(part.rows.kept(keep)),
            coords_l0=grid.coords_l0,
            coverage=grid.coverage,
            side_l0=grid.side_l0,
            tile_px=grid.tile_px,
            target_mpp=grid.mpp,
            recipe=part.resolved,
            request_sha256=part.request,
            case=job.case,
            trained_on=self.backbone.trained_on,
            tile_flags=flags[keep],
            reader=part.outcome.reader or "images",
            n_failed=len(part.work.unreadable),
            **base,
        )


def resolved_recipe(
    target: Target,
    backbone: Backbone,
    jobs: Sequence[SlideJob],
    device: str,
    reference: StainReference | None = None,
) -> dict[str, Any]:
    """The recipe with every choice made: what two bags must share to be used together."""
    recipe = target.recipe
    dtype = resolve_precision(recipe.precision, resolve_device(device))
    precision = next(name for name, meant in DTYPES.items() if meant is dtype)
    regions = {job.region for job in jobs}
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
        "held_out": target.held_out,
        "stain_reference": _told(reference) if reference else None,
    }
    if region != "annotations":
        unused = {
            "classes": (),
            "exclude": (),
            "annotation_origin": None,
            "min_tumour_of_tissue": None,
        }
        settings |= unused
    if region in ("tiles", "coordinates"):
        settings |= {"min_coverage": None}
    if region == "tiles":  # their scale and extent are those of the image files
        settings |= {"mpp": None}
    return {
        key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()
    }


def stain_reference(recipe: Recipe, jobs: Sequence[SlideJob]) -> StainReference:
    """The stain to normalise to: as saved, or taken from the slides the recipe names.

    Raises:
        FeaturesError: a slide is not among the jobs, or holds too little tissue.
    """
    told = recipe.stain_reference
    if len(told) == 1 and told[0].endswith(".json"):
        return load_reference(Path(told[0]))
    by_name = {job.slide: job for job in jobs}
    missing = [name for name in told if name not in by_name]
    if missing:
        raise FeaturesError(
            f"--stain-reference {missing[0]}: no such slide among those of this run. Name slides of the "
            "table, or the stain-reference.json of a store."
        )
    tiles = []
    for name in told:
        job = by_name[name]
        if job.from_tiles:
            source = open_folder(job.files, mpp=job.mpp or recipe.mpp, tile_px=recipe.tile)
            tiles.append(_looked_at(source, None))
            continue
        with open_slide(job.files[0], mpp=job.mpp) as slide:
            grid = tiles_of(slide, job, survey(slide, job, recipe), recipe)
            recolour = to_srgb(slide.color_profile) if recipe.icc == "srgb" else None
            tiles.append(_looked_at(SlideTiles(slide, grid), recolour))
    return StainReference(
        fit_stain(recipe.stain, np.concatenate(tiles)),
        slides=told,
        cases=tuple(sorted({by_name[name].case for name in told})),
    )


def _told(reference: StainReference) -> dict[str, Any]:
    target = reference.target.to_json()
    return {"target": target, "slides": list(reference.slides), "cases": list(reference.cases)}


def _looked_at(source: TileSource, recolour: Callable[[Tiles], Tiles] | None) -> Tiles:
    """Some tiles from all over a source."""
    seen = []
    for row in np.unique(np.linspace(0, len(source.grid) - 1, STAIN_TILES).astype(int)):
        with contextlib.suppress(TileError):  # counted when its turn to be embedded comes
            seen.append(source.read(int(row)))
    if not seen:
        raise SlideError(
            "None of the tiles looked at for their stain can be decoded. Copy the file again."
        )
    tiles = np.stack(seen)
    return recolour(tiles) if recolour else tiles


def _stained(
    target: Stain, source: TileSource, before: Callable[[Tiles], Tiles] | None
) -> Callable[[Tiles], Tiles]:
    """Normalise from this slide's stain to the reference's."""
    own = fit_stain(target.method, _looked_at(source, before))

    def recolour(tiles: Tiles) -> Tiles:
        return normalise(before(tiles) if before else tiles, own, target)

    return recolour


def _guarding(parts: Sequence[_Part], work: Callable[[], None]) -> None:
    """Do the work; what goes wrong for the whole slide is the outcome of every part not settled yet."""
    with contextlib.ExitStack() as guards:
        failed = _Part(parts[0].target, {}, 0, parts[0].outcome)
        guards.callback(lambda: _spread(failed, parts))
        guards.enter_context(failed.guarded())
        work()


def _spread(failed: _Part, parts: Sequence[_Part]) -> None:
    for part in parts:
        if failed.finished and not part.finished:
            told = failed.outcome
            part.finish(status=told.status, reason=told.reason, details=told.details)


def _tell_of_bag(part: _Part) -> None:
    """The outcome of a slide whose bag is there already."""
    bag = bags.read_bag(part.path)
    part.finish(
        status="skipped",
        n_tiles=len(bag),
        n_unreadable=bag.n_failed,
        tumour_of_tissue=bag.tumour_of_tissue,
        mpp=bag.mpp_l0[0],
        mpp_source=bag.mpp_source,
        annotation_origin=bag.annotation_origin,
        reader=bag.reader,
    )


def _drawn(part: _Part, n_tiles: int, job: SlideJob) -> NDArray[np.int64]:
    """The rows of a grid that go into a part's bag.

    Raises:
        SlideExcluded: the sample took all tiles, so that none is left to hold out.
    """
    if job.coordinates:
        return np.arange(n_tiles)
    seed, wanted = part.target.recipe.seed, part.target.held_out
    if not wanted:
        return drawn(n_tiles, part.at_most, seed=seed, name=job.slide)
    rows = held_out(n_tiles, part.at_most, wanted, seed=seed, name=job.slide)
    if not len(rows):
        raise SlideExcluded(
            f"{job.slide}: all of its {n_tiles} tiles are in the sample; none is left to hold out. Lower "
            "--max-tiles."
        )
    return rows


def _reader(slide: Slide, recipe: Recipe) -> str:
    """What decodes the tiles, and how much smaller than stored."""
    shrink = slide.view_for(recipe.mpp).shrink
    return slide.reader if shrink == 1 else f"{slide.reader} at 1/{shrink}"


def _colour_note(slide: Slide, recipe: Recipe) -> list[str]:
    lacking = recipe.icc == "srgb" and slide.color_profile is None
    return ["The file has no colour profile: its pixels are as stored."] if lacking else []


def _request(part: _Part, job: SlideJob, sources: Sequence[str], drawn_sha256: str) -> str:
    """What a bag must answer to be kept: its recipe and the slide's own inputs."""
    return bags.fingerprint(
        {
            "recipe": dict(part.resolved),
            "slide": job.slide,
            "case": job.case,
            "files": sources,
            "mpp": job.mpp,
            "annotation_sha256": drawn_sha256,
            "coordinates": bags.read_bag(job.coordinates).data_sha256 if job.coordinates else None,
            "max_tiles": part.at_most,
        }
    )


def check_names(jobs: Sequence[SlideJob]) -> None:
    """Refuse two slides of one name, also where the file system knows no letter case."""
    seen: dict[str, SlideJob] = {}
    for job in jobs:
        other = seen.setdefault(job.slide.casefold(), job)
        if other is not job:
            raise BagError(
                f"Two slides are named {job.slide!r}: {other.files[0]} and {job.files[0]}. "
                "Rename one, or extract them into two stores."
            )


def _check_store(store: Store, resolved: Mapping[str, Any]) -> None:
    for path in store.bags():
        try:
            held = bags.read_bag(path).recipe
        except BagError:
            continue  # broken: it will be made again
        changes = differences(held, resolved)
        if changes:
            raise BagError(
                f"{store.path} holds bags of another recipe ({path.name}: {changes}). Use another --out, "
                "or --overwrite to make them again."
            )


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
