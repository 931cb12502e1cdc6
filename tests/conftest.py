"""The demo cohort, run once through the command for all tests that look at the whole job."""

import os

# One worker, one core: set before any library counts the cores, and for all processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"

import gc
import signal
import subprocess
import sys
from multiprocessing import forkserver, get_context
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

from features.slides.rehearsal import children_ended
from tests.prefork import run as become_command
from tests.prefork import run_whole

# Other tests run beside: how long an example takes says nothing.
settings.register_profile("shared cores", deadline=None)
settings.load_profile("shared cores")

REPO = Path(__file__).parent.parent
REALDATA = REPO.parent / "shared" / "data"


gc.disable()  # until the tests are collected: what is imported meanwhile stays


def pytest_collection_modifyitems(items):
    """Files that take long come first, so that no worker is left alone with one at the end.

    The longest makes the demo; meanwhile the other worker is given files that can do without. The last
    asks mypy, which has by then read the packages beside the tests, and remembers them.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    waiting = {item.path for item in items if "demo" in item.fixturenames}
    longest, last = (REPO / "tests" / name for name in ("test_documents.py", "test_typing.py"))
    items.sort(
        key=lambda item: (
            item.path != longest, item.path == last, item.path not in slow, item.path in waiting
        )
    )  # fmt: skip


def pytest_collection_finish():
    """What is imported stays: no collection of garbage, of which some referees ask many, need visit it."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_sessionfinish():
    gc.unfreeze()


@pytest.fixture(autouse=True, scope="session")
def _offline():
    os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(autouse=True, scope="session")
def _readers_stay():
    """Processes that read slides first serve all tests: to start one takes longer than most slides."""
    with children_ended():
        yield


@pytest.fixture(autouse=True, scope="session")
def _without_flushing():
    """No test ends the power, and to wait for the disk takes longer than most of them.

    That files are flushed before they take their name is tested where `os.fsync` fails or ends the process.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def _interruptible():
    """In a shell's background an interrupt is ignored, and every process started from here would too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def realdata():
    """The folder of real public files beside the checkout."""
    if not REALDATA.is_dir():
        pytest.skip(f"the real public files are not at {REALDATA}")
    return REALDATA


@pytest.fixture(scope="session")
def forked():
    """A context whose processes are forked from a server that has imported what takes seconds."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.preloaded"])
    with pytest.MonkeyPatch.context() as patch:
        path = [str(REPO), os.environ.get("PYTHONPATH", "")]  # an empty entry is the current folder
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
        forkserver.ensure_running()
    return context


class Running:
    """The command in a process that can be interrupted."""

    def __init__(self, context, arguments, cwd, folder):
        self._err = folder / "err"
        request = {"arguments": list(map(str, arguments)), "cwd": str(cwd), "env": environment()}
        request |= {"out": str(folder / "out"), "err": str(self._err)}
        self.process = context.Process(target=become_command, kwargs=request)
        self.process.start()

    @property
    def stderr(self):
        return self._err.read_text()

    def interrupt(self):
        """The exit status after SIGINT; a process that does not end is ended."""
        os.kill(self.process.pid, signal.SIGINT)
        self.process.join(120)
        self.process.kill()
        return self.process.exitcode


@pytest.fixture
def command(forked, tmp_path_factory):
    """Start the command: command(*arguments, cwd=...) -> Running."""

    def start(*arguments, cwd="."):
        return Running(forked, arguments, Path(cwd).absolute(), tmp_path_factory.mktemp("output"))

    return start


def environment():
    return os.environ | {"HF_HUB_OFFLINE": "1", "COLUMNS": "200"}


@pytest.fixture(scope="session")
def become(forked, tmp_path_factory):
    """Become a command or a script in a process of its own: become(cwd, env, ...) -> CompletedProcess."""
    output = tmp_path_factory.mktemp("output")

    def run(cwd=None, env=None, *, arguments=(), code=None):
        out, err = output / "out", output / "err"
        request = {"arguments": arguments, "code": code, "cwd": str(cwd or Path.cwd())}
        request |= {"env": environment() | (env or {}), "out": str(out), "err": str(err)}
        process = forked.Process(target=run_whole, kwargs=request)
        process.start()
        process.join()
        texts = [file.read_text() for file in (out, err)]
        out.unlink(), err.unlink()
        return subprocess.CompletedProcess(arguments, process.exitcode, *texts)

    return run


@pytest.fixture(scope="session")
def script(become):
    """Run what `python -c CODE` would: script(code, cwd=...) -> what it prints."""

    def run(code, cwd=None):
        done = become(cwd, code=code)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def mil(become):
    """Run the command in a process of its own: mil(*arguments, cwd=..., env=...) -> CompletedProcess."""
    first = {name: os.environ[name] for name in os.environ if name != "PYTEST_CURRENT_TEST"}

    def run(*arguments, cwd=None, check=True, env=None):
        arguments = [str(argument) for argument in arguments]
        if {name: os.environ[name] for name in first if name in os.environ} == first:
            done = become(cwd, env, arguments=arguments)
        else:  # what is imported may have asked the environment
            done = subprocess.run(
                [sys.executable, "-m", "cli", *arguments],
                cwd=cwd, capture_output=True, text=True, check=False, env=environment() | (env or {}),
            )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(
                f"mil {arguments} -> {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done

    return run


@pytest.fixture(scope="session")
def demo(tmp_path_factory, mil):
    """The folder that `mil demo` leaves: four subtypes, five cases each, on smaller slides.

    On a side of less than 2304 px some have no tile of 1 µm per pixel, as examples of the help ask for.
    """
    folder = tmp_path_factory.mktemp("demo")
    if "PYTEST_XDIST_WORKER" in os.environ:  # made once, by the first of the workers that needs it
        folder = tmp_path_factory.getbasetemp().parent / "demo"
    with FileLock(f"{folder}.lock"):
        if not (folder / "run" / "report.html").exists():
            mil("demo", "--out", folder, "--side", 1680)
    return folder


@pytest.fixture
def study(demo, tmp_path):
    """A user's folder: the demo's table, slides, annotations and bags, and no run yet."""
    for name in ("cohort.csv", "slides", "annotations", "store"):
        (tmp_path / name).symlink_to(demo / name)
    return tmp_path
