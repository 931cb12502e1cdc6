"""The tiles of labelled slides: drawn anew for each epoch, read from the slides or a bounded cache."""

import hashlib
import math
import os
import tempfile
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from features.errors import FeaturesError, InputError, TileError
from features.extraction.embed import MAX_UNREADABLE, MAX_WORKERS, Tiles
from features.extraction.identity import slide_fingerprints
from features.extraction.jobs import SlideJob, identify_files
from features.extraction.normalisation import tile_normaliser
from features.extraction.survey import allocate_tiles, lay_tiles, survey_slide
from features.files.checksum import fingerprint
from features.progress import Progress
from features.recipe import Recipe
from features.tiles.grid import SlideTiles, TileGrid, TileSource, draw_rows
from features.tiles.quality import flag_bits, quality_flags
from features.tiles.stain import StainReference
from mil.data.case import Case
from mil.errors import FitError
from mil.finetune.augmentation import Variations, turn_tile

OPEN_SLIDES = 64  # kept open; an epoch reads shelf by shelf of so many
GIGABYTE = 10**9


@dataclass(frozen=True)
class LabelledSlide:
    """A slide with the outcome of its case; every slide names its case.

    Attributes:
        job: the slide.
        label: the case's class or grade; with follow-up, whether its event was observed.
        time: until the event or the end of observation, in a cohort with follow-up.
    """

    job: SlideJob
    label: str
    time: float | None = None

    @property
    def case(self) -> Case:
        """The case, without bags."""
        return Case(name=self.job.case, label=self.label, bags=(), time=self.time)


@dataclass(frozen=True)
class TileBatch:
    """Tiles of one step.

    Attributes:
        tiles: (B, tile_px, tile_px, 3) RGB; white where one cannot be used.
        slides: (B,) numbers of their slides in the pool.
        usable: (B,) False where a tile could not be decoded, or the recipe drops it.
        variations: how they are shown; they have been turned already.
        numbers: (B,) of the tiles in their slides.
        frozen: by place in the batch, what frozen layers give for a tile that was not read therefore.
    """

    tiles: Tiles
    slides: NDArray[np.int64]
    usable: NDArray[np.bool_]
    variations: Variations
    numbers: NDArray[np.int64]
    frozen: Mapping[int, NDArray[np.float16]]


