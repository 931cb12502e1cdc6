"""One slide's share in one store, on its way to a bag."""

import contextlib
import errno
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
    FeaturesError,
    SlideExcluded,
)
from features.extraction.embed import Work
from features.extraction.outputs import StoreSpec
from features.extraction.spool import FeatureSpool
from features.extraction.survey import SlideJob
from features.tiles.grid import TileGrid, draw_rows, draw_unused_rows

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
OUTDATED = ".outdated"


@dataclass
class SlideTask:
    """One slide's share in one store, on its way to a bag."""

    target: StoreSpec
    resolved: Mapping[str, Any]
    at_most: int  # tiles
    outcome: Outcome
    request: str = ""
    grid: TileGrid | None = None
    work: Work | None = None
    rows: FeatureSpool | None = None
    finished: bool = False

    @property
    def path(self) -> Path:
        """Of its bag."""
        return self.target.store.bag(self.outcome.slide)

    def set_aside(self) -> None:
        """A bag made of what the slide or its annotation was before must not be taken for one of now."""
        if self.request:
            with contextlib.suppress(OSError):  # there was none
                self.path.replace(self.path.with_name(self.path.name + OUTDATED))

    def find(self, files: Sequence[Path]) -> bool:
        """Whether the bag asked for is there, or was set aside; one that lacks tiles may be mended."""
        aside = self.path.with_name(self.path.name + OUTDATED)
        if bags.read_request(self.path) != self.request:
            if bags.read_request(aside) != self.request:
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
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                reason = (
                    f"{self.outcome.slide}: no room in {self.target.store.path} ({error}). Free some, "
                    "then run the same command again."
                )
            self.finish(status="failed", reason=reason, details=traceback.format_exc())


def share_failure(parts: Sequence[SlideTask], work: Callable[[], None]) -> None:
    """Do the work; what goes wrong for the whole slide is the outcome of every part not settled yet."""
    with contextlib.ExitStack() as guards:
        failed = SlideTask(parts[0].target, {}, 0, parts[0].outcome)
        guards.callback(lambda: _copy_failure(failed, parts))
        guards.enter_context(failed.guarded())
        work()


def _copy_failure(failed: SlideTask, parts: Sequence[SlideTask]) -> None:
    for part in parts:
        if failed.finished and not part.finished:
            told = failed.outcome
            part.finish(status=told.status, reason=told.reason, details=told.details)


def skip_existing(part: SlideTask) -> None:
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


def sample_rows(part: SlideTask, n_tiles: int, job: SlideJob) -> NDArray[np.int64]:
    """The rows of a grid that go into a part's bag.

    Raises:
        SlideExcluded: the sample took all tiles, so that none is left to hold out.
    """
    if job.coordinates:
        return np.arange(n_tiles)
    seed, wanted = part.target.recipe.seed, part.target.held_out
    if not wanted:
        return draw_rows(n_tiles, part.at_most, seed=seed, name=job.slide)
    rows = draw_unused_rows(n_tiles, part.at_most, wanted, seed=seed, name=job.slide)
    if not len(rows):
        raise SlideExcluded(
            f"{job.slide}: all of its {n_tiles} tiles are in the sample; none is left to hold out. Lower "
            "--max-tiles."
        )
    return rows


def request_key(part: SlideTask, job: SlideJob, sources: Sequence[str], drawn_sha256: str) -> str:
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
