"""Commands take one core per operation unless they train networks, and a setting of the user stands."""

import os
import subprocess
import sys

import pytest

from cli.main import ALL_CORES, PANELS, limit_threads

ONE_CORE = sorted({name for names in PANELS.values() for name in names} - ALL_CORES)
SCRIPT = """
import sys
sys.argv = ["mil", "{command}", "--help"]
from cli.main import main
try:
    main()
except SystemExit:
    pass
import torch
print("threads", torch.get_num_threads())
"""


@pytest.fixture
def unset(monkeypatch):
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("command", ONE_CORE)
def test_an_operation_takes_one_core(command, unset, monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    limit_threads(command)
    assert os.environ.pop("OMP_NUM_THREADS") == "1"


@pytest.mark.parametrize("command", sorted(ALL_CORES))
def test_networks_are_trained_on_all_cores(command, unset, monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    limit_threads(command)
    assert "OMP_NUM_THREADS" not in os.environ


def test_a_setting_of_the_user_stands(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    limit_threads("explain")
    assert (os.environ["OMP_NUM_THREADS"], os.environ["OMP_WAIT_POLICY"]) == ("3", "ACTIVE")


def test_it_is_set_before_a_library_counts_the_cores():
    env = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(command="audit")],
        env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "threads 1"
