"""A slide that is one vector has no tiles: nothing is mapped, and it is said so."""

from dataclasses import replace

import pytest

from features.bags.bag import read_bag
from features.bags.vectors import mean_vector, vector_bag
from mil.errors import FitError
from mil.explanation.compare_methods import compare_methods
from mil.explanation.request import MapRequest
from mil.explanation.target import explanation_target
from mil.explanation.write import explain_bag
from mil.report.gather import gather
from mil.view.gallery import Gallery
from tests.mil.made import RECIPE, made_cohort
from tests.mil.made_runs import make_run

NO_TILES = r"The bag of \S+ is one vector: there are no tiles, and nothing to map\."


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A cross-validation of a model that pools on bags of one row."""
    cohort = made_cohort((3, 3))
    cases = [
        replace(
            case,
            bags=tuple(
                vector_bag(bag.slide, mean_vector(bag).astype("float32"), RECIPE, case=bag.case)
                for bag in case.bags
            ),
        )
        for case in cohort.cases
    ]
    folder = tmp_path_factory.mktemp("vectors")
    return make_run(folder, replace(cohort, cases=tuple(cases)), models=("mean", "simpleshot"))


def test_maps_are_refused_with_the_reason(run, tmp_path):
    slide = next(iter(run.bags))
    bag = run.bag(slide)
    fitted, _ = run.model_for(slide, "mean")
    with pytest.raises(FitError, match=NO_TILES):
        explanation_target(fitted, bag)
    with pytest.raises(FitError, match=NO_TILES):
        explain_bag(run, bag, MapRequest())
    with pytest.raises(FitError, match=NO_TILES):
        compare_methods(run, tmp_path / "maps")
    assert not (tmp_path / "maps").exists()


def test_page_and_viewer_show_no_maps(run):
    assert read_bag(run.bag_path(next(iter(run.bags)))).recipe["region"] == "vector"
    assert not gather(run).facts.heatmaps
    assert Gallery(run, {}).layers == ()
