"""Shuffles that an earlier call has left are used only as they were written, wherever the run lies."""

import csv
import json
import shutil

import pytest

from mil.audit.permutation_run import permute_run
from mil.errors import RunError
from mil.learning.crossval import cross_validate
from mil.runs.run import open_run
from tests.mil.made import QUICK, planted_cohort
from tests.mil.made_runs import make_run

MODELS = ("majority", "mean")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"), planted_cohort(2, 6)[0], MODELS)


@pytest.fixture(scope="module")
def permuted(run, tmp_path_factory):
    """Two shuffles of the run."""
    folder = tmp_path_factory.mktemp("permuted")
    return folder, permute_run(run, 2, folder, crossval=pipeline)


@pytest.fixture
def copy(permuted, tmp_path):
    """A copy of the shuffles that a test may spoil."""
    return shutil.copytree(permuted[0], tmp_path / "permuted")


def rows_of(folder):
    with (folder / "permutation.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def pipeline(cohort, folds, number):
    return cross_validate(cohort, folds, MODELS, QUICK, seed=number)


def never(_cohort, _folds, number):
    raise AssertionError(f"shuffle {number} is run again")


def test_it_writes_each_shuffle_and_a_picture(permuted):
    folder, tests = permuted
    assert [(row["shuffle"], row["model"], row["metric"]) for row in rows_of(folder)] == [
        ("1", "majority", "auc"), ("1", "mean", "auc"), ("2", "majority", "auc"), ("2", "mean", "auc"),
    ]  # fmt: skip
    assert (folder / "permutation.png").stat().st_size > 1000
    assert [test.model for test in tests] == list(MODELS)
    values = [float(row["value"]) for row in rows_of(folder) if row["model"] == "mean"]
    assert tests[1].values == tuple(values)


def test_shuffles_are_not_repeated_also_where_the_run_was_moved(run, permuted, copy, tmp_path):
    moved = open_run(shutil.copytree(run.path, tmp_path / "moved"))
    assert permute_run(moved, 2, copy, crossval=never) == permuted[1]


def test_further_shuffles_are_added_and_fewer_are_a_part(run, permuted, copy):
    permute_run(run, 3, copy, crossval=pipeline)
    assert rows_of(copy)[:4] == rows_of(permuted[0])
    assert len(rows_of(copy)) == 6
    assert permute_run(run, 2, copy, crossval=never) == permuted[1]
    assert len(rows_of(copy)) == 6


def test_an_interrupted_call_goes_on_to_the_same_table(run, permuted, tmp_path):
    def interrupted(cohort, folds, number):
        if number == 2:
            raise KeyboardInterrupt
        return pipeline(cohort, folds, number)

    with pytest.raises(KeyboardInterrupt):
        permute_run(run, 2, tmp_path, crossval=interrupted, workers=1)
    assert rows_of(tmp_path) == rows_of(permuted[0])[:2]
    assert permute_run(run, 2, tmp_path, crossval=pipeline) == permuted[1]
    for name in ("permutation.json", "permutation.csv", "permutation.png"):
        assert (tmp_path / name).read_bytes() == (permuted[0] / name).read_bytes(), name


def test_an_edited_table_changes_nothing(run, permuted, copy):
    (copy / "permutation.csv").write_text("shuffle,model,metric,value\n1,mean,auc,0.99\n")
    assert permute_run(run, 2, copy, crossval=never) == permuted[1]


def test_edited_shuffles_are_refused(run, copy):
    card = json.loads((copy / "permutation.json").read_text())
    card["shuffles"][1][2] = 0.99
    (copy / "permutation.json").write_text(json.dumps(card))
    with pytest.raises(RunError, match="not as it was written"):
        permute_run(run, 2, copy, crossval=never)


def test_shuffles_of_other_predictions_are_refused(run, copy):
    card = json.loads((copy / "permutation.json").read_text())
    (copy / "permutation.json").write_text(json.dumps(card | {"predictions": "b"}))
    with pytest.raises(RunError, match="shuffles of another run"):
        permute_run(run, 2, copy, crossval=never)


def test_a_run_that_is_not_finished_is_refused(run, tmp_path):
    copy = shutil.copytree(run.path, tmp_path / "run")
    card = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(card | {"complete": False}))
    with pytest.raises(RunError, match="not a finished"):
        permute_run(open_run(copy), 2, tmp_path / "out", crossval=never)


def test_shuffles_of_another_measure_are_not_mixed_with_those_of_this(run, copy, monkeypatch):
    monkeypatch.setattr(type(run.task), "null_metric", ("balanced_accuracy", 0.5))
    with pytest.raises(RunError, match=r"judged by auc\. Choose another folder"):
        permute_run(run, 2, copy, crossval=never)
