"""The examples in docstrings run as they are written."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "name", ["features.recipe", "features.regions.annotations", "features.slides.slide"]
)
def test_examples_run(name):
    failed, attempted = doctest.testmod(importlib.import_module(name))
    assert failed == 0
    assert attempted > 0
