"""What these tests share with those of the packages below."""

import shutil

import pytest

from tests.mil.view.conftest import viewed as viewed


@pytest.fixture
def roomy_disk(monkeypatch):
    """A disk with room, however full that of the machine is."""
    free = shutil._ntuple_diskusage(2**40, 2**40 - 40 * 2**30, 40 * 2**30)
    monkeypatch.setattr("shutil.disk_usage", lambda path: free)
