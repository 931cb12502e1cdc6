"""Paired tests of survival models against their definitions, paired DeLong, and cohorts of a known truth."""

import json
import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy.stats import rankdata
from scipy.stats import t as student
from sksurv.metrics import integrated_brier_score
from sksurv.util import Surv
from statsmodels.stats.multitest import multipletests

from mil.errors import PredictionsError
from mil.evaluation.survival.comparison import (
    SurvivalComparison,
    SurvivalPairTest,
    compare_risks,
    compare_survival_models,
    compare_survival_tables,
)
from mil.evaluation.survival.differences import (
    detectable_difference,
    harrell_difference,
    ibs_difference,
)
from mil.evaluation.survival.metrics import brier, brier_errors, harrell_c, integrated_brier
from mil.evaluation.survival.predictions import CaseRisks, RiskPredictions
from tests import twins
from tests.mil.evaluation.test_survival_predictions import table_of
from tests.mil.followed import drawn

AT = np.linspace(50, 900, 6)


def two_models(seed, n=24, *, noise=(1.0, 1.0), repeats=1, ties=False):
    """The risks of two models over one cohort: the true risk with noise of its own in every repeat."""
    rng = np.random.default_rng(seed)
    time, event, true = drawn(rng, n, ties=ties)
    names, fold = tuple(f"c{i:03d}" for i in range(n)), np.zeros(n, np.int64)
    models = []
    for level in noise:
        of_model = []
        for _ in range(repeats):
            risk = true + level * rng.normal(size=n)
            risk = np.round(risk, 1) if ties else risk
            survival = np.exp(-np.exp(risk)[:, None] * AT / 1000)
            of_model.append(CaseRisks(names, time, event, risk, survival, fold))
        models.append(of_model)
    return models


def c_of(one, risk):
    return harrell_c(one.time, one.event, risk)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("repeats", [1, 3])
