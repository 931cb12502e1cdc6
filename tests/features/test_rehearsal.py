"""Slides that end, stall or starve the process that reads them: a child does, and the slide is named."""

import os
import signal
import time
from contextlib import nullcontext

import numpy as np
import pytest
from making import noise, stained, write_tiff

from features.errors import SlideError
from features.slides import rehearsal
from features.slides import slide as direct
from features.slides.rehearsal import Tiles, children_ended, open_slide, rehearse_tiles


@pytest.fixture(autouse=True)
def _own_readers(own_readers):
    """No child is left to the next test."""


@pytest.fixture
def child_that(monkeypatch):
    """Replace what a child does with a slide by one statement of Python."""

    def arrange(statement):
        monkeypatch.setattr(
            rehearsal,
            "BOOT",
            "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
            "import os, time; import features.slides.rehearsal_child as child\n"
            f"def read(request, answers):\n    {statement}\n"
            "child._read = read\nchild.serve()",
        )

    return arrange


def test_the_overview_is_the_one_that_a_direct_reading_gives(tmp_path):
    path = write_tiff(tmp_path / "s.tiff", [noise(1500, 2100), noise(375, 525)], compression="jpeg")
    with open_slide(path) as slide, direct.open_slide(path) as same:
        assert slide._overview is not None
        assert np.array_equal(slide.thumbnail(1024), same.thumbnail(1024))
        assert slide.thumbnail(200).size == same.thumbnail(200).size
        assert np.array_equal(slide.read(5, 5, 64, 0.25), same.read(5, 5, 64, 0.25))


def test_one_child_reads_many_slides_and_ends_with_the_outermost_run(tmp_path):
    pids = set()
    with children_ended():
        for number in range(3):
            slide = write_tiff(tmp_path / f"{number}.tiff", [stained()])
            with children_ended(), open_slide(slide):
                pids.add(rehearsal._CHILDREN.idle[0].process.pid)
    assert len(pids) == 1
    assert rehearsal._CHILDREN.idle == []
    with pytest.raises(ProcessLookupError):
        os.kill(pids.pop(), 0)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("os.abort()", rf"ends the process \(signal {int(signal.SIGABRT)}"),
        ("os.kill(os.getpid(), 11)", rf"ends the process \(signal {int(signal.SIGSEGV)}"),
        ("os.write(2, b'gmem.c: no memory\\n'); os._exit(3)", r"exit status 3: gmem\.c: no memory"),
        ("raise MemoryError", "more memory than any slide needs"),
    ],
)
def test_a_child_that_dies_of_a_slide_names_it(slide_file, child_that, statement, said):
    child_that(statement)
    with pytest.raises(SlideError, match=rf"^a\.tiff: .*{said}") as caught:
        open_slide(slide_file)
    assert "leave it out" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_slide_that_stalls_is_given_up_when_its_time_is_over(slide_file, child_that, monkeypatch):
    child_that("time.sleep(600)")
    monkeypatch.setattr(rehearsal, "BUDGET_S", 2.5)
    monkeypatch.setattr(rehearsal, "ANNOUNCED_AFTER_S", 0.0)
    shown = []

    class Watching:
        def task(self, name, total, unit):
            return nullcontext(lambda count: shown.append((name, count)))

    started = time.monotonic()
    with pytest.raises(SlideError, match=r"^a\.tiff: it could not be read within 3 s"):
        open_slide(slide_file, progress=Watching())
    assert time.monotonic() - started < 30
    assert any(name.startswith("a.tiff: opening, at most 3 s") for name, _ in shown)


def test_the_next_slide_gets_a_new_child(slide_file, child_that, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(rehearsal, "BOOT", "import os; os.abort()")
        with pytest.raises(SlideError):
            open_slide(slide_file)
    with open_slide(slide_file) as slide:
        assert slide.size_l0 == (512, 512)


def test_errors_of_a_slide_are_those_of_a_direct_reading(tmp_path):
    path = tmp_path / "s.tiff"
    path.write_bytes(b"no slide")
    messages = []
    for opened in (open_slide, direct.open_slide):
        with pytest.raises(SlideError) as caught:
            opened(path)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_tiles_are_rehearsed_to_the_last(slide_file, child_that):
    tiles = Tiles(np.array([[0, 0], [64, 64]]), 32, 0.5, 0.5)
    rehearse_tiles(slide_file, tiles)
    child_that("[os.abort() for x, y in request['coords_l0'] if x == 64]")
    rehearsal._CHILDREN.close(os.getpid())  # the next is another
    with pytest.raises(SlideError, match=r"^a\.tiff: .*ends the process"):
        rehearse_tiles(slide_file, tiles)


def test_a_budget_grows_with_the_file(tmp_path):
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"x")
    with large.open("wb") as file:
        file.truncate(2_000_000_000)
    assert rehearsal.budget_s(small) == pytest.approx(120, abs=1)
    assert rehearsal.budget_s(large) == pytest.approx(2120, abs=1)
