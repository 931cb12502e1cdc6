"""What every baseline obeys that is solved: the laws of heads when it knows something, and honesty."""

from copy import deepcopy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import binom

from mil.baselines.nested_cv import inner_folds, standard_of
from mil.heads.head import HeadSettings
from mil.heads.laws import LAWS
from mil.heads.laws_of_numbers import law_saving_is_identity
from mil.heads.registry import baseline_names, build_head, head_class, head_names
from mil.heads.table import MODELS
from mil.learning.crossval import cross_validate
from mil.settings import FitSettings
from tests.mil.baselines.made import N_CLASSES, SOLVED, made_training, said, solved
from tests.mil.made import cohort_of, folds_of, made_case

OF_A_HEAD_THAT_KNOWS = [law for law in LAWS if law is not law_saving_is_identity]  # see below
LEARNING = [name for name in baseline_names() if name not in ("majority", "chance", "clinical")]


def test_all_solved_baselines_are_tested_here():
    assert set(SOLVED) == {n for n in MODELS if head_class(n).learns_from in ("slides", "table")}


def test_names_of_the_command_line_are_those_of_the_registry():
    assert set(baseline_names()) | set(head_names()) == set(MODELS)
    for names, package in ((baseline_names(), "mil.baselines"), (head_names(), "mil.heads")):
        assert all(head_class(name).__module__.startswith(package) for name in names)


