"""How long work reports that it goes on, without knowing who listens."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int], None]


class Progress(Protocol):
    """Something that shows named tasks; the command line passes one that draws bars."""

    def task(self, name: str, total: int, unit: str) -> AbstractContextManager[Advance]:
        """Open a task of ``total`` units; the value entered advances it by a count."""


class Silent:
    """The listener that says nothing: the default everywhere in the library."""

    @contextmanager
    def task(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        """Open a task nobody sees."""
        del name, total, unit
        yield lambda _count: None
