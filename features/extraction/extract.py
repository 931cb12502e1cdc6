"""Extract the slides of a cohort into a store of bags; a bad slide stops nothing, a second run resumes."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from features.backbones.registry import load_backbone
from features.bags import bag as bags
from features.bags.bag import PIXELS
from features.bags.store import Outcome
from features.errors import (
    BagError,
)
from features.extraction.embed import Embedder, Work, Workers
from features.extraction.identity import pixels_of_tiles, pixels_sha256
from features.extraction.jobs import SlideJob, identify_files, largest_first, shard
from features.extraction.normalisation import resolve_stain_reference, tile_normaliser
from features.extraction.outputs import (
    StoreSpec,
    check_names,
    check_store,
    resolved_recipe,
    store_specs,
)
from features.extraction.slide_bag import (
    bag_of_part,
    encode_jpeg,
    reader_note,
    seen_by,
    seen_for,
)
from features.extraction.slide_task import (
    SlideTask,
    rename_case,
    sample_rows,
    set_requests,
    share_failure,
    skip_existing,
)
from features.extraction.slide_turns import iterate_outcomes
from features.extraction.spool import FeatureSpool
from features.extraction.survey import allocate_tiles, lay_tiles, note_glass, survey_slide
from features.files.checksum import fingerprint
from features.progress import Progress, Silent
from features.recipe import Recipe
from features.regions.annotations import annotation_sha256
from features.slides.rehearsal import Tiles, children_ended, open_slide, rehearse_tiles
from features.slides.slide import Slide
from features.tiles.grid import SlideTiles, TileGrid, TileSource
from features.tiles.quality import quality_flags
from features.tiles.stain import save_reference
from features.volumes.film import FilmTiles

THUMBNAIL_PX = 512
FILM_PX = 1120  # five cells of 224 px a row as they are
TABLES_EVERY_S = 10.0


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
    on_loaded: Callable[[], None] = lambda: None,
) -> tuple[Outcome, ...]:
    """Extract every slide into ``<out>/<slide>.h5``; all outcomes go to ``<out>/extract.csv``.

    A bag that was made of the same recipe, slide, annotation and scale is not made again. Several processes
    may fill one store: every slide is extracted once, by the process that claims it first.

    Args:
        jobs: the slides, with unique names; the largest is extracted first.
        recipe: how to tile and embed; several that differ in mpp are read together, into
            ``<out>/mpp-<mpp>``.
        out: the bag store.
        device: torch device, or ``auto``.
        workers: threads that read tiles and run the network; 0 takes one per core.
        overwrite: replace bags of another recipe instead of refusing the store.
        hold_out_tiles: so many of every slide's other tiles go into a store of their own, whose name says
            that it shares its cases.
        part: (i, n) extracts the i-th of n parts; stains and shares of cases are those of all slides.
        progress: shows slides and tiles.
        on_loaded: called when the backbone is loaded and no setting can be refused any more.

    Returns:
        One outcome per slide of the part and store, in the order of ``jobs``.

    Raises:
        BagError: the store holds bags of another recipe, or two jobs have one name.
        BackboneError: the backbone cannot be loaded.
    """
    recipes = (recipe,) if isinstance(recipe, Recipe) else tuple(recipe)
    run = ExtractionRun(
        jobs, store_specs(recipes, out, hold_out_tiles=hold_out_tiles), device, overwrite=overwrite
    )
    on_loaded()
    progress = progress or Silent()
    results: dict[str, list[Outcome]] = {}
    own_jobs, written = shard(run.jobs, *part), time.monotonic()
    try:
        with (
            children_ended(),
            run.embedding(workers, progress),
            progress.task("slides", len(own_jobs), "slides") as advance,
            contextlib.closing(iterate_outcomes(run, largest_first(own_jobs))) as outcomes_by_job,
        ):
            for job, outcomes in outcomes_by_job:
                results[job.slide] = outcomes
                advance(1)
                if time.monotonic() - written > TABLES_EVERY_S:
                    run.write_tables()
                    written = time.monotonic()
    finally:  # also after an interrupt
        run.write_tables()
    return tuple(o for job in jobs if job.slide in results for o in results[job.slide])


class ExtractionRun:
    """The network, stores and recipes that all slides share; one per process, also on a cluster.

    Raises:
        BagError: a store holds bags of another recipe, or two jobs have one name.
        BackboneError: the backbone cannot be loaded.
    """

    def __init__(
        self,
        jobs: Sequence[SlideJob],
        filled: Sequence[StoreSpec],
        device: str,
        *,
        overwrite: bool = False,
    ) -> None:
        check_names(jobs)
        if any(job.coordinates for job in jobs) and any(target.hold_out for target in filled):
            raise BagError(
                "coordinates names the tiles to read, so that there are no others to hold out. Leave out "
                "hold_out_tiles or coordinates."
            )
        recipe = filled[0].recipe
        self.started = time.time()
        self.targets = filled
        self.backbone = load_backbone(
            recipe.backbone, recipe.weights, seed=recipe.seed, stated=recipe.stated
        )
        self.embedder = Embedder(self.backbone, precision=recipe.precision, device=device)
        self.reference = resolve_stain_reference(recipe, jobs) if recipe.stain != "off" else None
        self.resolved = [
            resolved_recipe(target, self.backbone, jobs, device, self.reference)
            for target in filled
        ]
        with contextlib.ExitStack() as filling:
            for target, resolved in zip(filled, self.resolved, strict=True):
                filling.enter_context(target.store.filling(resolved))
                if not overwrite:
                    check_store(target.store, resolved)
                if self.reference:
                    with target.store.exclusive():
                        save_reference(target.store.path / "stain-reference.json", self.reference)
            self._filling = filling.pop_all()
        self.trained_on, self.trained_on_slides = seen_by(self.backbone, jobs)
        self.jobs = list(jobs)
        self.shares = [allocate_tiles(jobs, target.recipe) for target in filled]
        self.workers: Workers | None = None
        self.progress: Progress = Silent()

    @contextlib.contextmanager
    def embedding(self, workers: int, progress: Progress) -> Iterator[None]:
        """Run the threads that embed."""
        self.progress = progress
        with self._filling, Workers(self.embedder, workers) as self.workers:
            yield

    def stop(self) -> None:
        """End the running slides without a bag."""
        if self.workers:
            self.workers.stop()

    def write_tables(self) -> None:
        """Write the tables of every store."""
        for target in self.targets:
            target.store.write_tables()

    def slide(self, job: SlideJob) -> list[Outcome] | None:
        """Extract one slide for every store; None if another process works on it."""
        started = time.perf_counter()
        with contextlib.ExitStack() as claims:
            for target in self.targets:
                if not claims.enter_context(target.store.claim(job.slide)):
                    return None
            parts = [
                SlideTask(
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
            share_failure(parts, lambda: self._make(job, parts))
            for part in parts:
                if part.outcome.status != "skipped":
                    part.outcome = replace(part.outcome, seconds=time.perf_counter() - started)
                part.target.store.record(part.outcome, since=self.started)
                if part.outcome.status in ("excluded", "failed"):
                    part.set_aside()
        return [part.outcome for part in parts]

    def _make(self, job: SlideJob, parts: Sequence[SlideTask]) -> None:
        """Make the bags of a slide that do not exist yet."""
        annotation = job.annotation()
        drawn_sha256 = annotation_sha256(annotation) if annotation else ""
        sources = identify_files(job)
        for part in parts:
            set_requests(part, job, sources, drawn_sha256)
            if part.find_bag(job.files):
                rename_case(part, job)
                skip_existing(part)
        parts = [part for part in parts if not part.finished]
        if not parts:
            return
        with contextlib.ExitStack() as opened:
            base = {
                "annotation_sha256": drawn_sha256,
                "source_sha256": fingerprint({"files": sources}),
            }
            make = self._embed_images if job.from_tiles else self._embed_slide
            make(job, parts, base, opened)

    def _embed_slide(
        self,
        job: SlideJob,
        parts: Sequence[SlideTask],
        base: dict[str, Any],
        opened: contextlib.ExitStack,
    ) -> None:
        """Lay tiles over the slide's tumour or tissue, and embed them at all scales together."""
        started = time.perf_counter()
        slide = opened.enter_context(
            open_slide(
                job.files[0],
                mpp=job.mpp,
                mpp_source=job.mpp_source,
                fallback_mpp=job.fallback_mpp,
                progress=self.progress,
            )
        )
        view = survey_slide(slide, job, parts[0].target.recipe)
        for part in parts:
            part.outcome = replace(
                part.outcome,
                tumour_of_tissue=view.tumour_of_tissue,
                mpp=slide.mpp[0],
                mpp_source=slide.mpp_source,
                annotation_origin=view.origin,
                reader=reader_note(slide, part.target.recipe),
                notes=" ".join(view.remarks),
                classes=dict(view.drawing.histogram()) if view.drawing else {},
                **view.drawn_shares,
            )
            with part.guarded():
                grid = lay_tiles(slide, job, view, part.target.recipe)
                notes = (*view.remarks, *note_glass(grid, view, part.target.recipe))
                part.outcome = replace(part.outcome, notes=" ".join(notes))
                part.grid = grid[sample_rows(part, len(grid), job)]
                if part.target.store.died_at(job.slide):
                    self._rehearse(slide, part.grid)
                self._prepare(part, SlideTiles(slide, part.grid), slide, opened)
        overview = view.overview.copy()
        overview.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
        base |= {
            "pixels_sha256": pixels_sha256(slide),
            "size_l0": slide.size_l0,
            "mpp_l0": slide.mpp,
            "mpp_source": slide.mpp_source,
            "bounds_l0": slide.bounds_l0,
            "thumbnail": encode_jpeg(overview),
            "tumour_of_tissue": view.tumour_of_tissue,
            "annotation_origin": view.origin,
        }
        self._embed(job, parts, base, time.perf_counter() - started)

    def _rehearse(self, slide: Slide, grid: TileGrid) -> None:
        """Read all tiles of a slide at which a process died before, where no harm is done.

        Raises:
            SlideError: they end or stall the child process as well.
        """
        rehearse_tiles(
            slide.path,
            Tiles(grid.coords_l0, grid.tile_px, grid.mpp, slide.mpp[0]),
            self.progress,
        )

    def _embed_images(
        self,
        job: SlideJob,
        parts: Sequence[SlideTask],
        base: dict[str, Any],
        opened: contextlib.ExitStack,
    ) -> None:
        """Embed the tile images of one slide, or the slices of a volume."""
        for part in parts:
            with part.guarded():
                recipe = part.target.recipe
                source = job.open_tiles(recipe.tile, recipe.mpp)
                part.outcome = replace(
                    part.outcome,
                    mpp=source.mpp_l0,
                    mpp_source="file" if source.volume else job.mpp_source,
                    notes=source.note(recipe.mpp),
                )
                drawn = source.select(sample_rows(part, len(source.grid), job))
                part.grid = drawn.grid
                self._prepare(part, drawn, None, opened)
                base |= {
                    "size_l0": source.size_l0,
                    "mpp_l0": (source.mpp_l0, source.mpp_l0),
                    "mpp_source": part.outcome.mpp_source,
                }
                if source.volume:
                    picture = encode_jpeg(source.picture(FILM_PX))
                    base |= {"volume": source.volume, "thumbnail": picture}
        pixels, *others = pixels_of_tiles(job)
        base |= {"pixels_sha256": pixels, "merged_sources": tuple(PIXELS + p for p in others)}
        self._embed(job, parts, base, 0.0)

    def _prepare(
        self, part: SlideTask, source: TileSource, slide: Slide | None, opened: contextlib.ExitStack
    ) -> None:
        """Prepare the spool, the progress and the work of one part."""
        recipe, n_tiles = part.target.recipe, len(source.grid)
        normalise = tile_normaliser(source, slide, recipe, self.reference)
        folder = part.path.parent
        folder.mkdir(parents=True, exist_ok=True)
        part.rows = opened.enter_context(FeatureSpool(folder, n_tiles, self.backbone.dim))
        name = f"{part.outcome.slide}" + (f" at {recipe.mpp:g}" if len(self.targets) > 1 else "")
        advance = opened.enter_context(self.progress.task(name, n_tiles, "tiles"))
        flag = (
            None if isinstance(source, FilmTiles) else quality_flags
        )  # rules of transmitted light
        part.work = Work(source, part.rows.put, advance, flag=flag, normalise=normalise)

    def _embed(
        self, job: SlideJob, parts: Sequence[SlideTask], base: Mapping[str, Any], opening_s: float
    ) -> None:
        """ExtractionRun the network over all parts, and write their bags."""
        assert self.workers is not None
        ready = [part for part in parts if part.work and not part.finished]
        self.workers.embed(*(part.work for part in ready if part.work))
        for part in ready:
            assert part.work is not None
            with part.guarded():
                started = time.perf_counter()
                bag = bag_of_part(
                    job, part, base, seen_for(job, self.trained_on, self.trained_on_slides)
                )
                bags.write_bag(part.path, bag)
                stages = part.work.clock.seconds
                stages["open"] += opening_s / len(ready)
                stages["write"] += time.perf_counter() - started
                part.finish(
                    status="done", n_tiles=len(bag), n_unreadable=bag.n_failed, stages=dict(stages)
                )
