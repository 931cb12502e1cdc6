"""Reading a slide in a child process first, so that a damaged one cannot end or stall a whole run.

The libraries below OpenSlide abort, crash or loop on some damaged files, and nothing in Python can stop
that. A child process reads the overview and a few fields of every level; what it read is handed over, so a
good slide is not read twice. Children are kept for the slides that follow and end with their run.
"""

import atexit
import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.errors import SlideError
from features.progress import Progress, Silent
from features.slides import slide as direct
from features.slides.slide import Slide

BUDGET_S = 120.0  # for a small file; most slides take under a second, on a busy machine ten
BUDGET_S_PER_MB = 1.0  # more: a file of 1 GB may be one level of 10^10 pixels, all to be decoded
ANNOUNCED_AFTER_S = 5.0  # from then on, a slide that takes long has a bar of its own
CRASH_REMEDY = "Copy the file again or scan the slide again; until then, leave it out."
BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from features.slides.rehearsal_child import serve; serve()"
)


@dataclass(frozen=True)
class Tiles:
    """Tiles to read in a rehearsal: all that a run would read.

    Attributes:
        coords_l0: (N, 2) corners (x, y) in level-0 pixels.
        tile_px: side of a tile.
        mpp: micrometres per pixel of a tile.
        slide_mpp: micrometres per level-0 pixel.
    """

    coords_l0: NDArray[np.int64]
    tile_px: int
    mpp: float
    slide_mpp: float


def open_slide(
    path: Path,
    *,
    mpp: float | None = None,
    mpp_source: str = "given",
    fallback_mpp: float | None = None,
    progress: Progress | None = None,
) -> Slide:
    """Open a slide that a child process has read before; its overview is the child's.

    Args:
        path: the slide file.
        mpp: as ``features.slides.slide.open_slide``.
        mpp_source: as ``features.slides.slide.open_slide``.
        fallback_mpp: as ``features.slides.slide.open_slide``.
        progress: shows a slide that takes long.

    Raises:
        SlideError: reading it ends or stalls a process, or as ``features.slides.slide.open_slide``.
        ScaleError: as ``features.slides.slide.open_slide``.
    """
    overview = _CHILDREN.ask(path, None, progress or Silent()) if path.is_file() else None
    return direct.open_slide(
        path, mpp=mpp, mpp_source=mpp_source, fallback_mpp=fallback_mpp, overview=overview
    )


def rehearse_tiles(path: Path, tiles: Tiles, progress: Progress | None = None) -> None:
    """Read tiles in a child process, for a slide at which a process died before.

    Raises:
        SlideError: reading them ends or stalls the child as well.
    """
    _CHILDREN.ask(path, tiles, progress or Silent())


@contextlib.contextmanager
def children_ended() -> Iterator[None]:
    """End the children that are idle when the block ends: a run leaves no process behind.

    Of blocks within each other, as of a run that extracts several times, the outermost ends them.
    """
    children = _CHILDREN
    children.begin_run()
    try:
        yield
    finally:
        children.end_run()


def budget_s(path: Path) -> float:
    """The seconds that the overview of a slide may take, or one of its tiles."""
    return BUDGET_S + BUDGET_S_PER_MB * path.stat().st_size / 1e6


