"""Fixtures of ``features``: one small slide that carries its scale."""

import pytest
from making import stained, write_tiff


@pytest.fixture
def slide_file(tmp_path):
    """512 x 512 px at 0.5 micrometres; the left half is tissue."""
    return write_tiff(tmp_path / "a.tiff", [stained()], mpp=0.5)
