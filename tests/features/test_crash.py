"""Extraction that is killed, interrupted, out of disk, or not alone: no bag is lost, none half there.

Processes are forked from a server that has imported torch already, so that each costs a fraction of a second.
"""

import contextlib
import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path

import pytest
from making import MeanColour, fake_backbone, noise, stained, write_tiff

from features.bags import arrays, store
from features.bags import bag as bags
from features.bags.bag import validate_bag
from features.bags.store import Outcome, Store
from features.errors import BagError
from features.extraction import embed, slide_turns
from features.extraction import extract as module
from features.extraction.extract import extract
from features.extraction.jobs import SlideJob
from features.files import atomic as writing
from features.files import hdf5
from features.recipe import Recipe
from features.tiles.grid import SlideTiles

RECIPE = Recipe(backbone="mean-colour", mpp=0.5, tile=32, precision="fp32", max_tiles=100)
NAMES = ("a", "b", "c")
PATIENCE_S = 120  # nothing below takes a second on a quiet machine


@pytest.fixture(autouse=True)
def _small_backbone(monkeypatch):
    monkeypatch.setattr(module, "load_backbone", load_fake)


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """Three slides of 64 tiles, all tissue."""
    folder = tmp_path_factory.mktemp("slides")
    for seed, name in enumerate(NAMES):
        write_tiff(folder / f"{name}.tiff", [noise(256, 256, seed)], mpp=0.5, tile=(64, 64))
    return folder


@pytest.fixture(scope="module")
def whole(slides, tmp_path_factory):
    """The bags of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_backbone", load_fake)
        run(slides, out)
    return contents(out)


def load_fake(name, weights, **_options):
    return fake_backbone()


def jobs(slides, names=NAMES):
    return [SlideJob(slide=name, files=(slides / f"{name}.tiff",)) for name in names]


def run(slides, out, names=NAMES, recipe=RECIPE, **options):
    return extract(jobs(slides, names), recipe, out, device="cpu", **options)


def statuses(outcomes):
    return {outcome.slide: outcome.status for outcome in outcomes}


def contents(out):
    return {path.name: path.read_bytes() for path in Store(out).bags()}


def table(out):
    with (out / "extract.csv").open(newline="") as file:
        return {row["slide"]: row["status"] for row in csv.DictReader(file)}


def temporaries(out):
    return sorted(path.name for path in out.rglob("*.tmp"))


def assert_no_part_is_visible(out):
    for path in out.rglob("*.h5"):
        if not path.name.startswith("."):
            validate_bag(path)


def assert_resumes(slides, out, whole, names=NAMES):
    """The next run does what is left: the bags of a run that nothing disturbed, and no rest of the last."""
    assert set(statuses(run(slides, out, names)).values()) <= {"done", "skipped"}
    assert contents(out) == {f"{name}.h5": whole[f"{name}.h5"] for name in names}
    assert temporaries(out) == []
    assert table(out).keys() == set(names)
    assert set(table(out).values()) <= {"done", "skipped"}
    assert not (out / "failures.csv").exists()


def until(condition, what):
    """Wait for something to be so."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.01)


def started(forked, target, *arguments):
    process = forked.Process(target=target, args=arguments)
    process.start()
    return process


def ended(process):
    """Its exit code; a process that does not end is a failure, and is ended."""
    process.join(PATIENCE_S)
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()
    return code


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


# Each step takes the process down at one place; slide b is at work, and perhaps another beside it.


def mid_tile():
    read = SlideTiles.read

    def dying(self, index):
        if self.slide.name == "b" and index == 40:
            kill()
        return read(self, index)

    SlideTiles.read = dying


def before_write():
    write_bag = bags.write_bag
    bags.write_bag = lambda path, bag: kill() if bag.slide == "b" else write_bag(path, bag)


