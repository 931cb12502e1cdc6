"""Tasks in several processes at once, with the results of one process."""

import os
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import joblib
from joblib import Parallel, delayed, effective_n_jobs, parallel_config

from mil.errors import FitError
from mil.heads.registry import register_head, registered_heads

if TYPE_CHECKING:
    from mil.heads.head import Head

ENGINES = ("loky", "ray")
START_S = 8.0  # seconds that processes must save to be worth their start: each loads for 5 CPU s
WATCH_S = 0.5
IDLE_S = 1.0  # seconds after which a process ends that has nothing left to do

_KILLED = (
    "A worker process was killed during its fit, often because memory ran out. Set workers lower; finished "
    "fits are kept."
)
_NOT_STARTED = (
    "No worker process could start; the lines above may say why. Set workers to 1, which needs none; "
    "finished fits are kept."
)

T = TypeVar("T")
Work = Callable[..., T]


def run_tasks(
    work: Work[T], tasks: Sequence[tuple[Any, ...]], *, engine: str = "loky", workers: int = 1
) -> Iterator[tuple[int, T]]:
    """Call ``work(*task)`` for each task; yields the task's number and its result as they come.

    Processes of this machine are shared by the whole program: exhaust or close one iterator before the next.

    Args:
        work: called in other processes, to which it is sent once; so it can be pickled.
        tasks: arguments of each call.
        engine: ``loky``, processes of this machine, or ``ray``, those of a cluster.
        workers: calls at once. 1 starts no process; 0 takes one per core, where that is worth their start.

    Raises:
        FitError: the engine is unknown, or a process was killed or could not start.
    """
    if engine not in ENGINES:
        raise FitError(f"engine is {' or '.join(ENGINES)}; got {engine!r}. Use loky.")
    if engine == "ray":
        from features.extraction.cluster import run_on_ray

        yield from run_on_ray(_with_heads(work), tasks, workers)
        return
    count = workers or _cores()
    slowest = 0.0
    for number, task in enumerate(tasks):
        saved = slowest * (len(tasks) - number) * (1 - 1 / count)
        processes = _n_processes(count, len(tasks) - number)
        if processes > 1 and saved >= (0.0 if workers else START_S):
            remaining = list(enumerate(tasks))[number:]
            yield from _run_in_processes(_with_heads(work), remaining, processes)
            return
        started = time.perf_counter()
        result = work(*task)
        took = time.perf_counter() - started
        # The first task loads what a process would have to load, so its time says little of the others.
        slowest = max(slowest, took if number else took - START_S)
        yield number, result


@dataclass(frozen=True)
class _WithHeads:
    """Work together with the heads that this program has registered, which other processes do not know."""

    work: Work[Any]
    heads: Mapping[str, "type[Head]"]

    def __call__(self, *task: Any) -> Any:
        for name, head in self.heads.items():
            register_head(name, head)
        return self.work(*task)


def _with_heads(work: Work[T]) -> Work[T]:
    heads = registered_heads()
    return _WithHeads(work, heads) if heads else work


def _n_processes(workers: int, n_tasks: int) -> int:
    """How many processes are of use; 1 where no other can be started."""
    startable: int = effective_n_jobs(workers)
    return min(workers, n_tasks, startable)


def _cores() -> int:
    """Cores that this process may use, or all where the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS


def _run_in_processes(
    work: Work[T], tasks: Sequence[tuple[int, tuple[Any, ...]]], count: int
) -> Iterator[tuple[int, T]]:
    """Call in processes that end with this one, however it ends."""
    results: Generator[tuple[int, T], None, None] | None = None
    with _safe_path(), tempfile.TemporaryDirectory(prefix="sarcomil-") as folder:
        start = _StartWorker(Path(folder), os.getpid())
        start.lay_down(work)
        try:
            with _interrupts_deferred(), parallel_config("loky", inner_max_num_threads=1):
                results = Parallel(
                    n_jobs=count,
                    return_as="generator_unordered",
                    batch_size=1,
                    max_nbytes=None,
                    idle_worker_timeout=IDLE_S,
                    initializer=start,
                )(delayed(_call)(number, task) for number, task in tasks)
            for result in results:  # noqa: UP028 - "yield from" would close it outside of what follows
                yield result
        except BrokenProcessPool as error:
            raise FitError(_KILLED if start.was_called else _NOT_STARTED) from error
        finally:
            if results is not None:
                with warnings.catch_warnings(), _manager_may_die():
                    warnings.simplefilter("ignore")  # joblib warns of results that nobody collects
                    results.close()  # ends the processes where results are left


@contextmanager
def _safe_path() -> Iterator[None]:
    """Processes that start here import nothing from the current folder: a file may be named as a library.

    What this program has in its path for itself is handed to them afterwards.
    """
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


@contextmanager
def _manager_may_die() -> Iterator[None]:
    """Say nothing of the KeyError that loky's managing thread may die of while it is ended.

    It drops the tasks that wait, kills the processes, and then looks for the tasks that it has dropped
    (loky 3.6, ``_ExecutorManagerThread.run``).
    """
    before = threading.excepthook

    def report(error: threading.ExceptHookArgs) -> None:
        manager = type(error.thread).__name__ == "_ExecutorManagerThread"
        if not (manager and error.exc_type is KeyError):
            before(error)

    threading.excepthook = report
    try:
        yield
    finally:
        threading.excepthook = before


@contextmanager
def _interrupts_deferred() -> Iterator[None]:
    """Let processes that start here inherit a blocked SIGINT, and keep an interrupt until they run.

    To block the signal is not enough: another thread may get it, and Python then interrupts the main one.
    Python's tracker of resources unblocks the signal as it starts, so it is started first.
    """
    if os.name == "posix":
        from multiprocessing.resource_tracker import ensure_running

        ensure_running()
    masked = hasattr(signal, "pthread_sigmask")  # not on Windows
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if masked else set()
    deferred: list[int] = []
    handler = signal.getsignal(signal.SIGINT)
    handles = threading.current_thread() is threading.main_thread() and handler is not None
    if handles:
        signal.signal(signal.SIGINT, lambda number, _: deferred.append(number))
    try:
        yield
    finally:
        if handles:
            signal.signal(signal.SIGINT, handler)
        if masked:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if deferred:
            signal.raise_signal(signal.SIGINT)


_work: list[Work[Any]] = []  # of a worker process


@dataclass(frozen=True)
class _StartWorker:
    """Brings the work to a process, once, and ends the process when its parent has ended.

    The work goes through a file. Through the pipe that starts a process, this program would wait for ever to
    send it to one that has ended at its start.
    """

    folder: Path
    parent: int

    def lay_down(self, work: Work[Any]) -> None:
        """Write the work where the processes take it up."""
        joblib.dump(joblib.wrap_non_picklable_objects(work, keep_wrapper=False), self._work)

    @property
    def was_called(self) -> bool:
        """Whether a process has started."""
        return self._started.exists()

    def __call__(self) -> None:
        threading.Thread(target=_end_with, args=(self.parent,), daemon=True).start()
        try:
            self._started.touch()
            _work[:] = [joblib.load(self._work)]
        except FileNotFoundError:
            return  # the others have done all there was to do

    @property
    def _work(self) -> Path:
        return self.folder / "work"

    @property
    def _started(self) -> Path:
        return self.folder / "started"


def _end_with(parent: int) -> None:
    """End this process when its parent has ended: nobody waits for its fits."""
    while os.getppid() == parent:
        time.sleep(WATCH_S)
    os._exit(1)


def _call(number: int, task: tuple[Any, ...]) -> tuple[int, Any]:
    return number, _work[0](*task)
