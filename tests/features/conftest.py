"""Fixtures of ``features``: one small slide that carries its scale."""

import os

import pytest
from making import stained, write_tiff

from features.slides import rehearsal


@pytest.fixture
def slide_file(tmp_path):
    """512 x 512 px at 0.5 micrometres; the left half is tissue."""
    return write_tiff(tmp_path / "a.tiff", [stained()], mpp=0.5)


@pytest.fixture
def own_readers(monkeypatch):
    """Processes that read slides first end with the run, as they do where no test keeps them."""
    readers = rehearsal._Children()
    monkeypatch.setattr(rehearsal, "_CHILDREN", readers)
    yield readers
    readers.close(os.getpid())
