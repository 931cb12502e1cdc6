"""Progress of long work: the interface through which it is reported."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

Advance = Callable[[int], None]
Notify = Callable[[str], None]  # is called with a sentence that a reader should know


class Progress(Protocol):
    """Shows the progress of named tasks; the command line passes one that draws bars."""

    def task(self, name: str, total: int, unit: str) -> AbstractContextManager[Advance]:
        """Open a task of ``total`` units as a context; calling its value advances the task by a count."""


class Silent:
    """Shows nothing: the default everywhere in the library."""

    @contextmanager
    def task(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        """Open a task without showing it."""
        del name, total, unit
        yield lambda _count: None


@dataclass(frozen=True)
class NamedProgress:
    """Progress whose tasks have something in front of their names.

    Attributes:
        progress: shows them.
        prefix: as in ``fold 2/5: ``.
    """

    progress: Progress
    prefix: str

    def task(self, name: str, total: int, unit: str) -> AbstractContextManager[Advance]:
        """Open a task under its longer name."""
        return self.progress.task(self.prefix + name, total, unit)
