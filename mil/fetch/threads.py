"""Work in threads that an interrupted process need not wait for."""

import queue
import threading
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from mil.fetch.service import Service, Stopped

T = TypeVar("T")
NOTICE_S = 0.2  # until an interrupt is noticed
FAREWELL_S = 0.5  # that threads have to end after one


def in_threads(service: Service, items: Iterable[T], work: Callable[[T], None]) -> None:
    """Work on items, as many at once as the service's settings say.

    Raises:
        Exception: the first that ``work`` raised; no further item is begun.
    """
    pool = _Pool(service, items, work)
    threads = [threading.Thread(target=pool.run, daemon=True) for _ in range(pool.n_threads)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(NOTICE_S)
    except BaseException:
        service.stopped.set()
        for thread in threads:
            thread.join(FAREWELL_S)
        raise
    if pool.errors:
        raise pool.errors[0]


class _Pool(Generic[T]):
    """Items that threads take one by one, until one raises an error or the service is stopped."""

    def __init__(self, service: Service, items: Iterable[T], work: Callable[[T], None]) -> None:
        self._service, self._work = service, work
        self._waiting: queue.SimpleQueue[T] = queue.SimpleQueue()
        for item in items:
            self._waiting.put(item)
        self.n_threads = min(service.settings.parallel, self._waiting.qsize())
        self.errors: list[Exception] = []

    def run(self) -> None:
        """Work until no item is left."""
        while not self._service.stopped.is_set():
            try:
                self._work(self._waiting.get_nowait())
            except (queue.Empty, Stopped):
                return
            except Exception as error:  # noqa: BLE001 - raised again by the caller's thread
                self.errors.append(error)
                self._service.stopped.set()
