"""What the command says when it is used rightly and wrongly."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.doctor import DoctorOptions, doctor, fact_lines
from cli.main import PANELS, app
from tests.verbs import VERBS

REPO = Path(__file__).parent.parent.parent


# One interpreter that has shown the help of the whole command, which loads what every help does, forks for
# every verb, whose modules are the last line.
HELP = """
import os, sys
from cli.main import main

def show(verb):
    sys.argv = ["mil", *verb.split(), "--help"]
    try:
        main()
    except SystemExit as ended:
        return ended.code or 0

verbs = sys.argv[1:]
show("")
for verb in verbs:
    if os.fork():
        _, status = os.wait()
        assert status == 0, verb
        continue
    status = show(verb)
    print("\\nLOADED", verb, "|", *sys.modules, flush=True)
    os._exit(status)
"""


@pytest.fixture(scope="module")
def loaded_by_help():
    """verb -> the modules that are loaded after its help was shown."""
    done = subprocess.run(
        [sys.executable, "-c", HELP, "", *VERBS], capture_output=True, text=True, check=True
    )
    lines = re.findall(r"^LOADED (.*?) ?\| (.*)$", done.stdout, flags=re.MULTILINE)
    return {verb: set(modules.split()) for verb, modules in lines}


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_loads_nothing_heavy(loaded_by_help, verb):
    loaded = loaded_by_help[verb]
    assert "typer" in loaded
    assert not loaded & {"torch", "numpy", "pandas", "matplotlib", "openslide", "scipy"}


def verbs_of(path):
    """The functions of a file that are commands."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            decorators = [ast.unparse(entry) for entry in node.decorator_list]
            if any(text.startswith("verb(") for text in decorators):
                yield node


def length(function):
    """Lines of the body without the docstring."""
    documented = ast.get_docstring(function) is not None
    body = function.body[documented:]
    return body[-1].end_lineno - body[0].lineno + 1


def test_a_verb_unpacks_its_options_and_calls_the_library():
    verbs = {
        f"{path.name}:{function.name}": length(function)
        for path in (REPO / "cli").glob("*.py")
        for function in verbs_of(path)
    }
    assert len(verbs) >= len(VERBS) - 1  # `protocol` is a group of three
    assert {name: lines for name, lines in verbs.items() if lines > 25} == {}


def test_options_stay_on_the_command_line():
    options = {
        node.name
        for path in (REPO / "cli").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and node.name.endswith("Options")
    }
    assert "CrossvalOptions" in options
    for package in ("features", "mil"):
        for path in (REPO / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.arg) and node.annotation is not None:
                    names = set(re.findall(r"\w+", ast.unparse(node.annotation)))
                    assert not names & options, f"{path}:{node.lineno}"


@pytest.mark.parametrize("module", ["cli", "cli.main", "sarcomil"])
def test_each_door_to_the_command_opens(module):
    done = subprocess.run(
        [sys.executable, "-m", module, "no-such-verb"], capture_output=True, text=True, check=False,
        cwd=REPO,
    )  # fmt: skip
    assert done.returncode == 2
    assert "no-such-verb" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_verbs_flags_models_and_choices(shell):
    def complete(line):
        words = line.split(" ")
        environment = {
            "_MIL_COMPLETE": f"complete_{shell}", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1),
            "_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "cli"], capture_output=True, text=True, check=False,
            env=os.environ | environment, cwd=REPO,
        )  # fmt: skip
        return done.stdout

    assert "crossval" in complete("mil cross")
    assert "--models" in complete("mil crossval --mod")
    assert "mean,abmil" in complete("mil crossval --models mean,ab")
    assert "fp32" in complete("mil crossval --precision fp")


