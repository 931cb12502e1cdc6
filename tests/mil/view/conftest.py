"""A small run whose hardest names are HTML, with the slide file of one case."""

from dataclasses import replace

import numpy as np
import pytest

from features.bags.bag import write_bag
from mil.data.splits import write_folds
from mil.evaluation.predictions import write_predictions
from mil.learning.crossval import cross_validate
from mil.learning.fitted import save_model
from mil.runs.record import finish_run, start_run
from mil.view.gallery import Gallery
from mil.view.server import Viewer
from tests.features.making import noise, write_tiff
from tests.mil.made import QUICK, cohort_of, folds_of, made_cohort
from tests.mil.view.requests import served

MODELS = ("majority", "mean", "abmil", "gated-abmil")
SIZE = (2700, 1100)  # of every slide: tiles of 448 in a row at the top
NASTY = "a0<b onclick=x>&amp;"


@pytest.fixture(scope="session")
def viewed(tmp_path_factory):
    """(run, slide files) of a finished cross-validation."""
    folder = tmp_path_factory.mktemp("viewed")
    made = made_cohort((3, 3), slides=1)
    cases = []
    for case in made.cases:
        name = NASTY if case.name == "a0" else case.name
        [bag] = case.bags
        bag = replace(bag, slide=f"{name}-s1", size_l0=SIZE, features=bag.features[:6])
        bag = replace(bag, coords_l0=bag.coords_l0[:6], coverage=bag.coverage[:6], tile_flags=None)
        cases.append(replace(case, name=name, bags=(bag,)))
        write_bag(folder / "store" / f"{bag.slide}.h5", bag)
    cohort = cohort_of(cases)
    facts = {
        "classes": cohort.classes,
        "labels": {case.name: case.label for case in cohort.cases},
        "cases": {case.bags[0].slide: case.name for case in cohort.cases},
        "bags": {case.bags[0].slide: case.bags[0].data_sha256 for case in cohort.cases},
        "recipe": dict(cohort.recipe),
    }
    settings = {"store": str(folder / "store"), "models": list(MODELS)}
    run = start_run(folder / "run", "crossval", settings, facts)
    folds = folds_of(cohort, folds="3")
    write_folds(run.path / "folds.json", folds)

    def keep(model, fold, fitter):
        fitted = fitter()
        save_model(run.model_path(model, fold), fitted)
        return fitted

    predictions = cross_validate(cohort, folds, MODELS, QUICK, seed=0, fitter=keep)
    write_predictions(run.path / "predictions.csv", predictions)
    smooth = np.kron(noise(SIZE[1] // 20, SIZE[0] // 20), np.ones((20, 20, 1), np.uint8))
    path = write_tiff(folder / "a0.tiff", [smooth, smooth[::2, ::2]])
    return finish_run(run), {f"{NASTY}-s1": path}


@pytest.fixture
def gallery(viewed):
    return Gallery(*viewed)


@pytest.fixture
def server(gallery):
    """A viewer that answers."""
    with Viewer(gallery) as viewer, served(viewer):
        yield viewer
