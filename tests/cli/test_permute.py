"""`mil permute RUN --times N`, as it is typed."""

import csv
import json
import shutil

import pytest

from cli.permute import permute_and_show
from mil.runs.run import open_run
from mil.tasks.diagnosis import Diagnosis
from mil.tasks.names import TASKS
from mil.tasks.registry import task_class
from tests.mil.made import made_cohort
from tests.mil.made_runs import write_cohort


@pytest.fixture(scope="module")
def permuted(mil, tmp_path_factory):
    """A small run, and two shuffles of it."""
    folder = tmp_path_factory.mktemp("permute")
    run = folder / "run"
    write_cohort(folder, made_cohort((5, 5, 5)))
    mil(
        "crossval", folder / "cohort.csv", folder / "store", "--models", "majority,mean", "--epochs", 2,
        "--seed", 1, "--out", run,
    )  # fmt: skip
    done = mil("permute", run, "--times", 2, "--out", folder / "permuted")
    return folder, done


def rows_of(folder):
    with (folder / "permutation.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_it_shows_what_the_shuffles_find(permuted):
    folder, done = permuted
    assert [(row["shuffle"], row["model"]) for row in rows_of(folder / "permuted")] == [
        ("1", "majority"), ("1", "mean"), ("2", "majority"), ("2", "mean"),
    ]  # fmt: skip
    assert "gives all cases the same score" in done.stdout
    assert "too few shuffles to tell" in done.stdout
    assert "mean of 2 shuffles" in done.stdout
    assert "p cannot fall below 0.33" in done.stderr
    assert (folder / "permuted" / "permutation.png").stat().st_size > 1000


def test_more_shuffles_are_added_to_those_that_are_stored(permuted, mil, tmp_path):
    folder, _ = permuted
    shutil.copytree(folder / "permuted", tmp_path / "permuted")
    mil("permute", folder / "run", "--times", 3, "--out", tmp_path / "permuted")
    assert rows_of(tmp_path / "permuted")[:4] == rows_of(folder / "permuted")
    assert len(rows_of(tmp_path / "permuted")) == 6


def test_the_old_form_gives_the_same_and_names_the_new_one(permuted, mil, tmp_path):
    folder, done = permuted
    old = mil("check", folder / "run", "--null", 2, "--out", tmp_path / "null")
    assert rows_of(tmp_path / "null") == rows_of(folder / "permuted")
    assert "`mil check RUN --null N` is now `mil permute RUN --times N`" in old.stderr
    assert "is now" not in done.stderr


def test_a_leak_ends_with_1_and_a_red_line(permuted, monkeypatch, tmp_path, capsys):
    folder, _ = permuted
    shutil.copytree(folder / "permuted", tmp_path / "permuted")
    monkeypatch.setattr(Diagnosis, "null_metric", ("auc", -9.0))
    assert permute_and_show(open_run(folder / "run"), tmp_path / "permuted", 2) == 1
    assert "mean: finds signal in shuffled outcomes" in capsys.readouterr().err


def test_shuffles_of_another_run_are_not_mixed_in(permuted, mil, tmp_path):
    folder, _ = permuted
    (tmp_path / "permutation.json").write_text(json.dumps({"predictions": "another"}))
    done = mil("permute", folder / "run", "--times", 2, "--out", tmp_path, check=False)
    assert done.returncode == 1
    assert "another run" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["permute", "cohort.csv", "--times", "2"], "cohort.csv: there is no such folder"),
        (["permute", "run", "--times", "1"], "--times must be a number of shuffles from 2; got 1"),
        (["permute", "a", "b", "--times", "2"], "Got unexpected extra argument"),
        (["check", "cohort.csv", "--null", "2"], "cohort.csv: there is no such folder"),
        (["check", "a", "b", "--null", "2"], "--null takes one run"),
        (["check", "run", "--null", "1"], "null must be a number of shuffles from 2"),
    ],
)
def test_wrong_use_is_refused(mil, tmp_path, arguments, message):
    done = mil(*arguments, "--out", tmp_path / "x", cwd=tmp_path, check=False)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert not (tmp_path / "x").exists()


def test_the_metric_of_every_task_has_a_name_for_the_table():
    assert all(task_class(name).null_label for name in TASKS)
