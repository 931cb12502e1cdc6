"""A parallel cross-validation that is killed or interrupted: nobody is left, nothing lost, the same end."""

import json
import os
import signal
import time
import uuid
from pathlib import Path

import numpy as np
import pytest

from features.bags.bag import write_bag
from tests.conftest import environment
from tests.mil.made import made_bag
from tests.prefork import run as become_command

pytestmark = pytest.mark.slow

PATIENCE_S = 180
MARK = "SARCOMIL_TEST_RUN"


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Twelve cases in two classes; a fit takes about half a second."""
    folder = tmp_path_factory.mktemp("cohort")
    (folder / "store").mkdir()
    rows = ["case,slide,label"]
    for number in range(12):
        rng = np.random.default_rng(number)
        features = (rng.normal(size=(200, 32)) + number % 2).astype(np.float16)
        write_bag(folder / "store" / f"s{number}.h5", made_bag(f"s{number}", features))
        rows.append(f"c{number},s{number},{'ab'[number % 2]}")
    (folder / "cohort.csv").write_text("\n".join(rows) + "\n")
    return folder / "cohort.csv"


def asked(table, out):
    return [
        "crossval", str(table), str(table.parent / "store"), "--models", "mean,abmil", "--folds", "6",
        "--epochs", "60", "--seeds", "1", "--workers", "2", "--out", str(out),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def whole(table, tmp_path_factory, mil):
    """A run that nothing disturbed, in one process: the number of them makes no difference."""
    out = tmp_path_factory.mktemp("whole") / "run"
    mil(*asked(table, out), "--workers", "1")
    return out


def become_marked(mark, **request):
    """Become the command in a process group of its own, whose workers carry a mark."""
    os.setsid()
    become_command(**request | {"env": request["env"] | {MARK: mark}})


class Started:
    """The command in a process group of its own, whose processes can be told from all others."""

    def __init__(self, forked, table, out):
        self.mark, self.out, self._err = uuid.uuid4().hex, out, out.parent / "err"
        request = {"arguments": asked(table, out), "cwd": str(out.parent), "env": environment()}
        request |= {"out": os.devnull, "err": str(self._err), "mark": self.mark}
        self.process = forked.Process(target=become_marked, kwargs=request)
        self.process.start()

    def ended(self):
        """The exit status and what was printed."""
        self.process.join(PATIENCE_S)
        return self.process.exitcode, self._err.read_text()

    def pids(self):
        found = {self.process.pid} if self.process.is_alive() else set()
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if f"{MARK}={self.mark}".encode() in path.read_bytes():
                    found.add(int(path.parent.name))
            except OSError:  # ended meanwhile, or another's
                continue
        return found

    def wait_for(self, number):
        deadline = time.monotonic() + PATIENCE_S
        while len(models(self.out)) < number:
            assert self.process.is_alive(), self._err.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert len(self.pids()) > 2  # it, and workers

    def all_gone(self):
        deadline = time.monotonic() + PATIENCE_S
        while self.pids() and time.monotonic() < deadline:
            time.sleep(0.05)
        return not self.pids()


def models(out):
    return sorted((out / "models").glob("*.safetensors"))


def assert_ends_as(whole, table, out, mil):
    """What is there is kept as it is, and the end is that of a run that nothing disturbed.

    It goes on in one process.
    """
    kept = {path: path.stat().st_mtime_ns for path in models(out)}
    assert 0 < len(kept) < 12
    assert not (out / "predictions.csv").exists()
    mil(*asked(table, out), "--workers", "1")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    for name in ("predictions.csv", "metrics.json", "comparison.json", "folds.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    first, second = (
        {path.name: path.read_bytes() for path in (run / "models").iterdir()}
        for run in (out, whole)
    )
    assert first == second
    told, wanted = (json.loads((run / "run.json").read_text()) for run in (out, whole))
    for name in ("started", "finished"):
        told.pop(name), wanted.pop(name)
    assert told["settings"].pop("out") != wanted["settings"].pop("out")
    assert told == wanted


def test_killed_with_all_its_workers(forked, table, whole, tmp_path, mil):
    run = Started(forked, table, tmp_path / "run")
    run.wait_for(7)  # all of one model and some of the next
    os.killpg(run.process.pid, signal.SIGKILL)
    assert run.ended()[0] == -signal.SIGKILL
    assert run.all_gone()
    assert_ends_as(whole, table, tmp_path / "run", mil)


def test_workers_end_when_their_parent_is_killed(forked, table, whole, tmp_path, mil):
    run = Started(forked, table, tmp_path / "run")
    run.wait_for(3)
    run.process.kill()
    assert run.ended()[0] == -signal.SIGKILL
    assert run.all_gone()
    assert_ends_as(whole, table, tmp_path / "run", mil)


def test_interrupt_ends_all_and_says_that_nothing_is_lost(forked, table, whole, tmp_path, mil):
    """As from a terminal, where the interrupt goes to every process of the group."""
    run = Started(forked, table, tmp_path / "run")
    run.wait_for(2)
    os.killpg(run.process.pid, signal.SIGINT)
    status, told = run.ended()
    assert status in (130, -signal.SIGINT)
    assert "Interrupted" in told
    assert "Traceback" not in told
    assert run.all_gone()
    assert_ends_as(whole, table, tmp_path / "run", mil)
