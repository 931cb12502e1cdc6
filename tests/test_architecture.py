"""The house keeps its shape: one direction, no work at import, errors with a remedy."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.claims import CLAIMS

REPO = Path(__file__).parent.parent
MAY_IMPORT = {
    "features": set(),
    "mil": {"features"},
    "cli": {"mil", "features"},
    "sarcomil": {"cli"},
}
# The laws look at a head from outside: its signature, and its weights written and read. The table of heads
# imports them by name, and those of installed packages.
FURTHER = {
    "brief.py": {"weakref"},
    "laws.py": {"copy", "functools"},
    "laws_of_bags.py": {"copy", "inspect"},
    "laws_of_numbers.py": {"pathlib", "safetensors", "tempfile"},
    "registry.py": {"features", "functools", "importlib"},
    "stack.py": {"copy"},
}
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
    wrong = []
    for package, allowed in MAY_IMPORT.items():
        for path in sorted((root / package).rglob("*.py")):
            for line, name in imports(path):
                if name in MAY_IMPORT and name != package and name not in allowed:
                    wrong.append(f"{path.relative_to(root)}:{line} imports {name}")
    return wrong


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
    for path in (REPO / "mil" / "evaluation").rglob("*.py"):
        assert "torch" not in {name for _, name in imports(path)}, path
    for path in (REPO / "mil" / "heads").glob("*.py"):
        assert {name for _, name in imports(path)} <= {
            "abc", "collections", "dataclasses", "math", "mil", "numpy", "torch", "typing",
        } | FURTHER.get(path.name, set()), path  # fmt: skip


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


def test_an_audit_loads_neither_torch_nor_scikit_learn_nor_the_statistics_of_scipy():
    """They take half of the time of a small audit."""
    code = "import sys, mil.report.audit, mil.audit.run, mil.audit.judged_classes\n"
    code += "print([n for n in ('torch', 'sklearn', 'scipy.stats') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def modules():
    """The dotted name of every module of ours, with its path."""
    for package in MAY_IMPORT:
        for path in sorted((REPO / package).rglob("*.py")):
            parts = path.relative_to(REPO).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def import_graph(paths):
    """Module to modules of ours that it imports: at its top, in functions, and for types alone."""
    paths = dict(paths)
    graph = {}
    for name, path in paths.items():
        targets = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    submodule = f"{node.module}.{alias.name}"
                    targets.add(submodule if submodule in paths else node.module)
            elif isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
        graph[name] = {target for target in targets if target in paths and target != name}
    return graph


def circles(graph):
    """Groups of modules that import each other, however long the way."""
    reached = {}
    for name in graph:
        seen, todo = set(), [name]
        while todo:
            for target in graph[todo.pop()] - seen:
                seen.add(target)
                todo.append(target)
        reached[name] = seen
    return sorted(name for name in graph if name in reached[name])


def test_no_modules_import_each_other():
    assert circles(import_graph(modules())) == []


def test_a_circle_is_found_whatever_its_length_and_however_it_is_hidden(tmp_path):
    (tmp_path / "a.py").write_text("from m import b\n")
    (tmp_path / "b.py").write_text("def f():\n    from m.c import x\n")
    (tmp_path / "c.py").write_text("if TYPE_CHECKING:\n    import m.a\n")
    (tmp_path / "d.py").write_text("import m.a\n")
    paths = {f"m.{name}": tmp_path / f"{name}.py" for name in "abcd"}
    assert circles(import_graph(paths.items())) == ["m.a", "m.b", "m.c"]


def test_no_benchmark_hides_a_module_of_python():
    # A script that the Python of a peer starts by its path finds what lies beside it first.
    assert not {path.stem for path in (REPO / "benchmarks").glob("*.py")} & sys.stdlib_module_names


def test_every_benchmark_that_the_manual_names_is_run_by_make_bench():
    pages = [REPO / "README.md", *(REPO / "docs").glob("*.md")]
    named = {
        name for page in pages for name in re.findall(r"-m benchmarks\.(\w+)", page.read_text())
    }
    assert named
    run = {claim.command.split()[0] for claim in CLAIMS}
    assert named <= run
    assert run <= {path.stem for path in (REPO / "benchmarks").glob("*.py")}
    assert all((REPO / claim.page).exists() for claim in CLAIMS)


MOST_LINES = 400  # of a file


def test_files_are_read_at_a_sitting():
    lengths = {name: len(path.read_text().splitlines()) for name, path in modules()}
    assert {name: n for name, n in lengths.items() if n > MOST_LINES} == {}


# A cohort and a fitted model carry the task that says what they answer; tasks are made of both.
CARRIED = {("mil.data", "mil.tasks"), ("mil.learning", "mil.tasks")}


def rooms(graph):
    """Room to rooms that it imports; a room is a package inside features or mil."""
    of_rooms = {}
    for name, targets in graph.items():
        for target in targets:
            pair = tuple(".".join(one.split(".")[:2]) for one in (name, target))
            if name.count(".") > 1 and target.count(".") > 1 and pair[0] != pair[1]:
                of_rooms.setdefault(pair[0], set()).add(pair[1])
                of_rooms.setdefault(pair[1], set())
    return of_rooms


def test_no_rooms_import_each_other():
    graph = rooms(import_graph(modules()))
    assert len(graph) > 30
    for room, target in CARRIED:
        assert target in graph[room], "no longer needed here"
        graph[room].remove(target)
    assert circles(graph) == []


def test_rooms_that_import_each_other_are_found():
    graph = {"m.a.x": {"m.b.y", "m.errors"}, "m.b.z": {"m.c.w"}, "m.c.v": {"m.a.u"}, "m": {"m.a.x"}}
    assert circles(rooms(graph)) == ["m.a", "m.b", "m.c"]


EMPTY_WORDS = {"told", "said", "held", "found", "asked", "each", "given", "kept"}
MOST_EMPTY = 0.005  # share of assigned names; .02 % in scikit-learn, .3 % in rich


def assigned_names(tree):
    """Names that a file gives: variables, parameters, functions, classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name


