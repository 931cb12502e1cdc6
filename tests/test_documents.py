"""Every command of the README and of the help texts is run as it is printed."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parent.parent
README = (REPO / "README.md").read_text()
VERBS = ("demo", "extract", "crossval", "train", "predict", "explain", "report", "doctor")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def readme_commands():
    return [line for block in blocks("console") for line in block.splitlines() if line.strip()]


def help_examples(verb):
    """The examples a verb's help prints, read from what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "cli", verb, "--help"],
        capture_output=True, text=True, check=True, env={"COLUMNS": "400", "PATH": ""},
    )  # fmt: skip
    after = done.stdout.split("Examples:")[1]
    return [line.strip() for line in after.splitlines() if line.strip().startswith("mil ")]


def run_all(commands, mil, folder):
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "mil"
        mil(*arguments, cwd=folder)


@pytest.mark.slow
def test_every_mil_command_of_the_readme_runs_in_order(study, mil):
    commands = [line for line in readme_commands() if line.startswith("mil ")]
    assert {shlex.split(line)[1] for line in commands} == set(VERBS) - {"demo"}
    run_all(commands, mil, study)
    assert (study / "run" / "report.html").stat().st_size > 10_000
    assert (study / "again" / "predictions.csv").read_bytes() == (
        study / "run" / "predictions.csv"
    ).read_bytes()
    [code] = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=study, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[0] == "majority"


def test_every_make_target_of_the_readme_exists():
    targets = [line.split()[1] for line in readme_commands() if line.startswith("make ")]
    assert targets == ["demo", "test"]
    for target in [*targets, "check", "bench"]:
        subprocess.run(["make", "-n", target], cwd=REPO, check=True, capture_output=True)


def test_the_readme_shows_only_commands_that_are_run_here():
    assert {line.split()[0] for line in readme_commands()} == {"mil", "make"}


@pytest.mark.slow
def test_every_example_of_every_help_text_runs(study, mil):
    examples = {verb: help_examples(verb) for verb in VERBS}
    assert all(examples.values()), examples
    del examples["demo"]  # run by the fixture that all these tests start from
    examples["crossval"] = [
        c.replace("majority,tile-vote,mean,abmil", "mean,abmil") for c in examples["crossval"]
    ]
    for commands in examples.values():
        run_all(commands, mil, study)


def test_the_demo_is_run_as_its_help_says():
    assert help_examples("demo") == ["mil demo --out demo"]


def test_the_readme_names_no_path_or_address_of_a_machine():
    assert not re.search(
        r"/(home|root|work|tmp|Users)/|https?://(?!\S*(keepachangelog|semver))", README
    )


def test_ci_calls_the_readmes_test_command_and_nothing_else():
    steps = [
        line
        for line in (REPO / ".ci" / "run").read_text().splitlines()
        if not line.startswith("#!")
    ]
    assert steps == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "make test"]