def test_the_script_of_completion_is_shown():
    command = (
        f"{sys.executable} -m cli --show-completion; true"  # alone, bash would make way for it
    )
    done = subprocess.run(
        ["bash", "-c", command], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert "_MIL_COMPLETE" in done.stdout, done.stderr


def test_help_reflows_paragraphs_and_keeps_examples_on_lines_of_their_own():
    for width in (60, 80, 120):
        for verb in ("extract", "audit", "permute"):
            shown = CliRunner().invoke(app, [verb, "--help"], env={"COLUMNS": str(width)}).output
            text, examples = shown.split("Examples:")
            paragraphs = [
                p for p in re.split(r"\n\s*\n", text) if "Usage:" not in p and "─" not in p
            ]
            lines = [line for p in paragraphs for line in p.splitlines()[:-1] if line.strip()]
            assert lines, shown
            assert all(len(line.split()) > 3 for line in lines), shown
            assert all(len(line.rstrip()) <= width for line in shown.splitlines()), shown
            joined = examples.replace("\\", " ")
            assert " ".join(joined.split()).startswith(f"mil {verb} ")
            assert "<bool>" not in shown
            assert "[RUN" not in shown


def test_commands_are_grouped_in_the_order_of_the_data():
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "100"}).output
    places = [shown.index(f"─ {panel} ─") for panel in PANELS]
    assert places == sorted(places)
    assert {name for names in PANELS.values() for name in names} == {v.split()[0] for v in VERBS}
    assert "<bool>" not in shown


def test_no_verb_prints_help(mil):
    assert "crossval" in mil().stdout


def test_version(mil):
    assert mil("--version").stdout.strip() == "sarcomil 0.2.0"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["extarct"], "Did you mean 'extract'"),
        (["extract", "--bogus"], "--bogus"),
        (["extract", "a.svs"], "--out is missing"),
        (["extract", "--out", "x"], "SLIDE... | FOLDER is missing"),
        (["extract", "a.csv", "b.csv", "--slides", ".", "--out", "x"], "one table"),
        (["extract", "a.csv", "--out", "x"], "Set --slides to the folder"),
        (["crossval", "a.csv", "store", "--out", "x", "--epochs", "many"], "epochs"),
        (["extract", "a.svs", "--out", "x", "--config", "absent.toml"], "absent.toml"),
        (["extract", "a.svs", "--out", "x", "--min-coverage", "60"], "For 60 % write 0.6"),
        (["extract", "a.svs", "--out", "x", "--backbone", "resnet5O"], "resnet50"),
        (["extract", "a.svs", "--out", "a.csv"], "is a file"),
        (["crossval", "a.csv", "store", "--out", "x", "--folds", "1"], "folds"),
        (["crossval", "a.csv", "store", "--out", "x", "--models", "abmi"], "Did you mean 'abmil'"),
        (["crossval", "a.csv", "s", "--out", "x", "--models", "abmil,abmil"], "named twice"),
        (["compare"], "A is missing: a run or a table of predictions. See `mil compare --help`."),
        (["crossval"], "COHORT.csv and --out are missing. See `mil crossval --help`."),
        (
            ["compare", "a.csv", "./a.csv"],
            "a.csv and a.csv are the same predictions. Name two, or one",
        ),
        (
            ["nomogram", "a.csv", "--out", "x", "--clinical", "c", "--task", "survial"],
            "'survival'?",
        ),
        (["explain", "r", "b.h5", "--out", "x", "--method", "evidenc"], "Did you mean 'evidence'?"),
        (["evaluate", "a.csv", "--store", "s"], "--store belongs to a run; a.csv is a table."),
        (
            ["crossval", "a.csv", "s", "--out", "x", "--task", "survival", "--grade", "g"],
            "--grade g is not used by the task survival, only by grade. Leave it out, or set --task to "
            "grade.",
        ),
        (
            ["train", "a.csv", "s", "--out", "x", "--event", "dead"],
            "--event dead is not used by the task diagnosis, only by survival. Leave it out",
        ),
        (
            ["finetune", "a.csv", "--out", "x", "--task", "grade", "--time-unit", "weeks"],
            "--time-unit weeks is not used by the task grade",
        ),
        (
            ["nomogram", "a.csv", "--out", "x", "--clinical", "c", "--time", "t"],
            "--time t is not used by the task diagnosis",
        ),
        (
            ["crossval", "a.csv", "store", "--out", "x", "--config", "list.json"],
            "list.json: no settings",
        ),
    ],
)
def test_wrong_use_is_one_line_and_ends_with_2(mil, tmp_path, arguments, message):
    (tmp_path / "a.csv").write_text("case,slide\na,a\n")
    (tmp_path / "list.json").write_text("[]")
    done = mil(*arguments, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.glob("x*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["extract", "a.svs", "--out", "x", "--annotations", ".", "--weights", "no.pth"],
            "no.pth: no such weights file. Set --weights to",
        ),
        (["crossval", "absent.csv", "store", "--out", "x"], "absent.csv"),
        (["extract", "a.csv", "--slides", ".", "--out", "x"], "None of the table's 1 slides"),
        (["report", "."], "not a run folder"),
        (["predict", ".", "a.h5"], "not a run folder"),
    ],
)
def test_failed_work_is_one_line_with_the_remedy_and_ends_with_1(mil, tmp_path, arguments, message):
    (tmp_path / "a.csv").write_text("case,slide,label\na,a,x\n")
    done = mil(*arguments, cwd=tmp_path, check=False)
    assert done.returncode == 1, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback(mil, tmp_path):
    done = mil("report", ".", "--debug", cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "RunError" in done.stderr


def test_doctor_names_versions_and_disk(roomy_disk, capsys):
    doctor(DoctorOptions())
    facts = capsys.readouterr().out
    for name in (
        "torch",
        "timm",
        "OpenSlide library",
        "device",
        "threads",
        "weights cache",
        "free disk",
    ):
        assert name in facts
    assert "40 GiB at" in facts


def test_doctor_names_a_disk_that_is_nearly_full(monkeypatch, capsys):
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 2**31))
    with pytest.raises(SystemExit) as caught:
        doctor(DoctorOptions())
    assert caught.value.code == 1
    assert "Only 2.0 GiB free" in capsys.readouterr().err


