"""Fits in several processes at once: the same work in the same order of results, only sooner."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from joblib.externals.loky import ProcessPoolExecutor, wait

from mil.errors import FitError
from mil.heads.registry import register_head, registered_heads

if TYPE_CHECKING:
    from mil.heads.head import Head

ENGINES = ("loky", "ray")
# That processes must save to be worth their start: each imports and loads for 5 CPU s.
START_S = 8.0
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
WATCH_S = 0.5

T = TypeVar("T")
Work = Callable[..., T]


def run_tasks(
    work: Work[T], tasks: Sequence[tuple[Any, ...]], *, engine: str = "loky", workers: int = 1
) -> Iterator[tuple[int, T]]:
    """Call ``work(*task)`` for each task; yields its number and result as they come.

    Args:
        work: called in other processes, so that what it holds can be sent there; it is sent once.
        tasks: arguments of each call.
        engine: ``loky``, processes of this machine, or ``ray``, those of a cluster.
        workers: how many at once. 1 starts none; 0 takes one per core, where that is worth their start.

    Raises:
        FitError: the engine is unknown, or a process was killed.
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
        if count > 1 and saved >= (0.0 if workers else START_S):
            yield from _in_processes(_with_heads(work), list(enumerate(tasks))[number:], count)
            return
        started = time.perf_counter()
        result = work(*task)
        took = time.perf_counter() - started
        # The first loads here what a process would have to load: it says little of those to come.
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


def _cores() -> int:
    """Those this process may use, where the system says so."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS


def _in_processes(
    work: Work[T], tasks: Sequence[tuple[int, tuple[Any, ...]]], count: int
) -> Iterator[tuple[int, T]]:
    """The same in processes that end with this one, however it ends."""
    count = min(count, len(tasks))
    pool = ProcessPoolExecutor(
        count, initializer=_begin, initargs=(work, os.getpid()), env=ONE_THREAD
    )
    waiting = iter(tasks)
    running: dict[Any, int] = {}
    try:
        while True:
            with _interrupts_held():
                # No more than the pool hands on at once, see below.
                for number, task in islice(waiting, 2 * count - len(running)):
                    running[pool.submit(_call, task)] = number
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    except BrokenProcessPool as error:
        raise FitError(
            "A process was killed at its fit, often for want of memory. Use fewer --workers; what was "
            "finished is kept."
        ) from error
    finally:
        # loky's thread dies with a KeyError if it is shut down before it has handed on what it was given.
        while not all(future.running() or future.done() for future in running):
            time.sleep(0.001)
        # All at once: one that outlives another for a moment would tell of a broken pipe.
        for pid in list(pool._processes or ()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        pool.shutdown(wait=True, kill_workers=True)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """An interrupt is for this process alone: those it starts here inherit that theirs is blocked."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


_work: list[Work[Any]] = []  # of a process that was started here


def _begin(work: Work[Any], parent: int) -> None:
    _work[:] = [work]
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when the one that started it has ended: nobody waits for its fits."""
    while os.getppid() == parent:
        time.sleep(WATCH_S)
    os._exit(1)


def _call(task: tuple[Any, ...]) -> Any:
    return _work[0](*task)
