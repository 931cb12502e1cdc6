"""Shuffled labels must say nothing, a leak must be seen, and cases must stay whole."""

import io
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from mil.report.null import draw_null
from PIL import Image
from scipy import stats

from mil.audit.permutation import CHANCE, Shuffle, judge, shuffle_labels, shuffles
from mil.data.case import Case
from mil.errors import CohortError
from mil.evaluation.classification.predictions import COLUMNS, PREFIX, ClassPredictions
from mil.learning.crossval import cross_validate
from mil.settings import SplitSettings
from tests.mil.made import QUICK, cohort_of, made_cohort, planted_cohort

SPLIT = SplitSettings(folds="3")
MODELS = ("majority", "mean")


def of(model, aucs):
    return [Shuffle(i, model, auc, 0.5) for i, auc in enumerate(aucs)]


def pipeline(cohort, folds, seed):
    return cross_validate(cohort, folds, MODELS, QUICK, seed=seed)


def knowing(cohort, folds, seed):
    """A pipeline that has seen the labels it is asked for."""
    rng = np.random.default_rng(seed)
    rows = []
    for fold in folds:
        for case in cohort.named(fold.test):
            p = rng.random(len(cohort.classes))
            p[cohort.classes.index(case.label)] += 0.2
            told = {PREFIX + name: v for name, v in zip(cohort.classes, p / p.sum(), strict=True)}
            fixed = ("leaky", fold.repeat, fold.index, case.name, case.bags[0].slide, case.label)
            rows.append(dict(zip(COLUMNS, fixed, strict=True)) | told)
    columns = [*COLUMNS, *(PREFIX + name for name in cohort.classes)]
    return ClassPredictions(pd.DataFrame(rows, columns=columns), cohort.classes)


def test_labels_move_between_whole_cases():
    cohort = made_cohort((5, 4), slides=3)
    shuffled, _ = shuffle_labels(cohort, SPLIT, 1)
    assert [case.name for case in shuffled.cases] == [case.name for case in cohort.cases]
    assert all(a.bags is b.bags for a, b in zip(shuffled.cases, cohort.cases, strict=True))
    count = Counter(case.label for case in shuffled.cases)
    assert count == Counter(case.label for case in cohort.cases)
    assert any(a.label != b.label for a, b in zip(shuffled.cases, cohort.cases, strict=True))


def test_every_number_is_another_shuffle_and_the_same_again():
    cohort = made_cohort((6, 6))
    orders = [
        tuple(case.label for case in shuffle_labels(cohort, SPLIT, number)[0].cases)
        for number in (1, 2, 3, 1)
    ]
    assert len(set(orders)) == 3
    assert orders[0] == orders[3]


def test_every_case_gets_each_label_at_its_share():
    cohort = made_cohort((2, 6))
    named = np.array(
        [
            [case.label == "class-a" for case in shuffle_labels(cohort, SplitSettings(folds="2"), i)[0].cases]
            for i in range(400)
        ]
    )  # fmt: skip
    assert stats.chisquare(named.sum(axis=0), np.full(8, 100)).pvalue > 1e-4


def test_a_sound_pipeline_on_planted_bags_is_at_chance_and_its_truth_stands_out():
    cohort, _ = planted_cohort(2, 6)
    found = [
        row for rows in shuffles(cohort, MODELS, SPLIT, pipeline, range(1, 11)) for row in rows
    ]
    assert len(found) == 10 * len(MODELS)
    majority, mean = judge(found, {"majority": None, "mean": 1.0})
    assert not majority.aucs
    assert not majority.invents
    assert not mean.invents
    assert mean.p_value == 1 / 11


def test_a_pipeline_that_knows_the_labels_is_called_so():
    cohort = made_cohort((8, 8))
    rows = shuffles(cohort, ("leaky",), SPLIT, knowing, range(1, 21))
    [verdict] = judge([row for each in rows for row in each], {"leaky": 0.7})
    assert verdict.invents
    assert np.mean(verdict.aucs) > verdict.noticed > CHANCE


def test_false_alarms_are_as_rare_as_stated():
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(2000):
        found = [row for name in "abc" for row in of(name, rng.normal(0.5, 0.12, 20))]
        alarms += any(each.invents for each in judge(found, dict.fromkeys("abc", 0.6)))
    assert stats.binomtest(alarms, 2000, 0.01).proportion_ci(0.999).low <= 0.01
    assert alarms < 45


def test_means_below_chance_raise_no_alarm():
    [verdict] = judge(of("mean", [0.2, 0.25, 0.3, 0.21]), {"mean": 0.9})
    assert not verdict.invents


@pytest.mark.parametrize(("observed", "p"), [(0.9, 1 / 5), (0.6, 2 / 5), (0.1, 1.0)])
def test_p_counts_the_shuffles_that_reach_the_truth(observed, p):
    [verdict] = judge(of("mean", [0.4, 0.5, 0.6, 0.3]), {"mean": observed})
    assert verdict.p_value == pytest.approx(p)


def test_shuffles_that_sites_cannot_carry_are_drawn_again_or_refused():
    cohort = made_cohort((4, 4), slides=1)
    sites = [f"site-{i % 2}" for i in range(8)]
    placed = cohort_of(
        [
            Case(name=case.name, label=case.label, bags=case.bags, site=site)
            for case, site in zip(cohort.cases, sites, strict=True)
        ]
    )
    shuffled, folds = shuffle_labels(placed, SplitSettings(folds="site"), 1)
    label = {case.name: case.label for case in shuffled.cases}
    assert all(len({label[name] for name in fold.train}) == 2 for fold in folds)
    with pytest.raises(CohortError):
        shuffle_labels(made_cohort((2, 2)), SplitSettings(folds="5"), 1)


def test_picture_is_drawn_also_of_nothing():
    for verdicts in (judge(of("mean", [0.4, 0.5]), {"mean": 0.9, "majority": None}), ()):
        assert Image.open(io.BytesIO(draw_null(verdicts))).width > 500