def mid_write(nth=2):
    write = hdf5._DeferredErrors.write
    seen = Counter()

    def dying(self, data):
        if ".b.h5." in str(self.name):
            seen["b"] += 1
            if seen["b"] == nth:
                half = memoryview(data).cast("B")
                write(self, half[: len(half) // 2])
                kill()
        return write(self, data)

    hdf5._DeferredErrors.write = dying


def before_validation():
    validate = bags.validate_bag
    bags.validate_bag = lambda path: kill() if path.name.startswith(".b.h5") else validate(path)


def before_replace(name):
    rename = Path.replace

    def dying(self, target):
        if Path(target).name == name:
            kill()
        return rename(self, target)

    Path.replace = dying


def after_replace():
    flush = writing.flush_folder
    writing.flush_folder = lambda folder: kill() if (folder / "b.h5").exists() else flush(folder)


def mid_record():
    dump = store.json.dump

    def dying(held, file):
        if held.get("slide") == "b":
            file.write('{"slide": "b", "sta')
            file.flush()
            kill()
        dump(held, file)

    store.json.dump = dying


def mid_table():
    def dying(self, rows):
        self.writerow(next(iter(rows)))
        kill()

    csv.DictWriter.writerows = dying


STEPS = {  # and the temporary file that shows where it died
    "mid tile": (mid_tile, None),
    "before the bag is written": (before_write, None),
    "mid bag, first write": (lambda: mid_write(1), "b.h5"),
    "mid bag": (lambda: mid_write(6), "b.h5"),
    "before the bag is validated": (before_validation, "b.h5"),
    "before the bag's replace": (lambda: before_replace("b.h5"), "b.h5"),
    "after the bag's replace": (after_replace, None),
    "mid record": (mid_record, "b.json"),
    "before the record's replace": (lambda: before_replace("b.json"), "b.json"),
    "mid extract.csv": (mid_table, "extract.csv"),
    "before the replace of extract.csv": (lambda: before_replace("extract.csv"), "extract.csv"),
}
BAG_IS_THERE = list(STEPS)[list(STEPS).index("after the bag's replace") :]


def dies(slides, out, step, options):
    module.load_backbone = load_fake
    STEPS[step][0]()
    run(slides, out, **options)


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_leaves_no_part_and_is_resumed_to_the_same_bytes(
    forked, slides, whole, tmp_path, step
):
    process = started(forked, dies, slides, tmp_path, step, {})
    assert ended(process) == -signal.SIGKILL
    assert_no_part_is_visible(tmp_path)
    assert (tmp_path / "b.h5").exists() == (step in BAG_IS_THERE)
    left = [name for name in temporaries(tmp_path) if name.startswith((".b", ".extract"))]
    shows = f".{STEPS[step][1]}.{process.pid}."
    assert [name.startswith(shows) for name in left] == [True] * bool(STEPS[step][1])
    assert_resumes(slides, tmp_path, whole)


@pytest.mark.parametrize("step", ["mid bag", "before the bag's replace"])
def test_killed_over_an_old_bag_leaves_the_old_one(forked, slides, whole, tmp_path, step):
    run(slides, tmp_path, recipe=replace(RECIPE, max_tiles=5))
    old = (tmp_path / "b.h5").read_bytes()
    killed = started(forked, dies, slides, tmp_path, step, {"overwrite": True})
    assert ended(killed) == -signal.SIGKILL
    assert (tmp_path / "b.h5").read_bytes() == old
    assert set(statuses(run(slides, tmp_path, overwrite=True)).values()) <= {"done", "skipped"}
    assert contents(tmp_path) == whole
    assert temporaries(tmp_path) == []


def test_killed_again_and_again_it_still_ends_with_the_same_bytes(forked, slides, whole, tmp_path):
    for step in STEPS:
        killed = started(forked, dies, slides, tmp_path, step, {})
        assert ended(killed) in (-signal.SIGKILL, 0)  # 0 where b is there already
        assert_no_part_is_visible(tmp_path)
    assert_resumes(slides, tmp_path, whole)


# ---- interrupts


def marked(folder, name):
    (folder / name).touch()


def waits_in(folder, names, go):
    """Every first tile of these slides says that it is read, and waits."""
    read = SlideTiles.read

    def slow(self, index):
        if self.slide.name in names and index == 0:
            marked(folder, f"{self.slide.name}.in-work")
            deadline = time.monotonic() + PATIENCE_S
            while not go.exists() and time.monotonic() < deadline:
                time.sleep(0.01)
        return read(self, index)

    SlideTiles.read = slow


def slow_everywhere(folder):
    """Tiles take long, and say when two slides are in work."""
    read, seen = SlideTiles.read, set()

    def slow(self, index):
        seen.add(self.slide.name)
        if len(seen) > 1:
            marked(folder, "two.in-work")
            time.sleep(0.2)
        return read(self, index)

    SlideTiles.read = slow


def interrupted(slides, out, marks):
    """Exits with 130 where the interrupt comes out of extract; another code says what else came."""
    module.load_backbone = load_fake
    embed.BATCH_TILES = 4
    slow_everywhere(marks)
    try:
        run(slides, out, workers=2)
    except KeyboardInterrupt:
        alive = [thread.name for thread in threading.enumerate() if "slide" in thread.name]
        os._exit(131 if alive else 130)
    os._exit(0)


@pytest.mark.parametrize("times", [1, 2])
def test_interrupt_with_two_slides_in_work_ends_soon_and_writes_no_half(
    forked, slides, whole, tmp_path, times
):
    out, marks = tmp_path / "store", tmp_path
    process = started(forked, interrupted, slides, out, marks)
    until((marks / "two.in-work").exists, "two slides in work")
    for _ in range(times):
        os.kill(process.pid, signal.SIGINT)
    began = time.monotonic()
    assert ended(process) in ((130,) if times == 1 else (130, 131, 1))
    assert time.monotonic() - began < 30
    assert_no_part_is_visible(out)
    assert contents(out).keys() < whole.keys()
    assert temporaries(out) == []
    kept = [json.loads(path.read_text())["status"] for path in out.glob(".extract/*.json")]
    assert set(kept) <= {"done"}  # a slide that was stopped has not failed
    assert_resumes(slides, out, whole)


class Raising:
    """A listener in which the interrupt arrives."""

    def __init__(self):
        self.slides = []

    @contextlib.contextmanager
    def task(self, name, total, unit):
        self.slides.append(name)

        def advance(count):
            if name == "slides":
                raise KeyboardInterrupt

        yield advance


def test_interrupt_between_two_slides_lets_no_other_begin(slides, tmp_path):
    many = [replace(jobs(slides, "a")[0], slide=f"s{number}") for number in range(40)]
    listener = Raising()
    with pytest.raises(KeyboardInterrupt) as held:
        extract(many, RECIPE, tmp_path, device="cpu", progress=listener)
    assert held.tb is not None  # as a notebook keeps the traceback, and with it what it refers to
    assert not [thread.name for thread in threading.enumerate() if "slide" in thread.name]
    assert len(listener.slides) < 20
    assert len(contents(tmp_path)) < 20


def test_stopped_while_batches_are_handed_in_is_cancelled_and_no_failure(
    slides, tmp_path, monkeypatch
):
    class Stopping(embed.Workers):
        def _batches(self, work):
            for number, batch in enumerate(super()._batches(work)):
                if number == 2:
                    self.stop()
                yield batch

    monkeypatch.setattr(module, "Workers", Stopping)
    with pytest.raises(CancelledError):
        run(slides, tmp_path, "a")
    assert Store(tmp_path).outcomes() == []


def rows_of(pid):
    """How many nameless files of rows the process has begun to fill."""
    filled = 0
    for handle in Path(f"/proc/{pid}/fd").glob("*"):
        with contextlib.suppress(FileNotFoundError):
            opened = str(handle.readlink())
            filled += "/store/" in opened and "deleted" in opened and handle.stat().st_size > 0
    return filled


def test_interrupted_command_exits_130_and_goes_on_from_there(tmp_path, mil, command):
    """The real command with a real network, interrupted once it has begun with both slides."""
    for seed in (1, 2):
        write_tiff(tmp_path / f"s{seed}.tiff", [stained(2048, 4096)], mpp=0.5)
    arguments = [
        "extract", tmp_path, "--out", tmp_path / "store", "--backbone", "test_resnet.r160_in1k", "--weights",
        "random", "--mpp", "0.5", "--tile", "32", "--precision", "fp32", "--max-tiles", "6400",
        "--workers", "1",
    ]  # fmt: skip
    running = command(*arguments)
    until(lambda: rows_of(running.process.pid), "rows of a slide")
    assert len(list(tmp_path.glob("store/.extract/*.claim"))) == 2
    began = time.monotonic()
    assert running.interrupt() == 130
    assert time.monotonic() - began < 30
    assert "continues from there" in running.stderr
    assert "Traceback" not in running.stderr
    assert contents(tmp_path / "store") == {}
    assert temporaries(tmp_path / "store") == []
    arguments[arguments.index("6400")] = "10"
    mil(*arguments)
    assert table(tmp_path / "store") == {"s1": "done", "s2": "done"}


# ---- full disks

BIG = Recipe(backbone="wide", mpp=0.5, tile=32, precision="fp32", max_tiles=100)
BIG_DIM = 1024  # rows of 64 tiles: 256 KiB; the bag about half of it


class Wide(MeanColour):
    def forward(self, images):
        return super().forward(images).repeat(1, BIG_DIM // 3 + 1)[:, :BIG_DIM]


def load_wide(name, weights, **_options):
    return fake_backbone(Wide(), dim=BIG_DIM)


def limited(slides, out, limit, told):
    """Extract with no file larger than ``limit``; what became of it goes back to the test."""
    module.load_backbone, arrays.FLOAT16_ERROR = load_wide, 0
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        outcomes = run(slides, out, recipe=BIG)
    except OSError as error:
        told.put(str(error))
    else:
        told.put({outcome.slide: [outcome.status, outcome.reason] for outcome in outcomes})


def out_of_room(forked, slides, out, limit):
    told = forked.SimpleQueue()
    assert ended(started(forked, limited, slides, out, limit, told)) == 0
    assert_no_part_is_visible(out)
    assert temporaries(out) == []
    return told.get()


@pytest.fixture
def with_room(slides, monkeypatch):
    """Check that a run that has room ends well."""
    monkeypatch.setattr(module, "load_backbone", load_wide)
    monkeypatch.setattr(arrays, "FLOAT16_ERROR", 0)  # rows and bag of one size

    def check(out):
        assert set(statuses(run(slides, out, recipe=BIG)).values()) <= {"done", "skipped"}
        assert contents(out).keys() == {f"{name}.h5" for name in NAMES}
        assert {"done", "skipped"} >= {table(out)[name] for name in NAMES}
        assert not (out / "failures.csv").exists()
        assert temporaries(out) == []

    return check


ROWS = 64 * BIG_DIM * 4  # bytes of a slide's rows; its bag is larger by some thousands


@pytest.mark.parametrize("limit", [20_000, ROWS - 1, ROWS, ROWS + 3_000])
def test_full_disk_fails_the_slides_and_leaves_nothing(forked, slides, tmp_path, with_room, limit):
    result = out_of_room(forked, slides, tmp_path, limit)
    assert result.keys() == set(NAMES)
    for status, reason in result.values():
        assert status == "failed"
        assert "File too large" in reason
    assert contents(tmp_path) == {}
    assert set(table(tmp_path).values()) == {"failed"}
    with_room(tmp_path)


@pytest.mark.parametrize("limit", [0, 10, 300, 900])
def test_no_room_for_a_note_is_a_clear_error(forked, slides, tmp_path, with_room, limit):
    assert "File too large" in out_of_room(forked, slides, tmp_path, limit)
    assert contents(tmp_path) == {}
    with_room(tmp_path)


def test_no_room_for_the_table_keeps_the_old_one_and_the_bags(forked, slides, tmp_path, with_room):
    store = Store(tmp_path)
    store.record(Outcome(slide="other", status="failed", reason="x" * (ROWS + 200_000)))
    store.write_tables()
    before = (tmp_path / "extract.csv").read_bytes()
    assert "File too large" in out_of_room(forked, slides, tmp_path, ROWS + 150_000)
    assert (tmp_path / "extract.csv").read_bytes() == before
    assert contents(tmp_path).keys() == {f"{name}.h5" for name in NAMES}
    store.record(Outcome(slide="other", status="done"))
    with_room(tmp_path)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if (
        not mount
        or subprocess.run(
            [mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("mounting a small tmpfs is not allowed here")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("free", [ROWS // 2, ROWS + 80_000, 3 * ROWS + 20_000])
def test_really_full_disk(slides, small_disk, with_room, free):
    """Rows, bag or table do not fit; what is left free is the same for all slides."""
    ballast, out = small_disk / "ballast", small_disk / "store"
    ballast.write_bytes(bytes((2 << 20) - free))
    try:
        outcomes = run(slides, out, recipe=BIG)
    except OSError as error:  # not even room for a note
        reasons = [str(error)]
    else:
        reasons = [outcome.reason for outcome in outcomes if outcome.status == "failed"]
    assert reasons
    assert all("No space left" in reason for reason in reasons)
    assert_no_part_is_visible(out)
    assert temporaries(out) == []
    ballast.unlink()
    with_room(out)


# ---- several processes, one store

MANY = tuple(f"s{number:02}" for number in range(12))


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    for seed, name in enumerate(MANY):
        write_tiff(folder / f"{name}.tiff", [noise(128, 128, seed)], mpp=0.5, tile=(64, 64))
    return folder


class Slow(MeanColour):
    def forward(self, images):
        time.sleep(0.05)
        return super().forward(images)


def logged(path, line):
    with path.open("a") as file:  # short lines appended by several processes stay whole
        file.write(f"{line}\n")


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


def fills(slides, out, log, meet, names, told):
    """Fill a store beside others: begins with them, and writes down each bag and each slide left to them."""

    def load_slow(name, weights, **_options):
        if meet:
            meet.wait(PATIENCE_S)
        return fake_backbone(Slow())

    write_bag, slide = bags.write_bag, module.ExtractionRun.slide

    def logging_bag(path, bag):
        logged(log, f"bag {bag.slide}")
        write_bag(path, bag)

    def logging_slide(self, job):
        outcomes = slide(self, job)
        if outcomes is None:
            logged(log, f"elsewhere {job.slide}")
        return outcomes

    module.load_backbone, slide_turns.WAIT_S = load_slow, 0.05
    bags.write_bag, module.ExtractionRun.slide = logging_bag, logging_slide
    told.put(statuses(run(slides, out, names)))


def test_two_processes_share_a_store_and_do_each_slide_once(forked, many, tmp_path):
    out, log, meet = tmp_path / "store", tmp_path / "log", forked.Barrier(2)
    told = [forked.SimpleQueue(), forked.SimpleQueue()]
    both = [started(forked, fills, many, out, log, meet, MANY, each) for each in told]
    seen = set()
    while any(process.is_alive() for process in both):
        for path in sorted(out.glob("*.h5")):
            if not path.name.startswith("."):
                validate_bag(path)
                seen.add(path.name)
        time.sleep(0.005)
    assert [process.exitcode for process in both] == [0, 0]
    made = Counter(line.removeprefix("bag ") for line in lines(log) if line.startswith("bag "))
    assert made == dict.fromkeys(MANY, 1)
    assert seen <= {f"{name}.h5" for name in MANY}
    ours, its = (queue.get() for queue in told)
    assert ours.keys() == its.keys() == set(MANY)
    assert {frozenset((ours[name], its[name])) for name in MANY} == {frozenset(("done", "skipped"))}
    assert table(out) == dict.fromkeys(MANY, "done")
    assert temporaries(out) == []
    alone = tmp_path / "alone"
    run(many, alone, MANY)
    assert contents(out) == contents(alone)


def holds(slides, out, marks, go, told):
    """Works on slide a, and waits there."""
    waits_in(marks, "a", go)
    fills(slides, out, marks / "holder.log", None, NAMES, told)


@pytest.fixture
def held(forked, slides, tmp_path):
    """A process that has claimed slide a and waits for ``go`` in the middle of it."""
    go, told = tmp_path / "go", forked.SimpleQueue()
    process = started(forked, holds, slides, tmp_path / "store", tmp_path, go, told)
    until((tmp_path / "a.in-work").exists, "slide a in work")
    yield process, go, told
    process.kill()
    process.join()


def beside(forked, slides, tmp_path):
    """A second process, as it waits for slide a."""
    told, log = forked.SimpleQueue(), tmp_path / "log"
    process = started(forked, fills, slides, tmp_path / "store", log, None, NAMES, told)
    until(lambda: lines(log).count("elsewhere a") > 2, "the second waits for a")
    assert process.is_alive()
    assert "bag a" not in lines(log)
    return process, told, log


def test_slide_of_a_living_process_is_waited_for(forked, slides, whole, tmp_path, held):
    process, go, _ = held
    other, told, log = beside(forked, slides, tmp_path)
    go.touch()
    assert (ended(process), ended(other)) == (0, 0)
    assert told.get()["a"] == "skipped"
    assert "bag a" not in lines(log)
    assert contents(tmp_path / "store") == whole
    assert table(tmp_path / "store")["a"] == "done"  # not effaced by who found it


@pytest.mark.parametrize("stopped", [False, True])
def test_slide_of_a_killed_process_is_taken_over(forked, slides, whole, tmp_path, held, stopped):
    process, _, _ = held
    if stopped:
        os.kill(process.pid, signal.SIGSTOP)
    other, told, log = beside(forked, slides, tmp_path)
    process.kill()
    assert ended(process) == -signal.SIGKILL
    assert ended(other) == 0
    assert told.get()["a"] == "done"
    assert lines(log).count("bag a") == 1
    assert contents(tmp_path / "store") == whole
    assert temporaries(tmp_path / "store") == []


def test_claim_of_a_killed_process_is_free_at_once(tmp_path, held):
    process, _, _ = held
    store = Store(tmp_path / "store")
    with store.claim("a") as mine:
        assert not mine
    process.kill()
    process.join(PATIENCE_S)
    with store.claim("a") as mine:
        assert mine


def test_other_settings_are_refused_while_no_bag_is_there_yet(slides, whole, tmp_path, held):
    process, go, _ = held
    out = tmp_path / "store"
    for _ in range(2):  # also once its error has been told
        for overwrite in (False, True):
            with pytest.raises(
                BagError, match=r"filled by another process .*\(max_tiles 100 -> 5\)"
            ):
                run(slides, out, recipe=replace(RECIPE, max_tiles=5), overwrite=overwrite)
    go.touch()
    assert ended(process) == 0
    assert contents(out) == whole


def test_other_settings_are_refused_in_a_half_done_store(forked, slides, whole, tmp_path):
    assert ended(started(forked, dies, slides, tmp_path, "after the bag's replace", {})) < 0
    half = contents(tmp_path)
    assert "b.h5" in half  # and no record of it yet
    with pytest.raises(BagError, match="has bags of another recipe"):
        run(slides, tmp_path, recipe=replace(RECIPE, max_tiles=5))
    assert contents(tmp_path) == half
    assert_resumes(slides, tmp_path, whole)


def test_a_run_that_made_nothing_binds_nobody_to_its_settings(forked, slides, tmp_path):
    assert ended(started(forked, dies, slides, tmp_path, "before the bag is written", {})) < 0
    for path in tmp_path.glob("*.h5"):
        path.unlink()
    run(slides, tmp_path, recipe=replace(RECIPE, max_tiles=5))
    assert {len(bags.read_bag(path)) for path in Store(tmp_path).bags()} == {5}


def test_stain_reference_is_written_by_one_process_at_a_time(slides, tmp_path, monkeypatch):
    """Its temporary file has one name: two that write it at once would take it from each other."""
    free, save = [], module.save_reference

    def looking(path, reference):
        with (tmp_path / ".extract" / "lock").open("a") as file:
            free.append(store._flock(file, wait=False))
        save(path, reference)

    monkeypatch.setattr(module, "save_reference", looking)
    run(slides, tmp_path, recipe=replace(RECIPE, stain="reinhard", stain_reference=("a",)))
    assert free == [False]
    assert (tmp_path / "stain-reference.json").is_file()


def test_a_name_too_long_for_a_file_fails_its_slide_only(slides, tmp_path):
    long = replace(jobs(slides, "a")[0], slide="x" * 253)
    outcomes = extract([long, *jobs(slides, "bc")], RECIPE, tmp_path, device="cpu")
    assert [outcome.status for outcome in outcomes] == ["failed", "done", "done"]
    assert "name too long" in outcomes[0].reason
    assert table(tmp_path) == {"x" * 253: "failed", "b": "done", "c": "done"}
