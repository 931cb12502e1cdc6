"""Every method against its definition: enumeration, closed forms, and heads known by hand."""

import importlib
import itertools
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from captum.attr import InputXGradient

from mil.errors import FitError
from mil.explanation import regions as regions_module
from mil.explanation.assess import assess_map
from mil.explanation.evidence import evidence_scores
from mil.explanation.faithfulness import random_curves
from mil.explanation.gradients import gradient_scores, integrated_gradients_scores
from mil.explanation.methods import METHODS, bag_methods, default_method
from mil.explanation.quantity import quantity
from mil.explanation.regions import ablation_scores, assign_regions, shapley_scores
from mil.explanation.single_tile import single_tile_scores
from mil.explanation.target import explanation_target
from mil.heads.ensemble import Ensemble, members_of
from mil.heads.registry import head_class
from mil.heads.table import MODELS
from mil.learning.training import fit_model
from tests.mil.explanation.made_targets import (
    COHORT,
    physically,
    planted_target,
    untrained,
)
from tests.mil.made import QUICK, made_bag

LOOKS_AT_NOTHING = [name for name in MODELS if head_class(name).learns_from == "counts"]
BAG_METHODS = [method.name for method in bag_methods()]
READS_TILES = [name for name in MODELS if head_class(name).learns_from in ("bags", "tiles")]
ADDING = ["abmil", "gated-abmil", "additive-abmil", "clam-sb", "clam-mb", "mean", "dtfd",
          "tile-vote-logits"]  # fmt: skip


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("model", READS_TILES)
def test_tiles_that_are_left_out_are_as_if_they_had_never_been(model, members):
    target = untrained(model, members=members)
    rng = np.random.default_rng(0)
    keep = rng.random((6, 9)) < 0.5
    keep[:, 4] = True
    logits = target.subset_logits(keep)
    for row, subset in zip(logits, keep, strict=True):
        torch.testing.assert_close(row, physically(target, subset), atol=2e-5, rtol=0)


def test_bag_of_no_tile_is_answered_as_the_mean_training_tile():
    target = untrained("abmil")
    scores = target.subset_scores(np.zeros((1, 9), dtype=bool))
    mean_tile = target.score(target.fitted.head.shift.view(1, 1, -1))
    assert scores[0] == pytest.approx(float(mean_tile.detach()[0]), abs=1e-6)


def test_margin_does_not_know_what_is_added_to_all_logits():
    target = untrained("abmil")
    logits = torch.randn(4, 3)
    torch.testing.assert_close(target.quantity.score(logits), target.quantity.score(logits + 7))
    assert float(target.quantity.score(torch.tensor([0.0, 3.0, 0.0]))) == pytest.approx(2)


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("model", ADDING)
def test_evidence_sums_to_the_margin(model, members):
    target = untrained(model, n_tiles=40, members=members)
    margin = float(target.score(target.features).detach()[0])
    scores = evidence_scores(target)
    assert scores.values.sum() == pytest.approx(margin, abs=1e-5)
    assert scores.relative.mean() == pytest.approx(margin, abs=1e-5)
    assert scores.facts["explained"] == pytest.approx(margin, abs=1e-5)
    assert abs(scores.facts["gap"]) < 1e-5


def test_evidence_of_an_ensemble_of_one_and_the_same_is_that_of_one():
    target = untrained("abmil", n_tiles=40)
    alone = evidence_scores(target).values
    head = target.fitted.head
    twice = replace(target, fitted=replace(target.fitted, head=Ensemble([head, head])))
    np.testing.assert_allclose(evidence_scores(twice).values, alone, atol=1e-6)


def test_evidence_of_an_ensemble_at_odds_still_sums_to_its_answer():
    """Each member is sure, of another class: the mean of their margins is far from theirs together."""
    target = untrained("mean", n_tiles=12, members=2)
    for member, sure in zip(members_of(target.fitted.head), (0, 1), strict=True):
        member.classify.bias.data[sure] = 8.0
    margin = float(target.score(target.features).detach()[0])
    apart = [
        float(
            target.quantity.score(
                member(target.features, torch.ones(1, 12, dtype=torch.bool)).logits
            ).detach()
        )
        for member in members_of(target.fitted.head)
    ]
    assert abs(np.mean(apart) - margin) > 0.5
    assert evidence_scores(target).values.sum() == pytest.approx(margin, abs=1e-5)


@pytest.mark.parametrize("model", ["dsmil", "max", "lse", "transmil", "tile-vote"])
def test_answer_that_is_no_sum_has_no_evidence(model):
    with pytest.raises(FitError, match=f"{model} is not a sum over tiles.*single-tile"):
        evidence_scores(untrained(model, n_tiles=12))


