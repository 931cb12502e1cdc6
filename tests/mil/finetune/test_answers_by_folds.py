"""Answers for new slides by a run that fine-tuned a backbone in each fold: each fit reads its own bags."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from lessons import QUICK, RECIPE
from typer.testing import CliRunner

from cli.main import app
from features.bags.bag import read_bag
from mil.answers.card import card_of_run
from mil.answers.gather import gather_slides
from mil.answers.new_inputs import NewInputs
from mil.answers.package import write_package
from mil.answers.predict import predict_slides
from mil.answers.run_predictor import predictor_of_run
from mil.errors import RunError
from mil.finetune.config import FinetuneConfig
from mil.likeness.reference import describe
from mil.report.answers import write_answers
from mil.runs.cross_validation import Computing, Plan
from mil.runs.record import NewRun
from mil.runs.run import open_run
from mil.settings import FitSettings, SplitSettings
from mil.study import Study
from mil.tasks.diagnosis import Diagnosis
from tests.small_slides import write_small_cohort

pytestmark = pytest.mark.slow
N_CASES = 10


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run of two folds over drawn tumour of ten slides, and one slide more."""
    folder = tmp_path_factory.mktemp("tuned")
    table = write_small_cohort(folder, 6, ("LMS", "SS"))
    lines = table.read_text().splitlines()
    table.write_text("\n".join(lines[: N_CASES + 1]) + "\n")
    study = Study(
        table=table,
        task=Diagnosis(),
        tuning=FinetuneConfig(
            slides=folder / "slides", annotations=folder / "annotations", device="cpu", workers=1,
            recipe=replace(RECIPE, max_tiles=12), settings=replace(QUICK, epochs=1),
        ),
    )  # fmt: skip
    plan = Plan(
        models=("tile-vote", "abmil"),
        fit=FitSettings(epochs=4, seeds=1),
        split=SplitSettings(folds="2"),
    )
    study.cross_validate(plan, NewRun(path=folder / "run"), Computing())
    return folder


def gather(place, predictor, out, *names, **changes):
    files = tuple(place / "slides" / f"{name}-s1.tiff" for name in names)
    inputs = NewInputs(inputs=files, annotations=place / "annotations")
    return gather_slides(predictor, replace(inputs, **changes), out)


@pytest.mark.parametrize("model", ["tile-vote", "abmil"])
def test_a_known_case_is_answered_as_it_was_tested_and_a_new_one_by_all_fits(
    place, tmp_path, model
):
    run = open_run(place / "run")
    predictor = predictor_of_run(run, model)
    new = gather(place, predictor, tmp_path / "bags", "case-02", "case-12")
    known, stranger = predict_slides(predictor, new).slides
    assert (known.trained_on, stranger.trained_on) == ("out of fold", "unknown")
    fold = run.fold_of("case-02")
    stored = read_bag(run.fold_store(fold) / "case-02-s1.h5")
    own = new.own["case-02-s1"]
    np.testing.assert_array_equal(own[fold.repeat, fold.index].features, stored.features)
    [other] = [bag for key, bag in own.items() if key != (fold.repeat, fold.index)]
    assert np.abs(np.asarray(other.features) - np.asarray(stored.features)).max() > 1e-3
    answers = predict_slides(predictor, new)
    table = run.predictions().select([model]).table.set_index("case")
    [fit] = answers.relations["case-02"].fits
    [answer] = predictor.answers([fit], [lambda one: own[one.key]], {})
    assert answer.values["p_LMS"] == pytest.approx(table.p_LMS["case-02"], abs=1e-6)
    bags = new.own["case-12-s1"]
    answered = [f.model.predict(bags[f.key])["p_LMS"] for f in predictor.fits]
    mean = np.exp(np.mean(np.log(answered)))
    mean /= mean + np.exp(np.mean(np.log1p(-np.array(answered))))
    heat = predictor.reader.temperature
    odds = (mean / (1 - mean)) ** (1 / heat)
    assert stranger.values["p_LMS"] == pytest.approx(odds / (1 + odds), abs=1e-6)


def test_a_slide_is_as_unlike_as_backbones_that_have_not_seen_it_find_it(place, tmp_path):
    run = open_run(place / "run")
    predictor = predictor_of_run(run, "abmil")
    new = gather(place, predictor, tmp_path / "bags", "case-01", "case-12")
    known, stranger = predict_slides(predictor, new).slides
    tested = predictor.by_fold.folds[run.fold_of("case-01").index].tested["case-01-s1"]
    assert known.unlike == pytest.approx(tested / predictor.by_fold.largest, rel=1e-3)
    assert known.unlike <= 1  # none of the run's own slides lies farther than the farthest
    bags = new.own["case-12-s1"].values()
    ratios = [
        fold.trained.ratio(describe(bag))
        for fold, bag in zip(predictor.by_fold.folds, bags, strict=True)
    ]
    assert stranger.unlike == pytest.approx(np.median(ratios) / predictor.by_fold.largest)
    noise = {
        key: replace(bag, features=50 + np.asarray(bag.features))
        for key, bag in new.own["case-12-s1"].items()
    }
    odd = replace(new, own={**new.own, "case-12-s1": noise})
    assert predict_slides(predictor, odd).slides[1].outcome == "abstained"


def test_bags_packages_and_lost_backbones_are_refused_with_a_remedy(place, tmp_path):
    run = open_run(place / "run")
    predictor = predictor_of_run(run, "abmil")
    bag = run.fold_store(run.folds[0]) / "case-01-s1.h5"
    new = gather(place, predictor, tmp_path / "bags", inputs=(bag,))
    [row] = predict_slides(predictor, new).slides
    assert (row.outcome, row.reason[-22:]) == ("failed", "Give the slide itself.")
    with pytest.raises(RunError, match="a backbone in each of 2 folds, and a package holds one"):
        write_package(predictor, card_of_run(run, predictor), tmp_path / "package")
    assert not (tmp_path / "package").exists()
    copied = shutil.copytree(place / "run", tmp_path / "run")
    (copied / "folds" / "r0-f1" / "tuned" / "weights.safetensors").unlink()
    with pytest.raises(RunError, match=r"r0-f1/tuned/weights\.safetensors is not there"):
        predictor_of_run(open_run(copied), "abmil")


def test_the_page_has_a_map_by_each_fits_own_features(place, tmp_path):
    predictor = predictor_of_run(open_run(place / "run"), "abmil")
    new = gather(place, predictor, tmp_path / "bags", "case-12")
    _, _, page = write_answers(predict_slides(predictor, new), tmp_path / "p.csv")
    assert "mean over the fits" in page.read_text()


def test_the_command_answers(place, tmp_path):
    arguments = ["predict", str(place / "run"), str(place / "slides" / "case-11-s1.tiff")]
    arguments += ["--annotations", str(place / "annotations"), "--out", str(tmp_path / "p.csv")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "p.html").stat().st_size > 1000
