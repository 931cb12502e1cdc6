"""A fact that means nothing is not called a confounder more often than it should be; a planted one is."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mil.audit.association import CaseVariable, ClassOutcome, associate, best_auc
from mil.audit.predictors import cohort_predictors
from tests.mil.made import cohort_of, made_bag, made_cohort


def truth_of(cohort):
    return np.array([cohort.classes.index(case.label) for case in cohort.cases])


def twin(predictor, truth):
    """The macro AUC by scikit-learn, one class after the other."""
    by_class = []
    for k in np.unique(truth):
        members = truth == k
        if predictor.categorical:
            code = predictor.values[:, 0]
            scores = [np.array([members[code == c].mean() for c in code])]
            by_class.append([roc_auc_score(members, scores[0])])
        else:
            aucs = [roc_auc_score(members, column) for column in predictor.values.T]
            by_class.append([max(auc, 1 - auc) for auc in aucs])
    return np.mean(by_class, axis=0).max()


@pytest.mark.parametrize("seed", range(12))
def test_the_measure_agrees_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.arange(18) % (2 + seed % 3))
    numbers = CaseVariable("x", rng.integers(0, 5, size=(18, 1 + seed % 3)).astype(float))
    kinds = CaseVariable("c", rng.integers(0, 4, size=(18, 1)).astype(float), categorical=True)
    for predictor in (numbers, kinds):
        assert best_auc(predictor, truth[None])[0] == pytest.approx(twin(predictor, truth))


def test_with_few_cases_every_arrangement_is_tried():
    truth = np.array([0, 0, 0, 1, 1])
    predictor = CaseVariable("x", np.array([[1.0], [2], [4], [3], [5]]))
    [association] = associate([predictor], ClassOutcome(truth)).results
    every = set(permutations(truth.tolist()))
    reached = [twin(predictor, np.array(order)) >= twin(predictor, truth) - 1e-9 for order in every]
    assert association.exact
    assert association.p == pytest.approx(np.mean(reached))


def test_three_classes_are_arranged_in_all_ways():
    truth = np.array([0, 0, 1, 1, 2])
    predictor = CaseVariable("x", np.arange(5.0)[:, None])
    [association] = associate([predictor], ClassOutcome(truth)).results
    every = set(permutations(truth.tolist()))
    assert len(every) == 30
    reached = [twin(predictor, np.array(order)) >= twin(predictor, truth) - 1e-9 for order in every]
    assert (association.exact, association.p) == (True, pytest.approx(np.mean(reached)))


def test_the_number_of_arrangements_decides_whether_they_are_drawn():
    truth = np.repeat([0, 1], 10)
    predictor = CaseVariable("x", np.arange(20.0)[:, None])
    [association] = associate([predictor], ClassOutcome(truth), shuffles=99, seed=1).results
    assert not association.exact
    assert association.p == pytest.approx(0.01)


def test_a_site_unique_to_every_case_is_no_association():
    truth = np.arange(12) % 3
    [association] = associate(
        [CaseVariable("site", np.arange(12.0)[:, None], categorical=True)], ClassOutcome(truth)
    ).results
    assert (association.measure, association.chance, association.p) == (1, 1, 1)


def test_null_cohorts_are_called_confounded_as_often_as_they_should_be():
    rng = np.random.default_rng(7)
    called, trials = 0, 300
    for seed in range(trials):
        n = int(rng.integers(12, 25))
        truth = rng.permutation(np.arange(n) % (2 + seed % 3))
        predictors = [
            CaseVariable("tiles", rng.integers(5, 60, size=(n, 1)).astype(float)),
            CaseVariable("stain", rng.normal(size=(n, 3))),
            CaseVariable("site", rng.integers(0, 4, size=(n, 1)).astype(float), categorical=True),
        ]
        associations = associate(predictors, ClassOutcome(truth), shuffles=199, seed=seed)
        called += any(association.significant for association in associations.results)
    # Of 300 at 5 %, more than 25 come up in less than one of a hundred.
    assert called <= 25


def planted(*, by):
    """20 cases of features without signal; ``by`` gives (site, tiles) of a label and a number."""
    rng = np.random.default_rng(3)
    cases = []
    for i, case in enumerate(made_cohort((10, 10), slides=1).cases):
        site, n_tiles = by(case.label, i, rng)
        bag = made_bag(f"{case.name}-s1", n_tiles=n_tiles)
        cases.append(replace(case, site=site, bags=(bag,)))
    return cohort_of(cases)


def confounders(cohort):
    return {
        association.name
        for association in associate(
            cohort_predictors(cohort), ClassOutcome(truth_of(cohort))
        ).results
        if association.significant
    }


def test_a_site_that_is_the_label_is_significant():
    cohort = planted(
        by=lambda label, i, rng: ("Ankara" if label == "class-a" else "Bursa", 9 + i % 3)
    )
    assert confounders(cohort) == {"site"}


def test_a_tile_count_that_follows_the_label_is_significant():
    cohort = planted(
        by=lambda label, i, rng: ("", int(rng.integers(5, 20)) + 9 * (label == "class-a"))
    )
    assert confounders(cohort) == {"tiles (bag size)"}


def test_nothing_planted_is_not_significant():
    cohort = planted(by=lambda label, i, rng: (f"site {i % 3}", int(rng.integers(5, 40))))
    assert confounders(cohort) == set()


def test_the_best_of_several_needs_more_than_one_alone():
    rng = np.random.default_rng(0)
    truth = np.arange(20) % 2
    several = [CaseVariable(str(i), rng.normal(size=(20, 1))) for i in range(8)]
    associations = associate(several, ClassOutcome(truth))
    assert associations.numeric == 8
    assert associations.largest > max(association.noticed for association in associations.results)
    alone = associate(several[:1], ClassOutcome(truth))
    assert alone.largest == pytest.approx(alone.results[0].noticed)