def empty_share(sources):
    """Share of names that hold a word which says nothing of what they stand for."""
    names = [name for source in sources for name in assigned_names(ast.parse(source))]
    return sum(bool(EMPTY_WORDS & set(name.split("_"))) for name in names) / len(names)


def test_names_say_what_they_stand_for():
    assert empty_share(path.read_text() for _, path in modules()) < MOST_EMPTY


def test_a_name_that_says_nothing_is_counted():
    assert empty_share(["def f(told, cases):\n    rows_found = len(cases)\n"]) == 2 / 4


# Where tasks may be named: their own files, what judges them, the sections of their pages, and the public
# interface, which offers their classes. A column of the demo's table is called as one.
TASK_ROOMS = ("mil/tasks/", "mil/evaluation/", "mil/__init__.py", "features/synthetic/")
SECTIONS = re.compile(r"mil/report/\w+_sections\.py|mil/figures/risk_groups\.py")


def task_names():
    from mil.tasks.names import TASKS

    return set(TASKS)


FEWEST_WORDS = 5  # of a plain list of words, as of those that say that an event happened


def words_of_lists(tree):
    """The ids of texts that are words in a plain list of many, which choose no task."""
    for node in ast.walk(tree):
        parts = node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else []
        if len(parts) >= FEWEST_WORDS and all(isinstance(part, ast.Constant) for part in parts):
            yield from map(id, parts)


