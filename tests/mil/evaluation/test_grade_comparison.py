"""Paired tests of predicted grades against all swaps carried out, McNemar, and cohorts of a known truth."""

import json
import math
from itertools import product

import numpy as np
import pytest
from scipy.stats import ttest_rel
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.multitest import multipletests

from mil.errors import PredictionsError
from mil.evaluation.grade.comparison import (
    compare_grade_models,
    compare_grade_tables,
    compare_grades,
    detectable_difference,
    kappa_difference,
    mae_difference,
)
from mil.evaluation.grade.predictions import GradePredictions
from tests import twins
from tests.mil.evaluation.grades import GRADES, grade_predictions, grade_table, scores_of


def two_models(seed, n=20, *, far=(1, 2), repeats=1):
    """Grades missed by up to ``far`` steps by either model."""
    rng = np.random.default_rng(seed)
    truth = np.sort(rng.integers(3, size=n))
    truth[:3] = [0, 1, 2]
    return [
        [
            scores_of(truth, np.clip(truth + rng.integers(-steps, steps + 1, size=n), 0, 2))
            for _ in range(repeats)
        ]
        for steps in far
    ]


def grades(model):
    return [one.p.argmax(axis=1) for one in model]


def kappa(truth, grade):
    return cohen_kappa_score(truth, grade, labels=[0, 1, 2], weights="quadratic")


