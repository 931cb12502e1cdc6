"""`mil check RUN --null N`, as it is typed."""

import csv
import json
import shutil

import pytest

from cli import null as module
from features.progress import Silent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def kept(demo, mil, tmp_path_factory):
    """A small run, and two shuffles of it."""
    folder = tmp_path_factory.mktemp("null")
    run = folder / "run"
    mil(
        "crossval", demo / "cohort.csv", demo / "store", "--models", "majority,mean", "--epochs", 2,
        "--out", run,
    )  # fmt: skip
    done = mil("check", run, "--null", 2, "--out", folder / "null")
    return folder, done


def rows(folder):
    with (folder / "null.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_it_says_what_shuffles_find(kept):
    folder, done = kept
    assert [(row["shuffle"], row["model"]) for row in rows(folder / "null")] == [
        ("1", "majority"), ("1", "mean"), ("2", "majority"), ("2", "mean"),
    ]  # fmt: skip
    assert "ranks nothing" in done.stdout
    assert "too few shuffles to tell" in done.stdout
    assert "p cannot fall below 0.33" in done.stderr
    assert (folder / "null" / "null.png").stat().st_size > 1000


def test_more_shuffles_are_added_to_those_there(kept, mil, tmp_path):
    folder, _ = kept
    shutil.copytree(folder / "null", tmp_path / "null")
    mil("check", folder / "run", "--null", 3, "--out", tmp_path / "null")
    assert rows(tmp_path / "null")[:4] == rows(folder / "null")
    assert len(rows(tmp_path / "null")) == 6


def test_a_call_cut_off_goes_on_to_the_same_table(kept, monkeypatch, tmp_path):
    folder, _ = kept
    whole, started = module._write, []

    def cut(out, found, run):
        whole(out, found, run)
        started.append(len(found))
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.console.Bars", Silent)
    monkeypatch.setattr(module, "_write", cut)
    with pytest.raises(KeyboardInterrupt):
        module.run_null(folder / "run", tmp_path, 2)
    monkeypatch.setattr(module, "_write", whole)
    assert module.run_null(folder / "run", tmp_path, 2) == 0
    assert (started, rows(tmp_path)) == ([2], rows(folder / "null"))


def test_a_leak_ends_with_1_and_a_red_line(kept, monkeypatch, tmp_path, capsys):
    folder, _ = kept
    monkeypatch.setattr("mil.audit.permutation.CHANCE", -9.0)
    assert module.run_null(folder / "run", tmp_path, 2) == 1
    assert "mean: finds signal in shuffled labels" in capsys.readouterr().err


def test_shuffles_of_another_run_are_not_mixed_in(kept, mil, tmp_path):
    folder, _ = kept
    (tmp_path / "null.json").write_text(json.dumps({"run": "another"}))
    done = mil("check", folder / "run", "--null", 2, "--out", tmp_path, check=False)
    assert done.returncode == 2
    assert "another run" in done.stderr


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["cohort.csv", "--null", "2"], "not a run folder"),
        (["a", "b", "--null", "2"], "--null takes one run"),
        (["run", "--null", "1"], "null is a number of shuffles from 2"),
    ],
)
def test_wrong_use_is_told(mil, tmp_path, asked, said):
    done = mil("check", *asked, "--out", tmp_path / "x", cwd=tmp_path, check=False)
    assert done.returncode in (1, 2)
    assert said in done.stderr