def test_single_tile_is_the_answer_to_the_tile_alone():
    target = untrained("dsmil")
    scores = single_tile_scores(target)
    for index, value in enumerate(scores.values):
        alone = target.quantity.score(physically(target, np.arange(9) == index))
        assert value == pytest.approx(float(alone), abs=1e-5)
    np.testing.assert_array_equal(scores.values, scores.relative)


def linear_target(**settings):
    """A head that is linear in its features: the mean over tiles of a linear classifier's logits."""
    target = untrained("mean", **settings)
    target.fitted.head.embed = torch.nn.Identity()
    target.fitted.head.classify = torch.nn.Linear(5, 3)
    return target


def test_on_a_linear_head_all_slopes_are_weight_times_distance_from_the_mean_tile():
    target = linear_target()
    head = target.fitted.head
    weight = (head.classify.weight[1] - head.classify.weight.mean(dim=0)) / head.scale  # (D,)
    expected = ((target.features[0] - head.shift) @ weight / 9).detach().double().numpy()
    for method in (gradient_scores, integrated_gradients_scores):
        np.testing.assert_allclose(method(target).values, expected, atol=1e-5)
        assert abs(method(target).facts["gap"]) < 1e-5


def test_gradient_is_captums_in_the_frame_of_the_mean_tile():
    target = untrained("gated-abmil")
    attributions = InputXGradient(lambda moved: target.score(moved + target.baseline)).attribute(
        (target.features - target.baseline).requires_grad_()
    )
    expected = attributions.sum(dim=-1)[0].detach().double().numpy()
    np.testing.assert_allclose(gradient_scores(target).values, expected, atol=1e-6)


@pytest.mark.parametrize("seeds", [1, 3])
def test_integrated_gradients_are_complete(seeds):
    target, _ = planted_target(seeds=seeds)
    scores = integrated_gradients_scores(target)
    start = target.baseline.expand_as(target.features)
    change = float((target.score(target.features) - target.score(start)).detach()[0])
    assert scores.values.sum() == pytest.approx(change, rel=0.01)
    gap = scores.facts["gap"]
    assert gap == pytest.approx(scores.values.sum() - change, abs=1e-5)


@pytest.mark.parametrize("method", [gradient_scores, integrated_gradients_scores])
def test_answer_without_a_slope_has_no_gradient(method):
    with pytest.raises(FitError, match="majority has no gradient"):
        method(untrained("majority"))


def test_an_incomplete_sum_is_a_warning():
    """Votes are steps: what lies between them no slope can see."""
    target = untrained("tile-vote-votes", n_tiles=30)
    random = random_curves(target, 5)
    [warning] = assess_map(target, "integrated-gradients", random).warnings
    assert "do not read them as shares" in warning
    assert (
        assess_map(
            untrained("abmil"), "integrated-gradients", random_curves(untrained("abmil"), 5)
        ).warnings
        == ()
    )


def of_class(target, name):
    """The same bag and model, another class."""
    return replace(target, quantity=quantity(target.fitted, name))


def test_attention_per_class_is_that_of_the_explained_class():
    target = untrained("clam-mb", n_tiles=12)
    classes = target.fitted.classes
    maps = [METHODS["attention"](of_class(target, name)).values for name in classes]
    with torch.inference_mode():
        expected = target.fitted.head(
            target.features, torch.ones(1, 12, dtype=torch.bool)
        ).attention[0]
    np.testing.assert_allclose(maps, expected.double().numpy(), atol=1e-7)
    assert not np.array_equal(maps[0], maps[1])


def enumerated_shapley(target, regions):
    """The definition: every coalition of regions, weighed by the orders in which it comes first."""
    count = regions.max() + 1
    answers = {}
    for size in range(count + 1):
        for coalition in itertools.combinations(range(count), size):
            keep = np.isin(regions, coalition)[None]
            answers[frozenset(coalition)] = target.subset_scores(keep)[0]
    values = np.zeros(count)
    for coalition, answer in answers.items():
        for one in set(range(count)) - coalition:
            weight = 1 / (count * math.comb(count - 1, len(coalition)))
            values[one] += weight * (answers[coalition | {one}] - answer)
    return values


def test_shapley_values_are_those_of_all_coalitions(monkeypatch):
    monkeypatch.setattr(regions_module, "N_PERMUTATIONS", 3000)
    target = untrained("abmil", n_tiles=12)
    monkeypatch.setattr(
        regions_module, "assign_regions", lambda target: np.arange(12, dtype=np.int64) // 2
    )
    regions = np.arange(12) // 2
    expected = enumerated_shapley(target, regions)
    values = shapley_scores(target).values
    spread = np.ptp(expected)
    np.testing.assert_allclose(values, expected[regions] / 2, atol=0.04 * spread)
    assert values.sum() == pytest.approx(expected.sum(), abs=1e-5)