class TilePool:
    """All tiles that a recipe takes of some slides. A context manager: it closes what it has opened.

    Attributes:
        slides: those that can be used.
        unusable: (slide, reason) of the others.
        counts: tiles per usable slide.
        fingerprints: what identifies the usable slides, as ``Bag.sources``.
        frozen: gives what frozen layers make of (slide, tile), where that is known.
    """

    def __init__(
        self,
        slides: Sequence[LabelledSlide],
        recipe: Recipe,
        reference: StainReference | None,
        progress: Progress,
    ) -> None:
        self.recipe = recipe
        self.slides: list[LabelledSlide] = []
        self.unusable: list[tuple[str, str]] = []
        self.fingerprints: set[str] = set()
        self._rows: list[NDArray[np.int64]] = []
        self._grids: list[TileGrid] = []
        self._reference = reference
        self._opened: OrderedDict[int, tuple[TileSource, Callable[[Tiles], Tiles] | None]]
        self._opened = OrderedDict()
        self._opening = threading.Lock()
        self._unreadable: dict[int, set[int]] = {}
        self._cache: TileCache | None = None
        self.frozen: Callable[[int, int], NDArray[np.float16] | None] = lambda _slide, _tile: None
        share = allocate_tiles([slide.job for slide in slides], recipe)
        with progress.task("laying tiles", len(slides), "slides") as advance:
            for slide in slides:
                try:
                    grid = self._lay(slide.job)
                except FeaturesError as error:
                    self.unusable.append((slide.job.slide, str(error)))
                else:
                    at_most = share.get(slide.job.slide, recipe.max_tiles)
                    rows = draw_rows(len(grid), at_most, seed=recipe.seed, name=slide.job.slide)
                    self.slides.append(slide)
                    self._rows.append(rows)
                    self._grids.append(grid)
                advance(1)
        self.counts = [len(rows) for rows in self._rows]

    def __enter__(self) -> "TilePool":
        return self

    def __exit__(self, *_error: object) -> None:
        self._opened.clear()
        if self._cache:
            self._cache.close()

    def keep(self, gigabytes: float, folder: Path) -> None:
        """Keep tiles that have been read, as many as fit, in a nameless file in a folder."""
        tile_bytes = 3 * self.recipe.tile**2
        slots = min(round(gigabytes * GIGABYTE) // tile_bytes, sum(self.counts))
        self._cache = TileCache(folder, slots, self.recipe.tile) if slots else None

    def identity(self, slide: int) -> str:
        """Fingerprint of a slide's tiles: its files, its scale, and which tiles are taken."""
        job, grid, rows = self.slides[slide].job, self._grids[slide], self._rows[slide]
        coords = np.ascontiguousarray(grid.coords_l0[rows])
        places = hashlib.sha256(coords.tobytes()).hexdigest()
        return fingerprint({"files": identify_files(job), "mpp": job.mpp, "tiles": places})

    def draw(
        self, members: Sequence[int], at_most: int, rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Tiles for one pass, shuffled among each shelf of slides.

        Returns:
            (M, 2) of slide and number of its tile.
        """
        order = rng.permutation(np.asarray(members))
        passes = []
        for start in range(0, len(order), OPEN_SLIDES):
            shelf = []
            for slide in order[start : start + OPEN_SLIDES]:
                count = self.counts[slide]
                chosen = rng.choice(count, min(count, at_most), replace=False)
                shelf.append(np.stack([np.full(len(chosen), slide), chosen], axis=1))
            passes.append(rng.permutation(np.concatenate(shelf)))
        return np.concatenate(passes)

    def batches(
        self,
        steps: Sequence[tuple[NDArray[np.int64], Variations]],
        workers: int,
    ) -> Iterator[TileBatch]:
        """Read the tiles of each step a few steps ahead, in order.

        Args:
            steps: (B, 2) of ``draw``, and how each of these tiles is shown.
            workers: threads that read; 0 takes one per core.

        Raises:
            TileError: more tiles of a slide than ``MAX_UNREADABLE`` cannot be decoded.
        """
        workers = workers or min(os.cpu_count() or 1, MAX_WORKERS)
        waiting: list[Future[TileBatch]] = []
        with ThreadPoolExecutor(workers, "read") as pool:
            try:
                for step in steps:
                    waiting.append(pool.submit(self._batch, *step))
                    if len(waiting) > workers:
                        yield waiting.pop(0).result()
                while waiting:
                    yield waiting.pop(0).result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def read(self, slide: int, number: int) -> Tiles | None:
        """One tile as the network takes it; None where it cannot be decoded.

        Raises:
            TileError: more than ``MAX_UNREADABLE`` of the slide's tiles cannot be decoded.
        """
        if self._cache and (tile := self._cache.get((slide, number))) is not None:
            return tile
        source, recolour = self._source(slide)
        try:
            tile = source.read(int(self._rows[slide][number]))
        except TileError:
            failed = self._unreadable.setdefault(slide, set())
            failed.add(number)
            if len(failed) > MAX_UNREADABLE * self.counts[slide]:
                raise
            return None
        if recolour:
            tile = recolour(tile[None])[0]
        if self._cache:
            self._cache.put((slide, number), tile)
        return tile

    def _batch(self, chosen: NDArray[np.int64], variations: Variations) -> TileBatch:
        side = self.recipe.tile
        tiles = np.full((len(chosen), side, side, 3), 255, dtype=np.uint8)
        usable = np.zeros(len(chosen), dtype=np.bool_)
        frozen = {}
        for place, ((slide, number), turn) in enumerate(zip(chosen, variations.turns, strict=True)):
            if (known := self.frozen(int(slide), int(number))) is not None:
                frozen[place] = known
                continue
            tile = self.read(int(slide), int(number))
            if tile is not None:
                tiles[place] = turn_tile(tile, int(turn))
                usable[place] = True
        if self.recipe.drop:
            usable &= (quality_flags(tiles) & flag_bits(self.recipe.drop)) == 0
        usable[list(frozen)] = True  # only what can be used is known
        return TileBatch(tiles, chosen[:, 0], usable, variations, chosen[:, 1], frozen)

    def _lay(self, job: SlideJob) -> TileGrid:
        """The tiles of a slide, whose fingerprints are noted."""
        if job.from_tiles:
            grid = self._open_tiles(job).grid
            self.fingerprints |= slide_fingerprints(job)
            return grid
        with job.open() as slide:
            grid = lay_tiles(slide, job, survey_slide(slide, job, self.recipe), self.recipe)
            self.fingerprints |= slide_fingerprints(job, slide)
            return grid

    def _open_tiles(self, job: SlideJob) -> TileSource:
        source = job.open_tiles(self.recipe.tile, self.recipe.mpp)
        if source.grid.tile_px != self.recipe.tile:
            raise InputError(
                f"{job.slide}: its slices are {source.grid.tile_px} px wide; got tile={self.recipe.tile}. "
                f"Set tile to {source.grid.tile_px}."
            )
        return source

    def _source(self, number: int) -> tuple[TileSource, Callable[[Tiles], Tiles] | None]:
        """An open slide. The least recently used one is dropped, and closes with its last reader."""
        with self._opening:
            if number not in self._opened:
                self._opened[number] = self._open(number)
                if len(self._opened) > OPEN_SLIDES:
                    self._opened.popitem(last=False)
            self._opened.move_to_end(number)
            return self._opened[number]

    def _open(self, number: int) -> tuple[TileSource, Callable[[Tiles], Tiles] | None]:
        job = self.slides[number].job
        if job.from_tiles:
            source: TileSource = self._open_tiles(job)
            return source, tile_normaliser(source, None, self.recipe, self._reference)
        slide = job.open()
        source = SlideTiles(slide, self._grids[number])
        return source, tile_normaliser(source, slide, self.recipe, self._reference)


class TileCache:
    """A bounded cache of tiles in a nameless file, which is removed with its process."""

    def __init__(self, folder: Path, slots: int, side_px: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.slots = slots
        self._shape = (side_px, side_px, 3)
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by close
        self._slot_of: dict[tuple[int, int], int] = {}
        self._taken: set[tuple[int, int]] = set()
        self._filling = threading.Lock()

    def get(self, key: tuple[int, int]) -> Tiles | None:
        """A tile, if it is cached."""
        slot = self._slot_of.get(key)
        if slot is None:
            return None
        n_bytes = math.prod(self._shape)
        content = os.pread(self._file.fileno(), n_bytes, slot * n_bytes)
        return np.frombuffer(content, dtype=np.uint8).reshape(self._shape)

    def put(self, key: tuple[int, int], tile: Tiles) -> None:
        """Cache a tile while there is room.

        Raises:
            OSError: the disk is full.
        """
        with self._filling:
            if key in self._taken or len(self._taken) == self.slots:
                return
            slot = len(self._taken)
            self._taken.add(key)
        os.pwrite(self._file.fileno(), np.ascontiguousarray(tile).data, slot * tile.nbytes)
        self._slot_of[key] = slot  # now it may be read

    def close(self) -> None:
        """Let the file go."""
        self._file.close()


def tile_weights(
    pool: TilePool,
    chosen: NDArray[np.int64],
    members: Sequence[int],
    *,
    labels_equally: bool = True,
) -> NDArray[np.float64]:
    """The weight of each slide's tiles in the loss; the mean over the chosen tiles is 1.

    Labels share the total equally, then the cases of a label, the slides of a case and the tiles of a slide.

    Args:
        pool: the slides, with cases and labels.
        chosen: (M, 2) of ``TilePool.draw`` from ``members``.
        members: slides of one part.
        labels_equally: False to divide the total among cases whatever their labels.

    Returns:
        (S,) for all slides of the pool; 0 where none was chosen.
    """
    group_of = {
        pool.slides[m].job.case: pool.slides[m].label if labels_equally else "" for m in members
    }
    cases_of = Counter(group_of.values())
    slides_of = Counter(pool.slides[m].job.case for m in members)
    weights = np.zeros(len(pool.slides))
    for slide, n_tiles in zip(*np.unique(chosen[:, 0], return_counts=True), strict=True):
        case = pool.slides[slide].job.case
        share = 1 / len(cases_of) / cases_of[group_of[case]] / slides_of[case] / n_tiles
        weights[slide] = share * len(chosen)
    return weights


def check_usable(pool: TilePool) -> None:
    """Refuse slides that give no tiles.

    Raises:
        FitError: naming the first of them.
    """
    if pool.unusable:
        shown = " ".join(reason for _, reason in pool.unusable[:3])
        raise FitError(
            f"{len(pool.unusable)} of {len(pool.unusable) + len(pool.slides)} slides cannot be used: {shown} "
            "Correct them, or take them out of the table."
        )
