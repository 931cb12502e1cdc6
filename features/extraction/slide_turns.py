"""The slides of an extraction in turn: a few at once, and those of other processes last."""

import time
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import Protocol

from features.bags.store import Outcome
from features.extraction.jobs import SlideJob

SLIDES_AT_ONCE = 2  # while one is embedded, the next is opened and the last one written
WAIT_S = 0.5  # between looks at slides another process works on


class SlideWork(Protocol):
    """What is done with every slide."""

    def slide(self, job: SlideJob) -> list[Outcome] | None:
        """Do it; None where another process works on the slide."""

    def stop(self) -> None:
        """Begin nothing more."""


def iterate_outcomes(
    run: SlideWork, jobs: Sequence[SlideJob]
) -> Generator[tuple[SlideJob, list[Outcome]], None, None]:
    """The outcomes of all jobs as they finish; slides that another process works on come last."""
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
