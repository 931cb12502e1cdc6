"""Shuffled outcomes must show nothing, a leak must be seen, and cases must stay whole; for every task."""

import io
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats

from mil.audit.permutation import (
    Permutation,
    PermutationTest,
    judge_permutations,
    metric_by_model,
    permute,
    shuffle_outcomes,
)
from mil.audit.permutation_figure import draw_permutations
from mil.data.case import Case
from mil.errors import CohortError
from mil.evaluation.classification.predictions import COLUMNS, PREFIX, ClassPredictions
from mil.evaluation.survival.predictions import COLUMNS as RISK_COLUMNS
from mil.evaluation.survival.predictions import RiskPredictions
from mil.learning.crossval import cross_validate
from mil.settings import FitSettings, SplitSettings
from tests.mil.followed import folds_by_event, followed_cohort
from tests.mil.made import QUICK, cohort_of, made_cohort, planted_cohort

SPLIT = SplitSettings(folds="3")
MODELS = ("majority", "mean")
CHANCE = 0.5


def permutations_of(model, values):
    return [Permutation(i, model, value) for i, value in enumerate(values)]


def judge(permutations, observed, metric="auc"):
    return judge_permutations(permutations, observed, metric, CHANCE)


def sound_pipeline(cohort, folds, seed):
    return cross_validate(cohort, folds, MODELS, QUICK, seed=seed)


def leaking_pipeline(cohort, folds, seed):
    """A pipeline that has seen the labels of the cases it predicts."""
    rng = np.random.default_rng(seed)
    rows = []
    for fold in folds:
        for case in cohort.named(fold.test):
            p = rng.random(len(cohort.classes))
            p[cohort.classes.index(case.label)] += 0.2
            answers = {
                PREFIX + name: v for name, v in zip(cohort.classes, p / p.sum(), strict=True)
            }
            keys = ("leaky", fold.repeat, fold.index, case.name, case.bags[0].slide, case.label)
            rows.append(dict(zip(COLUMNS, keys, strict=True)) | answers)
    columns = [*COLUMNS, *(PREFIX + name for name in cohort.classes)]
    return ClassPredictions(pd.DataFrame(rows, columns=columns), cohort.classes)


def sound_survival_pipeline(cohort, folds, seed):
    settings = FitSettings(task="survival", epochs=4, width=8, learning_rate=5e-3, seeds=1)
    return cross_validate(cohort, folds, ("majority", "pooled-logistic"), settings, seed=seed)


def leaking_survival_pipeline(cohort, folds, seed):
    """A pipeline that has seen the times of the cases it predicts."""
    rng = np.random.default_rng(seed)
    rows = []
    for fold in folds:
        for case in cohort.named(fold.test):
            event = int(case.label == "event")
            risk = rng.normal() - np.log(case.time)
            keys = ("leaky", fold.repeat, fold.index, case.name, case.bags[0].slide)
            rows.append((*keys, case.time, event, risk, 0.9, 0.5))
    return RiskPredictions(pd.DataFrame(rows, columns=[*RISK_COLUMNS, "s_1", "s_2"]))


def outcomes(cohort):
    return [(case.label, case.time) for case in cohort.cases]


@pytest.mark.parametrize(
    "cohort", [made_cohort((5, 4), slides=3), followed_cohort(9)], ids=["class", "time"]
)
def test_outcomes_move_between_whole_cases(cohort):
    shuffled, _ = shuffle_outcomes(cohort, SPLIT, 1)
    assert [case.name for case in shuffled.cases] == [case.name for case in cohort.cases]
    assert all(a.bags is b.bags for a, b in zip(shuffled.cases, cohort.cases, strict=True))
    # A time goes with its event.
    assert Counter(outcomes(shuffled)) == Counter(outcomes(cohort))
    assert outcomes(shuffled) != outcomes(cohort)


@pytest.mark.parametrize(
    "cohort", [made_cohort((6, 6)), followed_cohort(12)], ids=["class", "time"]
)
def test_every_number_is_another_shuffle_and_the_same_again(cohort):
    orders = [
        tuple(outcomes(shuffle_outcomes(cohort, SPLIT, number)[0])) for number in (1, 2, 3, 1)
    ]
    assert len(set(orders)) == 3
    assert orders[0] == orders[3]


def test_every_case_gets_each_label_at_its_share():
    cohort = made_cohort((2, 6))
    split = SplitSettings(folds="2")
    is_first = np.array(
        [
            [case.label == "class-a" for case in shuffle_outcomes(cohort, split, i)[0].cases]
            for i in range(400)
        ]
    )
    assert stats.chisquare(is_first.sum(axis=0), np.full(8, 100)).pvalue > 1e-4


def test_a_sound_pipeline_on_planted_bags_is_at_chance_and_its_truth_stands_out():
    cohort, _ = planted_cohort(2, 6)
    shuffles = permute(cohort, MODELS, SPLIT, sound_pipeline, range(1, 11))
    permutations = [permutation for rows in shuffles for permutation in rows]
    assert len(permutations) == 10 * len(MODELS)
    majority, mean = judge(permutations, {"majority": None, "mean": 1.0})
    assert not majority.values
    assert not majority.leaks
    assert not mean.leaks
    assert mean.p_value == 1 / 11