def test_shapley_values_sum_to_the_change_from_no_tile():
    target, _ = planted_target(seeds=3)
    n_tiles = len(target.bag)
    ends = target.subset_scores(np.array([[False] * n_tiles, [True] * n_tiles]))
    assert shapley_scores(target).values.sum() == pytest.approx(ends[1] - ends[0], abs=1e-4)


def test_ablation_is_the_fall_when_a_region_leaves():
    target = untrained("dsmil", n_tiles=30)
    regions = assign_regions(target)
    scores = ablation_scores(target)
    whole = float(target.quantity.score(physically(target, np.ones(30, bool))))
    for region in range(regions.max() + 1):
        inside = regions == region
        fall = whole - float(target.quantity.score(physically(target, ~inside)))
        assert scores.values[inside].sum() == pytest.approx(fall, abs=1e-5)
        assert np.ptp(scores.values[inside]) == 0


def test_regions_are_compact_and_a_bag_of_few_tiles_has_fewer():
    target = untrained("abmil", n_tiles=60)
    regions = assign_regions(target)
    assert len(set(regions)) == regions_module.N_REGIONS
    assert np.count_nonzero(np.diff(regions)) == regions_module.N_REGIONS - 1  # tiles lie in a row
    assert len(set(assign_regions(untrained("abmil", n_tiles=4)))) == 4


@pytest.mark.parametrize("method", BAG_METHODS)
@pytest.mark.parametrize("n_tiles", [1, 2, 7])
def test_every_method_answers_for_few_tiles_and_says_for_what(method, n_tiles):
    target = untrained("abmil", n_tiles=n_tiles, members=2)
    scores = METHODS[method](target)
    assert scores.values.shape == scores.relative.shape == (n_tiles,)
    assert np.isfinite(scores.values).all()
    assert (scores.method, scores.model) == (method, "abmil")
    assert scores.target == ("" if method == "attention" else "b")


@pytest.mark.parametrize("method", BAG_METHODS)
def test_every_method_is_repeatable_and_leaves_the_bag_alone(method):
    target = untrained("abmil", n_tiles=20)
    before = target.bag.features.copy()
    first, second = METHODS[method](target), METHODS[method](target)
    np.testing.assert_array_equal(first.values, second.values)
    np.testing.assert_array_equal(target.bag.features, before)


def test_class_that_is_called_is_explained_unless_another_is_named():
    target, _ = planted_target()
    assert target.name == COHORT.cases[0].label
    other = explanation_target(target.fitted, target.bag, COHORT.classes[2])
    assert other.quantity.index == 2
    with pytest.raises(FitError, match=r"No class 'LMS'\. Known: class-0"):
        explanation_target(target.fitted, target.bag, "LMS")


def test_model_of_the_table_has_no_tile_to_explain():
    fitted = fit_model("clinical", COHORT.cases, (), COHORT.classes, QUICK, seed=0)
    with pytest.raises(FitError, match="reads the table and no tiles"):
        explanation_target(fitted, COHORT.cases[0].bags[0])


def test_bag_of_another_recipe_is_not_explained():
    target, _ = planted_target()
    with pytest.raises(FitError, match="does not suit"):
        explanation_target(target.fitted, made_bag("s", dim=32, recipe={"mpp": 1}))


def test_methods_are_listed_without_torch():
    code = (
        "import sys; from mil.explanation.methods import list_methods; "
        "print(len(list_methods()), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(METHODS)), "False"]


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_row_of_the_table_has_its_functions_and_a_description(method):
    for reference in filter(None, [method.function, method.pixels]):
        module, _, function = reference.partition(":")
        assert callable(getattr(importlib.import_module(module), function))
    assert method.description
    assert method.suits(head_class("abmil"))


@pytest.mark.parametrize(
    ("model", "linear", "method"),
    [
        ("abmil", True, "evidence"),
        ("additive-abmil", True, "evidence"),
        ("mean", True, "evidence"),
        ("abmil", False, "attention"),
        ("transmil", True, "attention"),
        ("mean", False, "single-tile"),
        ("max", True, "single-tile"),
        ("pooled-logistic", True, "ablation"),
    ],
)
def test_the_default_map_is_evidence_where_the_head_adds_up(model, linear, method):
    assert default_method(head_class(model), linear=linear).name == method


@pytest.mark.parametrize("model", LOOKS_AT_NOTHING)
@pytest.mark.parametrize("method", METHODS)
def test_no_map_is_drawn_of_a_model_that_looks_at_no_slide(method, model):
    assert not METHODS[method].suits(head_class(model))
