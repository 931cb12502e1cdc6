"""What is shipped: exactly four packages and a command, working away from the checkout."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

REPO = Path(__file__).parent.parent
PACKAGES = {"features", "mil", "cli", "sarcomil"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(out),
        str(REPO),
    ]
    subprocess.run(build, check=True, capture_output=True)
    [path] = out.glob("sarcomil-*.whl")
    return path


@pytest.fixture(scope="module")
def clean(wheel, tmp_path_factory):
    """A fresh environment with only the wheel; its dependencies are lent by this environment.

    Installing torch again takes gigabytes, so this environment's site-packages come behind the clean one's.
    The editable install of this checkout is not among them: a .pth file inside a lent folder is not read.
    """
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "--quiet",
        "--disable-pip-version-check",
    ]
    subprocess.run([*pip, "install", "--no-deps", wheel], check=True)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", where], check=True, capture_output=True, text=True)
    lent = Path(site.stdout.strip()) / "lent.pth"
    lent.write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def test_the_wheel_holds_the_four_packages_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES
    tracked = {
        str(path.relative_to(REPO))
        for package in PACKAGES
        for path in (REPO / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if ".dist-info" not in name} == tracked


def test_the_command_works_after_a_clean_install(clean):
    done = subprocess.run(
        [clean / "venv" / "bin" / "mil", "--version"],
        cwd=clean,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("sarcomil ")


def test_the_packages_are_imported_from_the_clean_environment(clean):
    code = (
        "import features.extraction.extract, mil.learning.crossval, mil.report.page, cli.main\n"
        "print(features.__file__, mil.__file__, cli.__file__, sep='\\n')"
    )
    python = clean / "venv" / "bin" / "python"
    done = subprocess.run(
        [python, "-c", code], cwd=clean, check=True, capture_output=True, text=True
    )
    places = [Path(line).resolve() for line in done.stdout.split()]
    assert all(place.is_relative_to(clean.resolve()) for place in places), places
