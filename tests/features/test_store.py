"""What a store keeps beside its bags: claims, outcomes, tables, and who may fill it."""

import csv
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.bags import store as module
from features.bags.store import COLUMNS, Outcome, Store, recipe_differences
from features.errors import BagError

PATIENCE_S = 120
AWKWARD = [
    "plain",
    "Präparat 7 — größer",
    "スライド",
    "site-1/a",
    "site-1/deep/er/a",
    "[x]",
    "a*",
    "a?b",
    "a%2Fb",
    "a b.c,d",
    '"quoted"',
    "new\nline",
    "-dash",
    ".hidden",
    "a.json",
    "a.claim",
    "lock",
    "recipe",
    "x" * 230,
]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def outcome(slide="a", **changes):
    defaults = {
        "status": "done",
        "n_tiles": 3,
        "seconds": 2.0,
        "mpp": 0.25,
        "tumour_of_tissue": 0.5,
        "drawn_glass": 0.25,
        "drawn_outside": 0.0,
        "drawn_reach": 0.0,
    }
    return Outcome(slide=slide, **(defaults | changes))


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# ---- claims


@pytest.mark.parametrize("slide", AWKWARD)
def test_claim_is_had_once_and_again_after_its_release(store, slide):
    with store.claim(slide) as first:
        assert first
        for _ in range(2):
            with store.claim(slide) as second:
                assert not second
        with store.claim("other") as other:
            assert other
    with store.claim(slide) as third:
        assert third


def test_claim_is_released_when_the_work_fails(store):
    with pytest.raises(KeyboardInterrupt), store.claim("a"):
        raise KeyboardInterrupt
    with store.claim("a") as claimed:
        assert claimed


def test_file_of_a_dead_claim_means_nothing(store):
    (store.path / ".extract").mkdir(parents=True)
    (store.path / ".extract" / "a.claim").write_text("another-host 17 2026-01-01 00:00:00\n")
    with store.claim("a") as claimed:
        assert claimed
        holder, _, before = (store.path / ".extract" / "a.claim").read_text().partition("\n")
        assert str(os.getpid()) in holder
        assert before == "after another-host 17 2026-01-01 00:00:00 died\n"
        assert store.died_at("a")
    assert list((store.path / ".extract").glob("*.claim")) == []


HAMMER = """
import os, random, sys, time
from pathlib import Path
from features.bags import store
from features.bags.store import Store

folder, mine, lock = Path(sys.argv[1]), 0, store._flock

def after_a_pause(file, **how):  # between opening and locking, in which the file may be removed
    time.sleep(random.random() / 500)
    return lock(file, **how)

store._flock = after_a_pause
(folder / f"ready.{os.getpid()}").touch()
while not (folder / "go").exists():
    time.sleep(0.001)
for _ in range(200):
    with Store(folder / "store").claim("a") as got:
        if got:
            os.close(os.open(folder / "alone", os.O_CREAT | os.O_EXCL))  # fails if another is here
            mine += 1
            time.sleep(random.random() / 500)
            (folder / "alone").unlink()
print(mine)
"""


def test_claim_never_has_two_holders_however_many_processes_want_it(tmp_path):
    """The lock is on a file that its holder removes: who waited for the old one must not take it."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HAMMER, tmp_path],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
        )
        for _ in range(8)
    ]
    deadline = time.monotonic() + PATIENCE_S
    while len(list(tmp_path.glob("ready.*"))) < len(processes) and time.monotonic() < deadline:
        time.sleep(0.01)
    (tmp_path / "go").touch()
    counts = [process.communicate(timeout=PATIENCE_S)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 8
    assert sum(map(int, counts)) > 0


def test_claim_never_has_two_holders_among_threads(store, monkeypatch):
    lock = module._flock
    monkeypatch.setattr(module, "_flock", lambda f, **how: time.sleep(0.001) or lock(f, **how))
    alone, meet = threading.Lock(), threading.Barrier(8)
    two, claims = [], []

    def work():
        meet.wait(PATIENCE_S)
        for _ in range(100):
            with store.claim("a") as got:
                if got:
                    if not alone.acquire(blocking=False):
                        two.append(1)
                        continue
                    claims.append(1)
                    time.sleep(0.0005)
                    alone.release()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert two == []
    assert claims


def test_claim_of_a_file_removed_under_the_lock_is_made_anew(store, monkeypatch):
    """The unlink race, step by step: the file is opened, then its last holder removes it."""
    path, lock, removed = store.path / ".extract" / "a.claim", module._flock, []

    def late(file, **how):
        if not removed:
            removed.append(1)
            path.unlink()
        return lock(file, **how)

    monkeypatch.setattr(module, "_flock", late)
    with store.claim("a") as claimed:
        assert claimed
        assert path.exists()
        with store.claim("a") as other:
            assert not other


HIDDEN = """
import os, signal, sys
sys.modules["fcntl"] = None
for owner, name in [(os, "pwrite"), (os, "preadv"), (signal, "pthread_sigmask")]:
    delattr(owner, name)
