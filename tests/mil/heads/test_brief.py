"""Bags in brief: made once, of bags that nobody can write to, by heads that say so themselves."""

import gc

import numpy as np
import pytest

from mil.baselines.pooled import PooledLogistic
from mil.baselines.quantiles import LEVELS, quantiles
from mil.heads import brief as briefs
from mil.heads.batches import in_brief
from mil.heads.brief import brief_of, mean_tile
from mil.heads.head import HeadSettings
from mil.learning.crossval import cross_validate
from tests.mil.made import QUICK, cohort_of, folds_of, made_case

SOLVED = ["pooled-logistic", "quantile-logistic", "pooled-svm", "simpleshot", "knn"]


def a_bag(n_tiles=7, dim=4, *, kind=np.float16, seed=0):
    bag = np.random.default_rng(seed).normal(3, 2, (n_tiles, dim)).astype(kind)
    bag.flags.writeable = False
    return bag


class Counting:
    """A brief that counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, bag):
        self.calls += 1
        return mean_tile(bag)


def test_brief_is_made_once_and_goes_with_its_bag():
    brief, bag, n_before = Counting(), a_bag(), len(briefs._made)
    first = brief_of(bag, brief)
    assert brief_of(bag, brief) is first
    assert brief.calls == 1
    brief_of(a_bag(seed=1), brief)
    assert brief.calls == 2
    del bag
    gc.collect()
    assert len(briefs._made) == n_before


def test_brief_of_a_bag_that_may_change_is_made_anew():
    brief, bag = Counting(), a_bag().copy()
    before = brief_of(bag, brief)
    bag += 1
    np.testing.assert_allclose(brief_of(bag, brief), before + 1, rtol=1e-3)
    assert brief.calls == 2


def test_head_that_derives_from_another_reads_whole_bags():
    class Highest(PooledLogistic):
        def describe(self, features, mask):
            return features.masked_fill(~mask.unsqueeze(-1), -np.inf).amax(dim=1)

    shape = HeadSettings(dim=4, n_outputs=2)
    bag = a_bag()
    assert len(in_brief(PooledLogistic(shape), bag)) == 1
    assert in_brief(Highest(shape), bag) is bag


@pytest.mark.parametrize("n_tiles", [1, 2, 5, 23, 400])
@pytest.mark.parametrize("dim", [1, 3, 2000])
def test_half_precision_is_sorted_by_its_bits(n_tiles, dim):
    rng = np.random.default_rng(n_tiles)
    bag = (rng.normal(size=(n_tiles, dim)) * 10 ** rng.uniform(-7, 4, dim)).astype(np.float16)
    bag[rng.random(bag.shape) < 0.2] = 0.0
    bag[rng.random(bag.shape) < 0.2] = -0.0
    before = bag.copy()
    expected = np.quantile(bag.astype(np.float64), LEVELS, axis=0)
    largest = np.abs(bag).max(axis=0).astype(np.float64)
    assert (np.abs(quantiles(bag) - expected) <= 1e-6 * largest).all()
    np.testing.assert_array_equal(quantiles(bag.astype(np.float32)), quantiles(bag))
    np.testing.assert_array_equal(bag, before)


def a_cohort(writeable):
    rng = np.random.default_rng(0)
    cases = []
    for number in range(12):
        bag = rng.normal(size=(9 + number % 4, 6)).astype(np.float16)
        bag[:, 0] += number % 2
        bag.flags.writeable = writeable
        cases.append(made_case(f"c{number:02d}", "ab"[number % 2], bag))
    return cohort_of(cases)


@pytest.mark.parametrize("model", SOLVED)
def test_rows_that_folds_share_change_no_prediction(model):
    """A bag that is described once answers as one that each fit reads again."""
    tables = []
    for writeable in (True, False):
        cohort = a_cohort(writeable)
        tables.append(cross_validate(cohort, folds_of(cohort), [model], QUICK, seed=3).table)
    np.testing.assert_array_equal(tables[0]["p_a"], tables[1]["p_a"])


def test_bag_is_described_once_for_all_folds_and_repeats(monkeypatch):
    brief = Counting()
    monkeypatch.setattr(PooledLogistic, "brief", staticmethod(brief))
    cohort = a_cohort(writeable=False)
    cross_validate(cohort, folds_of(cohort, repeats=2), ["pooled-logistic"], QUICK, seed=0)
    assert brief.calls == len(cohort.cases)


@pytest.mark.parametrize("model", SOLVED)
def test_tested_bag_that_was_described_before_reaches_no_fit(model):
    """Whatever lies in a tested bag, the others of its fold are answered the same."""
    answers = []
    for shift in (0, 500):
        cohort = a_cohort(writeable=False)
        tested = cohort.cases[0].bags[0].features
        tested.flags.writeable = True
        tested += np.float16(shift)
        tested.flags.writeable = False
        table = cross_validate(cohort, folds_of(cohort), [model], QUICK, seed=3).table
        fold = table.loc[table["case"] == "c00", "fold"].item()
        own = table[(table["fold"] == fold) & (table["case"] != "c00")]
        answers.append(own["p_a"].to_numpy())
    np.testing.assert_array_equal(*answers)
