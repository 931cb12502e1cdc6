"""The work on one slide for one store, and its outcome."""

import contextlib
import errno
import shutil
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.bags import bag as bags
from features.bags.store import Outcome
from features.errors import (
    BagError,
    FeaturesError,
    NoTiles,
    NoTissue,
    SlideExcluded,
)
from features.extraction.embed import Work
from features.extraction.jobs import SlideJob
from features.extraction.outputs import StoreSpec
from features.extraction.spool import FeatureSpool
from features.files.checksum import fingerprint
from features.tiles.grid import TileGrid, draw_rows, draw_unused_rows

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
OUTDATED = ".outdated"


@dataclass
class SlideTask:
    """The work on one slide for one store.

    Attributes:
        target: the store.
        resolved: its recipe with every automatic choice resolved.
        max_tiles: of the bag.
        outcome: so far.
        request: fingerprint of the inputs that the bag must answer.
        requests: the same, and how it was formed in older bags.
        grid: the tiles of the bag.
        work: their embedding.
        rows: their features.
        finished: the outcome is final.
    """

    target: StoreSpec
    resolved: Mapping[str, Any]
    max_tiles: int
    outcome: Outcome
    request: str = ""
    requests: tuple[str, ...] = ()
    grid: TileGrid | None = None
    work: Work | None = None
    rows: FeatureSpool | None = None
    finished: bool = False

    @property
    def path(self) -> Path:
        """The path of its bag."""
        return self.target.store.bag(self.outcome.slide)

    def set_aside(self) -> None:
        """Rename a bag that was made of other inputs, so that it is not taken for the present ones."""
        if self.request:
            with contextlib.suppress(OSError):  # there is no bag
                self.path.replace(self.path.with_name(self.path.name + OUTDATED))

    def find_bag(self, files: Sequence[Path]) -> bool:
        """Whether the requested bag exists; one that lacks tiles is outdated by newer files."""
        aside = self.path.with_name(self.path.name + OUTDATED)
        if bags.read_request(self.path) not in self.requests:
            if bags.read_request(aside) not in self.requests:
                return False
            aside.replace(self.path)
        newest = max(path.stat().st_mtime for path in files)
        return not (bags.read_bag(self.path).n_failed and newest > self.path.stat().st_mtime)

    def finish(self, **changes: Any) -> None:
        """Make the outcome final."""
        self.outcome, self.finished = replace(self.outcome, **changes), True

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Turn every error inside into this task's outcome, so that a bad slide does not stop the others."""
        try:
            yield
        except CancelledError:
            raise  # the run was stopped: no outcome
        except SlideExcluded as error:
            self.finish(status="excluded", reason=str(error))
        except FeaturesError as error:
            self.finish(
                status="failed",
                reason=str(error),
                empty=isinstance(error, NoTiles),
                blank=isinstance(error, NoTissue),
            )
        except Exception as error:  # noqa: BLE001 - the one guard
            reason = f"{type(error).__name__}: {error}"
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                reason = self._name_room(error)
            self.finish(status="failed", reason=reason, details=traceback.format_exc())

    def _name_room(self, error: OSError) -> str:
        """Where the disk is full, what the slide needs, and how to go on."""
        folder = self.target.store.path
        needed = ""
        if self.rows is not None:  # features in 32 bits, beside a bag of as many
            n_bytes = 8 * self.rows.dim * len(self.rows.filled)
            needed = f": the slide needs up to {n_bytes / 1e6:,.1f} MB"
            with contextlib.suppress(OSError):
                needed += f", and {shutil.disk_usage(folder).free / 1e6:,.1f} MB are free"
        return (
            f"{self.outcome.slide}: no room in {folder} ({error}){needed}. Free some and run the same "
            "command again: it goes on with the slides that have no bag yet."
        )


def share_failure(parts: Sequence[SlideTask], work: Callable[[], None]) -> None:
    """Do the work; an error of the whole slide becomes the outcome of every unfinished part."""
    with contextlib.ExitStack() as guards:
        failed = SlideTask(parts[0].target, {}, 0, parts[0].outcome)
        guards.callback(lambda: _copy_failure(failed, parts))
        guards.enter_context(failed.guarded())
        work()


def _copy_failure(failed: SlideTask, parts: Sequence[SlideTask]) -> None:
    for part in parts:
        if failed.finished and not part.finished:
            failure = failed.outcome
            part.finish(
                status=failure.status,
                reason=failure.reason,
                details=failure.details,
                empty=failure.empty,
                blank=failure.blank,
            )


def skip_existing(part: SlideTask) -> None:
    """Finish a task whose bag exists already."""
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


def sample_rows(part: SlideTask, n_tiles: int, job: SlideJob) -> NDArray[np.int64]:
    """The rows of a grid that go into a part's bag.

    Raises:
        SlideExcluded: the sample has all tiles, so that none is left to hold out.
    """
    if job.coordinates:
        return np.arange(n_tiles)
    seed, count = part.target.recipe.seed, part.target.hold_out
    if not count:
        return draw_rows(n_tiles, part.max_tiles, seed=seed, name=job.slide)
    rows = draw_unused_rows(n_tiles, part.max_tiles, count, seed=seed, name=job.slide)
    if not len(rows):
        raise SlideExcluded(
            f"{job.slide}: all of its {n_tiles} tiles are in the sample; none is left to hold out. Set "
            "max_tiles lower."
        )
    return rows


def set_requests(part: SlideTask, job: SlideJob, sources: Sequence[str], drawn_sha256: str) -> None:
    """Set the fingerprint of the recipe and of the slide's own inputs; a bag with another one is outdated.

    No feature depends on the case. In older bags the fingerprint is also of the case that they name.
    """
    inputs = {
        "recipe": dict(part.resolved),
        "slide": job.slide,
        "files": sources,
        "mpp": job.mpp,
        "annotation_sha256": drawn_sha256,
        "coordinates": bags.read_bag(job.coordinates).data_sha256 if job.coordinates else None,
        "max_tiles": part.max_tiles,
    } | ({} if job.fallback_mpp is None else {"fallback_mpp": job.fallback_mpp})
    part.request = fingerprint(inputs)
    part.requests = (part.request,)
    with contextlib.suppress(BagError):
        part.requests += (fingerprint(inputs | {"case": bags.read_bag(part.path).case}),)


def rename_case(part: SlideTask, job: SlideJob) -> None:
    """Give the bag of a slide the case that the table gives the slide now."""
    bag = bags.read_bag(part.path)
    if bag.case != job.case:
        bags.write_bag(part.path, replace(bag, case=job.case, request_sha256=part.request))
