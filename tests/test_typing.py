"""What mypy sees of ``import mil`` in the script of a user: exact types, no Any, and mistakes found."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parent.parent
SCRIPTS = Path(__file__).parent / "typing"


@pytest.fixture(scope="module")
def messages():
    """(file, line, text) of what mypy says of both scripts under strict."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *SCRIPTS.glob("*.py")],
        cwd=REPO, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = re.findall(r"^(\S+?):(\d+): error: (.*)$", done.stdout, flags=re.MULTILINE)
    assert lines, done.stdout + done.stderr
    return [(Path(file).name, int(line), text) for file, line, text in lines]


def test_the_types_of_a_users_script_are_exact_and_none_is_any(messages):
    assert [message for message in messages if message[0] == "user_script.py"] == []


def test_every_mistake_of_a_user_is_found(messages):
    reported = {
        line: text.split()[-1] for file, line, text in messages if file == "wrong_script.py"
    }
    lines = enumerate((SCRIPTS / "wrong_script.py").read_text().splitlines(), start=1)
    assert reported == {n: line.split("# ")[1] for n, line in lines if "# [" in line}


@pytest.mark.parametrize("package", ["mil", "features"])
def test_packages_say_that_they_are_typed(package):
    assert (REPO / package / "py.typed").is_file()