@pytest.mark.parametrize("law", OF_A_HEAD_THAT_KNOWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", SOLVED)
def test_head_that_has_learnt_keeps_the_law(name, law):
    """Unsolved, all weights are zero, and a law of numbers that are all equal says little."""
    law(lambda: deepcopy(head_that_has_learnt(name)))


@cache
def head_that_has_learnt(name):
    return solved(name, made_training(dim=7))


@pytest.mark.parametrize("name", SOLVED)
def test_what_was_learnt_is_saved_whole(name, tmp_path):
    training = made_training(slides=2)
    head = solved(name, training)
    save_file(head.state_dict(), tmp_path / "head.safetensors")
    fresh = build_head(name, HeadSettings(dim=20, n_outputs=N_CLASSES, width=8)).eval()
    before = said(fresh, training.features)
    fresh.load_state_dict(load_file(tmp_path / "head.safetensors"))
    assert np.array_equal(said(fresh, training.features), said(head, training.features))
    assert not np.allclose(before, said(fresh, training.features))


@pytest.mark.parametrize("name", SOLVED)
def test_order_of_slides_hardly_matters(name):
    """The inner folds are drawn anew; what is chosen on them may differ, what is said little."""
    training = made_training(shift=3)
    order = np.random.default_rng(0).permutation(len(training.labels))
    other = replace(
        training,
        features=[training.features[i] for i in order],
        labels=training.labels[order],
        weights=training.weights[order],
        cases=training.cases[order],
    )
    first, second = (said(solved(name, each), training.features) for each in (training, other))
    np.testing.assert_allclose(first, second, atol=0.02)


@pytest.mark.parametrize("name", SOLVED)
def test_two_copies_of_a_slide_weigh_as_one(name):
    training = made_training()
    weights = np.concatenate([[0.5], np.ones(17), [0.5]])
    twice = replace(
        training,
        features=[*training.features, training.features[0]],
        labels=np.append(training.labels, training.labels[0]),
        weights=weights / weights.mean(),
        cases=np.append(training.cases, training.cases[0]),
    )
    first, second = (said(solved(name, each), training.features) for each in (training, twice))
    np.testing.assert_allclose(first, second, atol=2e-3)


@pytest.mark.parametrize("name", SOLVED)
def test_class_of_a_single_case_is_learnt_without_inner_folds(name):
    training = made_training()
    keep = np.flatnonzero((training.labels != 0) | (training.cases == 0))
    few = replace(
        training,
        features=[training.features[i] for i in keep],
        labels=training.labels[keep],
        weights=training.weights[keep],
        cases=training.cases[keep],
    )
    assert inner_folds(few) == ()
    assert np.isfinite(said(solved(name, few), few.features)).all()


@pytest.mark.parametrize("name", SOLVED)
def test_features_that_are_constant_are_no_obstacle(name):
    training = made_training()
    for bag in training.features:
        bag[:, 5:] = 3.0
    p = said(solved(name, training), training.features)
    assert np.isfinite(p).all()
    bags = [bag + 1 for bag in training.features]  # the constant moves in what was never seen
    assert np.isfinite(said(solved(name, training), bags)).all()


@pytest.mark.parametrize(("per_class", "n_folds"), [(1, 0), (2, 2), (3, 3), (5, 5), (9, 5)])
def test_inner_folds_keep_cases_whole_and_have_every_class(per_class, n_folds):
    training = made_training(per_class, slides=3)
    folds = inner_folds(training)
    assert len(folds) == n_folds
    for train, test in folds:
        assert not set(training.cases[train]) & set(training.cases[test])
        assert set(training.labels[train]) == set(training.labels[test]) == set(range(N_CLASSES))
        assert len(train) + len(test) == len(training.labels)
    tested = np.concatenate([test for _, test in folds]) if folds else np.array([])
    assert sorted(tested) == (list(range(len(training.labels))) if folds else [])


def test_inner_folds_follow_the_seed_alone():
    training = made_training()
    tests = [
        [fold.test.tolist() for fold in inner_folds(replace(training, seed=s))] for s in (1, 1, 2)
    ]
    assert tests[0] == tests[1] != tests[2]


def test_standard_is_that_of_scikit_learn():
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(0)
    rows, weights = rng.normal(3, 5, size=(12, 6)), rng.uniform(0.5, 2, 12)
    rows[:, 2] = 7
    scaler = StandardScaler().fit(rows, sample_weight=weights)
    np.testing.assert_allclose(standard_of(rows, weights)(rows), scaler.transform(rows), atol=1e-10)


def test_rounding_on_a_constant_is_not_blown_up():
    rows = np.random.default_rng(0).normal(size=(12, 6))
    rows[:, 0] = 5 + 1e-7 * rows[:, 0]
    standard = standard_of(rows, np.ones(12))
    assert abs(standard(rows)[:, 0]).max() < 1e-6


@cache
def case_cohort(shift, seed, per_class=5, n_classes=4):
    """Slides that a few features of every tile tell apart, or none with a shift of 0."""
    rng = np.random.default_rng(seed)
    cases = []
    for i in range(per_class * n_classes):
        bags = rng.normal(size=(1 + i % 2, 20, 12)).astype(np.float32)
        bags += 0.5 * rng.normal(size=12).astype(
            np.float32
        )  # slides of a case resemble one another
        bags[:, :, i % n_classes] += shift
        cases.append(made_case(f"case{i:02d}", f"class-{i % n_classes}", *bags))
    return cohort_of(cases)


def n_right(name, cohort, seed=0, epochs=30):
    settings = FitSettings(seeds=1, epochs=epochs, width=16, learning_rate=1e-2)
    predictions = cross_validate(cohort, folds_of(cohort, seed=seed), [name], settings, seed=seed)
    scores = predictions.case_scores(name, 0)
    return int((scores.p.argmax(axis=1) == scores.truth).sum())


@pytest.mark.parametrize("name", LEARNING)
def test_planted_signal_is_found(name):
    """By guessing, 15 of 20 or more happen once in two million cohorts."""
    assert n_right(name, case_cohort(2.0, 0)) >= 15


@pytest.mark.parametrize("name", [*LEARNING, "chance", "clinical"])
def test_nothing_is_found_where_nothing_is(name):
    """The central 99.9 % of guessing; fits are shared, so that counts scatter 1.5 times as far."""
    seeds = range(50, 53)
    found = sum(n_right(name, case_cohort(0.0, seed), seed, epochs=4) for seed in seeds)
    low, high = binom.interval(0.999, 60 / 1.5, 1 / 4)
    assert low <= found / 1.5 <= high


def test_chance_finds_nothing_where_something_is():
    seeds = range(3)
    found = sum(n_right("chance", case_cohort(2.0, seed), seed) for seed in seeds)
    assert found <= 1.5 * binom.ppf(0.9995, 60 / 1.5, 1 / 4)


@pytest.mark.parametrize("name", SOLVED)
def test_generators_of_the_process_are_left_alone(name):
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    before = np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    solved(name, made_training())
    after = np.random.get_state()  # noqa: NPY002
    assert np.array_equal(before[0][1], after[1])
    assert before[0][2] == after[2]  # how many were drawn of these
    assert torch.equal(before[1], torch.get_rng_state())