"""


def test_bags_are_read_where_the_system_has_no_posix_locks(store):
    """As on Windows: bags and tables are read and written, and only filling a store is refused."""
    code = (
        HIDDEN
        + f"""
from pathlib import Path
import features.bags.bag, features.bags.interchange
from features.bags.store import Outcome, Store
from features.errors import BagError
store = Store(Path({str(store.path)!r}))
store.record(Outcome(slide="a", status="done"))
assert [o.slide for o in store.outcomes()] == ["a"] and store.bags() == []
try:
    with store.claim("a"):
        pass
except BagError as error:
    print(error)
"""
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "no file locks that end with their process and can be shared" in done.stdout
    assert "Work on Linux, macOS or WSL" in done.stdout


def test_file_system_without_locks_is_refused_with_the_remedy(store, monkeypatch):
    def no_locks(file, how):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with (
        pytest.raises(BagError, match=r"has no locks .* Use a folder on a local disk"),
        store.claim("a"),
    ):
        pass


# ---- what is left by the killed


def leave(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"half")


@pytest.mark.parametrize("slide", [*AWKWARD[:12], "a", "a.h5", "a.h5.b"])
def test_claim_sweeps_what_killed_writers_of_this_slide_left_and_nothing_else(store, slide):
    bag, note = store.bag(slide), store._aside(slide, ".json")
    own = [bag.with_name(f".{bag.name}.{pid}.tmp") for pid in (1, 99999)]
    own.append(note.with_name(f".{note.name}.17.140000.tmp"))
    others = [
        bag.with_name(bag.name),
        bag.with_name(f".x{bag.name}.17.tmp"),
        bag.with_name(f".{bag.name}.b.h5.17.tmp"),  # of the slide called <this>.h5.b
        bag.with_name(f"{bag.name}.17.tmp"),
        bag.with_name(".ax.h5.17.tmp"),
        bag.with_name(".x.h5.17.tmp"),
        bag.with_name(".a.bc.h5.17.tmp"),
        note.with_name(".extract.csv.17.18.tmp"),
        store.path / ".extract.csv.17.18.tmp",
        store.path / "elsewhere" / f".{bag.name}.17.tmp",
    ]
    for path in (*own, *others):
        leave(path.parent, path.name)
    with store.claim(slide):
        assert [path for path in own if path.exists()] == []
        assert [path for path in others if not path.exists()] == []


def test_claim_that_is_not_had_sweeps_nothing(store):
    with store.claim("a"):
        leave(store.path, ".a.h5.17.tmp")
        with store.claim("a") as claimed:
            assert not claimed
        assert (store.path / ".a.h5.17.tmp").exists()


def test_tables_sweep_what_their_killed_writers_left(store):
    leave(store.path, ".extract.csv.17.18.tmp", ".failures.csv.17.18.tmp", ".other.csv.17.18.tmp")
    store.write_tables()
    assert sorted(path.name for path in store.path.glob(".*.tmp")) == [".other.csv.17.18.tmp"]


# ---- outcomes


@pytest.mark.parametrize("slide", AWKWARD)
def test_outcome_comes_back_as_it_was(store, slide):
    failure = outcome(
        slide,
        status="failed",
        case="P — 1/2",
        reason='He said "no",\nand\r\nleft; ünïcode ☃',
        details="Traceback\n  line 1\n",
        notes="[x] * ?",
        tumour_of_tissue=0.25,
        drawn_glass=0.1,
        drawn_outside=0.0,
        drawn_reach=0.0,
        mpp=0.2527,
        stages={"read": 1.5},
    )
    store.record(failure)
    assert store.outcomes() == [failure]
    store.write_tables()
    (row,) = rows(store.path / "extract.csv")
    assert tuple(row) == COLUMNS
    assert (row["slide"], row["case"], row["reason"]) == (slide, failure.case, failure.reason)
    (row,) = rows(store.path / "failures.csv")
    assert (row["slide"], row["reason"], row["details"]) == (slide, failure.reason, failure.details)


def test_name_that_is_not_utf8_does_not_stop_the_tables(store):
    """A file name of another encoding, as Python hands it out."""
    store.record(outcome(os.fsdecode("Präparat".encode("latin-1"))))
    store.record(outcome("b"))
    store.write_tables()
    assert [row["slide"] for row in rows(store.path / "extract.csv")] == ["Pr\\udce4parat", "b"]


def test_every_slide_has_a_record_of_its_own(store):
    """Names that look alike once their slashes are replaced."""
    names = [*AWKWARD, "a/b", "a__b", "a_/b", "a/_b", "a%2fb", "a%b", "a%25b", "a\\b", "A"]
    for name in names:
        store.record(outcome(name))
    assert sorted(outcome.slide for outcome in store.outcomes()) == sorted(names)
    claims = {store._aside(name, ".claim") for name in names}
    assert len(claims) == len(names)


@settings(max_examples=300)
@given(st.lists(st.text("ab_/%25F.~", min_size=1, max_size=6), min_size=2, unique=True))
def test_no_two_names_share_a_file(tmp_path_factory, names):
    store = Store(tmp_path_factory.getbasetemp() / "names")
    files = {store._aside(name, ".json") for name in names}
    assert len(files) == len(names)
    assert {path.parent for path in files} == {store.path / ".extract"}


def test_only_the_last_outcome_counts(store):
    store.record(outcome(status="failed", reason="disk full"))
    store.record(outcome())
    assert store.outcomes() == [outcome()]


@pytest.mark.parametrize(("since", "kept"), [("before", True), ("after", False), (None, False)])
def test_found_there_does_not_efface_who_made_it_since_this_run_began(store, since, kept):
    made = outcome()
    store.record(made)
    at = (store._aside("a", ".json")).stat().st_mtime
    moments = {"before": {"since": at - 10}, "after": {"since": at + 10}, None: {}}
    store.record(outcome(status="skipped", seconds=0.1), **moments[since])
    assert (store.outcomes() == [made]) == kept


@pytest.mark.parametrize("status", ["done", "failed", "excluded"])
def test_news_efface_what_was_known_whenever_it_was_made(store, status):
    store.record(outcome(reason="old"))
    store.record(outcome(status=status), since=0)
    assert store.outcomes() == [outcome(status=status)]


def test_found_there_is_noted_where_nothing_was(store):
    store.record(outcome(status="skipped"), since=0)
    assert [held.status for held in store.outcomes()] == ["skipped"]


GARBAGE = [
    b"", bytes(300), b'{"slide": "b", "sta', b"null", b"[]", b"3", b'"b"', b"{}", b'{"slide": "b"}',
    b"\xff\xfe\xfa", b'{"slide": "b", "status": "done", "n_tiles": [',
]  # fmt: skip


@pytest.mark.parametrize("content", GARBAGE)
def test_record_cut_short_by_a_power_cut_stops_no_run(store, content):
    store.record(outcome("a"))
    store.record(outcome("c"))
    (store.path / ".extract" / "b.json").write_bytes(content)
    store.write_tables()
    assert [row["slide"] for row in rows(store.path / "extract.csv")] == ["a", "c"]
    store.record(outcome("b", status="skipped"), since=0)
    store.write_tables()
    assert [row["slide"] for row in rows(store.path / "extract.csv")] == ["a", "b", "c"]


def test_record_of_an_older_or_newer_version_is_read_for_what_is_known(store):
    (store.path / ".extract").mkdir(parents=True)
    (store.path / ".extract" / "a.json").write_text(
        json.dumps({"slide": "a", "status": "done", "n_tiles": 4, "invented_later": [1, 2]})
    )
    (held,) = store.outcomes()
    assert (held.slide, held.status, held.n_tiles) == ("a", "done", 4)


def test_files_of_other_kinds_are_no_outcomes(store):
    store.record(outcome())
    leave(store.path / ".extract", ".b.json.17.18.tmp", "b.claim", "c.json~", "lock")
    assert store.outcomes() == [outcome()]


# ---- tables


def test_failures_are_listed_and_the_list_goes_with_the_last(store):
    store.record(outcome("a"))
    store.record(outcome("b", status="failed", reason="why", details="how"))
    store.record(outcome("c", status="excluded", reason="rule"))
    store.write_tables()
    assert rows(store.path / "failures.csv") == [{"slide": "b", "reason": "why", "details": "how"}]
    store.record(outcome("b"))
    store.write_tables()
    assert not (store.path / "failures.csv").exists()


def test_numbers_of_the_table(store):
    store.record(outcome("a", n_tiles=10, seconds=4.0, mpp=0.25271, tumour_of_tissue=0.5))
    store.record(Outcome(slide="b", status="failed", n_tiles=10, seconds=0.01))
    store.record(outcome("c", seconds=0.0))
    store.write_tables()
    a, b, c = rows(store.path / "extract.csv")
    assert (a["tiles_per_s"], a["mpp"], a["tumour_of_tissue"]) == ("2.5", "0.2527", "0.500")
    assert (b["tiles_per_s"], b["mpp"], b["tumour_of_tissue"]) == ("", "", "")
    assert c["tiles_per_s"] == ""


@pytest.mark.parametrize("step", ["open", "write", "replace"])
def test_table_that_cannot_be_written_leaves_the_old_one(store, monkeypatch, step):
    store.record(outcome("a"))
    store.write_tables()
    before = (store.path / "extract.csv").read_bytes()
    store.record(outcome("b"))

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if step == "write":
            patch.setattr(csv.DictWriter, "writerows", full)
        elif step == "replace":
            patch.setattr(Path, "replace", full)
        else:
            patch.setattr(module, "_write_csv", full)
        with pytest.raises(OSError, match="No space left"):
            store.write_tables()
    assert (store.path / "extract.csv").read_bytes() == before
    assert list(store.path.rglob("*.tmp")) == []
    store.write_tables()  # the lock was let go
    assert len(rows(store.path / "extract.csv")) == 2


def test_reader_of_the_table_never_sees_a_part_of_it(store):
    """One thread writes tables of 1 and 400 rows in turn, another reads."""
    many = [outcome(f"s{number:03}", reason="r" * 200) for number in range(400)]
    stop, seen, errors = threading.Event(), set(), []
    module._write_csv(store._folder().parent / "extract.csv", COLUMNS, [module._table_row(many[0])])

    def read():
        while not stop.is_set():
            found = rows(store.path / "extract.csv")
            seen.add(len(found))
            if any(row["reason"] != "r" * 200 for row in found):
                errors.append(found)

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(60):
        told = many if turn % 2 else many[:1]
        module._write_csv(store.path / "extract.csv", COLUMNS, [module._table_row(o) for o in told])
    stop.set()
    reader.join(PATIENCE_S)
    assert seen <= {1, 400}
    assert errors == []


def test_table_written_last_is_not_the_one_read_first(store, monkeypatch):
    """Two runs end together: the slower one must not put its older view over the newer."""
    store.record(outcome("a"))
    read, go, write = threading.Event(), threading.Event(), module._write_csv

    def slow(path, columns, told):
        if threading.current_thread() is first and not read.is_set():
            read.set()
            go.wait(PATIENCE_S)
        write(path, columns, told)

    monkeypatch.setattr(module, "_write_csv", slow)
    first = threading.Thread(target=store.write_tables)
    first.start()
    assert read.wait(PATIENCE_S)
    store.record(outcome("b"))
    second = threading.Thread(target=store.write_tables)
    second.start()
    second.join(0.2)  # where it does not wait, it is done by now
    go.set()
    for thread in (first, second):
        thread.join(PATIENCE_S)
    assert [row["slide"] for row in rows(store.path / "extract.csv")] == ["a", "b"]


# ---- one recipe at a time

RECIPE = {"tile": 224, "classes": ["Tumor"], "mean": (0.5, 0.5), "min_coverage": None}


def test_several_may_fill_a_store_by_one_recipe(store):
    with store.filling(RECIPE), store.filling(dict(reversed(RECIPE.items()))):
        pass


def test_another_recipe_is_refused_while_anyone_fills_the_store(store):
    first, second = store.filling(RECIPE), store.filling(RECIPE)
    first.__enter__()
    second.__enter__()
    for still in (first, second):
        with (
            pytest.raises(
                BagError, match=r"another process .*\(tile 224 -> 256\). Set out to another folder"
            ),
            store.filling(RECIPE | {"tile": 256}),
        ):
            pass
        with store.filling(RECIPE):
            pass
        still.__exit__(None, None, None)
    with store.filling(RECIPE | {"tile": 256}):
        pass


def test_recipe_cut_short_by_a_power_cut_binds_nobody(store):
    (store.path / ".extract").mkdir(parents=True)
    (store.path / ".extract" / "recipe").write_bytes(b'{"tile": 2')
    with store.filling(RECIPE), store.filling(RECIPE):
        pass


def test_differences_are_named():
    assert recipe_differences({"a": 1, "b": 2}, {"a": 1, "b": 2}) == ""
    assert recipe_differences({"a": 1}, {"a": 2, "b": None}) == "a 1 -> 2"
    assert recipe_differences({}, dict.fromkeys("abcdef", 1)).count("->") == 4


def test_bags_are_those_one_can_see(store):
    leave(store.path, "a.h5", ".b.h5", ".c.h5.17.tmp", "d.csv")
    leave(store.path / "site", "e.h5")
    assert [path.name for path in store.bags()] == ["a.h5", "e.h5"]
    assert replace(store, path=store.path / "none").bags() == []
