"""Concepts are honest: nothing of a tested case reaches the clusters and weights that judge it."""

from dataclasses import replace

import numpy as np
import pytest

from mil.concepts.find import cluster, find_concepts
from mil.data.splits import Fold
from mil.errors import CohortError
from mil.evaluation.classification.evaluate import evaluate
from tests.mil.made import cohort_of, folds_of, made_case, made_cohort, planted_cohort, relabelled


@pytest.fixture(scope="module")
def planted():
    return planted_cohort(3, 6, dim=8)[0]


def test_shares_are_counts_of_nearest_centres(planted):
    clusters = cluster(planted.cases, 5, seed=1)
    centre, spread = clusters.standard
    for case in planted.cases[:3]:
        counts = [0] * 5
        for bag in case.bags:
            for tile in bag.features:
                gaps = [
                    float(np.sum(((tile - centre) / spread - c) ** 2)) for c in clusters.centres
                ]
                counts[int(np.argmin(gaps))] += 1
        assert np.allclose(clusters.shares(case), np.array(counts) / sum(counts))


def test_every_case_counts_the_same_in_clustering():
    many, few = np.zeros((5000, 2), np.float32), np.ones((1000, 2), np.float32)
    cases = [made_case("a", "x", many), made_case("b", "y", few)]
    assert np.allclose(cluster(cases, 2, seed=0).standard.centre, 0.5)


def test_planted_concepts_predict_their_class_out_of_fold(planted):
    concepts = find_concepts(planted, folds_of(planted, folds="3"), n_concepts=5, seed=0)
    [result] = evaluate(concepts.predictions).models
    assert result.correct >= 16  # of 18
    assert np.allclose(concepts.shares.sum(axis=1), 1)
    assert concepts.weights.shape == (3, 3, 5)
    assert np.allclose(concepts.weights.sum(axis=1), 0, atol=1e-9)
    # The concept that speaks most for a class is the one its cases hold more of than all others do.
    labels = np.array([case.label for case in concepts.cases])
    for index, name in enumerate(concepts.classes):
        strongest = concepts.weights.mean(axis=0)[index].argmax()
        means = [concepts.shares[labels == other, strongest].mean() for other in concepts.classes]
        assert concepts.classes[int(np.argmax(means))] == name


def test_shuffled_labels_are_not_called(planted):
    correct = []
    for seed in range(4):
        shuffled = relabelled(planted, seed)
        concepts = find_concepts(shuffled, folds_of(shuffled, folds="3"), n_concepts=5, seed=0)
        correct.append(evaluate(concepts.predictions).models[0].correct)
    assert np.mean(correct) <= 9  # of 18, six by chance


def test_nothing_of_a_tested_case_reaches_what_judges_it(planted):
    """Another case of the same test part may be anything at all, its label included."""
    fold = folds_of(planted, folds="3")[0]
    judged, other = fold.test[:2]
    rest = [name for name in planted.classes if name != planted.named([other])[0].label]

    def changed(case):
        if case.name != other:
            return case
        bags = tuple(replace(bag, features=-9 * np.asarray(bag.features)) for bag in case.bags)
        return replace(case, bags=bags, label=rest[0])

    twisted = cohort_of([changed(case) for case in planted.cases])
    tables = []
    for cohort in (planted, twisted):
        table = find_concepts(cohort, [fold], n_concepts=5, seed=0).predictions.table
        tables.append(table[table["case"] == judged].filter(like="p_").to_numpy())
    assert np.array_equal(*tables)


def test_a_class_that_nobody_trains_is_an_error(planted):
    names = [case.name for case in planted.cases if case.label == "class-0"]
    others = tuple(case.name for case in planted.cases if case.label != "class-0")
    fold = Fold(repeat=0, index=0, train=others, test=tuple(names))
    with pytest.raises(CohortError, match="No case of class class-0 trains in fold 0"):
        find_concepts(planted, [fold], n_concepts=5, seed=0)


def test_more_concepts_than_tiles_is_an_error():
    cohort = made_cohort((2, 2), slides=1, n_tiles=3)
    with pytest.raises(CohortError, match="Set n_concepts lower"):
        cluster(cohort.cases, 50, seed=0)
