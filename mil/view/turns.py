"""Turns at slow work: a few at once, and of those that wait the latest first."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Whoever looks at a slide wants the tile of this moment before those of the moment before.

    Args:
        count: turns at once, at least 1.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: list[threading.Event] = []
        self._lock = threading.Lock()

    @contextmanager
    def take(self) -> Iterator[None]:
        """Wait for a turn, and keep it until the block ends."""
        with self._lock:
            free = self._free > 0
            self._free -= free
            called = threading.Event()
            if not free:
                self._waiting.append(called)
        if not free:
            called.wait()
        try:
            yield
        finally:
            with self._lock:
                if self._waiting:
                    self._waiting.pop().set()
                else:
                    self._free += 1
