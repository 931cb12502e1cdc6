"""Extraction on a Ray cluster: two nodes on this machine, and workers that die.

Workers are processes of their own, so that nothing patched here reaches them; ``watch`` is run in each as it
starts, and does what files in a folder tell.
"""

import contextlib
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import ray
import ray.exceptions
from making import noise, write_tiff
from ray.cluster_utils import Cluster

from features.bags.store import Outcome, Store
from features.errors import BackboneError, BagError, FeaturesError
from features.extraction.cluster import MAX_ATTEMPTS, _WorkerPool, extract_on_ray
from features.extraction.extract import extract
from features.extraction.jobs import SlideJob
from features.extraction.outputs import store_specs
from features.recipe import Recipe

pytestmark = pytest.mark.slow

RECIPE = Recipe(
    backbone="test_resnet.r160_in1k", weights="random", mpp=0.5, tile=32, precision="fp32"
)
NAMES = tuple(f"s{number}" for number in range(6))
PATIENCE_S = 180


def watch():
    """In a worker: write down who reads each slide; wait or die where a file says so."""
    import os
    import signal
    import time
    from pathlib import Path

    from features.tiles.grid import SlideTiles

    read, folder = SlideTiles.read, Path(os.environ["SARCOMIL_TEST_MARKS"])

    def watched(self, index):
        if index == 0:
            with (folder / "readers").open("a") as file:
                node = ray.get_runtime_context().get_node_id()
                file.write(f"{self.slide.name} {os.getpid()} {node}\n")
        if (folder / f"{self.slide.name}.kills").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        while (folder / "wait").exists():
            time.sleep(0.01)
        return read(self, index)

    SlideTiles.read = watched


@pytest.fixture(scope="module")
def marks(tmp_path_factory):
    """The folder whose files tell the workers what to do."""
    return tmp_path_factory.mktemp("marks")


@pytest.fixture(scope="module")
def nodes(marks):
    """A cluster of two nodes with one CPU each."""
    here = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([*here, os.environ.get("PYTHONPATH", "")]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("SARCOMIL_TEST_MARKS", str(marks))
        needs = {"num_cpus": 1, "object_store_memory": 78_643_200}
        cluster = Cluster(initialize_head=True, head_node_args=needs | {"include_dashboard": False})
        try:
            cluster.add_node(**needs)
            ray.init(
                address=cluster.address,
                log_to_driver=False,
                runtime_env={"worker_process_setup_hook": watch},
            )
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    for seed, name in enumerate(NAMES):
        write_tiff(folder / f"{name}.tiff", [noise(128, 128, seed)], mpp=0.5, tile=(64, 64))
    return folder


@pytest.fixture(scope="module")
def whole(slides, tmp_path_factory):
    """The bags that this process makes."""
    out = tmp_path_factory.mktemp("whole")
    extract(jobs(slides), RECIPE, out, device="cpu")
    return contents(out)


@pytest.fixture(autouse=True)
def _nobody_is_told_anything(marks):
    for path in marks.iterdir():
        path.unlink()


def jobs(slides, names=NAMES):
    return [SlideJob(slide=name, case="P", files=(slides / f"{name}.tiff",)) for name in names]


def contents(out):
    return {path.name: path.read_bytes() for path in Store(out).bags()}


def readers(marks):
    """(slide, process, node) of every beginning of a slide."""
    path = marks / "readers"
    return [tuple(line.split()) for line in path.read_text().splitlines()] if path.exists() else []


@contextlib.contextmanager
def once(condition, act):
    """Act as soon as something is so, while the block goes on."""

    def look():
        deadline = time.monotonic() + PATIENCE_S
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.01)
        acted.append(condition())
        act()

    acted = []
    thread = threading.Thread(target=look)
    thread.start()
    yield
    thread.join(PATIENCE_S)
    assert acted == [True]


def test_two_nodes_give_the_bags_of_one_process(nodes, slides, whole, marks, tmp_path):
    extract(jobs(slides, NAMES[:1]), RECIPE, tmp_path, device="cpu")
    (marks / "wait").touch()
    both = once(lambda: len({node for *_, node in readers(marks)}) == 2, (marks / "wait").unlink)
    with both:
        outcomes = extract_on_ray(jobs(slides), RECIPE, tmp_path, device="cpu")
    assert [o.slide for o in outcomes] == list(NAMES)
    assert [o.status for o in outcomes] == ["skipped", *["done"] * (len(NAMES) - 1)]
    assert contents(tmp_path) == whole
    assert Counter(slide for slide, *_ in readers(marks)) == dict.fromkeys(NAMES[1:], 1)
    assert (tmp_path / "extract.csv").is_file()


def test_a_killed_worker_loses_nothing(nodes, slides, whole, marks, tmp_path):
    (marks / "wait").touch()

    def kill_one():
        os.kill(int(readers(marks)[0][1]), 9)
        (marks / "wait").unlink()

    with once(lambda: len({process for _, process, _ in readers(marks)}) == 2, kill_one):
        outcomes = extract_on_ray(jobs(slides), RECIPE, tmp_path, device="cpu")
    assert {outcome.status for outcome in outcomes} == {"done"}
    assert contents(tmp_path) == whole
    assert list(tmp_path.rglob("*.tmp")) == []
    begun = Counter(slide for slide, *_ in readers(marks))
    assert set(begun.values()) == {1, 2}  # those it was at were begun again


