"""`mil learning-curve COHORT STORE`, as it is typed."""

import json

import pytest

from tests.mil.made import planted_cohort
from tests.mil.made_runs import write_cohort


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("few")
    write_cohort(folder, planted_cohort(2, 4)[0])
    return folder


def test_it_prints_the_table_and_what_is_left_out(folder, mil):
    arguments = (
        "learning-curve", "cohort.csv", "store", "--models", "knn", "--shots", "4,1", "--draws", 2,
        "--folds", 2, "--out", "few",
    )  # fmt: skip
    done = mil(*arguments, cwd=folder)
    assert "Mean ± SD (range) over 2 draws, 8 test cases" in done.stdout
    assert "Left out: 4 training cases per class; the smallest training part has 2" in done.stderr
    assert (folder / "few" / "learning-curve.svg").exists()
    settings = json.loads((folder / "few" / "run.json").read_text())["settings"]
    assert (settings["shots"], settings["draws"], settings["folds"]) == ([1, 4], 2, "2")
    again = mil("learning-curve", "--config", "few/run.json", "--out", "again", cwd=folder)
    assert again.stdout == done.stdout.replace("few/", "again/")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shots", "1,two"], "--shots must be a list of whole numbers; got ['1', 'two']"),
        (["--shots", "0"], "--shots are numbers of cases per class from 1; got 0"),
        (["--task", "survival"], "there is none for the task survival. Leave out --task,"),
        (["--models", "knm"], "Did you mean 'knn'"),
        (["--workers", "-1"], "--workers must be 0 or more"),
    ],
)
def test_wrong_use_is_refused_before_any_work(folder, mil, arguments, message):
    done = mil(
        "learning-curve", "cohort.csv", "store", *arguments, "--out", "no", cwd=folder, check=False
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert not (folder / "no").exists()
