"""A service on this machine, and calls to it that do not wait long."""

import functools

import pytest

import mil
from tests.mil.fetch.made_services import running


@pytest.fixture
def network(monkeypatch):
    """A server that answers as both services do, reached without a proxy."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with running() as network:
        yield network


@pytest.fixture
def fetch(network, tmp_path):
    """Fetch from it into a folder; notes are collected in ``fetch.notes``."""
    notes = []

    def call(project="TCGA-SARC", out=tmp_path / "out", **options):
        defaults = {"server": network.address, "wait_s": 0.001, "retries": 3, "timeout_s": 5.0}
        return mil.fetch_gdc(project, out, notify=notes.append, **defaults | options)

    call.notes = notes
    call.out = tmp_path / "out"
    return call


@pytest.fixture
def fetch_series(network, tmp_path):
    """Fetch series of an index in ``index.csv``."""
    return functools.partial(
        mil.fetch_idc,
        out=tmp_path / "out",
        server=network.address,
        index=tmp_path / "index.csv",
        wait_s=0.001,
        timeout_s=5.0,
    )
