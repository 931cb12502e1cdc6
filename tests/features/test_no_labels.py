"""What is in the image knows no labels; ``synthetic`` makes the demo's table and is the exception."""

import ast
from pathlib import Path

import pytest

import features

PACKAGE = Path(features.__file__).parent
MODULES = [p for p in sorted(PACKAGE.rglob("*.py")) if PACKAGE / "synthetic" not in p.parents]
FIELDS = ("id", "arg", "attr", "name", "asname", "module")


def identifiers(tree):
    for node in ast.walk(tree):
        yield from (getattr(node, field, None) for field in FIELDS)
        if isinstance(node, ast.Global | ast.Nonlocal):
            yield from node.names


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_no_name_speaks_of_labels(path):
    names = {name for name in identifiers(ast.parse(path.read_text())) if isinstance(name, str)}
    assert names or path.name == "__init__.py"
    assert not [name for name in names if "label" in name.lower()]


def test_exception_is_used_by_no_other_module():
    for path in MODULES:
        assert "synthetic" not in path.read_text(), path