def test_doctor_ends_as_the_disk_of_this_machine_demands(mil):
    done = mil("doctor", check=False)
    assert done.returncode == ("GiB free;" in done.stderr)


def test_slides_whose_names_look_like_those_of_tiles_are_slides(demo, tmp_path):
    from cli.extract import ExtractOptions, slide_jobs

    (tmp_path / "S21-4711-3.tiff").symlink_to(demo / "slides" / "case-01-s1.tiff")
    (job,) = slide_jobs(ExtractOptions(inputs=(tmp_path,), out=tmp_path / "out"))
    assert (job.slide, job.from_tiles) == ("S21-4711-3", False)


@pytest.mark.parametrize("stranger", ["cli", "mil", "typer", "pathlib"])
def test_a_file_of_the_current_folder_is_not_taken_for_the_command(tmp_path, stranger):
    (tmp_path / f"{stranger}.py").write_text("print('stranger')")
    done = subprocess.run(
        [sys.executable, "-m", "sarcomil", "--version"], cwd=tmp_path, capture_output=True, text=True,
        check=True, env=os.environ | {"PYTHONPATH": str(REPO)},
    )  # fmt: skip
    assert done.stdout.strip() == "sarcomil 0.2.0"


@pytest.mark.parametrize(("arguments", "shown"), [([], False), (["--debug"], True)])
def test_warnings_of_libraries_are_shown_for_debugging_only(arguments, shown):
    script = (
        "import sys, os, warnings, subprocess\n"
        "import cli.main\n"
        "def app(arguments, **_):\n"
        "    warnings.warn('a column will change its type', FutureWarning)\n"
        "    code = 'import warnings; warnings.warn(\"overflow\", RuntimeWarning)'\n"
        "    subprocess.run([sys.executable, '-c', code])\n"
        "cli.main.command = lambda: app\n"
        "cli.main.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=REPO, capture_output=True, text=True, check=False,
        env={name: os.environ[name] for name in os.environ if name != "PYTHONWARNINGS"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ("change its type" in done.stderr, "overflow" in done.stderr) == (shown, shown)


def test_doctor_fits_the_terminal():
    facts = {"torch": "2.9", "short backbone names": ", ".join(f"backbone{i}" for i in range(20))}
    lines = fact_lines(facts, 80)
    assert max(map(len, lines)) <= 80
    assert lines[0] == f"{'torch':22}2.9"
    assert " ".join(line[22:] for line in lines[1:]) == facts["short backbone names"]
