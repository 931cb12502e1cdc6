"""Fits in other processes: the same predictions and errors, the same files opened, nobody left behind."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import ray
from joblib.externals.loky.process_executor import _ExecutorManagerThread

from features.bags.bag import read_bag, write_bag
from features.errors import BagError
from features.extraction.cluster import run_on_ray
from features.files.file_map import FileMap
from mil.errors import FitError, LeakageError
from mil.heads.table import MODELS
from mil.learning.crossval import _FoldWork, cross_validate
from mil.learning.parallel import _cores, run_tasks
from tests.mil.made import QUICK, cohort_of, folds_of, made_bag, made_cohort
from tests.mil.work import Killed, Mark, NotesMaps, keep_none

COHORT = made_cohort((5, 5), slides=2)
PATIENCE_S = 120


def run(cohort=COHORT, models=tuple(MODELS), settings=QUICK, **how):
    return cross_validate(
        cohort, folds_of(cohort, folds="2"), models, settings, seed=0, **how
    ).table


@pytest.fixture(scope="module")
def serial():
    return run()


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    """The same bags as files."""
    folder = tmp_path_factory.mktemp("bags")
    return cohort_of([replace(case, bags=as_files(case.bags, folder)) for case in COHORT.cases])


def as_files(bags, folder):
    for bag in bags:
        write_bag(folder / f"{bag.slide}.h5", bag)
    return tuple(read_bag(folder / f"{bag.slide}.h5") for bag in bags)


def test_workers_open_the_same_files_and_give_the_serial_table(serial, mapped, tmp_path):
    table = run(mapped, workers=2, fitter=NotesMaps(tmp_path))
    pd.testing.assert_frame_equal(table, serial, check_exact=True)
    assert os.getpid() not in workers_of(tmp_path)
    for path in tmp_path.iterdir():
        for case in mapped.cases:
            assert f"{case.bags[0].slide}.h5" in path.read_text()


def numbers(pairs):
    return {number: result for number, (result, _) in pairs}


def test_results_carry_the_number_of_their_task(tmp_path):
    pairs = list(run_tasks(Mark(tmp_path, 0.2), [(n,) for n in range(8)], workers=4))
    assert [number for number, _ in pairs] != sorted(number for number, _ in pairs)
    assert numbers(pairs) == {n: n for n in range(8)}
    assert os.getpid() not in {pid for _, (_, pid) in pairs}


def test_one_worker_is_this_process(tmp_path):
    pairs = list(run_tasks(Mark(tmp_path), [(n,) for n in range(8)], workers=1))
    assert {pid for _, (_, pid) in pairs} == {os.getpid()}


def test_small_work_starts_no_process(tmp_path):
    pairs = list(run_tasks(Mark(tmp_path, 0.001), [(n,) for n in range(8)], workers=0))
    assert {pid for _, (_, pid) in pairs} == {os.getpid()}


def test_processes_are_started_once_they_are_worth_it(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
    monkeypatch.setattr("mil.learning.parallel.START_S", 0.2)
    pairs = list(run_tasks(Mark(tmp_path, 0.1), [(n,) for n in range(8)], workers=0))
    assert numbers(pairs) == {n: n for n in range(8)}
    own = [number for number, (_, pid) in pairs if pid == os.getpid()]
    assert own == [0]


def test_what_the_first_task_loads_starts_no_process(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
    monkeypatch.setattr("mil.learning.parallel.START_S", 0.5)
    work = Mark(tmp_path, 0.0)

    def slow_at_first(number):
        time.sleep(0.4 * (number == 0))
        return work(number)

    pairs = list(run_tasks(slow_at_first, [(n,) for n in range(8)], workers=0))
    assert {pid for _, (_, pid) in pairs} == {os.getpid()}


def gone(pids):
    """Whether all these processes have ended."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.05)
    return False


def workers_of(folder):
    return {int(path.name.split("-")[1]) for path in folder.iterdir()}


@pytest.mark.parametrize("error", [FitError, LeakageError, BagError, ValueError])
def test_an_error_arrives_as_it_was_raised_and_ends_the_workers(tmp_path, error):
    with pytest.raises(error, match=r"^number 5 failed$"):
        list(run_tasks(Mark(tmp_path, 0.01, 5, error), [(n,) for n in range(8)], workers=2))
    assert gone(workers_of(tmp_path))


def test_a_consumer_that_stops_ends_the_workers(tmp_path):
    pairs = run_tasks(Mark(tmp_path, 0.3), [(n,) for n in range(40)], workers=2)
    next(pairs)
    pairs.close()
    assert gone(workers_of(tmp_path))
    assert len(list(tmp_path.iterdir())) < 40


