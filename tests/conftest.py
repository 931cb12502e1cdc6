"""The demo cohort, run once through the command for all tests that look at the whole job."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

REPO = Path(__file__).parent.parent
REALDATA = REPO.parent / "shared" / "data"


def pytest_collection_modifyitems(items):
    """Files that take long come first, so that no worker is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True, scope="session")
def _offline():
    os.environ["HF_HUB_OFFLINE"] = "1"


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
def mil():
    """Run the command in a process of its own: mil(*arguments, cwd=...) -> CompletedProcess."""

    def run(*arguments, cwd=None, check=True):
        done = subprocess.run(
            [sys.executable, "-m", "cli", *map(str, arguments)],
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "COLUMNS": "200"},
        )
        if check and done.returncode:
            raise AssertionError(
                f"mil {arguments} -> {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done

    return run


@pytest.fixture(scope="session")
def demo(tmp_path_factory, mil):
    """The folder that `mil demo` leaves: four subtypes, five cases each."""
    folder = tmp_path_factory.mktemp("demo")
    if "PYTEST_XDIST_WORKER" in os.environ:  # made once, by the first of the workers that needs it
        folder = tmp_path_factory.getbasetemp().parent / "demo"
    with FileLock(f"{folder}.lock"):
        if not (folder / "run" / "report.html").exists():
            mil("demo", "--out", folder)
    return folder


@pytest.fixture
def study(demo, tmp_path):
    """A user's folder: the demo's table, slides, annotations and bags, and no run yet."""
    for name in ("cohort.csv", "slides", "annotations", "store"):
        (tmp_path / name).symlink_to(demo / name)
    return tmp_path
