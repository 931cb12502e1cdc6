"""The house keeps its shape: one direction, no work at import, errors with a remedy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parent.parent
MAY_IMPORT = {"features": set(), "mil": {"features"}, "cli": {"mil", "features"}}
# The laws look at a head from outside: its signature, and its weights written and read.
FOR_LAWS = {"copy", "functools", "inspect", "pathlib", "safetensors", "tempfile"}
HEAVY = ("torch", "timm", "openslide", "pandas", "matplotlib", "sklearn", "scipy")


def imports(path):
    """(line, top-level package) of every import in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            yield node.lineno, node.module.split(".")[0]


def against_direction(root):
    """Imports of our packages that run against cli -> mil -> features."""
    found = []
    for package, allowed in MAY_IMPORT.items():
        for path in sorted((root / package).rglob("*.py")):
            for line, name in imports(path):
                if name in MAY_IMPORT and name != package and name not in allowed:
                    found.append(f"{path.relative_to(root)}:{line} imports {name}")
    return found


def test_imports_run_from_cli_to_mil_to_features():
    assert against_direction(REPO) == []


def test_an_import_against_the_direction_is_found(tmp_path):
    for package in MAY_IMPORT:
        (tmp_path / package).mkdir()
    (tmp_path / "features" / "leak.py").write_text(
        "def f():\n    from mil.data.cohort import Case\n"
    )
    (tmp_path / "mil" / "up.py").write_text("import cli.main\n")
    assert against_direction(tmp_path) == [
        "features/leak.py:2 imports mil",
        "mil/up.py:1 imports cli",
    ]


def test_evaluation_imports_no_torch_and_heads_import_only_heads():
    for path in (REPO / "mil" / "evaluation").glob("*.py"):
        assert "torch" not in {name for _, name in imports(path)}, path
    for path in (REPO / "mil" / "heads").glob("*.py"):
        assert {name for _, name in imports(path)} <= {
            "abc", "collections", "dataclasses", "difflib", "math", "mil", "numpy", "torch", "typing",
        } | (FOR_LAWS if path.name == "laws.py" else set()), path  # fmt: skip


def test_ray_is_imported_in_at_most_one_file():
    files = [p for package in MAY_IMPORT for p in (REPO / package).rglob("*.py")]
    assert sum("ray" in {name for _, name in imports(p)} for p in files) <= 1


@pytest.mark.parametrize(
    "statement", ["import features", "import mil", "import mil.heads", "import cli.main"]
)
def test_importing_a_package_loads_nothing_heavy(statement):
    code = f"import sys; {statement}; print([n for n in {HEAVY} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_no_file_swallows_errors_or_loads_pickles(package):
    for path in (REPO / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{path}:{node.lineno} a bare except"
                empty = all(isinstance(step, ast.Pass) for step in node.body)
                assert not empty, f"{path}:{node.lineno} swallows"
            if isinstance(node, ast.Call):
                assert not unpickles(node), f"{path}:{node.lineno} loads pickles"


def unpickles(call):
    """Whether a call may run code out of a file: pickle's own, torch's and numpy's unless told not to."""
    name = ast.unparse(call.func)
    told = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    return (
        (name.startswith("pickle.") and "load" in name)
        or (name == "torch.load" and told.get("weights_only") != "True")
        or told.get("allow_pickle") == "True"
    )


@pytest.mark.parametrize(
    ("code", "bad"),
    [
        ("pickle.load(f)", True),
        ("torch.load(f)", True),
        ("torch.load(f, weights_only=False)", True),
        ("torch.load(f, weights_only=True)", False),
        ("np.load(f, allow_pickle=True)", True),
        ("np.load(f)", False),
    ],
)
def test_unpickling_is_recognised(code, bad):
    assert unpickles(ast.parse(code).body[0].value) == bad
