"""`mil decision` on runs of classes and of survival."""

import json

import pytest

from cli.decision import DecisionOptions, decision
from cli.learn import CrossvalOptions, TrainOptions, crossval, train
from cli.options import UsageError
from features.bags.bag import write_bag
from mil.errors import PredictionsError, RunError
from tests.mil.followed import followed_cohort


@pytest.fixture
def study(tmp_path):
    lines = ["case,slide,label,time,event"]
    for i, case in enumerate(followed_cohort(18, n_tiles=6).cases):
        for bag in case.bags:
            write_bag(tmp_path / "store" / f"{bag.slide}.h5", bag)
            lines.append(
                f"{case.name},{bag.slide},{'xyz'[i % 3]},{case.time:.1f},{int(case.label == 'event')}"
            )
    (tmp_path / "cohort.csv").write_text("\n".join(lines) + "\n")
    return {"cohort": tmp_path / "cohort.csv", "store": tmp_path / "store", "out": tmp_path / "run"}


def test_curves_of_one_class(study):
    crossval(CrossvalOptions(**study, models=("majority", "pooled-logistic"), folds="3"))
    with pytest.raises(
        PredictionsError, match=r"have 3 classes \(x, y, z\)\. Set positive to the class that"
    ):
        decision(DecisionOptions(run=study["out"]))
    decision(DecisionOptions(run=study["out"], positive="y"))
    made = {path.name for path in (study["out"] / "decision").iterdir()}
    assert made == {f"y-against-the-rest.{kind}" for kind in ("csv", "png", "svg")}
    elsewhere = study["out"].parent / "curves" / "of z"
    decision(DecisionOptions(run=study["out"], positive="z", out=elsewhere))
    made = {path.name for path in elsewhere.iterdir()}
    assert made == {f"z-against-the-rest.{kind}" for kind in ("csv", "png", "svg")}
    assert not list((study["out"] / "decision").glob("z*"))


def test_curves_of_survival(study):
    crossval(CrossvalOptions(**study, task="survival", models=("majority",), folds="3"))
    decision(DecisionOptions(run=study["out"], horizon=500))
    [path] = (study["out"] / "decision").glob("*.svg")
    assert "days" in path.read_text()


def test_run_that_is_not_one_is_refused(study):
    train(TrainOptions(**study, model="majority"))
    with pytest.raises(RunError, match="not a finished cross-validation"):
        decision(DecisionOptions(run=study["out"]))


def test_predictions_that_were_changed_are_refused(study):
    crossval(CrossvalOptions(**study, models=("majority",), folds="3"))
    path = study["out"] / "predictions.csv"
    path.write_text(path.read_text().replace("0.3", "0.4", 1))
    with pytest.raises(RunError, match="not as the run wrote it"):
        decision(DecisionOptions(run=study["out"], positive="x"))
    assert json.loads((study["out"] / "run.json").read_text())["complete"]


@pytest.mark.parametrize(("lowest", "highest"), [(0, 0.5), (0.5, 0.2), (0.1, 1.0)])
def test_thresholds_that_cannot_be_are_refused(tmp_path, lowest, highest):
    with pytest.raises(UsageError, match="above 0 and below 1"):
        DecisionOptions(run=tmp_path, lowest=lowest, highest=highest)


def test_curves_of_a_grade_or_a_higher_one(study):
    table = study["cohort"].read_text().replace(",x,", ",1,").replace(",y,", ",2,")
    study["cohort"].write_text(table.replace(",z,", ",3,").replace("label", "grade"))
    crossval(CrossvalOptions(**study, task="grade", models=("majority",), folds="3"))
    with pytest.raises(
        PredictionsError, match=r"have 3 grades \(1, 2, 3\)\. Set positive to the lowest grade that"
    ):
        decision(DecisionOptions(run=study["out"]))
    with pytest.raises(PredictionsError, match="Every case has grade 1, the lowest, or a higher"):
        decision(DecisionOptions(run=study["out"], positive="1"))
    with pytest.raises(PredictionsError, match="horizon is a time until an event"):
        decision(DecisionOptions(run=study["out"], positive="2", horizon=3.0))
    decision(DecisionOptions(run=study["out"], positive="2"))
    made = {path.name for path in (study["out"] / "decision").iterdir()}
    assert made == {f"grade-2-or-higher.{kind}" for kind in ("csv", "png", "svg")}