def test_killed_worker_is_reported_with_the_remedy(tmp_path):
    with pytest.raises(FitError, match=r"killed.*memory.*Set workers lower"):
        list(run_tasks(Killed(tmp_path), [(n,) for n in range(8)], workers=2))


def test_unknown_engine_is_refused():
    with pytest.raises(FitError, match="loky or ray; got 'dask'"):
        list(run_tasks(print, [(1,)], engine="dask"))


@pytest.mark.parametrize("workers", [1, 2])
def test_error_of_a_fit_names_model_repeat_and_fold(workers):
    bad = replace(QUICK, learning_rate=1e36, epochs=6)
    with pytest.raises(FitError, match=r"^mean, repeat 0, fold \d: .*smaller learning_rate"):
        run(models=["majority", "mean"], settings=bad, workers=workers)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The cohort with large bags on disk, mapped."""
    folder = tmp_path_factory.mktemp("store")
    cases = []
    for case in made_cohort((3, 3), slides=1).cases:
        name = case.bags[0].slide
        rng = np.random.default_rng(len(cases))
        features = rng.normal(size=(2000, 64)).astype(np.float16)
        write_bag(folder / f"{name}.h5", made_bag(name, features, thumbnail=b"j" * 10_000))
        cases.append(replace(case, bags=(read_bag(folder / f"{name}.h5"),)))
    return cohort_of(cases)


def test_a_map_goes_to_another_process_as_its_place(stored):
    features = stored.cases[0].bags[0].features
    assert isinstance(features, FileMap)
    sent = pickle.dumps(features)
    assert len(sent) < 1000
    taken = pickle.loads(sent)
    assert (taken.filename, taken.offset, taken.mode) == (features.filename, features.offset, "r")
    np.testing.assert_array_equal(taken, features, strict=True)
    with pytest.raises(ValueError, match="read-only"):
        taken[0, 0] = 1


@pytest.mark.parametrize(
    "part",
    [lambda a: a[10:20], lambda a: a[::2], lambda a: a.T, lambda a: a + 1, lambda a: a[[3, 1]]],
)
def test_what_is_made_of_a_map_goes_as_its_numbers(stored, part):
    made = part(stored.cases[0].bags[0].features)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(made)), made)


def test_what_is_sent_to_a_worker_holds_no_features(stored):
    """Six bags of 256 kB each: what goes there is coordinates, coverage and thumbnails."""
    n_tiles = sum(len(case.bags[0]) for case in stored.cases)
    sent = len(pickle.dumps(_FoldWork(stored, QUICK, 0, keep_none, ("label",))))
    assert sent < n_tiles * 22 + 6 * 12_000 < 6 * 256_000 / 3
    assert len(pickle.dumps(("abmil", folds_of(stored, folds="3")[0]))) < 1000


@pytest.fixture(scope="module")
def local_ray():
    ray.init(address="local", num_cpus=2, log_to_driver=False, include_dashboard=False)
    yield
    ray.shutdown()


@pytest.mark.slow
class TestOnRay:
    def test_the_table_is_the_serial_one(self, local_ray, serial):
        some = ["abmil", "pooled-logistic", "majority"]  # all are compared above
        table = run(models=some, engine="ray", workers=2)
        expected = pd.concat([serial[serial["model"] == model] for model in some])
        pd.testing.assert_frame_equal(table, expected.reset_index(drop=True), check_exact=True)

    def test_an_error_arrives_as_it_was_raised(self, local_ray):
        bad = replace(QUICK, learning_rate=1e36, epochs=6)
        with pytest.raises(
            FitError, match=r"^mean, repeat 0, fold \d: .*smaller learning_rate"
        ) as failure:
            run(models=["mean"], settings=bad, engine="ray")
        assert type(failure.value) is FitError

    def test_no_more_run_at_once_than_workers(self, local_ray, tmp_path):
        started = time.monotonic()
        pairs = list(run_on_ray(Mark(tmp_path, 0.1), [(n,) for n in range(4)], workers=1))
        assert numbers(pairs) == {n: n for n in range(4)}
        assert time.monotonic() - started > 0.6


def test_the_first_processes_of_a_program_hold_interrupts_back():
    """In a program of its own: what starts with the first process unblocks the signal."""
    script = (
        "from mil.learning.parallel import run_tasks\n"
        "from tests.mil.work import blocked_signals\n"
        "print([signals for _, signals in run_tasks(blocked_signals, [(0,), (1,)], workers=2)])\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.stdout == f"{[[int(signal.SIGINT)]] * 2}\n", done.stderr


# Python loses an interrupt that arrives while a weak reference is cleared, and says so; one interrupts again.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("delay_s", [0.0, 0.01, 0.3, 1.0])
def test_interrupt_at_any_moment_kills_no_thread(tmp_path, delay_s):
    """Before the first process runs, or between results. pytest makes an error of what a thread dies of."""
    interrupted = threading.Event()

    def interrupt():
        time.sleep(delay_s)
        signal.raise_signal(signal.SIGINT)
        while not interrupted.wait(4):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - the interrupt may come before the first result
        threading.Thread(target=interrupt).start()
        for _ in run_tasks(Mark(tmp_path, 0.003), [(n,) for n in range(5000)], workers=2):
            pass
    interrupted.set()
    assert gone(workers_of(tmp_path))


@pytest.mark.parametrize(("error", "known"), [(KeyError, True), (ValueError, False)])
def test_a_manager_that_looks_for_what_it_dropped_is_no_news(tmp_path, monkeypatch, error, known):
    """loky's thread does so where few tasks wait as it is ended; what else it may die of is told."""
    add = _ExecutorManagerThread.add_call_item_to_queue

    def add_or_die(self):
        if self.executor_flags.shutdown:
            raise error(1)
        add(self)

    died = []
    monkeypatch.setattr(_ExecutorManagerThread, "add_call_item_to_queue", add_or_die)
    monkeypatch.setattr(threading, "excepthook", died.append)
    results = run_tasks(Mark(tmp_path, 0.01), [(n,) for n in range(500)], workers=2)
    next(results)
    results.close()
    assert threading.excepthook == died.append
    assert [death.exc_type for death in died] == ([] if known else [error])
    assert gone(workers_of(tmp_path))


