"""Heavy features are ranked, others are not; the scaling is part of the model and of its file."""

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.preprocessing import QuantileTransformer

from mil.errors import FitError
from mil.heads import scaling
from mil.heads.ensemble import members_of
from mil.heads.head import HeadSettings
from mil.heads.registry import build_head
from mil.heads.scaling import KNOTS, LEAST_RANK, are_heavy, fit_scaling, to_scores
from mil.learning.fitted import load_model, save_model
from mil.learning.training import fit_model
from mil.settings import FitSettings
from tests.mil.made import made_case, probabilities

RNG = np.random.default_rng
UNITS = np.geomspace(1e-4, 3e3, 12)  # a feature in micrometres, a next one in square metres


def made(kind, n=600, dim=12, seed=0):
    """(n, D) tiles of some kind."""
    z = RNG(seed).normal(size=(n, dim))
    return {
        "even": z,
        "large and shifted": 4e4 * z + 7e5,
        "rectified": np.maximum(z, 0),
        "unlike spreads": z * np.linspace(0.2, 3, dim),
        "units": z * UNITS,
        "heavy": np.exp(2.8 * z),
        "outliers": z * np.where(RNG(seed + 1).random(z.shape) < 0.005, 5e4, 1),
        "sparse": z * 9 * (RNG(seed + 1).random(z.shape) < 0.004),
    }[kind].astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "heavy"),
    [
        *((kind, False) for kind in ("even", "large and shifted", "rectified", "unlike spreads")),
        *((kind, True) for kind in ("units", "heavy", "outliers", "sparse")),
    ],
)
def test_features_are_heavy_where_few_values_or_features_have_most_of_the_variance(kind, heavy):
    tiles = torch.from_numpy(made(kind))
    assert are_heavy(tiles) == heavy
    assert fit_scaling(tiles).knots.shape == (12, KNOTS if heavy else 0)
    assert fit_scaling(tiles, ranks=False).knots.shape == (12, 0)


def test_a_constant_store_and_a_single_tile_are_not_heavy():
    assert not are_heavy(torch.full((9, 4), 3.0))
    assert not are_heavy(torch.randn(1, 4))
    assert not are_heavy(torch.randn(80, 1))


def test_one_large_feature_of_many_is_enough():
    tiles = torch.randn(300, 900)
    assert not are_heavy(tiles)
    tiles[:, 4] *= 60
    assert are_heavy(tiles)


def test_scores_are_those_of_scikit_learns_ranks():
    tiles = made("heavy", n=900)
    ranked = QuantileTransformer(n_quantiles=KNOTS).fit(tiles)
    new = made("heavy", n=200, seed=5)
    fitted = fit_scaling(torch.from_numpy(tiles))
    ours = norm.cdf(to_scores(torch.from_numpy(new), fitted.knots, fitted.scores).numpy())
    theirs = ranked.transform(new)
    inner = (theirs > 2 / KNOTS) & (theirs < 1 - 2 / KNOTS)
    # normal scores are linear between knots here, ranks are there
    np.testing.assert_allclose(ours[inner], theirs[inner], atol=0.006)


def test_scores_are_linear_between_knots_and_flat_beyond():
    fitted = fit_scaling(torch.from_numpy(made("units")))
    new = torch.from_numpy(made("units", n=80, seed=3) * 2).reshape(4, 20, 12)
    ours = to_scores(new, fitted.knots, fitted.scores)
    for feature in range(12):
        expected = np.interp(new[..., feature], fitted.knots[feature], fitted.scores[feature])
        np.testing.assert_allclose(ours[..., feature], expected, atol=1e-5)
    assert ours.abs().max() == pytest.approx(-norm.ppf(LEAST_RANK), abs=1e-5)


def test_equal_values_have_one_score_and_a_constant_feature_has_none():
    tiles = made("heavy")
    tiles[:, 0], tiles[:450, 1] = 7, 0
    fitted = fit_scaling(torch.from_numpy(tiles))
    new = torch.tensor([[7.0] + [0.0] * 11, [8.0] + [1e9] * 11, [-8.0] + [-1e9] * 11])
    scores = to_scores(new, fitted.knots, fitted.scores)
    assert scores[:, 0].abs().max() < 1e-6
    ranks = np.linspace(0, 1, KNOTS).clip(LEAST_RANK)
    assert scores[0, 1] == pytest.approx(norm.ppf(ranks[ranks < 0.75]).mean(), abs=1e-5)
    assert scores[2, 1] <= scores[0, 1] < scores[1, 1]


