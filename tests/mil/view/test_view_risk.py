"""A run of survival in the viewer and in maps: risks of cases, scores of tiles, and how faithful they are."""

import json
from dataclasses import replace

import pytest

from features.bags.bag import read_bag, write_bag
from mil.data.splits import write_folds
from mil.evaluation.predictions import write_predictions
from mil.explanation.compare_methods import compare_methods
from mil.explanation.methods import bag_methods
from mil.explanation.request import MapRequest
from mil.explanation.write import explain_slide
from mil.learning.crossval import cross_validate
from mil.learning.fitted import save_model
from mil.runs.record import finish_run, start_run
from mil.settings import FitSettings
from mil.view.gallery import Gallery
from tests.mil.followed import folds_by_event, followed_cohort
from tests.mil.made import risk

SETTINGS = FitSettings(
    task="survival", epochs=5, width=16, learning_rate=5e-3, early_stopping="never", seeds=1
)


@pytest.fixture(scope="module")
def survival_run(tmp_path_factory):
    """A finished cross-validation of survival with two models."""
    folder = tmp_path_factory.mktemp("survival")
    cohort = followed_cohort(16, n_tiles=10)
    bags = [bag for case in cohort.cases for bag in case.bags]
    for bag in bags:
        write_bag(folder / "store" / f"{bag.slide}.h5", bag)
    facts = {
        "classes": cohort.classes,
        "labels": {case.name: case.label for case in cohort.cases},
        "cases": {bag.slide: case.name for case in cohort.cases for bag in case.bags},
        "bags": {bag.slide: bag.data_sha256 for bag in bags},
        "recipe": dict(bags[0].recipe),
    }
    models = ["mean", "abmil"]
    settings = {"store": str(folder / "store"), "models": models, "task": "survival"}
    run = start_run(folder / "run", "crossval", settings, facts)
    folds = folds_by_event(cohort, folds="2")
    write_folds(run.path / "folds.json", folds)

    def save(model, fold, fitter):
        fitted = fitter()
        save_model(run.model_path(model, fold), fitted)
        return fitted

    predictions = cross_validate(cohort, folds, models, SETTINGS, seed=0, fitter=save)
    write_predictions(run.path / "predictions.csv", predictions)
    return finish_run(run)


def test_contents_hold_the_risk_of_every_case(survival_run):
    contents = Gallery(survival_run, {}).contents()
    assert len(contents["cases"]) == 16
    for case in contents["cases"]:
        risks = []
        for entry in case["slides"]:
            fitted, _ = survival_run.model_for(entry["slide"], "abmil")
            risks.append(risk(fitted, survival_run.bag(entry["slide"]), ())[0])
        expected = sum(risks) / len(risks)
        assert case["predictions"]["abmil"] == {"risk": pytest.approx(expected, abs=1e-4)}


def test_layers_score_the_risk_and_say_how_faithful_they_are(survival_run):
    gallery = Gallery(survival_run, {})
    layers = [(layer.model, layer.method) for layer in gallery.layers]
    assert ("abmil", "attention") in layers
    number = layers.index(("abmil", "evidence"))
    scores = gallery.scores(0, number)
    slide = gallery.slides[0]
    fitted, _ = survival_run.model_for(slide, "abmil")
    expected = risk(fitted, survival_run.bag(slide), ())[0]
    assert sum(scores["values"]) == pytest.approx(expected, abs=1e-2)
    assert scores["unit"] == "10 times the tile's share of the risk"
    assert "than random orders of tiles" in gallery.verdict(0, number)["says"]


def test_a_map_of_a_risk_has_files_like_any_other(survival_run, tmp_path):
    slide = next(iter(survival_run.bags))
    bag = survival_run.bag(slide)
    explanation = explain_slide(survival_run, bag, tmp_path, MapRequest(method="evidence"))
    assert {path.name for path in explanation.paths} == {
        f"{slide}-abmil-evidence.{suffix}" for suffix in ("png", "csv", "geojson", "json")
    }
    assert "log hazard ratio to the median training case" in explanation.answer
    card = json.loads((tmp_path / f"{slide}-abmil-evidence.json").read_text())
    assert card["target"] == "risk"
    assert all(path.is_file() for path in explanation.paths)


def test_all_methods_are_compared_on_a_risk(survival_run, tmp_path):
    few = dict(list(survival_run.bags.items())[:2])
    run = replace(survival_run, info=dict(survival_run.info) | {"bags": few})
    comparison = compare_methods(run, tmp_path)
    assert {method.method for method in comparison.methods} == {m.name for m in bag_methods()}
    assert comparison.n_seen == 0
    assert comparison.unsuited == {}


def test_a_concordance_of_chance_is_a_caveat(survival_run, tmp_path):
    path = survival_run.path / "metrics.json"
    bag = read_bag(survival_run.settings.store / f"{next(iter(survival_run.bags))}.h5")
    caveats = []
    for low in (0.45, 0.6, None):
        harrell = {"value": 0.65, "low": low}
        path.write_text(json.dumps({"models": [{"model": "abmil", "harrell": harrell}]}))
        explanation = explain_slide(survival_run, bag, tmp_path, MapRequest())
        caveats.append(explanation.guessing)
    path.unlink()
    assert (
        "not show that abmil beats guessing (concordance 0.65, 95 % interval from 0.45)"
        in caveats[0]
    )
    assert caveats[1] == ""
    assert "(concordance 0.65)" in caveats[2]
