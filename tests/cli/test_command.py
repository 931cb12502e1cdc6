"""What the command says when it is used rightly and wrongly."""

import subprocess
import sys

import pytest

from tests.verbs import VERBS


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_loads_nothing_heavy(verb):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "cli", *verb.split(), "--help"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "typer" in loaded, "importtime said nothing"
    assert not loaded & {"torch", "numpy", "pandas", "matplotlib", "openslide", "scipy"}


def test_no_verb_prints_help(mil):
    assert "crossval" in mil().stdout


def test_version(mil):
    assert mil("--version").stdout.strip() == "sarcomil 0.1.0"


@pytest.mark.parametrize(
    ("arguments", "said"),
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
        (
            ["crossval", "a.csv", "store", "--out", "x", "--config", "list.json"],
            "holds no settings",
        ),
    ],
)
def test_wrong_use_is_one_line_and_ends_with_2(mil, tmp_path, arguments, said):
    (tmp_path / "a.csv").write_text("case,slide\na,a\n")
    (tmp_path / "list.json").write_text("[]")
    done = mil(*arguments, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.glob("x*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["extract", "a.svs", "--out", "x", "--weights", "no.pth"], "no such file"),
        (["crossval", "absent.csv", "store", "--out", "x"], "absent.csv"),
        (["extract", "a.csv", "--slides", ".", "--out", "x"], "None of the table's 1 slides"),
        (["report", "."], "not a run folder"),
        (["predict", ".", "a.h5"], "not a run folder"),
    ],
)
def test_failed_work_is_one_line_with_the_remedy_and_ends_with_1(mil, tmp_path, arguments, said):
    (tmp_path / "a.csv").write_text("case,slide,label\na,a,x\n")
    done = mil(*arguments, cwd=tmp_path, check=False)
    assert done.returncode == 1, done.stderr
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback(mil, tmp_path):
    done = mil("report", ".", "--debug", cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "RunError" in done.stderr


def test_doctor_names_versions_and_disk(mil):
    told = mil("doctor").stdout
    for name in (
        "torch",
        "timm",
        "OpenSlide library",
        "device",
        "threads",
        "weights cache",
        "free disk",
    ):
        assert name in told


def test_slides_whose_names_look_like_those_of_tiles_are_slides(demo, tmp_path):
    from cli.extract import ExtractOptions, slide_jobs

    (tmp_path / "S21-4711-3.tiff").symlink_to(demo / "slides" / "case-01-s1.tiff")
    (job,) = slide_jobs(ExtractOptions(inputs=(tmp_path,), out=tmp_path / "out"))
    assert (job.slide, job.from_tiles) == ("S21-4711-3", False)
