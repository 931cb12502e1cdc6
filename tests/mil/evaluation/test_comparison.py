import json
import math
from dataclasses import astuple, replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, permutation_test, ttest_1samp
from scipy.stats import t as student
from statsmodels.stats.contingency_tables import cochrans_q, mcnemar
from statsmodels.stats.multitest import multipletests

from mil.errors import RunError
from mil.evaluation.classification.metrics import predicted
from mil.evaluation.classification.power import mcnemar_power, power
from mil.evaluation.classification.predictions import CaseScores, ClassPredictions
from mil.evaluation.comparison import compare, compare_tables, delong_test, folds_test
from mil.evaluation.paired_tests import (
    Difference,
    cochran_q,
    corrected_t,
    holm,
    mcnemar_exact,
    permutation_tests,
)
from tests import twins


def test_mcnemar_equals_its_definition_and_statsmodels():
    for b in range(15):
        for c in range(15):
            assert mcnemar_exact(b, c) == pytest.approx(twins.mcnemar_exact(b, c))
            if b + c:
                reference = mcnemar([[3, b], [c, 4]], exact=True).pvalue
                assert mcnemar_exact(b, c) == pytest.approx(min(reference, 1.0))
    assert mcnemar_exact(0, 0) == 1


def test_holm_equals_its_definition_and_statsmodels():
    for seed in range(200):
        rng = np.random.default_rng(seed)
        p = rng.choice([0.001, 0.01, 0.02, 0.04, 0.3, 1.0, rng.uniform()], size=rng.integers(1, 8))
        assert holm(list(p)) == pytest.approx(twins.holm(list(p)))
        if seed < 20:  # the referee collects garbage at every call
            assert holm(list(p)) == pytest.approx(multipletests(p, method="holm")[1])


def test_no_pair_no_adjustment():
    assert holm([]) == []


def test_all_pairs_or_the_reference_against_the_others(make):
    predictions = make(models=("a", "b", "c"))
    assert [(t.first, t.second) for t in compare(predictions)] == [
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
    ]
    assert [(t.first, t.second) for t in compare(predictions, "b")] == [("b", "a"), ("b", "c")]
    assert compare(make(models=("a",))) == ()
    with pytest.raises(RunError, match=r"No model 'd' to compare with\. Known: a, b, c\."):
        compare(predictions, "d")


def test_counts_are_cases_right_in_more_than_half_of_the_repeats(make):
    predictions = make(counts=(8, 9), repeats=4, seed=4)
    right = {}
    for model in predictions.models:
        votes = np.zeros(17)
        for repeat in range(4):
            scores = predictions.case_scores(model, repeat)
            votes += predicted(scores.p) == scores.truth
        right[model] = votes > 2
    (pair,) = compare(predictions)
    assert pair.n == 17
    assert pair.only_first == sum(right["abmil"] & ~right["votes"])
    assert pair.only_second == sum(right["votes"] & ~right["abmil"])
    assert pair.p == pair.p_holm == twins.mcnemar_exact(pair.only_first, pair.only_second)
    json.dumps(pair.to_json(), allow_nan=False)


def test_repeats_are_not_more_cases(make):
    once = make(repeats=1)
    thrice = pd.concat([once.table.assign(repeat=repeat) for repeat in range(3)])
    (a,), (b,) = compare(once), compare(ClassPredictions(thrice, once.classes))
    assert (a.only_first, a.only_second, a.p, a.n) == (b.only_first, b.only_second, b.p, b.n)
    assert a.p_brier == b.p_brier
    assert astuple(a.auc) == pytest.approx(astuple(b.auc))
    assert b.p_folds >= a.p_folds / 2  # nine folds instead of three do not make it a third


def two_models(seed, counts=(8, 9)):
    rng = np.random.default_rng(seed)
    n, fold = sum(counts), np.arange(sum(counts)) % 4
    truth = np.repeat(np.arange(len(counts)), counts)
    models = []
    for signal in (1.0, 1.5):
        score = rng.normal(size=(n, len(counts))) + signal * np.eye(len(counts))[truth]
        p = np.exp(score) / np.exp(score).sum(axis=1, keepdims=True)
        models.append(CaseScores(tuple(map(str, range(n))), truth, p, fold))
    return models