def test_workers_end_with_the_last_result(tmp_path):
    results = run_tasks(Mark(tmp_path), [(n,) for n in range(8)], workers=2)
    assert len(list(results)) == 8
    assert gone(workers_of(tmp_path))


def test_several_runs_follow_each_other(tmp_path):
    for name, count in (("first", 8), ("second", 3)):
        (tmp_path / name).mkdir()
        tasks = [(n,) for n in range(count)]
        pairs = run_tasks(Mark(tmp_path / name), tasks, workers=2)
        assert numbers(pairs) == {n: n for n in range(count)}
    assert workers_of(tmp_path / "first").isdisjoint(workers_of(tmp_path / "second"))


@pytest.mark.parametrize("name", ["numpy", "joblib", "tempfile"])
def test_a_file_of_the_current_folder_is_not_imported_by_workers(tmp_path, monkeypatch, name):
    (tmp_path / f"{name}.py").write_text("import os; os._exit(0)")
    (tmp_path / "done").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [entry for entry in sys.path if entry])
    pairs = run_tasks(Mark(tmp_path / "done"), [(n,) for n in range(3)], workers=2)
    assert numbers(pairs) == {n: n for n in range(3)}
    assert "PYTHONSAFEPATH" not in os.environ


@dataclass(frozen=True)
class Large(Mark):
    """More than a pipe takes before its reader starts."""

    content: bytes = bytes(1 << 20)


@pytest.mark.parametrize("status", [0, 3])
def test_a_worker_that_cannot_start_is_an_error_at_once(tmp_path, monkeypatch, status):
    (tmp_path / "sitecustomize.py").write_text(f"import os; os._exit({status})")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    started = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # joblib's own helper cannot start either
        with pytest.raises(FitError, match=r"No worker process could start.*Set workers to 1"):
            list(run_tasks(Large(tmp_path), [(n,) for n in range(8)], workers=2))
    assert time.monotonic() - started < PATIENCE_S / 4


def test_where_no_process_can_be_started_this_one_does_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("mil.learning.parallel.effective_n_jobs", lambda _workers: 1)
    pairs = list(run_tasks(Mark(tmp_path), [(n,) for n in range(3)], workers=2))
    assert {pid for _, (_, pid) in pairs} == {os.getpid()}


def test_system_without_signal_masks_starts_processes(tmp_path, monkeypatch):
    monkeypatch.delattr(signal, "pthread_sigmask")
    pairs = list(run_tasks(Mark(tmp_path), [(n,) for n in range(4)], workers=2))
    assert os.getpid() not in {pid for _, (_, pid) in pairs}


def test_system_that_counts_no_own_cores_counts_all(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert _cores() == 3
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert _cores() == 1
