"""Work for other processes. Nothing heavy is imported here: each of them imports this file."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from mil.errors import FitError


@dataclass(frozen=True)
class Mark:
    """Notes who did what, waits as long as told, and fails where told."""

    folder: Path
    wait_s: float = 0.0
    fails: int = -1
    error: type[Exception] = FitError

    def __call__(self, number: int) -> tuple[int, int]:
        (self.folder / f"{number}-{os.getpid()}").touch()
        time.sleep(self.wait_s * (3 - number % 4))  # later ones end first
        if number == self.fails:
            raise self.error(f"number {number} failed")
        return number, os.getpid()


class Killed(Mark):
    def __call__(self, number: int) -> tuple[int, int]:
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(number)


def keep_none(model, fold, fitter):
    return fitter()


@dataclass(frozen=True)
class NotesMaps:
    """Keeps nothing, and notes which files this process maps."""

    folder: Path

    def __call__(self, model, fold, fitter):
        fitted = fitter()
        mapped = Path("/proc/self/maps").read_text()
        (self.folder / f"{fold.index}-{os.getpid()}").write_text(mapped)
        return fitted


def blocked_signals(_number):
    """The signals that this process holds back."""
    return sorted(int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, []))