def test_paired_delong_equals_its_definition():
    for seed in range(40):
        a, b = two_models(seed)
        difference = delong_test([a], [b])
        positive = a.truth == 1
        value, variance = twins.delong_paired(positive, a.p[:, 1], b.p[:, 1])
        assert difference.value == pytest.approx(value)
        assert difference.p == pytest.approx(2 * norm.sf(abs(value) / variance**0.5))
        half = norm.ppf(0.975) * variance**0.5
        assert difference.low == pytest.approx(max(-1, value - half))
        mirrored = delong_test([b], [a])
        assert (mirrored.value, mirrored.p) == pytest.approx((-difference.value, difference.p))


def test_paired_delong_of_three_classes_is_about_the_mean_of_three_aucs():
    """Against the spread of the difference over cohorts drawn anew."""
    errors, values = [], []
    for seed in range(300):
        a, b = two_models(seed, (10, 10, 10))
        difference = delong_test([a], [b])
        values.append(difference.value)
        errors.append((difference.high - difference.value) / norm.ppf(0.975))
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.12)


def test_delong_where_there_is_nothing_to_judge_by():
    a, b = two_models(0)
    assert delong_test([a], [a]) == Difference(0, 0, 0, 1, 1)
    perfect = replace(a, p=np.eye(2)[a.truth])
    assert delong_test([perfect], [replace(a, p=1 - perfect.p)]) is None
    constant = replace(a, p=np.full((17, 2), 0.5))
    assert delong_test([constant], [b]) is None  # the majority rule ranks nothing


def test_permutation_tests_equal_scipy_and_all_sign_changes():
    rng = np.random.default_rng(0)
    few = rng.normal(0.3, 1, size=(3, 9))
    for row, p in zip(few, permutation_tests(few), strict=True):
        sums = [abs(np.dot(signs, row)) for signs in product((1, -1), repeat=9)]
        assert p == pytest.approx(np.mean([total >= abs(row.sum()) - 1e-9 for total in sums]))
        reference = permutation_test((row,), np.sum, permutation_type="samples", n_resamples=np.inf)
        assert p == pytest.approx(reference.pvalue, abs=1e-9)
    many = rng.normal(0.4, 1, size=(4, 25))
    for row, p in zip(many, permutation_tests(many), strict=True):
        reference = permutation_test(
            (row,), np.sum, permutation_type="samples", n_resamples=9999, rng=1
        )
        assert p == pytest.approx(reference.pvalue, abs=0.02)
    assert permutation_tests(np.zeros((1, 20))) == [1.0]
    assert permutation_tests(np.ones((1, 20))) == [pytest.approx(1e-4)]


def test_the_corrected_t_equals_its_formula_and_is_milder_than_the_plain_one():
    rng = np.random.default_rng(0)
    differences = rng.normal(0.1, 0.1, size=15)
    variance = sum((d - differences.mean()) ** 2 for d in differences) / 14
    t = differences.mean() / math.sqrt(variance * (1 / 15 + 0.25))
    assert corrected_t(differences, 0.25) == pytest.approx(2 * student.sf(t, 14))
    assert corrected_t(differences, 0.0) == pytest.approx(ttest_1samp(differences, 0).pvalue)
    assert corrected_t(np.zeros(5), 0.25) == 1
    assert corrected_t(np.full(5, 0.1), 0.25) is None


def test_folds_are_compared_only_where_they_are_the_same():
    a, b = two_models(1)
    differences = [
        np.mean(predicted(a.p[a.fold == k]) == a.truth[a.fold == k])
        - np.mean(predicted(b.p[b.fold == k]) == b.truth[b.fold == k])
        for k in range(4)
    ]
    shares = [np.sum(a.fold == k) / np.sum(a.fold != k) for k in range(4)]
    assert folds_test([a], [b]) == pytest.approx(
        corrected_t(np.array(differences), np.mean(shares))
    )
    assert folds_test([a], [replace(b, fold=b.fold[::-1])]) is None
    assert folds_test([a], [b, b]) is None
    whole = [replace(scores, fold=np.zeros(17, np.int64)) for scores in (a, b)]
    assert folds_test([whole[0]], [whole[1]]) is None