def test_value_is_the_difference_of_the_mean_c(ties, repeats):
    first, second = two_models(1, repeats=repeats, ties=ties)
    means = [np.mean([c_of(one, one.risk) for one in model]) for model in (first, second)]
    assert harrell_difference(first, second).value == pytest.approx(means[0] - means[1], abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_p_is_that_of_all_swaps_of_ranks_carried_out(seed, ties):
    n = 8
    (first,), (second,) = two_models(seed, n, noise=(0.5, 2.0), ties=ties)
    a, b = rankdata(first.risk), rankdata(second.risk)
    observed = abs(c_of(first, a) - c_of(first, b))
    reaching = 0
    for swap in product((False, True), repeat=n):
        one, other = np.where(swap, b, a), np.where(swap, a, b)
        reaching += abs(c_of(first, one) - c_of(first, other)) >= observed - 1e-9
    assert harrell_difference([first], [second]).p == pytest.approx(reaching / 2**n)


def test_a_case_is_swapped_in_all_repeats_at_once():
    n = 7
    first, second = two_models(5, n, noise=(0.4, 2.0), repeats=2)
    ranks = [[rankdata(one.risk) for one in model] for model in (first, second)]
    case = first[0]

    def difference(swap):
        values = [
            c_of(case, np.where(swap, b, a)) - c_of(case, np.where(swap, a, b))
            for a, b in zip(*ranks, strict=True)
        ]
        return abs(np.mean(values))

    observed = difference(np.zeros(n, bool))
    reaching = sum(
        difference(np.array(swap)) >= observed - 1e-9 for swap in product((0, 1), repeat=n)
    )
    assert harrell_difference(first, second).p == pytest.approx(reaching / 2**n)


def test_limits_come_from_the_derivative_of_c_by_case_weights():
    first, second = two_models(3, 20, repeats=2, ties=True)
    time, event = first[0].time, first[0].event

    def weighted(weight, repeats):
        values = []
        for one in repeats:
            right = pairs = 0.0
            for i, j in product(range(len(time)), repeat=2):
                if event[i] and (time[i] < time[j] or (time[i] == time[j] and not event[j])):
                    w = weight[i] * weight[j]
                    pairs += w
                    right += w * twins.kernel(one.risk[i], one.risk[j])
            values.append(right / pairs)
        return np.mean(values)

    n, step, square = len(time), 1e-5, 0.0
    for i in range(n):
        up, down = np.ones(n), np.ones(n)
        up[i], down[i] = 1 + step, 1 - step
        slopes = [
            (weighted(up, model) - weighted(down, model)) / (2 * step) for model in (first, second)
        ]
        square += (slopes[0] - slopes[1]) ** 2
    half = math.sqrt(square * n / (n - 1)) * student.ppf(0.975, event.sum() - 1)
    difference = harrell_difference(first, second)
    assert difference.high - difference.value == pytest.approx(half, rel=1e-6)
    assert difference.value - difference.low == pytest.approx(half, rel=1e-6)


def test_events_at_one_time_make_it_paired_delong():
    rng = np.random.default_rng(2)
    event = np.arange(24) < 12
    time = np.where(event, 1.0, 2.0)
    base = two_models(0, 24)[0][0]
    risks = [rng.normal(size=24) + event for _ in range(2)]
    first, second = ([replace(base, time=time, event=event, risk=risk)] for risk in risks)
    value, variance = twins.delong_paired(list(event), *map(list, risks))
    difference = harrell_difference(first, second)
    assert difference.value == pytest.approx(value)
    # DeLong's n / (n - 1) is of each group of 12, here it is of all 24.
    error = math.sqrt(variance * (24 / 23) / (12 / 11))
    assert difference.high - value == pytest.approx(error * student.ppf(0.975, 11))


@pytest.mark.parametrize("repeats", [1, 2])
def test_the_order_of_models_changes_signs_only(repeats):
    first, second = two_models(4, noise=(0.5, 2.0), repeats=repeats)
    for test in (harrell_difference, lambda a, b: ibs_difference(a, b, AT)):
        one, other = test(first, second), test(second, first)
        assert (one.value, one.low, one.high) == pytest.approx(
            (-other.value, -other.high, -other.low), abs=1e-12
        )
        assert one.p == other.p
    assert detectable_difference(first, second) == pytest.approx(
        detectable_difference(second, first)
    )


def test_only_the_order_of_risks_counts():
    first, second = two_models(6, repeats=2)
    warped = [replace(one, risk=np.exp(3 * one.risk) - 100) for one in first]
    assert harrell_difference(warped, second) == harrell_difference(first, second)


def test_a_model_is_no_better_than_itself_or_than_a_monotone_copy():
    first, _ = two_models(7)
    copy = [replace(one, risk=one.risk**3) for one in first]
    for other in (first, copy):
        difference = harrell_difference(first, other)
        assert (difference.value, difference.low, difference.high, difference.p) == (0, 0, 0, 1)
        assert detectable_difference(first, other) is None


def test_what_cannot_be_compared_is_none():
    first, second = two_models(8)
    for events in (0, 1):
        event = np.arange(24) < events
        models = [[replace(one, event=event) for one in model] for model in (first, second)]
        assert harrell_difference(*models) is None
        assert detectable_difference(*models) is None
        comparison = compare_risks(dict(zip("ab", models, strict=True)), [("a", "b")], None)
        assert comparison.pairs[0].harrell is comparison.pairs[0].ibs is None
        assert str(comparison).startswith(
            f"With {events} event{'s' * (events != 1)} among 24 cases no"
        )


@pytest.mark.parametrize("ties", [False, True])
def test_brier_errors_average_to_the_brier_score_and_that_of_scikit_survival(ties):
    (first,), (second,) = two_models(9, 40, ties=ties)
    at = np.linspace(*np.quantile(first.time, [0.1, 0.8]), 6)
    errors = brier_errors(first.time, first.event, first.survival, at)
    assert errors.shape == (40, 6)
    assert errors.mean(axis=0) == pytest.approx(brier(first.time, first.event, first.survival, at))
    values = [integrated_brier(one.time, one.event, one.survival, at) for one in (first, second)]
    difference = ibs_difference([first], [second], at)
    assert difference.value == pytest.approx(values[0] - values[1])
    if not ties:
        outcome = Surv.from_arrays(first.event, first.time)
        scores = [
            integrated_brier_score(outcome, outcome, one.survival, at) for one in (first, second)
        ]
        assert difference.value == pytest.approx(scores[0] - scores[1], abs=1e-9)


def test_brier_p_is_that_of_all_swaps_of_curves_carried_out():
    n = 8
    (first,), (second,) = two_models(11, n, noise=(0.3, 2.0))
    at = np.linspace(*np.quantile(first.time, [0.1, 0.7]), 6)

    def difference(swap):
        pick = np.array(swap, bool)[:, None]
        curves = (
            np.where(pick, second.survival, first.survival),
            np.where(pick, first.survival, second.survival),
        )
        scores = [integrated_brier(first.time, first.event, curve, at) for curve in curves]
        return abs(scores[0] - scores[1])

    observed = difference([0] * n)
    reaching = sum(difference(s) >= observed - 1e-12 for s in product((0, 1), repeat=n))
    assert ibs_difference([first], [second], at).p == pytest.approx(reaching / 2**n)


def test_a_planted_difference_is_seen_and_equal_models_rarely_differ():
    """60 small cohorts; benchmarks.survival_comparison draws thousands."""
    alarms, hits = [], []
    for seed in range(60):
        equal = two_models(seed, 30, noise=(1.0, 1.0))
        alarms.append(harrell_difference(*equal).p <= 0.05)
        planted = two_models(seed, 60, noise=(0.1, 4.0))
        hits.append(harrell_difference(*planted).p <= 0.05)
    assert sum(alarms) <= 7  # at .05 more in 2 % of such tests
    assert sum(hits) >= 50


def test_p_is_adjusted_over_the_pairs():
    models = {str(k): two_models(12, noise=(0.2 + k, 1.0))[0] for k in range(4)}
    pairs = [("0", "1"), ("0", "2"), ("0", "3")]
    tests = compare_risks(models, pairs, AT).pairs
    for name in ("harrell", "ibs"):
        differences = [getattr(test, name) for test in tests]
        expected = multipletests([one.p for one in differences], method="holm")[1]
        assert [one.p_holm for one in differences] == pytest.approx(expected)


def test_models_of_one_table():
    predictions = RiskPredictions(table_of(models=("null", "true", "noise"))[0])
    comparison = compare_survival_models(predictions)
    assert [(t.first, t.second) for t in comparison.pairs] == [
        ("null", "true"), ("null", "noise"), ("true", "noise"),
    ]  # fmt: skip
    assert (comparison.n, comparison.events) == (24, int(comparison.pairs[0].events))
    assert comparison.pairs[0].harrell.value < 0 < comparison.pairs[2].harrell.value
    assert comparison.pairs[0].harrell.p < 0.05 < comparison.pairs[1].harrell.p
    written = json.loads(json.dumps(comparison.to_json(), allow_nan=False))
    assert written["says"] == str(comparison)
    assert written["pairs"][1]["second"] == "noise"
    (text,) = comparison.tables()
    harrell = comparison.pairs[0].harrell
    assert text.rows[0][:3] == [
        "null", "true", f"{harrell.value:+.2f} ({harrell.low:+.2f} to {harrell.high:+.2f})",
    ]  # fmt: skip
    assert list(text.notes) == [
        "24 cases, 12 events; p adjusted over 3 pairs (Holm).",
        str(comparison),
    ]
    assert (comparison.pairs[0].p, comparison.pairs[0].p_holm) == (harrell.p, harrell.p_holm)
    assert comparison.rows()[0]["ibs_p_holm"] == comparison.pairs[0].ibs.p_holm
    with_reference = compare_survival_models(predictions, "true")
    assert [(t.first, t.second) for t in with_reference.pairs] == [
        ("true", "null"), ("true", "noise"),
    ]  # fmt: skip
    with pytest.raises(
        PredictionsError, match=r"No model 'x' to compare with\. Known: null, true, noise\."
    ):
        compare_survival_models(predictions, "x")
    one_model = RiskPredictions(table_of(models=("true",))[0])
    assert compare_survival_models(one_model).pairs == ()
    assert compare_survival_models(one_model).tables() == []


def test_models_of_two_tables():
    table, *_ = table_of(models=("null", "true"))
    fewer = table[table["repeat"] == 0]
    first, second = RiskPredictions(table), RiskPredictions(fewer)
    comparison = compare_survival_tables(first, second, ("old", "new"))
    assert [(t.first, t.second) for t in comparison.pairs] == [
        ("old: null", "new: null"), ("old: true", "new: true"),
    ]  # fmt: skip
    assert comparison.pairs[1].harrell.value == pytest.approx(0)  # the same risk in all repeats
    assert comparison.pairs[0].ibs is not None
    other = RiskPredictions(fewer[fewer["model"] == "true"].assign(model="best"))
    crossed = compare_survival_tables(first, other).pairs
    assert [(t.first, t.second) for t in crossed] == [
        ("A: null", "B: best"),
        ("A: true", "B: best"),
    ]


def test_brier_scores_at_other_times_are_not_compared():
    table, *_ = table_of()
    fewer = table.drop(columns=[name for name in table.columns if name.startswith("s_")][-1])
    pairs = compare_survival_tables(RiskPredictions(table), RiskPredictions(fewer)).pairs
    assert all(pair.ibs is None and pair.harrell is not None for pair in pairs)


def test_tables_of_other_cases_or_outcomes_are_refused():
    table, *_ = table_of()
    first = RiskPredictions(table)
    fewer = RiskPredictions(table[table["case"] != "c03"])
    with pytest.raises(PredictionsError, match=r"B lacks 1 of the 24 cases of A, e\.g\. c03"):
        compare_survival_tables(first, fewer)
    with pytest.raises(PredictionsError, match=r"old lacks 1 of the 24 cases of new, e\.g\. c03"):
        compare_survival_tables(fewer, first, ("old", "new"))
    later = table.assign(time=np.where(table["case"] == "c05", 3.5, table["time"]))
    with pytest.raises(
        PredictionsError, match=r"Case c05 has time .* but time 3\.5 and event . in B\. Correct"
    ):
        compare_survival_tables(first, RiskPredictions(later))


def pair_with(detectable):
    return SurvivalPairTest("a", "b", 20, 6, None, None, detectable)


def test_the_sentence_says_what_so_few_events_can_show():
    def sentence(*detectable):
        return str(SurvivalComparison(tuple(map(pair_with, detectable)), 20, 6))

    assert sentence(0.21).startswith(
        "With 6 events among 20 cases a true difference in C of 0.21 is found in 80 % of studies."
    )
    assert "of 0.21 to 0.34, depending on the pair, is found" in sentence(0.34, None, 0.21)
    assert "not even the difference between a perfect model and a coin" in sentence(0.6, 0.5)
    assert "no difference in C between these models can be tested" in sentence(None)
    first, second = two_models(13, 24)
    few = [
        [replace(one, event=one.event & (np.arange(24) < 12)) for one in m] for m in (first, second)
    ]
    assert detectable_difference(*few) > detectable_difference(first, second)
