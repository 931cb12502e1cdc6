"""Work on a Ray cluster: extraction with one worker per GPU or share of CPUs, and calls of any kind.

The only file that imports ray (extra ``cluster``). Workers of extraction fill one store with the same claims
and outcomes as processes of one machine; the store must be on a disk that all nodes see.
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
from features.extraction.extract import ExtractionRun
from features.extraction.jobs import SlideJob, largest_first, shard
from features.extraction.outputs import StoreSpec, check_names, store_specs
from features.extraction.slide_turns import SLIDES_AT_ONCE, WAIT_S
from features.progress import Progress, Silent
from features.recipe import Recipe

MAX_ATTEMPTS = 3  # a slide at which so many workers died has failed
CPUS_PER_WORKER = 4  # by default, without a GPU
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
    on_loaded: Callable[[], None] = lambda: None,
) -> tuple[Outcome, ...]:
    """Extract slides on all nodes of a Ray cluster, or on this machine without one.

    Joins the cluster that ``RAY_ADDRESS`` names. A worker that dies is replaced, and its slides are
    repeated. Arguments are those of ``extract``, but ``workers`` is the number of threads and CPUs of one
    worker, and ``on_loaded`` is called before workers load the backbone.

    Raises:
        FeaturesError: ray is not installed, or as ``extract``.
    """
    ray = _connect_ray()
    check_names(jobs)
    recipes = (recipe,) if isinstance(recipe, Recipe) else tuple(recipe)
    filled = store_specs(
        [_absolute_recipe(r) for r in recipes], out.absolute(), hold_out_tiles=hold_out_tiles
    )
    absolute_jobs = [_absolute_job(job) for job in jobs]
    order = largest_first(shard(absolute_jobs, *part))
    count, needs = _worker_resources(ray, workers)
    on_loaded()
    setup = (absolute_jobs, filled, device, overwrite, needs["num_cpus"])
    pool = _WorkerPool(ray, setup, needs)
    results: dict[str, list[Outcome]] = {}
    progress = progress or Silent()
    try:
        with progress.task("slides", len(order), "slides") as advance:
            for slide, outcomes in pool.run(order, min(count, len(order))):
                results[slide] = outcomes
                advance(1)
    finally:
        pool.shutdown()
    for target in filled:
        target.store.write_tables()
    return tuple(outcome for job in order for outcome in results[job.slide])


def run_on_ray(
    work: Callable[..., T], tasks: Sequence[tuple[Any, ...]], workers: int = 0
) -> Iterator[tuple[int, T]]:
    """Call ``work(*task)`` for every task on one CPU; yields numbers and results as they finish.

    Files that ``work`` uses must be on a disk that all nodes see. A call whose worker dies is repeated.

    Args:
        work: sent once to every node.
        tasks: arguments of the calls.
        workers: calls at once; 0 is as many as the cluster has CPUs.

    Raises:
        FeaturesError: ray is not installed, or the workers of a call keep dying.
        Exception: whatever ``work`` raises.
    """
    ray = _connect_ray()
    stored_work = ray.put(work)
    call = ray.remote(_call).options(num_cpus=1, max_retries=MAX_ATTEMPTS - 1)
    waiting = deque(enumerate(tasks))
    running: dict[Any, int] = {}
    try:
        while waiting or running:
            while waiting and (not workers or len(running) < workers):
                number, task = waiting.popleft()
                running[call.remote(stored_work, *task)] = number
            done, _ = ray.wait(list(running))
            for ref in done:
                yield running[ref], ray.get(ref)
                del running[ref]
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except _worker_errors(ray) as error:
        raise FeaturesError(
            f"{MAX_ATTEMPTS} workers died of one call: {str(error).splitlines()[0]} Often for lack of "
            "memory: set workers lower."
        ) from error
    finally:
        for ref in running:
            ray.cancel(ref, force=True)


def _call(work: Callable[..., T], *task: Any) -> T:
    return work(*task)


class _Worker:
    """A Ray actor with the network loaded once; extracts two slides at a time."""

    def __init__(
        self,
        jobs: Sequence[SlideJob],
        filled: Sequence[StoreSpec],
        device: str,
        overwrite: bool,  # noqa: FBT001 - passed on by ray
        threads: int,
    ) -> None:
        self._setup = (jobs, filled, device, overwrite, threads)
        self._run: ExtractionRun | None = None

    def prepare(self) -> FeaturesError | None:
        """Load the network and check the stores; errors are returned, as ray would wrap them."""
        jobs, filled, device, overwrite, threads = self._setup
        try:
            self._run = ExtractionRun(jobs, filled, device, overwrite=overwrite)
        except FeaturesError as error:
            return error
        self._embedding = self._run.embedding(threads, Silent())
        self._embedding.__enter__()
        self._jobs = {job.slide: job for job in self._run.jobs}
        return None

    def slide(self, name: str) -> list[Outcome] | None:
        """Extract one slide; None if another process works on it."""
        assert self._run
        return self._run.slide(self._jobs[name])


@dataclass
class _WorkerPool:
    """The workers of an extraction, their running tasks and the failed attempts by slide."""

    ray: Any
    setup: tuple[Any, ...]
    needs: dict[str, float]
    running: dict[Any, tuple[Any, str]] = field(default_factory=dict)  # task -> worker, slide
    workers: list[Any] = field(default_factory=list)
    attempts: dict[str, int] = field(default_factory=dict)

    def run(self, jobs: Sequence[SlideJob], count: int) -> Iterator[tuple[str, list[Outcome]]]:
        """Extract slides on ``count`` workers; yields outcomes as they finish."""
        queue = deque(job.slide for job in jobs)
        for _ in range(count):
            self._start_worker()
        while queue or any(slide for _, slide in self.running.values()):
            self._assign(queue)
            done, _ = self.ray.wait(list(self.running), timeout=WAIT_S)
            for task in done:
                worker, slide = self.running.pop(task)
                try:
                    result = self.ray.get(task)
                except _worker_errors(self.ray) as error:
                    yield from self._replace_worker(worker, slide, queue, str(error))
                    continue
                if isinstance(result, FeaturesError):
                    raise result
                if slide and result is None:  # another process works on it
                    queue.append(slide)
                    time.sleep(WAIT_S)
                elif slide:
                    yield slide, result

    def shutdown(self) -> None:
        """End all workers."""
        for worker in self.workers:
            self.ray.kill(worker)

    def _start_worker(self) -> None:
        kind = self.ray.remote(_Worker).options(max_concurrency=SLIDES_AT_ONCE, **self.needs)
        worker = kind.remote(*self.setup)
        self.workers.append(worker)
        self.running[worker.prepare.remote()] = (worker, "")  # it gets slides once it is ready

    def _assign(self, queue: "deque[str]") -> None:
        """Assign to every worker that is ready as many slides as it handles at once.

        A slide at which a worker died is repeated alone, as it may end the next worker too.
        """
        for worker in self.workers:
            slides = [slide for owner, slide in self.running.values() if owner is worker]
            while queue and "" not in slides and len(slides) < SLIDES_AT_ONCE:
                if slides and any(slide in self.attempts for slide in (*slides, queue[0])):
                    break
                slides.append(queue.popleft())
                self.running[worker.slide.remote(slides[-1])] = (worker, slides[-1])

    def _replace_worker(
        self, worker: Any, slide: str, queue: "deque[str]", reason: str
    ) -> Iterator[tuple[str, list[Outcome]]]:
        """Replace a worker that died, and repeat its slide unless it has failed too often."""
        if worker in self.workers:
            self.workers.remove(worker)
            self.ray.kill(worker)  # an unreachable worker would keep its slide and its CPUs
            self._start_worker()
        self.attempts[slide] = self.attempts.get(slide, 0) + 1
        if self.attempts[slide] < MAX_ATTEMPTS:
            if slide:
                queue.appendleft(slide)
            return
        if not slide:
            raise FeaturesError(
                f"Workers die before their first slide: {reason.splitlines()[0]} See ray's logs on the "
                "node; often for lack of memory."
            )
        yield slide, self._record_failure(slide, reason)

    def _record_failure(self, slide: str, reason: str) -> list[Outcome]:
        outcomes = []
        case = next(job.case for job in self.setup[0] if job.slide == slide)
        for target in self.setup[1]:
            outcome = Outcome(
                slide=slide,
                case=case,
                status="failed",
                reason=f"{slide}: {MAX_ATTEMPTS} workers died at it. Often for lack of memory: set "
                "workers lower.",
                details=reason,
                store=str(target.store.path),
            )
            target.store.record(outcome)
            outcomes.append(outcome)
        return outcomes


def _worker_errors(ray: Any) -> tuple[type[Exception], ...]:
    """Ray's errors for a worker that died."""
    errors = ray.exceptions
    return (
        errors.RayActorError,
        errors.OutOfMemoryError,
        errors.NodeDiedError,
        errors.WorkerCrashedError,
    )


