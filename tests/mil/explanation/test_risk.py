"""Maps of a risk: every method explains the number that stands in the table of predictions."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from mil.errors import FitError
from mil.explanation.assess import assess_map, map_card
from mil.explanation.attention import attention_scores
from mil.explanation.evidence import evidence_scores
from mil.explanation.faithfulness import judge, random_curves
from mil.explanation.heatmap import describe_unit
from mil.explanation.methods import METHODS, bag_methods
from mil.explanation.target import explanation_target
from mil.learning.training import fit_model
from mil.settings import FitSettings
from tests.mil.followed import followed_cohort
from tests.mil.made import risk

COHORT = followed_cohort(40)
SETTINGS = FitSettings(
    task="survival", epochs=20, width=16, learning_rate=5e-3, early_stopping="never", seeds=1,
    precision="fp32",
)  # fmt: skip


@cache
def fitted_risk(model="abmil", seeds=1, loss="cox"):
    settings = replace(SETTINGS, seeds=seeds, loss=loss)
    return fit_model(model, COHORT.cases, (), (), settings, seed=0, task=COHORT.task)


def risk_target(model="abmil", seeds=1, loss="cox", case=0):
    return explanation_target(fitted_risk(model, seeds, loss), COHORT.cases[case].bags[0])


def predicted_risk(target, bag=None):
    return risk(target.fitted, bag or target.bag, ())[0]


@pytest.mark.parametrize("loss", ["cox", "discrete"])
@pytest.mark.parametrize("seeds", [1, 3])
def test_the_explained_number_is_the_predicted_risk(seeds, loss):
    target = risk_target(seeds=seeds, loss=loss)
    keep = np.ones((1, len(target.bag)), bool)
    assert target.name == target.predicted == "risk"
    assert target.subset_scores(keep)[0] == pytest.approx(predicted_risk(target), abs=1e-5)
    assert target.subset_answers(keep)[0] == target.subset_scores(keep)[0]
    score = float(target.score(target.features).detach()[0])
    assert score == pytest.approx(predicted_risk(target), abs=1e-5)


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("model", ["abmil", "mean", "additive-abmil"])
def test_evidence_sums_to_the_risk_and_is_attention_times_the_tiles_own(model, seeds):
    target = risk_target(model, seeds)
    scores = evidence_scores(target)
    assert scores.values.sum() == pytest.approx(predicted_risk(target), abs=1e-5)
    assert abs(scores.facts["gap"]) < 1e-5
    assert describe_unit(scores) == f"{len(target.bag)} times the tile's share of the risk"
    if seeds == 1 and model == "abmil":
        alone = METHODS["single-tile"](target).values
        weights = attention_scores(target.fitted, target.bag).values
        np.testing.assert_allclose(scores.values, weights * alone, atol=1e-5)


@pytest.mark.parametrize("loss", ["cox", "discrete"])
def test_single_tile_is_the_risk_of_the_tile_alone(loss):
    target = risk_target(seeds=3, loss=loss)
    scores = METHODS["single-tile"](target)
    for index in (0, 7, 20):
        row = slice(index, index + 1)
        alone = replace(
            target.bag,
            features=target.bag.features[row],
            coords_l0=target.bag.coords_l0[row],
            coverage=target.bag.coverage[row],
        )
        assert scores.values[index] == pytest.approx(predicted_risk(target, alone), abs=1e-5)


def test_discrete_time_risk_is_not_linear_and_has_no_evidence():
    with pytest.raises(FitError, match=r"risk of this model is not linear.*single-tile"):
        evidence_scores(risk_target(loss="discrete"))


@pytest.mark.parametrize("loss", ["cox", "discrete"])
def test_integrated_gradients_and_shapley_values_sum_to_the_change_of_the_risk(loss):
    target = risk_target(loss=loss)
    gradients, shapley = (METHODS[name](target) for name in ("integrated-gradients", "shapley"))
    assert abs(gradients.facts["gap"]) < 0.01 * max(abs(gradients.facts["explained"]), 0.1)
    ends = target.subset_scores(np.array([[False] * len(target.bag), [True] * len(target.bag)]))
    assert shapley.values.sum() == pytest.approx(ends[1] - ends[0], abs=1e-4)


SIGNED = [method.name for method in bag_methods() if method.name != "attention"]


@pytest.mark.parametrize("method", SIGNED)
def test_every_signed_method_finds_the_planted_tiles_and_is_better_than_random(method):
    target = risk_target()
    keys = target.bag.features[:, 0] > 1.5
    assessed = assess_map(target, method, random_curves(target), keys)
    assert assessed.faithfulness.better_than_random
    assert assessed.localisation.auc > 0.65
    if not METHODS[method].by_region:
        assert assessed.localisation.auc > 0.9


@pytest.mark.parametrize("loss", ["cox", "discrete"])
def test_curves_show_the_risk_on_its_own_scale(loss):
    target = risk_target(loss=loss)
    curves = random_curves(target, 3)
    assert curves.deletion[:, 0] == pytest.approx([predicted_risk(target)] * 3, abs=1e-5)
    assert target.quantity.limits is None


def test_the_worst_order_and_a_model_that_reads_nothing_are_no_better_than_random():
    target = risk_target()
    best = METHODS["single-tile"](target)
    worst = replace(best, values=-best.values, relative=-best.relative)
    assert judge(target, worst, random_curves(target)).p == 1
    constant = explanation_target(fitted_risk("majority"), target.bag)
    blind = judge(constant, best, random_curves(constant))
    assert (blind.p, blind.deletion_percentile, blind.insertion_percentile) == (1, 50, 50)


def test_the_card_names_the_risk_and_no_class():
    target = risk_target()
    card = map_card(assess_map(target, "evidence", random_curves(target, 5)))
    card = json.loads(json.dumps(card, allow_nan=False))
    assert card["target"] == "risk"
    assert card["risk"] == pytest.approx(predicted_risk(target), abs=1e-5)
    assert not {"class", "probability", "margin"} & set(card)


def test_a_class_is_no_target_of_a_risk():
    target = risk_target()
    with pytest.raises(
        FitError,
        match=r"maps show what raises the risk and .* no 'LMS' to choose",
    ):
        explanation_target(target.fitted, target.bag, "LMS")
