"""A model predicts bags made as its own were, and no others."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from features.bags.bag import read_bag, write_bag
from mil.errors import CohortError, FitError
from mil.heads.registry import head_class
from mil.heads.table import MODELS
from mil.learning.fitted import run_head
from mil.learning.training import fit_model
from tests.mil.made import QUICK, RECIPE, made_bag, made_cohort, made_columns, probabilities

COHORT = made_cohort((2, 3))
TOLD = made_columns("s")


@pytest.fixture(scope="module")
def fitted():
    return {
        name: fit_model(name, COHORT.cases, (), COHORT.classes, QUICK, seed=0) for name in MODELS
    }


@pytest.mark.parametrize("name", MODELS)
def test_probabilities_are_the_softmax_of_the_logits(fitted, name):
    p = probabilities(fitted[name], made_bag("s"), TOLD)
    logits = run_head(fitted[name], made_bag("s"), TOLD).logits[0].double()
    # A bag in brief answers as all its tiles, but for the rounding of its mean or quantiles.
    rounding = 1e-7 if head_class(name).brief else 0
    assert p == pytest.approx(torch.softmax(logits, dim=0).tolist(), rel=0, abs=rounding)
    assert sum(p) == pytest.approx(1, abs=1e-12)


def test_all_tiles_are_used_however_few_are_drawn_in_training(fitted):
    narrow = replace(fitted["mean"], settings=replace(QUICK, train_tiles=1))
    assert run_head(narrow, made_bag("s", n_tiles=50)).attention.shape == (1, 1, 50)


def test_no_gradient_is_kept(fitted):
    assert not run_head(fitted["abmil"], made_bag("s")).logits.requires_grad


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_bag_of_a_file_is_predicted_as_the_bag_itself(fitted, tmp_path, name, dtype):
    original = made_bag("s", np.random.default_rng(0).normal(size=(9, 5)).astype(dtype))
    write_bag(tmp_path / "s.h5", original)
    stored = read_bag(tmp_path / "s.h5")
    assert stored.features.dtype == dtype
    assert probabilities(fitted[name], stored, TOLD) == probabilities(fitted[name], original, TOLD)


@pytest.mark.parametrize("name", MODELS)
def test_half_precision_moves_probabilities_by_its_rounding_alone(fitted, name):
    features = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    single = probabilities(fitted[name], made_bag("s", features), TOLD)
    half = probabilities(fitted[name], made_bag("s", features.astype(np.float16)), TOLD)
    np.testing.assert_allclose(half, single, atol=5e-3)


def test_columns_of_the_table_are_read_by_the_clinical_model_alone(fitted):
    other = {**TOLD, "age": "19"}
    for name, model in fitted.items():
        same = probabilities(model, made_bag("s"), TOLD) == probabilities(
            model, made_bag("s"), other
        )
        assert same is (name != "clinical"), name


def test_clinical_model_without_its_columns_says_where_to_give_them(fitted):
    with pytest.raises(
        CohortError, match=r"s: the clinical model reads age, .*Give a cohort table"
    ):
        probabilities(fitted["clinical"], made_bag("s"))


def test_bag_of_another_recipe_is_refused_with_what_differs(fitted):
    bag = made_bag("s9", recipe=RECIPE | {"mpp": 0.25, "backbone": "other"})
    with pytest.raises(FitError) as caught:
        run_head(fitted["abmil"], bag)
    message = str(caught.value)
    assert message.startswith("s9: the bag does not suit model abmil (")
    assert "backbone other where it learnt from toy" in message
    assert "mpp 0.25 where it learnt from 0.5" in message
    assert "tile" not in message.split("(")[1].split(")")[0]


@pytest.mark.parametrize("name", MODELS)
def test_every_model_refuses_another_recipe(fitted, name):
    with pytest.raises(FitError, match="tile 256 where it learnt from 224"):
        probabilities(fitted[name], made_bag("s", recipe=RECIPE | {"tile": 256}))


def test_setting_that_only_the_bag_has_is_named(fitted):
    with pytest.raises(FitError, match="stain macenko where it learnt from None"):
        run_head(fitted["abmil"], made_bag("s", recipe=RECIPE | {"stain": "macenko"}))


def test_order_of_the_recipe_does_not_matter(fitted):
    bag = made_bag("s", recipe=dict(reversed(RECIPE.items())))
    assert probabilities(fitted["abmil"], bag) == probabilities(fitted["abmil"], made_bag("s"))