def test_a_slide_that_kills_its_workers_fails_alone(nodes, slides, whole, marks, tmp_path):
    (marks / "s2.kills").touch()
    outcomes = extract_on_ray(jobs(slides), RECIPE, tmp_path, device="cpu")
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    assert [(o.slide, o.case) for o in failed] == [("s2", "P")]
    # A slide whose bag was written as its worker died is found there by the next one.
    assert {o.status for o in outcomes if o not in failed} <= {"done", "skipped"}
    assert "3 workers died at it" in failed[0].reason
    assert Counter(slide for slide, *_ in readers(marks))["s2"] == 3
    assert contents(tmp_path) == {name: held for name, held in whole.items() if name != "s2.h5"}
    assert "s2" in (tmp_path / "failures.csv").read_text()
    (marks / "s2.kills").unlink()
    extract(jobs(slides), RECIPE, tmp_path, device="cpu")  # one machine can go on with it
    assert contents(tmp_path) == whole
    assert not (tmp_path / "failures.csv").exists()


def test_what_is_wrong_from_the_start_is_told_as_it_is(nodes, slides, marks, tmp_path):
    unknown = Recipe(backbone="resnet_18", weights="random")
    with pytest.raises(BackboneError, match="No backbone 'resnet_18'") as told:
        extract_on_ray(jobs(slides, ["s1"]), unknown, tmp_path, device="cpu")
    assert "\n" not in str(told.value)
    extract(jobs(slides, ["s0"]), RECIPE, tmp_path, device="cpu")
    other = Recipe(backbone=RECIPE.backbone, weights="random", mpp=0.5, tile=64, precision="fp32")
    with pytest.raises(BagError, match=r"another recipe \(s0\.h5: tile 32 -> 64"):
        extract_on_ray(jobs(slides, ["s1"]), other, tmp_path, device="cpu")
    assert readers(marks) == []


def test_without_ray_the_error_names_what_to_install(slides, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(FeaturesError, match=r"pip install 'sarcomil\[cluster\]'"):
        extract_on_ray(jobs(slides), RECIPE, tmp_path / "store")
    assert not (tmp_path / "store").exists()


# ---- the crew, with workers that do as they are told


class FakeRay:
    """Stands for ray: ``play(slide)`` says what becomes of a call; an error takes the whole worker along."""

    exceptions = ray.exceptions

    def __init__(self, play):
        self.play, self.calls, self.dead, self.killed = play, {}, {}, []
        self.lost = Counter()

    def remote(self, kind):
        return FakeKind(self)

    def wait(self, tasks, timeout):
        return tasks[:1], tasks[1:]

    def get(self, task):
        worker, slide = self.calls.pop(task)
        if worker not in self.dead:
            answer = self.play(slide)
            if not isinstance(answer, Exception):
                return answer
            self.dead[worker] = answer
        self.lost[slide] += 1
        raise self.dead[worker]

    def kill(self, worker):
        self.killed.append(worker)


class FakeKind:
    def __init__(self, fake):
        self.fake = fake

    def options(self, **needs):
        return self

    def remote(self, *told):
        return FakeWorker(self.fake)


class FakeWorker:
    def __init__(self, fake):
        self.prepare, self.slide = FakeCall(fake, self), FakeCall(fake, self)


class FakeCall:
    def __init__(self, fake, worker):
        self.fake, self.worker = fake, worker

    def remote(self, slide=""):
        task = object()
        self.fake.calls[task] = (self.worker, slide)
        return task


DEATHS = [
    ray.exceptions.ActorDiedError(),
    ray.exceptions.ActorUnavailableError("out of reach", b"0" * 16),
    ray.exceptions.OutOfMemoryError("killed by the memory monitor"),
    ray.exceptions.NodeDiedError("node gone"),
    ray.exceptions.WorkerCrashedError(),
]


def crew(fake, names, out, count=1):
    """(slide, status) as they come from a crew of ``count`` workers."""
    made = [SlideJob(slide=name, case="P", files=()) for name in names]
    filled = store_specs([RECIPE], out)
    workers = _WorkerPool(fake, (made, filled, "cpu", False, 1), {"num_cpus": 1})
    return {slide: outcomes[0].status for slide, outcomes in workers.run(made, count)}


def done(slide):
    return [Outcome(slide=slide, status="done")] if slide else None


@pytest.mark.parametrize("death", DEATHS, ids=lambda death: type(death).__name__)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_slide_its_workers_die_of_takes_no_other_with_it(tmp_path, death, count):
    begun = Counter()

    def play(slide):
        begun[slide] += 1
        return death if slide == "s2" else done(slide)

    fake = FakeRay(play)
    found = crew(fake, NAMES, tmp_path, count)
    assert found == {name: "failed" if name == "s2" else "done" for name in NAMES}
    assert begun["s2"] == MAX_ATTEMPTS
    assert len(fake.killed) == MAX_ATTEMPTS  # nobody out of reach keeps its claims
    assert set(fake.lost.values()) <= {1, MAX_ATTEMPTS}  # others at most the first time
    assert len(fake.lost) <= 2


@pytest.mark.parametrize("death", DEATHS[:1])
def test_one_death_is_no_failure(tmp_path, death):
    left = {"s1": [death], "s4": [death, death]}
    found = crew(FakeRay(lambda s: left[s].pop() if left.get(s) else done(s)), NAMES, tmp_path)
    assert found == dict.fromkeys(NAMES, "done")


def test_workers_that_die_before_their_first_slide_end_the_run(tmp_path):
    fake = FakeRay(lambda slide: DEATHS[0] if not slide else done(slide))
    with pytest.raises(FeaturesError, match="Workers die before their first slide"):
        crew(fake, NAMES, tmp_path)


def test_slide_of_another_process_is_asked_for_again(tmp_path, monkeypatch):
    monkeypatch.setattr("features.extraction.cluster.WAIT_S", 0)
    elsewhere = ["s1"] * 5
    found = crew(
        FakeRay(lambda s: elsewhere.pop() and None if s in elsewhere else done(s)), NAMES, tmp_path
    )
    assert found == dict.fromkeys(NAMES, "done")
    assert elsewhere == []
