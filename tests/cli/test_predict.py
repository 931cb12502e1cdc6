"""`mil predict` where some of the slides cannot be predicted."""

import csv
from dataclasses import replace

import pytest

from cli.predict import PredictOptions, predict
from features.bags.bag import write_bag
from mil.learning.fitted import save_model
from mil.learning.training import fit_model
from mil.likeness.reference import SlideReference, save_reference
from mil.runs.record import finish_run, start_run
from tests.mil.made import QUICK, made_bag, made_cohort


@pytest.fixture
def trained(tmp_path):
    """A run of `mil train` on made-up bags."""
    cohort = made_cohort()
    data = {"recipe": dict(cohort.recipe), "cases": {}}
    run = start_run(tmp_path / "trained", "train", {"model": "mean"}, data)
    run.model_path("mean").parent.mkdir()
    fitted = fit_model("mean", cohort.cases, (), cohort.classes, QUICK, seed=0)
    save_model(run.model_path("mean"), fitted)
    cases = [case.name for case in cohort.cases for _ in case.bags]
    save_reference(run.path / "reference.safetensors", SlideReference.of_bags(cohort.bags, cases))
    return finish_run(run).path


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_broken_bag_has_a_row_with_its_error_and_stops_no_other(trained, tmp_path, capsys):
    paths = [tmp_path / f"{name}.h5" for name in ("a", "broken", "other", "b")]
    write_bag(paths[0], made_bag("a"))
    paths[1].write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    write_bag(paths[2], replace(made_bag("other"), recipe={"backbone": "another"}))
    write_bag(paths[3], made_bag("b"))
    with pytest.raises(SystemExit) as stopped:
        predict(PredictOptions(run=trained, inputs=tuple(paths), out=tmp_path / "p.csv"))
    assert stopped.value.code == 1
    rows = rows_of(tmp_path / "p.csv")
    assert [(row["level"], row["case"], row["outcome"]) for row in rows] == [
        ("slide", "a", "answered"),
        ("slide", "broken", "failed"),
        ("slide", "other", "failed"),
        ("slide", "b", "answered"),
        ("case", "a", "answered"),
        ("case", "broken", "failed"),
        ("case", "other", "failed"),
        ("case", "b", "answered"),
    ]
    values = [name for name in rows[0] if name.startswith("p_")]
    assert all(row[name] == "" for row in rows[1:3] for name in values)
    assert all(float(row[name]) >= 0 for row in (rows[0], rows[3]) for name in values)
    assert "broken.h5: cannot be read as a bag" in rows[1]["reason"]
    assert "the bag does not suit model mean (backbone toy -> another" in rows[2]["reason"]
    stderr = " ".join(capsys.readouterr().err.split())
    assert "broken.h5: cannot be read as a bag" in stderr
    assert "The case of a, b is not known" in stderr
    assert "other: the bag does not suit" in stderr
    assert "other: other:" not in stderr


def test_without_errors_the_command_succeeds(trained, tmp_path):
    write_bag(tmp_path / "a.h5", made_bag("a"))
    predict(PredictOptions(run=trained, inputs=(tmp_path / "a.h5",), out=tmp_path / "p.csv"))
    assert {row["outcome"] for row in rows_of(tmp_path / "p.csv")} <= {"answered", "undecided"}
