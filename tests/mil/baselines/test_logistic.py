"""Logistic baselines beside scikit-learn's own pipeline, numpy's quantiles, and what they must not know."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mil.baselines.logistic import choose_cost, fit_logistic
from mil.baselines.nested_cv import inner_folds
from mil.baselines.pooled import shuffle_outcomes
from mil.baselines.quantiles import LEVELS, QuantileLogistic
from mil.baselines.ridge import COSTS
from mil.heads.batches import collate
from mil.heads.head import HeadSettings
from tests.mil.baselines.made import made_training, means, said, solved


def referee(rows, training, cost, members=None):
    """scikit-learn's pipeline; rows of E features take the cost of one."""
    members = np.arange(len(rows)) if members is None else members
    weights = training.weights[members]
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=cost / rows.shape[1], tol=1e-8, max_iter=100_000)
    )
    return model.fit(
        rows[members],
        training.labels[members],
        standardscaler__sample_weight=weights,
        logisticregression__sample_weight=weights,
    )


def deciles(training):
    return np.stack(
        [np.percentile(b, range(5, 100, 10), axis=0).ravel() for b in training.features]
    )


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize(
    ("name", "describe"), [("pooled-logistic", means), ("quantile-logistic", deciles)]
)
def test_probabilities_are_those_of_scikit_learn(name, describe, n_classes):
    training = made_training(n_classes=n_classes, slides=2, dim=40)
    others = made_training(n_classes=n_classes, seed=1, dim=40)
    head = solved(name, training, n_classes)
    weights = training.weights * 6 * n_classes / training.weights.sum()  # they sum to the cases
    training = replace(training, weights=weights)
    model = referee(describe(training), training, float(head.cost))
    expected = model.predict_proba(describe(others))
    np.testing.assert_allclose(said(head, others.features), expected, atol=2e-4)
    assert np.ptp(expected) > 0.1


@pytest.mark.parametrize("shift", [0, 0.8, 4])
def test_cost_is_that_of_the_lowest_loss_on_cases_held_out(shift):
    training = made_training(slides=2, shift=shift)
    rows = means(training)
    losses = []
    for cost in COSTS:
        p = np.zeros((len(rows), 3))
        for train, test in inner_folds(training):
            p[test] = referee(rows, training, cost, train).predict_proba(rows[test])
        losses.append(log_loss(training.labels, p, sample_weight=training.weights))
    assert choose_cost(rows, training) == COSTS[int(np.argmin(losses))]


def test_cost_follows_the_signal():
    weak, strong = (made_training(shift=shift) for shift in (0, 4))
    assert choose_cost(means(weak), weak) < choose_cost(means(strong), strong)


def test_more_features_than_slides_are_fitted_as_in_full():
    """The turned rows leave nothing out: the gradient of the full problem vanishes."""
    rng = np.random.default_rng(0)
    rows, labels, weights = rng.normal(size=(12, 300)), np.arange(12) % 3, rng.uniform(0.5, 2, 12)
    ((weight, bias),) = fit_logistic(rows, labels, weights, [3.0])
    logits = rows @ weight.T + bias
    p = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    centre = np.average(rows, axis=0, weights=weights)
    scale = np.sqrt(np.average((rows - centre) ** 2, axis=0, weights=weights) * 300)
    wrong = weights[:, None] * (p - np.eye(3)[labels])
    gradient = weight * scale + 3.0 * wrong.T @ ((rows - centre) / scale)
    np.testing.assert_allclose(gradient, 0, atol=1e-4)
    np.testing.assert_allclose(wrong.sum(axis=0), 0, atol=1e-4)


@pytest.mark.parametrize("n_tiles", [1, 2, 3, 10, 57])
@pytest.mark.parametrize("dim", [1, 64, 130])
def test_quantiles_are_those_of_numpy(n_tiles, dim):
    bag = np.random.default_rng(n_tiles).normal(size=(n_tiles, dim)).astype(np.float32)
    head = QuantileLogistic(HeadSettings(dim=dim, n_outputs=2))
    row = head(*collate([bag])).embedding[0].numpy()
    expected = np.quantile(bag.astype(np.float64), LEVELS, axis=0).ravel()
    np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)


def test_quantiles_tell_apart_what_means_do_not():
    """Half the classes have wide tiles, all have the same mean."""
    training = made_training(per_class=9, n_classes=2, shift=0, n_tiles=40)
    bags = [
        (bag - bag.mean(axis=0)) * (1 + 2 * label)
        for bag, label in zip(training.features, training.labels, strict=True)
    ]
    wide = replace(training, features=bags)
    p = said(solved("quantile-logistic", wide, 2), bags)
    assert (p.argmax(axis=1) == wide.labels).all()
    assert p.max(axis=1).min() > 0.9
    assert np.allclose(said(solved("pooled-logistic", wide, 2), bags), 0.5, atol=0.05)


def test_chance_learns_what_was_dealt_out_anew():
    training = made_training(slides=3)
    head, plain = solved("chance", training), solved("pooled-logistic", shuffle_outcomes(training))
    assert torch.equal(head.weight, plain.weight)
    assert not torch.equal(head.weight, solved("pooled-logistic", training).weight)


@pytest.mark.parametrize("seed", range(5))
def test_labels_are_dealt_to_cases_and_every_class_weighs_the_same(seed):
    training = replace(made_training(slides=3), seed=seed)
    permuted = shuffle_outcomes(training)
    assert (permuted.labels != training.labels).any()
    pairs = set(zip(permuted.cases.tolist(), permuted.labels.tolist(), strict=True))
    assert len(pairs) == len(set(training.cases.tolist()))
    assert sorted(label for _, label in pairs) == sorted([0, 1, 2] * 6)
    np.testing.assert_allclose(
        np.bincount(permuted.labels, permuted.weights) / permuted.weights.sum(), 1 / 3
    )
    of_case = np.bincount(permuted.cases, permuted.weights)
    np.testing.assert_allclose(of_case, of_case[0])
    assert permuted.weights.mean() == pytest.approx(1)
    assert np.array_equal(shuffle_outcomes(training).labels, permuted.labels)
