"""The nearest class mean and the nearest cases beside scikit-learn, and cases that count as one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.preprocessing import normalize

from mil.baselines.nearest import (
    NEIGHBOURS,
    choose_neighbours,
    choose_sharpness,
    make_gallery,
    neighbour_weights,
    rows_by_case,
)
from mil.heads.registry import head_class
from tests.mil.baselines.made import made_training, means, said, solved

BOTH = ["simpleshot", "knn"]


def centred(training, *others):
    """Unit vectors of cases, and of other slides, about the mean of the class means, in spreads of tiles."""
    tiles = np.concatenate(training.features)
    lengths = [len(bag) for bag in training.features]
    share = np.repeat(training.weights / lengths, lengths)  # of a tile in its slide's weight
    apart = (tiles - np.average(tiles, axis=0, weights=share)) ** 2
    spread = np.sqrt(np.average(apart, axis=0, weights=share))
    rows, labels = rows_by_case(means(training) / spread, training)
    centre = np.mean([rows[labels == label].mean(axis=0) for label in np.unique(labels)], axis=0)
    scaled = [means(other) / spread for other in others]
    return labels, *(normalize(one - centre) for one in (rows, *scaled))


def without(training, cases):
    """The training part without some of its cases."""
    rest = np.flatnonzero(~np.isin(training.cases, cases))
    return replace(
        training,
        features=[training.features[i] for i in rest],
        labels=training.labels[rest],
        weights=training.weights[rest],
        cases=training.cases[rest],
    )


@pytest.mark.parametrize("n_classes", [2, 5])
def test_class_of_simpleshot_is_that_of_the_nearest_centroid(n_classes):
    training = made_training(n_classes=n_classes, slides=3, dim=30)
    training = without(
        training, [0, n_classes, 2 * n_classes]
    )  # of class 0: the centre is of classes
    others = made_training(n_classes=n_classes, dim=30, seed=7)
    labels, vectors, queries = centred(training, others)
    referee = NearestCentroid().fit(vectors, labels)
    head = solved("simpleshot", training, n_classes)
    p = said(head, others.features)
    assert (p.argmax(axis=1) == referee.predict(queries)).all()
    apart = ((queries[:, None] - referee.centroids_) ** 2).sum(axis=2)
    weights = np.exp(-float(head.sharpness) * apart)
    np.testing.assert_allclose(p, weights / weights.sum(axis=1, keepdims=True), atol=1e-4)
    assert np.ptp(p) > 0.1


@pytest.mark.parametrize("n_classes", [2, 4])
def test_votes_of_neighbours_are_those_of_scikit_learn(n_classes):
    training = made_training(n_classes=n_classes, slides=3, dim=30)
    others = made_training(n_classes=n_classes, dim=30, seed=7)
    labels, vectors, queries = centred(training, others)
    head = solved("knn", training, n_classes)
    k = int(head.neighbours)
    referee = KNeighborsClassifier(k, metric="cosine").fit(vectors, labels)
    expected = (k * referee.predict_proba(queries) + 1 / n_classes) / (k + 1)
    np.testing.assert_allclose(said(head, others.features), expected, atol=1e-5)


@pytest.mark.parametrize("name", BOTH)
def test_class_of_few_cases_weighs_as_much(name):
    """Nine cases of one class beside three of another, without any difference between them."""
    training = made_training(9, n_classes=2, shift=0)
    unequal = without(training, range(7, 18, 2))
    assert np.bincount(unequal.labels).tolist() == [9, 3]
    others = made_training(40, n_classes=2, shift=0, seed=1)
    p = said(solved(name, unequal, 2), others.features)
    assert abs(p[:, 1].mean() - 0.5) < 0.1


def slow_losses(rows, labels, answer):
    """The log loss of answers for each case, learnt from all other cases, by class of equal weight."""
    p, truth = [], []
    for i in range(len(labels)):
        others = np.arange(len(labels)) != i
        if (labels[others] == labels[i]).any():
            p.append(answer(make_gallery(rows[others], labels[others]), rows[i : i + 1]))
            truth.append(labels[i])
    truth = np.array(truth)
    weights = 1 / np.bincount(truth)[truth]
    return log_loss(truth, np.array(p), sample_weight=weights, labels=np.unique(labels))


@pytest.mark.parametrize("shift", [0, 1, 3])
def test_number_of_neighbours_is_that_of_the_lowest_loss(shift):
    rows, labels = rows_by_case(means(made_training(shift=shift)), made_training())

    def answer(k):
        def shares(gallery, row):
            referee = KNeighborsClassifier(k, metric="cosine")
            referee.fit(gallery.vectors, gallery.labels)
            near = referee.kneighbors(gallery.place(row), return_distance=False)[0]
            counts = np.bincount(gallery.labels)
            votes = np.bincount(
                gallery.labels[near],
                weights=len(gallery.labels) / (3 * counts[gallery.labels[near]]),
                minlength=3,
            )
            return (votes + 1 / 3) / (votes.sum() + 1)

        return shares

    losses = {k: slow_losses(rows, labels, answer(k)) for k in NEIGHBOURS if k < len(labels)}
    assert choose_neighbours(rows, labels) == min(losses, key=losses.get)


def test_sharpness_is_that_of_the_lowest_loss_and_follows_the_signal():
    chosen = []
    for shift in (0.5, 4):
        training = made_training(shift=shift)
        rows, labels = rows_by_case(means(training), training)

        def answer(gallery, row):
            apart = (
                gallery.place(row)
                - NearestCentroid().fit(gallery.vectors, gallery.labels).centroids_
            )
            return np.square(apart).sum(axis=1)

        apart = np.array(
            [
                answer(make_gallery(np.delete(rows, i, 0), np.delete(labels, i)), rows[i : i + 1])
                for i in range(len(labels))
            ]
        )
        targets = np.where(np.eye(3)[labels] == 1, 19 / 21, 1 / 21)

        def loss(sharpness, apart=apart, targets=targets):
            p = np.exp(-sharpness * apart)
            return -(targets * np.log(p / p.sum(axis=1, keepdims=True))).sum()

        best = choose_sharpness(rows, labels)
        grid = [best * factor for factor in (0.5, 0.9, 1, 1.1, 2)]
        assert min(grid, key=loss) == best
        chosen.append(best)
    assert chosen[0] < chosen[1] < 50


@pytest.mark.parametrize("name", BOTH)
def test_one_case_per_class_is_enough(name):
    training = made_training(1, slides=2, shift=6)
    others = made_training(5, shift=6, seed=3)
    p = said(solved(name, training), others.features)
    assert (p.argmax(axis=1) == others.labels).mean() > 0.8
    assert p.max() < 0.95, "from one case per class nothing is certain"


@pytest.mark.parametrize("name", BOTH)
def test_probabilities_of_noise_promise_little(name):
    losses = []
    for seed in range(5):
        p = said(
            solved(name, made_training(shift=0, seed=seed)),
            made_training(shift=0, seed=seed + 50).features,
        )
        losses.append(log_loss(made_training().labels, p))
    assert np.mean(losses) < np.log(3) + 0.2


def in_units(training, units):
    return replace(
        training, features=[(bag * units).astype(np.float32) for bag in training.features]
    )


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    "units",
    [
        np.r_[np.ones(19), 300],
        np.r_[np.full(10, 1e-4), np.full(10, 50)],
        np.geomspace(1e-3, 1e4, 20),
    ],
)
def test_answers_do_not_change_with_the_units_of_features(name, units):
    training, others = made_training(), made_training(seed=8)
    plain = said(solved(name, training), others.features)
    other = said(solved(name, in_units(training, units)), in_units(others, units).features)
    assert np.allclose(plain, other, atol=1e-3)
    assert (plain.argmax(axis=1) == others.labels).mean() > 0.9


@pytest.mark.parametrize("name", BOTH)
def test_a_feature_that_did_not_vary_in_training_changes_no_answer(name):
    training, others = made_training(), made_training(seed=8)
    for bag in training.features:
        bag[:, 7] = 0.1
    still = said(solved(name, training), others.features)
    for bag in others.features:
        bag[:, 7] += 1000
    assert np.array_equal(said(solved(name, training), others.features), still)
    assert np.isfinite(still).all()


@pytest.mark.parametrize("seed", range(3))
def test_neighbours_that_are_as_near_as_the_last_share_its_places_in_any_order(seed):
    """Five of seven cases have the same tiles: which of them votes must not follow their names."""
    training = made_training(4, n_classes=2, shift=0)
    for i in range(5):
        training.features[i] = training.features[0]
    order = np.random.default_rng(seed).permutation(len(training.labels))
    shuffled = replace(
        training,
        features=[training.features[i] for i in order],
        labels=training.labels[order],
        weights=training.weights[order],
        cases=np.arange(len(order)),
    )
    others = made_training(6, n_classes=2, shift=0, seed=4)
    others.features[0] = training.features[0]
    plain, other = (said(solved("knn", of, 2), others.features) for of in (training, shuffled))
    np.testing.assert_allclose(plain, other, atol=1e-5)
    likeness = torch.tensor([[0.9, 0.5, 0.5, 0.5, 0.1]])
    assert neighbour_weights(likeness, 3).tolist()[0] == pytest.approx([1, 2 / 3, 2 / 3, 2 / 3, 0])


@pytest.mark.parametrize("name", BOTH)
def test_only_classes_are_learnt(name):
    assert [head_class(name).supports(kind) for kind in ("classes", "times", "ordered")] == [
        True,
        False,
        False,
    ]