@pytest.mark.parametrize("repeats", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_p_is_that_of_all_swaps_of_predictions_carried_out(seed, repeats):
    n = 7
    first, second = two_models(seed, n, repeats=repeats)
    truth = first[0].truth

    def differences(swap):
        swap, pairs = np.array(swap, bool), list(zip(grades(first), grades(second), strict=True))
        pairs = [(np.where(swap, b, a), np.where(swap, a, b)) for a, b in pairs]
        error = np.mean([np.abs(a - truth).mean() - np.abs(b - truth).mean() for a, b in pairs])
        return abs(error), abs(np.mean([kappa(truth, a) - kappa(truth, b) for a, b in pairs]))

    observed = differences([0] * n)
    every = np.array([differences(swap) for swap in product((0, 1), repeat=n)])
    p = (every >= np.array(observed) - 1e-9).mean(axis=0)
    assert mae_difference(first, second).p == pytest.approx(p[0])
    assert kappa_difference(first, second).p == pytest.approx(p[1])


def test_drawn_swaps_agree_with_all_of_them():
    first, second = two_models(3, 12, far=(0, 2))
    exact = [test(first, second).p for test in (mae_difference, kappa_difference)]
    twice = [
        [scores_of(*_joined(model))] for model in (first, second)
    ]  # 13 cases: one is exact in both
    drawn = [test(*twice).p for test in (mae_difference, kappa_difference)]
    assert drawn[0] == pytest.approx(exact[0], abs=0.02)
    assert drawn[1] == pytest.approx(exact[1], abs=0.05)


def _joined(model):
    return [*model[0].truth, 1], [*model[0].p.argmax(axis=1), 1]


def test_limits_of_the_error_are_those_of_a_paired_t_test():
    first, second = two_models(5)
    truth = first[0].truth
    a, b = (np.abs(grades(model)[0] - truth) for model in (first, second))
    interval = ttest_rel(a, b).confidence_interval()
    difference = mae_difference(first, second)
    assert difference.value == pytest.approx((a - b).mean())
    assert (difference.low, difference.high) == pytest.approx((interval.low, interval.high))


def test_limits_of_kappa_come_from_leaving_out_cases():
    first, second = two_models(6)
    truth, n = first[0].truth, 20
    a, b = grades(first)[0], grades(second)[0]
    left = [
        kappa(np.delete(truth, i), np.delete(a, i)) - kappa(np.delete(truth, i), np.delete(b, i))
        for i in range(n)
    ]
    error = math.sqrt((n - 1) / n * sum((one - np.mean(left)) ** 2 for one in left))
    difference = kappa_difference(first, second)
    assert difference.value == pytest.approx(kappa(truth, a) - kappa(truth, b))
    assert (difference.high - difference.value) / error == pytest.approx(2.093, abs=1e-3)


@pytest.mark.parametrize("repeats", [1, 3])
def test_the_order_of_models_changes_signs_only(repeats):
    first, second = two_models(7, repeats=repeats)
    for test in (mae_difference, kappa_difference):
        one, other = test(first, second), test(second, first)
        assert (one.value, one.low, one.high) == pytest.approx(
            (-other.value, -other.high, -other.low)
        )
        assert one.p == other.p
    assert detectable_difference(first, second) == detectable_difference(second, first)


def test_a_model_is_no_better_than_itself():
    first, _ = two_models(8)
    for test in (mae_difference, kappa_difference):
        difference = test(first, first)
        assert (difference.value, difference.low, difference.high, difference.p) == (0, 0, 0, 1)
    assert detectable_difference(first, first) is None
    (pair,) = compare_grades({"a": first, "b": first}, [("a", "b")]).pairs
    assert (pair.only_first, pair.only_second, pair.p) == (0, 0, 1)


def test_cases_of_one_grade_have_no_difference_in_kappa():
    models = [[scores_of([1] * 6, grade)] for grade in ([1] * 6, [0, 1, 2] * 2)]
    assert kappa_difference(*models) is None
    (pair,) = compare_grades(dict(zip("ab", models, strict=True)), [("a", "b")]).pairs
    assert pair.kappa is None
    assert pair.mae.value == pytest.approx(-2 / 3)


def test_exact_hits_are_counted_in_most_repeats_and_tested_by_mcnemar():
    truth = [0, 1, 2, 1, 0, 2]
    first = [scores_of(truth, grade) for grade in (truth, truth, [2] * 6)]
    second = [scores_of(truth, grade) for grade in ([1] * 6, [1] * 6, truth)]
    (pair,) = compare_grades({"a": first, "b": second}, [("a", "b")]).pairs
    assert (pair.only_first, pair.only_second) == (4, 0)
    assert pair.p == pytest.approx(twins.mcnemar_exact(4, 0))


def test_a_planted_difference_is_seen_and_equal_models_rarely_differ():
    """50 small cohorts; benchmarks.grade_intervals draws hundreds."""
    alarms, hits = np.zeros(2), np.zeros(2)
    for seed in range(50):
        equal, planted = two_models(seed, 24, far=(1, 1)), two_models(seed, 40, far=(0, 2))
        for k, test in enumerate((mae_difference, kappa_difference)):
            alarms[k] += test(*equal).p <= 0.05
            hits[k] += test(*planted).p <= 0.05
    assert (alarms <= 6).all()  # at .05 more in 1 % of such tests
    assert (hits >= 48).all()


def test_p_is_adjusted_over_the_pairs_kind_by_kind():
    models = {str(k): two_models(k, far=(k % 3, 1))[0] for k in range(4)}
    truth = models["0"][0].truth
    models = {n: [scores_of(truth, grades(model)[0])] for n, model in models.items()}
    tests = compare_grades(models, [("0", "1"), ("0", "2"), ("0", "3")]).pairs
    for p, adjusted in (
        ([t.p for t in tests], [t.p_holm for t in tests]),
        ([t.mae.p for t in tests], [t.mae.p_holm for t in tests]),
        ([t.kappa.p for t in tests], [t.kappa.p_holm for t in tests]),
    ):
        assert adjusted == pytest.approx(multipletests(p, method="holm")[1])


def test_models_of_one_table():
    predictions = grade_predictions(
        counts=(10, 10, 10), models=("abmil", "votes", "noise"), signal=2
    )
    comparison = compare_grade_models(predictions)
    assert [(t.first, t.second) for t in comparison.pairs] == [
        ("abmil", "votes"), ("abmil", "noise"), ("votes", "noise"),
    ]  # fmt: skip
    assert comparison.pairs[0].mae.value < 0 < comparison.pairs[0].kappa.value
    assert comparison.pairs[0].kappa.p < 0.01
    written = json.loads(json.dumps(comparison.to_json(), allow_nan=False))
    assert written["says"] == str(comparison)
    assert "With 30 cases" in written["says"]
    assert "grades is found in 80 % of studies" in written["says"]
    pairs = compare_grade_models(predictions, "noise").pairs
    assert [(t.first, t.second) for t in pairs] == [("noise", "abmil"), ("noise", "votes")]
    with pytest.raises(
        PredictionsError, match=r"No model 'x' to compare with\. Known: abmil, votes, noise"
    ):
        compare_grade_models(predictions, "x")
    (table,) = comparison.tables()
    assert table.rows[0][:4] == ["abmil", "votes", "14", "4"]
    assert (comparison.pairs[0].only_first, comparison.pairs[0].only_second) == (14, 4)
    mae = comparison.pairs[0].mae
    assert table.rows[0][5] == f"{mae.value:+.2f} ({mae.low:+.2f} to {mae.high:+.2f})"
    assert list(table.notes) == ["30 cases; p adjusted over 3 pairs (Holm).", str(comparison)]
    assert comparison.rows()[0]["kappa_p_holm"] == comparison.pairs[0].kappa.p_holm
    alone = compare_grade_models(grade_predictions(models=("abmil",)))
    assert alone.tables() == []
    assert alone.pairs == ()
    assert "grades is found" not in str(alone)


def test_models_of_two_tables():
    table = grade_table(counts=(6, 6, 6))
    first = GradePredictions(table, GRADES)
    second = GradePredictions(table[table["repeat"] == 1], GRADES)
    pairs = compare_grade_tables(first, second, ("old", "new")).pairs
    assert [(t.first, t.second) for t in pairs] == [
        ("old: abmil", "new: abmil"), ("old: votes", "new: votes"),
    ]  # fmt: skip
    other = table[table["model"] == "votes"].assign(model="best")
    pairs = compare_grade_tables(first, GradePredictions(other, GRADES)).pairs
    assert [(t.first, t.second) for t in pairs] == [
        ("A: abmil", "B: best"), ("A: votes", "B: best"),
    ]  # fmt: skip


def test_tables_of_other_grades_cases_or_outcomes_are_refused():
    table = grade_table()
    first = GradePredictions(table, GRADES)
    fewer = GradePredictions(table[table["case"] != "case03"], GRADES)
    with pytest.raises(PredictionsError, match=r"B lacks 1 of the 12 cases of A, e\.g\. case03"):
        compare_grade_tables(first, fewer)
    with pytest.raises(PredictionsError, match=r"A lacks 1 of the 12 cases of B, e\.g\. case03"):
        compare_grade_tables(fewer, first)
    moved = table.assign(grade=np.where(table["case"] == "case03", "3", table["grade"]))
    with pytest.raises(
        PredictionsError, match=r"Case case03 has grade 1 in A and 3 in B\. Correct"
    ):
        compare_grade_tables(first, GradePredictions(moved, GRADES))
    four = GradePredictions(table.assign(g_4=0.0), (*GRADES, "4"))
    with pytest.raises(PredictionsError, match=r"A has the grades 1, 2, 3; B has 1, 2, 3, 4"):
        compare_grade_tables(first, four)
