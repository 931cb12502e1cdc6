"""A night over hundreds of slides: what one slide takes, it gives back."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from making import box_ring, fake_backbone, feature, noise, write_geojson, write_tiff

from features import extract as module
from features.extract import SlideJob, extract
from features.recipe import Recipe

RECIPE = Recipe(backbone="mean-colour", mpp=0.5, tile=64, precision="fp32")
N_SLIDES, SETTLED = 500, 100
MOST_GROWTH_KIB = 16_000  # over 400 slides: 40 KiB a slide would be 16 MB


def held():
    """Open files, threads, and resident KiB of this process."""
    status = Path("/proc/self/status").read_text()
    files = [p for p in Path("/proc/self/fd").iterdir() if p.exists()]
    resident = int(status.split("VmRSS:")[1].split()[0])
    return len(files), threading.active_count(), resident


class Watching:
    """Looks at the process as slides are done."""

    def __init__(self):
        self.seen, self.done = [], 0

    def task(self, name, total, unit):
        return self if name == "slides" else Silence()

    def __enter__(self):
        return self.advance

    def __exit__(self, *error):
        pass

    def advance(self, count):
        self.done += count
        if self.done % 50 == 0:
            self.seen.append(held())


class Silence:
    def __enter__(self):
        return lambda count: None

    def __exit__(self, *error):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
def test_files_threads_and_memory_stay_flat_over_hundreds_of_slides(
    tmp_path, monkeypatch, compression
):
    monkeypatch.setattr(module, "load_backbone", lambda name, weights, *, seed: fake_backbone())
    slide = write_tiff(
        tmp_path / "s.tiff", [noise(256, 256)], mpp=0.5, compression=compression, tile=(128, 128)
    )
    write_geojson(tmp_path / "s.geojson", feature(box_ring(0, 0, 256, 256)))
    for number in range(N_SLIDES):
        (tmp_path / f"{number}.geojson").symlink_to(tmp_path / "s.geojson")
    job = SlideJob(slide="0", files=(slide,), annotations=tmp_path)
    jobs = [replace(job, slide=str(number)) for number in range(N_SLIDES)]
    watch = Watching()
    outcomes = extract(jobs, RECIPE, tmp_path / "store", device="cpu", progress=watch)
    assert {outcome.status for outcome in outcomes} == {"done"}
    files, threads, resident = np.array(watch.seen).T
    settled = SETTLED // 50 - 1
    assert files.max() <= files[settled] + 12  # what two slides at once hold, more or less
    assert threads.max() <= threads[settled] + 2
    assert resident[-1] - resident[settled] < MOST_GROWTH_KIB
