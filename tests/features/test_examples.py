"""The examples in docstrings run as they are written."""

import doctest
import importlib
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
NAMES = [
    ".".join(path.relative_to(REPO).with_suffix("").parts)
    for package in ("features", "mil", "cli")
    for path in sorted((REPO / package).rglob("*.py"))
    if ">>> " in path.read_text()
]


@pytest.mark.parametrize("name", NAMES)
def test_examples_run(name):
    failed, attempted = doctest.testmod(importlib.import_module(name))
    assert failed == 0
    assert attempted > 0


def test_modules_with_examples_were_found():
    assert {"features.recipe", "features.summary", "features.choices"} <= {*NAMES}
