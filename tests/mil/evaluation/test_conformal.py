"""Sets of classes: against their definition, and whether they hold what they promise."""

import json
from math import ceil

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import beta, kstest
from sklearn.base import BaseEstimator, ClassifierMixin

from mil.evaluation.classification.conformal import (
    cases_needed,
    conformal,
    future_coverage,
    prediction_sets,
    threshold,
)
from mil.evaluation.classification.predictions import CaseScores
from tests import twins


def drawn(rng, counts, signal=1.2):
    truth = np.repeat(np.arange(len(counts)), counts)
    line = rng.normal(size=(len(truth), len(counts))) + signal * np.eye(len(counts))[truth]
    return truth, softmax(line, axis=1)


def scores(truth, p):
    names = tuple(f"{i:03d}" for i in range(len(truth)))
    return CaseScores(names, truth, p, np.arange(len(truth)) % 5)


def test_sets_equal_their_definition_also_with_ties():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        truth, p = drawn(rng, (6, 4, 11))
        p = np.round(p, 1) if seed % 2 else p
        for coverage in (0.5, 0.8, 0.9):
            sets = prediction_sets(truth, p, coverage)
            np.testing.assert_array_equal(sets, twins.conformal_sets(truth, p, coverage))


@pytest.mark.parametrize(
    ("coverage", "needed"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99)]
)
def test_the_feasibility_line(coverage, needed):
    """One case fewer, and no class can be ruled out."""
    assert cases_needed(coverage) == needed
    rng = np.random.default_rng(0)
    own = rng.random(needed)
    assert threshold(own, coverage) == own.min()
    assert threshold(own[1:], coverage) == 0
    assert future_coverage(needed - 1, coverage).low == 1


def test_the_threshold_is_the_usual_conformal_quantile():
    rng = np.random.default_rng(1)
    for n in (9, 10, 19, 40, 137):
        own = rng.random(n)
        rank = ceil((n + 1) * 0.9 - 1e-9) / n - 1e-12
        usual = 1 - np.quantile(1 - own, rank, method="inverted_cdf")
        assert threshold(own, 0.9) == pytest.approx(usual)


class AsGiven(ClassifierMixin, BaseEstimator):
    """A classifier whose cases are their own probabilities."""

    classes_ = np.arange(3)

    def __sklearn_is_fitted__(self):
        return True

    def predict(self, p):
        return p.argmax(axis=1)

    def predict_proba(self, p):
        return p


@pytest.mark.filterwarnings("ignore:WARNING. your conformalization dataset has less labels")
@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_mapie_sets_are_the_same_for_new_cases(coverage):
    """Calibrated on the cases of one class, MAPIE's least ambiguous sets are ours of that class."""
    from mapie.classification import SplitConformalClassifier

    truth, p = drawn(np.random.default_rng(2), (19, 30, 44))
    _, new = drawn(np.random.default_rng(3), (40, 40, 40))
    for k in range(3):
        own = truth == k
        referee = SplitConformalClassifier(AsGiven(), confidence_level=coverage)
        referee.conformalize(p[own], truth[own])
        _, sets = referee.predict_set(new)
        contained = new[:, k] >= threshold(p[own, k], coverage)
        np.testing.assert_array_equal(contained, sets[:, k, 0])


def test_every_class_is_covered_among_new_cases():
    """Over calibrations by 12 and 25 cases: 90 % or more, a little more, and Beta around it."""
    covers = {12: [], 25: []}
    for seed in range(400):
        rng = np.random.default_rng(seed)
        truth, p = drawn(rng, (12, 25))
        new, q = drawn(rng, (400, 400))
        for k, n in enumerate((12, 25)):
            covers[n].append(np.mean(q[new == k, k] >= threshold(p[truth == k, k], 0.9)))
    for n, coverages in covers.items():
        left_out = int((n + 1) * 0.1)
        assert np.mean(coverages) == pytest.approx(1 - left_out / (n + 1), abs=0.012)
        assert np.mean(coverages) >= 0.9
        jittered = np.array(coverages) + np.random.default_rng(0).uniform(-1, 1, 400) / 800
        assert kstest(jittered, beta(n + 1 - left_out, left_out).cdf).pvalue > 1e-3
        limits = future_coverage(n, 0.9)
        inside = (np.array(coverages) >= limits.low) & (np.array(coverages) <= limits.high)
        assert np.mean(inside) == pytest.approx(0.95, abs=0.04)


def test_the_cohorts_own_cases_are_covered_class_by_class():
    rng = np.random.default_rng(0)
    truth, p = drawn(rng, (10, 20, 40))
    sets = prediction_sets(truth, p, 0.9)
    for k in range(3):
        assert sets[truth == k, k].mean() >= 0.9
    sharper = prediction_sets(*drawn(rng, (10, 20, 40), signal=6), 0.9)
    assert sharper.sum() < sets.sum()


def test_too_few_cases_abstain_and_say_what_is_needed():
    truth, p = drawn(np.random.default_rng(0), (5, 5, 5, 5), signal=3)
    result = conformal([scores(truth, p)], ["DDLPS", "LMS", "MPNST", "SS"])
    assert result.answered.k == 0
    assert result.right.value is None
    assert result.mean_size == 4
    assert result.sizes == (0, 0, 0, 0, 20)
    assert str(result).startswith(
        "The promise is made for each class apart: 90 % needs 9 calibration cases per class; DDLPS has 5, "
        "LMS has 5"
    )
    eased = conformal([scores(truth, p)], ["DDLPS", "LMS", "MPNST", "SS"], coverage=0.8)
    assert eased.mean_size < 4
    assert "80 % needs 4 calibration cases per class, and there are enough" in str(eased)


def test_answers_are_counted_and_repeats_averaged():
    truth, p = drawn(np.random.default_rng(3), (20, 20), signal=2)
    other = np.clip(p + 0.0, 0, 1)[:, ::-1]
    result = conformal([scores(truth, p)], ["a", "b"])
    sets = prediction_sets(truth, p, 0.9)
    alone = sets.sum(axis=1) == 1
    assert result.answered.k == alone.sum()
    assert result.right.k == np.sum(alone & sets[np.arange(40), truth])
    assert sum(result.sizes) == 40
    assert result.mean_size == pytest.approx(sets.sum() / 40)
    even = conformal([scores(truth, p), scores(truth, other)], ["a", "b"])
    assert even.mean_size == 2  # on average the two repeats say nothing
    json.dumps(result.to_json(), allow_nan=False)


def test_a_class_without_a_case_is_never_ruled_out():
    truth, p = drawn(np.random.default_rng(0), (12, 12, 0))
    result = conformal([scores(truth, p)], ["a", "b", "c"])
    assert prediction_sets(truth, p, 0.9)[:, 2].all()
    assert not result.per_class[2].feasible