def test_a_gradient_is_the_slope_between_the_knots():
    fitted = fit_scaling(torch.from_numpy(made("heavy")))
    at = torch.from_numpy(made("heavy", n=5, seed=2)).double().requires_grad_()
    knots, scores = fitted.knots.double(), fitted.scores.double()
    to_scores(at, knots, scores).sum().backward()
    step = 1e-9 * at.detach().abs()
    rise = to_scores(at.detach() + step, knots, scores) - to_scores(
        at.detach() - step, knots, scores
    )
    np.testing.assert_allclose(at.grad, rise / (2 * step), rtol=1e-4, atol=1e-6)


def test_units_of_heavy_features_change_nothing():
    tiles, bag = made("heavy"), made("heavy", n=7, seed=4)
    factor = RNG(3).uniform(0.01, 90, 12).astype(np.float32)
    logits = []
    for to in (lambda x: x, lambda x: x * factor - 5):
        torch.manual_seed(0)
        head = build_head("abmil", HeadSettings(dim=12, n_outputs=2, width=8)).eval()
        head.prepare(torch.from_numpy(to(tiles)), torch.ones(2))
        features = torch.from_numpy(to(bag))[None]
        logits.append(head(features, torch.ones(1, 7, dtype=torch.bool)).logits.detach())
    torch.testing.assert_close(logits[0], logits[1], atol=1e-3, rtol=0)


def cases_of(kind, n=12, key=3.0, seed=0):
    """Cases of two classes; a quarter of the tiles of one differ in a sum of two features' ranks."""
    rng, cases = RNG(seed), []
    for i in range(n):
        z = rng.normal(size=(12, 12))
        z[: 3 * (i % 2), :2] += key
        values = z * UNITS if kind == "units" else z
        cases.append(made_case(f"c{seed}-{i}", "ab"[i % 2], values.astype(np.float32)))
    return cases


SETTINGS = FitSettings(seeds=2, epochs=12, width=16, precision="fp32")


@pytest.mark.parametrize(("heavy", "low", "high"), [(True, 0.8, 1), (False, 0.3, 0.7)])
def test_a_model_learns_from_the_smallest_of_its_features(monkeypatch, heavy, low, high):
    if not heavy:
        monkeypatch.setattr(scaling, "are_heavy", lambda _tiles: False)
    settings = FitSettings(seeds=1, epochs=40, learning_rate=5e-3, width=16, precision="fp32")
    fitted = fit_model("abmil", cases_of("units", 24), (), ("a", "b"), settings, seed=0)
    tested = cases_of("units", 40, seed=1)
    right = [(probabilities(fitted, c.bags[0])[1] > 0.5) == (c.label == "b") for c in tested]
    assert low <= np.mean(right) <= high


@pytest.mark.parametrize("model", ["pooled-logistic", "quantile-logistic", "abmil"])
def test_models_that_are_not_trained_by_steps_see_values(model):
    head = fit_model(model, cases_of("units"), (), ("a", "b"), SETTINGS, seed=0).head
    assert bool(members_of(head)[0].knots.numel()) == (model == "abmil")


def test_ranks_are_stored_with_the_model_and_a_file_without_them_loads(tmp_path):
    fitted = fit_model("abmil", cases_of("units"), (), ("a", "b"), SETTINGS, seed=0)
    assert fitted.head.members[0].knots.shape == (12, KNOTS)
    save_model(tmp_path / "model.safetensors", fitted)
    [bag] = cases_of("units", 1, seed=2)[0].bags
    assert load_model(tmp_path / "model.safetensors").predict(bag) == fitted.predict(bag)
    state = {
        name: value
        for name, value in build_head("mean", HeadSettings(dim=5, n_outputs=2)).state_dict().items()
        if name not in ("knots", "scores")
    }
    older = build_head("mean", HeadSettings(dim=5, n_outputs=2))
    older.knots = older.scores = torch.ones(5, 3)
    older.load_state_dict(state)
    assert older.knots.shape == older.scores.shape == (5, 0)


@pytest.mark.parametrize(("first", "then"), [("units", "even"), ("even", "units")])
def test_training_that_starts_from_a_model_takes_over_its_scaling(tmp_path, first, then):
    start = fit_model("abmil", cases_of(first), (), ("a", "b"), SETTINGS, seed=0)
    save_model(tmp_path / "start.safetensors", start)
    settings = FitSettings(
        seeds=1, epochs=1, width=16, head_weights=str(tmp_path / "start.safetensors")
    )
    fitted = fit_model("abmil", cases_of(then, seed=3), (), ("a", "b"), settings, seed=0)
    torch.testing.assert_close(fitted.head.knots, start.head.members[0].knots)
    narrow = FitSettings(seeds=1, epochs=1, width=8, head_weights=settings.head_weights)
    with pytest.raises(FitError, match="width 16"):
        fit_model("abmil", cases_of(then, seed=3), (), ("a", "b"), narrow, seed=0)