def test_a_sound_survival_pipeline_on_planted_bags_is_at_chance_and_its_truth_stands_out():
    cohort, models = followed_cohort(60, n_tiles=20), ("majority", "pooled-logistic")
    folds = folds_by_event(cohort, "3")
    observed = metric_by_model(cohort, sound_survival_pipeline(cohort, folds, 0))
    shuffles = permute(cohort, models, SPLIT, sound_survival_pipeline, range(1, 13))
    permutations = [permutation for rows in shuffles for permutation in rows]
    majority, pooled = judge(permutations, observed, "harrell")
    assert set(majority.values) == {0.5}
    assert (majority.leaks, majority.p_value, majority.alarm_at) == (False, None, None)
    assert pooled.observed > 0.65
    assert not pooled.leaks
    assert abs(np.mean(pooled.values) - CHANCE) < 0.1
    assert pooled.p_value == 1 / 13


@pytest.mark.parametrize(
    ("cohort", "pipeline"),
    [(made_cohort((8, 8)), leaking_pipeline), (followed_cohort(24), leaking_survival_pipeline)],
    ids=["class", "time"],
)
def test_a_pipeline_that_knows_the_outcomes_is_called_so(cohort, pipeline):
    shuffles = permute(cohort, ("leaky",), SPLIT, pipeline, range(1, 21))
    [test] = judge([permutation for rows in shuffles for permutation in rows], {"leaky": 0.7})
    assert test.leaks
    assert np.mean(test.values) > test.alarm_at > CHANCE


def test_shuffles_that_all_find_the_truth_are_a_leak_though_they_do_not_vary():
    permutations = [Permutation(number, "leaky", 1.0) for number in range(1, 21)]
    [test] = judge(permutations, {"leaky": 1.0})
    assert test.leaks
    assert test.p_value == 1


def test_false_alarms_are_as_rare_as_stated():
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(2000):
        permutations = [p for m in "abc" for p in permutations_of(m, rng.normal(0.5, 0.12, 20))]
        alarms += any(test.leaks for test in judge(permutations, dict.fromkeys("abc", 0.6)))
    assert stats.binomtest(alarms, 2000, 0.01).proportion_ci(0.999).low <= 0.01
    assert alarms < 45


def test_means_below_chance_raise_no_alarm():
    [test] = judge(permutations_of("mean", [0.2, 0.25, 0.3, 0.21]), {"mean": 0.9})
    assert not test.leaks


def test_chance_is_that_of_the_metric():
    """A kappa of .3 in every shuffle is a leak, although an AUC of .3 would be none."""
    permutations = permutations_of("mean", [0.2, 0.25, 0.3, 0.21])
    [test] = judge_permutations(permutations, {"mean": 0.9}, "quadratic_kappa", 0.0)
    assert (test.leaks, test.metric, test.chance) == (True, "quadratic_kappa", 0.0)


@pytest.mark.parametrize(("observed", "p"), [(0.9, 1 / 5), (0.6, 2 / 5), (0.1, 1.0)])
def test_p_counts_the_shuffles_that_reach_the_truth(observed, p):
    [test] = judge(permutations_of("mean", [0.4, 0.5, 0.6, 0.3]), {"mean": observed})
    assert test.p_value == pytest.approx(p)


def test_shuffles_that_sites_cannot_carry_are_drawn_again_or_refused():
    cohort = made_cohort((4, 4), slides=1)
    sites = [f"site-{i % 2}" for i in range(8)]
    placed = cohort_of(
        [
            Case(name=case.name, label=case.label, bags=case.bags, site=site)
            for case, site in zip(cohort.cases, sites, strict=True)
        ]
    )
    shuffled, folds = shuffle_outcomes(placed, SplitSettings(folds="site"), 1)
    label = {case.name: case.label for case in shuffled.cases}
    assert all(len({label[name] for name in fold.train}) == 2 for fold in folds)
    with pytest.raises(CohortError):
        shuffle_outcomes(made_cohort((2, 2)), SplitSettings(folds="5"), 1)


def test_few_censored_cases_do_not_forbid_shuffles():
    cohort = followed_cohort(12)
    cases = [replace(c, label="censored" if c.name == "c000" else "event") for c in cohort.cases]
    shuffled, folds = shuffle_outcomes(replace(cohort, cases=tuple(cases)), SPLIT, 1)
    assert Counter(case.label for case in shuffled.cases) == {"event": 11, "censored": 1}
    assert len(folds) == 3


@pytest.mark.parametrize("observed", [{"mean": 0.9, "majority": None}, {"majority": None}, {}])
def test_picture_is_drawn_also_of_nothing(observed):
    tests = judge(permutations_of("mean", [0.4, 0.5]), observed)
    assert Image.open(io.BytesIO(draw_permutations(tests))).width > 500


@pytest.mark.parametrize(
    ("values", "alarm_at", "leaks", "verdict", "remark"),
    [
        ((0.4, 0.6), 4.1, False, "too few shuffles to tell", "2 shuffles show only gross leaks, and"),
        ((0.4, 0.6, 0.5), 0.74, False, "at chance (alarm from 0.74)", "p cannot fall below 0.25. Use 20 or"),
        ((0.9, 0.8) * 15, 0.53, True, "LEAKS", ""),
        ((), None, False, "gives all cases the same score", ""),
    ],
)  # fmt: skip
def test_a_test_says_what_it_shows_and_what_it_cannot(values, alarm_at, leaks, verdict, remark):
    observed, p = (0.71, 0.034) if values else (None, None)
    test = PermutationTest("abmil", "auc", 0.5, values, observed, p, alarm_at, leaks=leaks)
    assert test.verdict == verdict
    assert remark in test.remark
    assert bool(remark) == bool(test.remark)
    assert verdict in repr(test)
    assert len(repr(test)) < 120