def _connect_ray() -> Any:
    """Import ray and connect to the cluster."""
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise FeaturesError(
            "The engine ray needs the package ray. Install it: pip install 'sarcomil[cluster]'."
        ) from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no reports from a hospital's machine
    if not ray.is_initialized():
        ray.init(
            address=os.environ.get("RAY_ADDRESS") or "local",  # never a cluster found by chance
            log_to_driver=False,
            include_dashboard=False,
            logging_level=logging.ERROR,
        )
    return ray


def _worker_resources(ray: Any, workers: int) -> tuple[int, dict[str, float]]:
    """The number of workers that fit into the cluster, and the resources of one."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    if gpus:
        return gpus, {"num_cpus": workers or max(1, sum(cpus) // gpus), "num_gpus": 1}
    share = workers or max(1, min(CPUS_PER_WORKER, *[n for n in cpus if n] or [1]))
    return max(1, sum(n // share for n in cpus)), {"num_cpus": share}


def _absolute_job(job: SlideJob) -> SlideJob:
    """The job with absolute paths."""
    return replace(
        job,
        files=tuple(path.absolute() for path in job.files),
        annotations=job.annotations and job.annotations.absolute(),
        coordinates=job.coordinates and job.coordinates.absolute(),
    )


def _absolute_recipe(recipe: Recipe) -> Recipe:
    """The recipe with absolute paths."""

    def full(name: str) -> str:
        return str(Path(name).absolute()) if Path(name).is_file() else name

    return replace(
        recipe,
        weights=full(recipe.weights),
        stain_reference=tuple(full(name) for name in recipe.stain_reference),
    )