@dataclass
class _Child:
    """A process that reads slides on request."""

    process: "subprocess.Popen[bytes]"
    errors: IO[bytes]

    @classmethod
    def start(cls) -> "_Child":
        """Start a process with the modules of this one, and none from the working folder."""
        root = str(Path(__file__).parents[2])
        here = {"", str(Path.cwd())}
        paths = [root, *(entry for entry in sys.path if entry not in here)]
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        process = subprocess.Popen(
            [sys.executable, "-c", BOOT, json.dumps(paths)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        return cls(process, errors)

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.errors):
            with contextlib.suppress(OSError):  # a request that nobody read
                assert pipe
                pipe.close()

    def last_words(self) -> str:
        """The last line that the libraries wrote."""
        self.errors.seek(0)
        lines = self.errors.read()[-4096:].decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""


@dataclass
class _Children:
    """The children of this process: as many as it has threads that read slides, at most one per core."""

    idle: list[_Child] = field(default_factory=list)
    owner: int = 0
    runs: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    places: threading.Semaphore = field(
        default_factory=lambda: threading.Semaphore(max(2, os.cpu_count() or 2))
    )

    def ask(self, path: Path, tiles: Tiles | None, progress: Progress) -> Image.Image | None:
        """Have a child read a slide; its overview, or None where it found none to hand over."""
        with self.places:
            child = self._take()
            try:
                answer = _exchange(child, path, _request(path, tiles), progress)
            except BaseException:
                child.close()
                raise
            with self.lock:
                self.idle.append(child)
        return answer

    def _take(self) -> _Child:
        with self.lock:
            self._check_owner()
            while self.idle:
                child = self.idle.pop()
                if child.process.poll() is None:
                    return child
                child.close()
        return _Child.start()

    def _check_owner(self) -> None:
        """Forget the children and the runs of the process that has forked this one."""
        if self.owner != os.getpid():
            self.idle, self.owner, self.runs = [], os.getpid(), 0
            atexit.register(self.close, os.getpid())

    def begin_run(self) -> None:
        """Count a run that begins."""
        with self.lock:
            self._check_owner()
            self.runs += 1

    def end_run(self) -> None:
        """End the idle children with the last of the runs."""
        with self.lock:
            self._check_owner()
            self.runs = max(0, self.runs - 1)
            last = self.runs == 0
        if last:
            self.close(os.getpid())

    def close(self, owner: int) -> None:
        """End the idle children."""
        with self.lock:
            ending, self.idle = (self.idle if owner == self.owner else []), []
        for child in ending:
            child.close()


_CHILDREN = _Children()


def _request(path: Path, tiles: Tiles | None) -> bytes:
    request: dict[str, Any] = {"path": str(path.absolute())}
    if tiles:
        request |= {
            "coords_l0": tiles.coords_l0.tolist(),
            "tile_px": tiles.tile_px,
            "mpp": tiles.mpp,
            "slide_mpp": tiles.slide_mpp,
        }
    return json.dumps(request).encode() + b"\n"


def _exchange(child: _Child, path: Path, request: bytes, progress: Progress) -> Image.Image | None:
    """Send a request and wait for the answer."""
    budget = budget_s(path)
    try:
        assert child.process.stdin
        child.process.stdin.write(request)
        child.process.stdin.flush()
        with _Wait(child, path, budget, progress) as wait:
            head = json.loads(wait.line())
            if head["error"]:
                raise SlideError(f"{path.name}: {head['error']}. {CRASH_REMEDY}")
            width, height = head["size"]
            pixels = wait.bytes(3 * width * height)
    except (BrokenPipeError, EOFError):
        raise SlideError(_obituary(child, path)) from None
    if not pixels:
        return None
    return Image.fromarray(np.frombuffer(pixels, np.uint8).reshape(height, width, 3))


def _obituary(child: _Child, path: Path) -> str:
    """How a child died, as a message."""
    code = child.process.wait()
    how = f"signal {-code}" if code < 0 else f"exit status {code}"
    words = child.last_words()
    return (
        f"{path.name}: reading it ends the process ({how}{f': {words}' if words else ''}). Its tags or its "
        f"pixels are damaged. {CRASH_REMEDY}"
    )


class _Wait:
    """Waiting for a child's answer, with a bar once it takes long; a context manager."""

    def __init__(self, child: _Child, path: Path, budget: float, progress: Progress) -> None:
        assert child.process.stdout
        self._pipe, self._path, self._budget = child.process.stdout, path, budget
        self._progress, self._shown = progress, contextlib.ExitStack()
        self._advance: Any = None
        self._buffer = bytearray()

    def __enter__(self) -> "_Wait":
        return self

    def __exit__(self, *_error: object) -> None:
        self._shown.close()

    def line(self) -> bytes:
        """The next line; lines without content are signs of life."""
        while True:
            while b"\n" not in self._buffer:
                self._more()
            line, _, rest = bytes(self._buffer).partition(b"\n")
            self._buffer = bytearray(rest)
            if line:
                return line

    def bytes(self, count: int) -> bytes:
        """So many bytes."""
        while len(self._buffer) < count:
            self._more()
        return bytes(self._buffer[:count])

    def _more(self) -> None:
        started = time.monotonic()
        shown = 0
        while not select.select([self._pipe], [], [], 1.0)[0]:
            waited = time.monotonic() - started
            if waited > self._budget:
                raise SlideError(
                    f"{self._path.name}: it could not be read within {self._budget:.0f} s, the time a file "
                    f"of this size has. Its tags contradict its pixels, or its disk does not answer. "
                    f"{CRASH_REMEDY}"
                )
            if waited > ANNOUNCED_AFTER_S:
                self._show(int(waited) - shown)
                shown = int(waited)
        chunk = os.read(self._pipe.fileno(), 1 << 20)
        if not chunk:
            raise EOFError
        self._buffer += chunk

    def _show(self, seconds: int) -> None:
        if self._advance is None:
            name = f"{self._path.name}: opening, at most {self._budget:.0f} s"
            self._advance = self._shown.enter_context(
                self._progress.task(name, int(self._budget), "s")
            )
        self._advance(seconds)
