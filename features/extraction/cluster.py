"""Work on a Ray cluster: slides to extract, one worker per GPU or share of CPUs, and calls of any kind.

The only file that imports ray (extra ``cluster``). Workers of extraction fill the same store with the same
claims and outcomes as processes of one machine do; the store must lie on a disk that all nodes see.
"""

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from features.bags.store import Outcome
from features.errors import FeaturesError
from features.extraction.extract import (
    SLIDES_AT_ONCE,
    WAIT_S,
    ExtractionRun,
)
from features.extraction.outputs import StoreSpec, check_names, store_specs
from features.extraction.survey import SlideJob, largest_first, shard
from features.progress import Progress, Silent
from features.recipe import Recipe

MAX_ATTEMPTS = 3  # a slide that ends its worker this often is given up
CPUS_PER_WORKER = 4  # where there is no GPU and none was asked for
T = TypeVar("T")


def extract_on_ray(  # noqa: PLR0913 - as extract
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
    """Extract slides on all nodes of a Ray cluster, or on this machine where there is none.

    Joins the cluster that ``RAY_ADDRESS`` names. A worker that dies is replaced and its slides are done
    again by another. Arguments are those of ``extract``, but ``workers`` are the threads, and CPUs, of one
    worker.

    Raises:
        FeaturesError: ray is not installed, or as ``extract``.
    """
    ray = _connect_ray()
    check_names(jobs)
    recipes = (recipe,) if isinstance(recipe, Recipe) else tuple(recipe)
    filled = store_specs(
        [_absolute_recipe(r) for r in recipes], out.absolute(), hold_out_tiles=hold_out_tiles
    )
    everywhere = [_absolute_job(job) for job in jobs]
    order = largest_first(shard(everywhere, *part))
    count, needs = _worker_resources(ray, workers)
    told = (everywhere, filled, device, overwrite, needs["num_cpus"])
    crew = _WorkerPool(ray, told, needs)
    found: dict[str, list[Outcome]] = {}
    progress = progress or Silent()
    try:
        with progress.task("slides", len(order), "slides") as advance:
            for slide, outcomes in crew.each(order, min(count, len(order))):
                found[slide] = outcomes
                advance(1)
    finally:
        crew.dismiss()
    for target in filled:
        target.store.write_tables()
    return tuple(outcome for job in order for outcome in found[job.slide])


def run_on_ray(
    work: Callable[..., T], tasks: Sequence[tuple[Any, ...]], workers: int = 0
) -> Iterator[tuple[int, T]]:
    """Call ``work(*task)`` for each task, one CPU each; yields its number and result as they come.

    Files that ``work`` names must lie where all nodes see them. A call whose worker dies is repeated.

    Args:
        work: sent once to each node.
        tasks: arguments of each call.
        workers: calls at once; 0 is as many as the cluster has CPUs.

    Raises:
        FeaturesError: ray is not installed, or a call's workers keep dying; else what ``work`` raises.
    """
    ray = _connect_ray()
    held = ray.put(work)
    call = ray.remote(_call).options(num_cpus=1, max_retries=MAX_ATTEMPTS - 1)
    waiting = deque(enumerate(tasks))
    running: dict[Any, int] = {}
    try:
        while waiting or running:
            while waiting and (not workers or len(running) < workers):
                number, task = waiting.popleft()
                running[call.remote(held, *task)] = number
            done, _ = ray.wait(list(running))
            for ref in done:
                yield running[ref], ray.get(ref)
                del running[ref]
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except _worker_errors(ray) as error:
        raise FeaturesError(
            f"{MAX_ATTEMPTS} workers died of one call: {str(error).splitlines()[0]} Often memory: use "
            "fewer --workers."
        ) from error
    finally:
        for ref in running:
            ray.cancel(ref, force=True)


def _call(work: Callable[..., T], *task: Any) -> T:
    return work(*task)


class _Worker:
    """Lives on a node, with the network loaded once; two slides at a time, as on one machine."""

    def __init__(
        self,
        jobs: Sequence[SlideJob],
        filled: Sequence[StoreSpec],
        device: str,
        overwrite: bool,  # noqa: FBT001 - passed on by ray
        threads: int,
    ) -> None:
        self._told = (jobs, filled, device, overwrite, threads)
        self._run: ExtractionRun | None = None

    def prepare(self) -> FeaturesError | None:
        """Load the network and check the stores; an error is handed back whole, ray would wrap it."""
        jobs, filled, device, overwrite, threads = self._told
        try:
            self._run = ExtractionRun(jobs, filled, device, overwrite=overwrite)
        except FeaturesError as error:
            return error
        self._embedding = self._run.embedding(threads, Silent())
        self._embedding.__enter__()
        self._jobs = {job.slide: job for job in self._run.jobs}
        return None

    def slide(self, name: str) -> list[Outcome] | None:
        """Extract one slide; None where another process works on it."""
        assert self._run
        return self._run.slide(self._jobs[name])


@dataclass
class _WorkerPool:
    """The workers, what each is at, and what is still to be done."""

    ray: Any
    told: tuple[Any, ...]
    needs: dict[str, float]
    at_work: dict[Any, tuple[Any, str]] = field(default_factory=dict)  # task -> worker, slide
    workers: list[Any] = field(default_factory=list)
    attempts: dict[str, int] = field(default_factory=dict)

    def each(self, jobs: Sequence[SlideJob], count: int) -> Iterator[tuple[str, list[Outcome]]]:
        """Outcomes as they come."""
        queue = deque(job.slide for job in jobs)
        for _ in range(count):
            self._hire()
        while queue or any(slide for _, slide in self.at_work.values()):
            self._give_out(queue)
            done, _ = self.ray.wait(list(self.at_work), timeout=WAIT_S)
            for task in done:
                worker, slide = self.at_work.pop(task)
                try:
                    result = self.ray.get(task)
                except _worker_errors(self.ray) as error:
                    yield from self._lost(worker, slide, queue, str(error))
                    continue
                if isinstance(result, FeaturesError):
                    raise result
                if slide and result is None:  # another process works on it
                    queue.append(slide)
                    time.sleep(WAIT_S)
                elif slide:
                    yield slide, result

    def dismiss(self) -> None:
        """Let the workers go."""
        for worker in self.workers:
            self.ray.kill(worker)

    def _hire(self) -> None:
        kind = self.ray.remote(_Worker).options(max_concurrency=SLIDES_AT_ONCE, **self.needs)
        worker = kind.remote(*self.told)
        self.workers.append(worker)
        self.at_work[worker.prepare.remote()] = (worker, "")  # slides come when it is ready

    def _give_out(self, queue: "deque[str]") -> None:
        """Give every worker that is ready as many slides as it handles at once.

        A slide at which a worker died is done alone: if it was the cause, it takes no other with it.
        """
        for worker in self.workers:
            mine = [slide for other, slide in self.at_work.values() if other is worker]
            while queue and "" not in mine and len(mine) < SLIDES_AT_ONCE:
                if mine and any(slide in self.attempts for slide in (*mine, queue[0])):
                    break
                mine.append(queue.popleft())
                self.at_work[worker.slide.remote(mine[-1])] = (worker, mine[-1])

    def _lost(
        self, worker: Any, slide: str, queue: "deque[str]", why: str
    ) -> Iterator[tuple[str, list[Outcome]]]:
        """A worker died: replace it, and do its slide again unless it keeps dying of it."""
        if worker in self.workers:
            self.workers.remove(worker)
            self.ray.kill(worker)  # one that is only out of reach would keep its slide and its CPUs
            self._hire()
        self.attempts[slide] = self.attempts.get(slide, 0) + 1
        if self.attempts[slide] < MAX_ATTEMPTS:
            if slide:
                queue.appendleft(slide)
            return
        if not slide:
            raise FeaturesError(
                f"Workers die before their first slide: {why.splitlines()[0]} See the node's ray logs; "
                "often memory."
            )
        yield slide, self._give_up(slide, why)

    def _give_up(self, slide: str, why: str) -> list[Outcome]:
        outcomes = []
        case = next(job.case for job in self.told[0] if job.slide == slide)
        for target in self.told[1]:
            outcome = Outcome(
                slide=slide,
                case=case,
                status="failed",
                reason=f"{slide}: {MAX_ATTEMPTS} workers died of it. Often memory: lower --workers.",
                details=why,
                store=str(target.store.path),
            )
            target.store.record(outcome)
            outcomes.append(outcome)
        return outcomes


def _worker_errors(ray: Any) -> tuple[type[Exception], ...]:
    """The errors by which ray tells that a worker is gone."""
    told = ray.exceptions
    return told.RayActorError, told.OutOfMemoryError, told.NodeDiedError, told.WorkerCrashedError


def _connect_ray() -> Any:
    """Ray, joined to its cluster."""
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise FeaturesError(
            "--engine ray needs the package ray. Install it: pip install 'sarcomil[cluster]'."
        ) from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a hospital's machine does not call home
    if not ray.is_initialized():
        ray.init(
            address=os.environ.get("RAY_ADDRESS")
            or "local",  # never a cluster that happens to be there
            log_to_driver=False,
            include_dashboard=False,
            logging_level=logging.ERROR,
        )
    return ray


def _worker_resources(ray: Any, workers: int) -> tuple[int, dict[str, float]]:
    """How many workers the cluster has room for, and what each takes."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    if gpus:
        return gpus, {"num_cpus": workers or max(1, sum(cpus) // gpus), "num_gpus": 1}
    share = workers or max(1, min(CPUS_PER_WORKER, *[n for n in cpus if n] or [1]))
    return max(1, sum(n // share for n in cpus)), {"num_cpus": share}


def _absolute_job(job: SlideJob) -> SlideJob:
    """The job with paths that hold in any folder."""
    return replace(
        job,
        files=tuple(path.absolute() for path in job.files),
        annotations=job.annotations and job.annotations.absolute(),
        coordinates=job.coordinates and job.coordinates.absolute(),
    )


def _absolute_recipe(recipe: Recipe) -> Recipe:
    """The recipe with its files by full path."""

    def full(name: str) -> str:
        return str(Path(name).absolute()) if Path(name).is_file() else name

    return replace(
        recipe,
        weights=full(recipe.weights),
        stain_reference=tuple(full(name) for name in recipe.stain_reference),
    )
