"""`mil external`, as it is typed."""

import json

import pytest

from features.bags.bag import write_bag
from mil.evaluation.predictions import read_predictions
from tests.mil.made import planted_cohort


@pytest.fixture(scope="module")
def developed(mil, tmp_path_factory):
    """A run of two models on a table that keeps every third case aside."""
    folder = tmp_path_factory.mktemp("developed")
    cohort, _ = planted_cohort(n_classes=2, per_class=9, dim=8)
    lines = ["case,slide,label,split"]
    for i, case in enumerate(cohort.cases):
        write_bag(folder / "store" / f"{case.bags[0].slide}.h5", case.bags[0])
        split = "test" if i % 3 == 0 else "train"
        lines.append(f"{case.name},{case.bags[0].slide},{case.label},{split}")
    (folder / "split.csv").write_text("\n".join(lines))
    crossval = ("crossval", "split.csv", "store", "--models", "majority,mean", "--epochs", 3)
    done = mil(*crossval, "--folds", 3, "--repeats", 2, "--out", "run", cwd=folder)
    return folder, done


def files(folder):
    return {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()}


def test_cases_for_testing_are_not_trained_on(developed):
    folder, done = developed
    assert "6 cases of split.csv with split=test: kept for external validation" in done.stderr
    info = json.loads((folder / "run" / "run.json").read_text())
    assert len(info["labels"]) == 12
    assert "a0" not in info["labels"]


def test_the_audit_leaves_them_alone_too(developed, mil):
    folder, _ = developed
    done = mil("audit", "run", cwd=folder, check=False)
    assert "class-0: 6, class-1: 6" in done.stdout


def test_one_model_is_tested_and_a_second_is_refused(developed, mil, tmp_path):
    folder, _ = developed
    several = mil(
        "external", "run", "split.csv", "store", "--model", "majority,mean", cwd=folder, check=False
    )
    assert (several.returncode, "test one model" in several.stderr) == (2, True)
    unsaid = mil("external", "run", "split.csv", "store", cwd=folder, check=False)
    assert (unsaid.returncode, "--model is missing" in unsaid.stderr) == (2, True)
    path = mil(
        "external",
        "run",
        "split.csv",
        "store",
        "--model",
        "mean",
        "--name",
        "../x",
        cwd=folder,
        check=False,
    )
    assert (path.returncode, "a name, not a path" in path.stderr) == (2, True)
    assert not (folder / "store" / "readings.jsonl").exists()

    done = mil("external", "run", "split.csv", "store", "--model", "mean", cwd=folder)
    assert "the mean of 6 fits" in done.stdout
    out = folder / "run" / "external" / "split"
    predictions = read_predictions(out / "predictions.csv")
    assert predictions.models == ("mean",)
    assert sorted(predictions.table["case"]) == ["a0", "a3", "a6", "b0", "b3", "b6"]
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["n_cases"], metrics["members"]) == (6, 6)
    for log in (folder / "split.readings.jsonl", folder / "store" / "readings.jsonl"):
        [line] = log.read_text().splitlines()
        assert json.loads(line)["model"] == "mean"

    before = files(folder)
    second = mil(
        "external", "run", "split.csv", "store", "--model", "majority", cwd=folder, check=False
    )
    assert second.returncode == 1
    assert "used to test mean of" in second.stderr
    assert before == files(folder)

    again = mil("external", "run", "split.csv", "store", "--model", "mean", cwd=folder)
    assert "Tested before with the same model, 1 time," in again.stdout
    assert len((folder / "store" / "readings.jsonl").read_text().splitlines()) == 2


def test_cases_the_run_has_learnt_from_are_refused(developed, mil):
    folder, _ = developed
    plain = [line.rsplit(",", 1)[0] for line in (folder / "split.csv").read_text().splitlines()]
    (folder / "all.csv").write_text("\n".join(plain))
    done = mil(
        "external",
        "run",
        "all.csv",
        "store",
        "--model",
        "mean",
        "--name",
        "all",
        cwd=folder,
        check=False,
    )
    assert done.returncode == 1
    assert "12 of 18 cases were used to train" in done.stderr
    assert not (folder / "all.readings.jsonl").exists()


def test_a_table_that_keeps_all_aside_leaves_nothing_to_learn_from(developed, mil):
    folder, _ = developed
    text = (folder / "split.csv").read_text().replace(",train", ",test")
    (folder / "aside.csv").write_text(text)
    done = mil("crossval", "aside.csv", "store", "--out", "none", cwd=folder, check=False)
    assert (done.returncode, "no case is left to train on" in done.stderr) == (1, True)
