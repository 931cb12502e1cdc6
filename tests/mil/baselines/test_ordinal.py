"""Proportional odds with a ridge: by its formula, by statsmodels, and as a baseline of ordered outcomes."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.special import expit
from statsmodels.miscmodels.ordinal_model import OrderedModel

from mil.baselines.logistic import fit_logistic
from mil.baselines.ordinal import _loss, fit_ordinal, level_log_probabilities, solve_ordinal
from mil.baselines.pooled import shuffle_outcomes
from mil.baselines.ridge import COSTS
from mil.errors import FitError
from mil.heads.ensemble import AVERAGES, Ensemble
from mil.heads.head import HeadSettings, Training
from mil.heads.registry import build_head, check_outcomes

NO_PENALTY = 1e10


def draw_levels(n=200, slope=(1.0, -0.5, 0.0), thresholds=(-1.0, 0.7), seed=0):
    """Rows (n, E) and levels drawn from the model."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, len(slope)))
    above = expit(rows @ np.array(slope)[:, None] - np.array(thresholds))
    return rows, (rng.random((n, 1)) < above).sum(axis=1)


def training_of(rows, labels, seed=0):
    return Training(
        features=[row[None].astype(np.float32) for row in rows],
        labels=labels,
        weights=np.ones(len(rows)),
        cases=np.arange(len(rows)),
        seed=seed,
        outcome="ordered",
    )


@pytest.mark.parametrize("thresholds", [(0.3,), (-1.0, 0.7), (-1.5, -0.5, 0.0, 2.0)])
def test_without_a_penalty_it_is_the_fit_of_statsmodels(thresholds):
    rows, labels = draw_levels(thresholds=thresholds)
    weight, bias = fit_ordinal(rows, labels, np.ones(len(rows)), NO_PENALTY)
    model = OrderedModel(labels, rows, distr="logit")
    reference = model.fit(method="newton", disp=False, maxiter=100)
    np.testing.assert_allclose(weight[0], reference.params[:3], atol=1e-5)
    expected = model.transform_threshold_params(reference.params)[1:-1]
    np.testing.assert_allclose(-bias, expected, atol=1e-5)


@pytest.mark.parametrize("cost", COSTS)
def test_two_levels_are_logistic_regression(cost):
    rows, labels = draw_levels(thresholds=(0.3,))
    weights = np.random.default_rng(1).uniform(0.5, 2, len(rows))
    weight, bias = fit_ordinal(rows, labels, weights, cost)
    ((expected, offset),) = fit_logistic(rows, labels, weights, [cost])
    np.testing.assert_allclose(weight[0], expected[1], atol=1e-4)
    np.testing.assert_allclose(bias, offset[1:], atol=1e-4)


def test_derivatives_are_those_of_differences():
    rows, labels = draw_levels(n=30)
    weights = np.random.default_rng(1).uniform(0.5, 2, len(rows))
    point = np.array([0.4, 0.1, -0.8, -0.6, 1.1])

    def loss(parameters):
        return _loss(parameters, rows, labels, weights, 0.3)

    _, gradient, hessian = loss(point)
    for i, step in enumerate(1e-6 * np.eye(5)):
        above, below = loss(point + step), loss(point - step)
        assert (above[0] - below[0]) / 2e-6 == pytest.approx(gradient[i], rel=1e-6)
        np.testing.assert_allclose((above[1] - below[1]) / 2e-6, hessian[i], atol=1e-5)


def test_loss_is_the_formula():
    rows, labels = draw_levels(n=30)
    weights = np.random.default_rng(1).uniform(0.5, 2, len(rows))
    slope, thresholds = np.array([0.4, 0.1, -0.8]), np.array([-0.6, 1.1])
    above = expit((rows @ slope)[:, None] - thresholds)
    shares = -np.diff(np.hstack([np.ones((30, 1)), above, np.zeros((30, 1))]), axis=1)
    expected = -weights @ np.log(shares[np.arange(30), labels]) + slope @ slope / 0.3 / 2
    value = _loss(np.concatenate([slope, thresholds]), rows, labels, weights, 0.3)[0]
    assert value == pytest.approx(expected)
    assert _loss(np.array([0, 0, 0, 1.0, 0.9]), rows, labels, weights, 0.3)[0] == np.inf


def test_strong_penalty_leaves_the_shares_of_the_levels():
    rows, labels = draw_levels()
    weight, bias = fit_ordinal(rows, labels, np.ones(len(rows)), 1e-9)
    assert np.abs(weight).max() < 1e-5
    above = np.array([(labels > level).mean() for level in (0, 1)])
    np.testing.assert_allclose(expit(bias), above, atol=1e-5)


def test_separated_levels_of_more_features_than_cases_have_a_fit():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 5)
    rows = rng.normal(size=(15, 300)) + labels[:, None]
    weight, bias = fit_ordinal(rows, labels, np.ones(15), 100.0)
    log_p = level_log_probabilities(rows @ weight.T + bias)
    assert np.isfinite(log_p).all()
    assert (log_p.argmax(axis=1) == labels).all()