def names_of_tasks(tree, names):
    """Lines that hold the name of a task as text, or import its files."""
    words = set(words_of_lists(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in names and id(node) not in words:
            yield node.lineno
        if isinstance(node, ast.ImportFrom) and node.module in {f"mil.tasks.{n}" for n in names}:
            yield node.lineno


# Cases with a time are of survival; ``mil.data.case.has_follow_up`` says so.
OF_TIMES = re.compile(r"\b(all|any)\(\w+\.time is (not )?None for")


def test_no_task_is_named_outside_its_own_rooms():
    lines = []
    for _, path in modules():
        place = path.relative_to(REPO).as_posix()
        if not (place.startswith(TASK_ROOMS) or SECTIONS.fullmatch(place)):
            tree = ast.parse(path.read_text())
            lines += [f"{place}:{line}" for line in names_of_tasks(tree, task_names())]
            if place != "mil/data/case.py":
                assert not OF_TIMES.search(path.read_text()), place
    assert lines == []


def test_a_task_that_is_named_is_found():
    code = 'if run.task.name == "survival":\n    from mil.tasks.grade import Grade\n'
    assert sorted(names_of_tasks(ast.parse(code), task_names())) == [1, 2]


def test_a_word_in_a_list_of_words_names_no_task_and_a_choice_among_tasks_does():
    words = 'EVENTS = ("dead", "died", "death", "relapse", "recurrence")\n'
    assert list(names_of_tasks(ast.parse(words), {"recurrence", "death"})) == []
    choice = 'if name in ("grade", "survival"):\n    pass\n'
    assert list(names_of_tasks(ast.parse(choice), task_names())) == [1, 1]
    assert OF_TIMES.search("if any(case.time is not None for case in cases):")


FLAG = re.compile(r"(?<![\w-])--[a-z]|`mil [a-z]")


def texts(tree):
    """(line, text) of every string that is no docstring and no name of an option."""
    flags = {
        id(value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant) and key.value == "flag"
    }
    documents = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in flags | documents:
            yield node.lineno, str(node.value)


@pytest.mark.parametrize("package", ["mil", "features"])
def test_messages_of_the_library_name_no_flag_and_no_verb(package):
    lines = [
        f"{path.relative_to(REPO)}:{line}: {text}"
        for path in sorted((REPO / package).rglob("*.py"))
        for line, text in texts(ast.parse(path.read_text()))
        if FLAG.search(text)
    ]
    assert lines == []


@pytest.mark.parametrize("text", ["Pass --cohort.", "Run `mil crossval` again."])
def test_a_flag_or_a_verb_in_a_message_is_found(text):
    [(_, message)] = texts(ast.parse(f"def f():\n    raise E({text!r})"))
    assert FLAG.search(message)


P_VALUE = re.compile(r"(^|\.)(p|p_value|p_[a-z]+|[a-z_]+_p)(\[.+\])?$")
# A probability and points of a nomogram, not p values.
PROBABILITIES = {("evaluation/regression/nomogram.py", "p")}


def formatted_p(tree):
    """(line, expression) of every p value put into a text with digits of its own, or with none."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FormattedValue) and P_VALUE.search(ast.unparse(node.value)):
            yield node.lineno, ast.unparse(node.value)


def test_p_values_are_formatted_in_one_place():
    lines = [
        f"{path.relative_to(REPO)}:{line}: {name}"
        for package in ("mil", "cli")
        for path in sorted((REPO / package).rglob("*.py"))
        if path.name != "display.py"
        for line, name in formatted_p(ast.parse(path.read_text()))
        if (str(path.relative_to(REPO / package)), name) not in PROBABILITIES
    ]
    assert lines == []


@pytest.mark.parametrize("name", ["p", "pair.p", "test.p_holm", "rank_p", "p_values[0]", "p_value"])
def test_a_p_value_with_digits_of_its_own_is_found(name):
    assert list(formatted_p(ast.parse(f"f'p {{{name}:.3f}}'"))) == [(1, name)]


def texts_without_encoding(tree):
    """Lines that open a text file in the encoding of the locale; ``job.open()`` opens a slide."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name)):
            continue
        name = ast.unparse(node.func)
        words = {keyword.arg for keyword in node.keywords}
        modes = [argument.value for argument in node.args[:2] if isinstance(argument, ast.Constant)]
        opens = name.endswith("open") and not name.startswith(("Image", "os.", "webbrowser"))
        text = any(set(str(mode)) <= set("rwaxt+") for mode in modes) or "newline" in words
        text = text and (opens or name.endswith("fdopen"))
        if "encoding" not in words and (text or name.endswith((".read_text", ".write_text"))):
            yield node.lineno


@pytest.mark.parametrize("package", ["features", "mil", "cli"])
def test_text_files_have_one_encoding_whatever_the_locale(package):
    lines = [
        f"{path.relative_to(REPO)}:{line}"
        for path in sorted((REPO / package).rglob("*.py"))
        for line in texts_without_encoding(ast.parse(path.read_text()))
    ]
    assert lines == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("path.open('w')", True),
        ("path.open('x', newline='')", True),
        ("path.open(newline='')", True),
        ("open(path, 'a')", True),
        ("os.fdopen(handle, 'w')", True),
        ("path.write_text(words)", True),
        ("path.read_text()", True),
        ("path.open('wb')", False),
        ("path.open('w', encoding='utf-8')", False),
        ("path.write_text(words, encoding='utf-8')", False),
        ("job.open()", False),
    ],
)
def test_a_text_file_in_the_encoding_of_the_locale_is_found(code, found):
    assert bool(list(texts_without_encoding(ast.parse(code)))) is found


# What Windows lacks.
WITHOUT_POSIX = """
import os, signal, sys, warnings
warnings.simplefilter("ignore")
sys.modules["fcntl"] = None
for name in ("fork", "pread", "preadv", "pwrite", "sched_getaffinity"):
    delattr(os, name)
for name in ("SIGKILL", "pthread_sigmask"):
    delattr(signal, name)
"""


def test_learning_judging_and_reports_import_where_posix_is_missing():
    code = (
        WITHOUT_POSIX
        + """
import cli.main, mil.audit.run, mil.evaluation.judge, mil.explanation.write, mil.learning.crossval
import mil.report.gather, mil.report.page, mil.runs.cross_validation
"""
    )
    subprocess.run([sys.executable, "-c", code], check=True)


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
