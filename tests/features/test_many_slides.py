"""A hundred slides more in one run cost no more handles, threads and memory."""

import gc
import os
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from making import MeanColour, fake_backbone, write_tiff

from features.extraction import extract as module
from features.extraction.extract import extract
from features.extraction.jobs import SlideJob
from features.recipe import Recipe

pytestmark = pytest.mark.slow

N_SLIDES = 150
FIRST = 50  # by then everything that is made once is there
GROWTH_BYTES = 8 << 20  # of resident memory over 100 slides
DIM = 8192  # a kept bag of 16 tiles holds 256 KB, 100 of them 26 MB
RECIPE = Recipe(backbone="wide", mpp=0.5, tile=32, precision="fp32", max_tiles=16)


class Wide(MeanColour):
    def forward(self, images):
        return super().forward(images).repeat(1, DIM // 3 + 1)[:, :DIM]


@pytest.fixture(autouse=True)
def _small_backbone(monkeypatch, own_readers):
    monkeypatch.setattr(
        module, "load_backbone", lambda name, weights, **_options: fake_backbone(Wide(), dim=DIM)
    )


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """Slides of 64 to 128 px, each with a grain of its own."""
    folder = tmp_path_factory.mktemp("slides")
    rng = np.random.default_rng(0)
    for number in range(N_SLIDES):
        side = int(rng.integers(2, 5)) * 32
        picture = np.full((side, side, 3), (200, 60, 120), np.uint8)
        picture[rng.integers(0, side, 40), rng.integers(0, side, 40)] = 250
        write_tiff(folder / f"s{number:03}.tiff", [picture], mpp=0.5, tile=(64, 64))
    return folder


def handles():
    return len(list(Path("/proc/self/fd").iterdir()))


def resident_bytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Watching:
    """A listener that looks at the process after every slide."""

    def __init__(self):
        self.handles, self.threads, self.resident = [], [], []

    @contextmanager
    def task(self, name, total, unit):
        def advance(count):
            if name == "slides":
                self.handles.append(handles())
                self.threads.append(threading.active_count())
                self.resident.append(resident_bytes())

        yield advance


def run(slides, out):
    jobs = [SlideJob(slide=path.stem, files=(path,)) for path in sorted(slides.glob("*.tiff"))]
    watching = Watching()
    outcomes = extract(jobs, RECIPE, out, device="cpu", workers=2, progress=watching)
    return watching, {outcome.status for outcome in outcomes}


def test_handles_threads_and_memory_stay_flat_over_a_hundred_slides(slides, tmp_path):
    gc.collect()
    before = handles(), threading.active_count()
    for status in ("done", "skipped"):  # made, then found
        watching, statuses = run(slides, tmp_path)
        assert statuses == {status}
        assert len(watching.handles) == N_SLIDES
        gc.collect()
        assert (handles(), threading.active_count()) == before
        # While slides are in work the number goes up and down; what is leaked would add up.
        assert max(watching.handles[FIRST:]) <= max(watching.handles[:FIRST]) + 8
        assert max(watching.threads[FIRST:]) <= max(watching.threads[:FIRST])
        growth = max(watching.resident[FIRST:]) - max(watching.resident[:FIRST])
        assert growth < GROWTH_BYTES
    assert len(list(tmp_path.glob("*.h5"))) == N_SLIDES
    assert list(tmp_path.glob(".extract/*.claim")) == []
    assert list(tmp_path.rglob("*.tmp")) == []