def test_units_of_the_columns_do_not_matter():
    rows, labels = draw_levels()
    units = np.array([30.0, 0.5, 1.0])
    weight, bias = fit_ordinal(rows, labels, np.ones(len(rows)), 1.0)
    scaled, offset = fit_ordinal(rows * units + 3, labels, np.ones(len(rows)), 1.0)
    np.testing.assert_allclose(
        (rows * units + 3) @ scaled.T + offset, rows @ weight.T + bias, atol=1e-7
    )


def test_probabilities_of_levels_sum_to_one():
    logits = np.array(
        [[2.0, 0.5, -3.0], [40.0, -40.0, -41.0], [0.0, 0.0, 0.0], [800.0, 700.0, -900.0]]
    )
    p = np.exp(level_log_probabilities(logits))
    np.testing.assert_allclose(p.sum(axis=1), 1)
    above = np.cumsum(p[:, ::-1], axis=1)[:, ::-1][:, 1:]
    np.testing.assert_allclose(above, expit(logits), atol=1e-12)


@pytest.mark.parametrize("labels", [[0, 0, 2, 2], [0, 0, 0, 0], [1, 1, 2, 2]])
def test_absent_level_is_refused(labels):
    with pytest.raises(FitError, match="training case of every level"):
        fit_ordinal(np.eye(4), np.array(labels), np.ones(4), 1.0)


def test_cost_is_that_of_the_lowest_loss_in_inner_folds():
    rows, labels = draw_levels(n=60)
    noise = np.random.default_rng(3).normal(size=rows.shape)
    assert solve_ordinal(rows, training_of(rows, labels)).cost >= 1
    assert solve_ordinal(noise, training_of(noise, labels)).cost <= 0.1


@pytest.mark.parametrize("name", ["pooled-logistic", "quantile-logistic", "clinical"])
def test_baselines_learn_a_planted_order(name):
    check_outcomes([name, "majority", "chance"], "ordered")
    rows, labels = draw_levels(n=120, slope=(3.0, 0.0, 0.0))
    head = build_head(name, HeadSettings(dim=3, n_outputs=2, outcome="ordered"))
    head.solve(training_of(rows, labels))
    rows, labels = draw_levels(n=200, slope=(3.0, 0.0, 0.0), seed=1)
    features = torch.from_numpy(rows).float().unsqueeze(1)
    with torch.no_grad():
        logits = head.eval()(features, torch.ones(200, 1, dtype=torch.bool)).logits.numpy()
    assert (np.diff(logits, axis=1) <= 0).all()
    assert np.corrcoef(expit(logits).sum(axis=1), labels)[0, 1] > 0.7


def test_majority_gives_the_shares_above_each_level():
    head = build_head("majority", HeadSettings(dim=3, n_outputs=2, outcome="ordered"))
    head.prepare(torch.zeros(1, 3), torch.tensor([5.0, 3.0, 2.0]))
    logits = head(torch.zeros(1, 1, 3), torch.ones(1, 1, dtype=torch.bool)).logits[0]
    torch.testing.assert_close(logits.sigmoid(), torch.tensor([0.5, 0.2]))


def test_ensemble_averages_probabilities_above_each_level():
    logits = [torch.tensor([[3.0, -1.0]]), torch.tensor([[-2.0, -60.0]])]
    mean = AVERAGES["ordered"](logits)
    expected = (logits[0].sigmoid() + logits[1].sigmoid()) / 2
    torch.testing.assert_close(mean.sigmoid(), expected)
    settings = HeadSettings(dim=3, n_outputs=2, outcome="ordered")
    members = [build_head("mean", settings).eval() for _ in range(2)]
    bag = torch.randn(1, 4, 3), torch.ones(1, 4, dtype=torch.bool)
    single = [member(*bag).logits for member in members]
    torch.testing.assert_close(Ensemble(members).eval()(*bag).logits, AVERAGES["ordered"](single))


def test_shuffled_levels_keep_their_weights():
    rows, labels = draw_levels(n=30)
    shuffled = shuffle_outcomes(training_of(rows, labels))
    assert sorted(shuffled.labels) == sorted(labels)
    assert (shuffled.labels != labels).any()
    assert (shuffled.weights == 1).all()
    assert shuffled.outcome == "ordered"


def test_models_that_learn_classes_only_are_refused():
    for name in ("clam-sb", "tile-vote", "pooled-svm"):
        with pytest.raises(FitError, match=rf"{name} learns classes, not an ordered outcome"):
            check_outcomes([name], "ordered")


def test_odds_are_proportional():
    rows, labels = draw_levels()
    weight, _ = fit_ordinal(rows, labels, np.ones(len(rows)), 1.0)
    for first, second in pairwise(weight):
        np.testing.assert_array_equal(first, second)