def test_cochran_equals_statsmodels_and_mcnemar_for_two():
    for seed in range(20):
        right = np.random.default_rng(seed).random((14, 4)) < [0.5, 0.6, 0.7, 0.8]
        reference = cochrans_q(right.astype(int))
        test = cochran_q(right)
        assert (test.q, test.p) == pytest.approx((reference.statistic, reference.pvalue))
        b, c = np.sum(right[:, 0] & ~right[:, 1]), np.sum(right[:, 1] & ~right[:, 0])
        assert cochran_q(right[:, :2]).q == pytest.approx((b - c) ** 2 / (b + c))
    assert cochran_q(np.ones((5, 3), bool)).p == 1


def test_power_of_fifteen_points_as_simulated_and_by_its_definition():
    for n, share in ((20, 0.10), (30, 0.24), (50, 0.48), (100, 0.84), (250, 1.0)):
        assert mcnemar_power(n, 0.15) == pytest.approx(share, abs=0.006)
    by_hand = sum(
        math.comb(20, b) * math.comb(20 - b, c) * 0.2**b * 0.05**c * 0.75 ** (20 - b - c)
        for b in range(21)
        for c in range(21 - b)
        if twins.mcnemar_exact(b, c) <= 0.05
    )
    assert mcnemar_power(20, 0.15) == pytest.approx(by_hand)
    assert mcnemar_power(5, 0.9) == 0  # five discordant cases cannot reach p = .05


def test_power_is_put_in_words():
    twenty = power(20)
    assert str(twenty).startswith(
        "With 20 cases a true difference in accuracy of 15 percentage points is found in 10 % of studies"
    )
    assert (
        mcnemar_power(twenty.cases_needed, 0.15)
        >= 0.8
        > mcnemar_power(twenty.cases_needed - 1, 0.15)
    )
    assert mcnemar_power(20, twenty.needed) >= 0.8 > mcnemar_power(20, twenty.needed - 0.01)
    assert power(4).needed is None
    for gain in (0.0, 0.95, float("nan")):
        with pytest.raises(ValueError, match="gain must lie in"):
            power(20, gain)


def test_two_tables_are_compared_model_by_model(make):
    a, b = make(models=("abmil", "votes"), seed=1), make(models=("votes", "other"), seed=2)
    comparison = compare_tables(a, b, ("old", "new"))
    assert [(t.first, t.second) for t in comparison.pairs] == [("old: votes", "new: votes")]
    assert comparison.cochran is None
    apart = compare_tables(make(models=("a", "b")), make(models=("c",), seed=3))
    assert [(t.first, t.second) for t in apart.pairs] == [("A: a", "B: c"), ("A: b", "B: c")]
    assert apart.cochran.models == 3
    json.dumps(apart.to_json(), allow_nan=False)


def test_a_table_against_itself_with_its_classes_in_another_order_is_no_different(make):
    a = make()
    turned = ClassPredictions(a.table, a.classes[::-1])
    for test in compare_tables(a, turned).pairs:
        assert (test.only_first, test.only_second, test.brier, test.p_brier) == (0, 0, 0, 1)
        assert test.auc == Difference(0, 0, 0, 1, 1)


def test_tables_of_other_cases_labels_or_classes_are_refused(make):
    a = make()
    fewer = ClassPredictions(a.table[a.table["case"] != "case03"], a.classes)
    with pytest.raises(RunError, match=r"new lacks 1 of the 12 cases of old, e\.g\. case03"):
        compare_tables(a, fewer, ("old", "new"))
    with pytest.raises(RunError, match=r"A lacks 1 of the 12 cases of B, e\.g\. case03"):
        compare_tables(fewer, a)
    table = a.table.copy()
    table.loc[table["case"] == "case03", "label"] = "c0"
    with pytest.raises(RunError, match=r"Case case03 is c1 in A and c0 in B\. Correct"):
        compare_tables(a, ClassPredictions(table, a.classes))
    with pytest.raises(RunError, match="A has the classes c0, c1, c2; B has c0, c1"):
        compare_tables(a, make(counts=(6, 6)))
