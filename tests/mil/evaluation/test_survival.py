"""Numbers of survival against their definitions, lifelines and scikit-survival."""

import numpy as np
import pytest
from lifelines import KaplanMeierFitter
from lifelines.statistics import multivariate_logrank_test
from lifelines.utils import concordance_index
from sksurv.metrics import (
    brier_score,
    concordance_index_ipcw,
    cumulative_dynamic_auc,
    integrated_brier_score,
)
from sksurv.util import Surv

from mil.evaluation.survival import metrics as survival
from mil.evaluation.survival.metrics import (
    brier,
    censoring,
    dynamic_auc,
    expected_events,
    harrell_c,
    harrell_interval,
    integrated_brier,
    kaplan_meier,
    log_rank,
    mean_dynamic_auc,
    median_follow_up,
    misordered,
    number_at_risk,
    survival_until,
    uno_c,
)
from tests.mil.followed import drawn


def cohort(seed, *, ties=False):
    rng = np.random.default_rng(seed)
    time, event, risk = drawn(rng, int(rng.integers(15, 60)), ties=ties)
    return time, event, np.round(risk + rng.normal(size=len(risk)), 1)


def slow_c(time, event, risk):
    """Every pair in which it is known whose event came first."""
    right = pairs = 0.0
    for i in range(len(time)):
        for j in range(len(time)):
            if event[i] and (time[i] < time[j] or (time[i] == time[j] and not event[j])):
                pairs += 1
                right += 1.0 if risk[i] > risk[j] else 0.5 * (risk[i] == risk[j])
    return right / pairs


def slow_censoring(time, event, at):
    """Probability of being observed beyond ``at``: at each end of observation, those without it."""
    left = 1.0
    for t in sorted(set(time[~event])):
        if t <= at:
            ends = ((time == t) & ~event).sum()
            left *= 1 - ends / ((time > t).sum() + ends)
    return left


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(15))
def test_harrell_c_is_that_of_all_pairs_and_of_lifelines(seed, ties):
    time, event, risk = cohort(seed, ties=ties)
    assert harrell_c(time, event, risk) == pytest.approx(slow_c(time, event, risk), rel=1e-12)
    assert harrell_c(time, event, risk) == pytest.approx(concordance_index(time, -risk, event))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_misordered_pairs_of_cases_add_up_to_harrells_c(seed, ties):
    time, event, risk = cohort(seed, ties=ties)
    wrong, pairs = misordered(time, event, risk)
    for i in range(len(time)):
        expected = [0.0, 0]
        for j in range(len(time)):
            for a, b in ((i, j), (j, i)):  # a pair of the case, whichever of both came first
                if event[a] and (time[a] < time[b] or (time[a] == time[b] and not event[b])):
                    expected[0] += 1.0 if risk[a] < risk[b] else 0.5 * (risk[a] == risk[b])
                    expected[1] += 1
        assert [wrong[i], pairs[i]] == expected
    assert 1 - wrong.sum() / pairs.sum() == pytest.approx(harrell_c(time, event, risk))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_events_expected_are_those_of_the_log_rank_test(seed, ties):
    time, event, risk = cohort(seed, ties=ties)
    inside = risk > np.median(risk)
    expected = [expected_events(time, event, part) for part in (inside, ~inside)]
    assert sum(expected) == pytest.approx(event.sum())
    seen, variance = event[inside].sum(), 0.0
    for t in np.unique(time[event]):
        n, a, d = (time >= t).sum(), inside[time >= t].sum(), event[time == t].sum()
        variance += d * a / n * (1 - a / n) * (n - d) / max(n - 1, 1)
    statistic = log_rank(time, event, inside.astype(int)).statistic
    assert (seen - expected[0]) ** 2 / variance == pytest.approx(statistic)


@pytest.mark.parametrize("seed", range(6))
def test_median_follow_up_is_that_of_the_exchanged_curve(seed):
    time, event, _ = cohort(seed)
    reference = KaplanMeierFitter().fit(time, ~event).median_survival_time_
    assert (median_follow_up(time, event) or np.inf) == reference


def test_median_follow_up_at_a_tie_takes_the_event_first():
    time, event = np.array([1.0, 1, 2, 2]), np.array([True, False, False, True])
    # One leaves at 1 of the three that have had no event before: two thirds; then one of one, at 2.
    assert slow_censoring(time, event, 1.0) == pytest.approx(2 / 3)
    assert median_follow_up(time, event) == 2.0
    assert median_follow_up(time, np.ones(4, dtype=bool)) is None


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_kaplan_meier_and_its_limits_are_those_of_lifelines(seed, ties):
    time, event, _ = cohort(seed, ties=ties)
    reference, curve = KaplanMeierFitter().fit(time, event), kaplan_meier(time, event)
    np.testing.assert_allclose(curve.survival, reference.survival_function_at_times(curve.time))
    known = (curve.survival > 0) & (curve.survival < 1)
    limits = reference.confidence_interval_.loc[curve.time].to_numpy()[known]
    np.testing.assert_allclose(np.stack([curve.low, curve.high], axis=1)[known], limits)
    assert (curve.median() or np.inf) == reference.median_survival_time_
    table = reference.event_table.loc[curve.time]
    assert number_at_risk(time, curve.time).tolist() == table["at_risk"].tolist()
    assert curve.censored.tolist() == table["censored"].tolist()
    for at in (0.5 * curve.time[0], *curve.time, 2 * curve.time[-1]):
        assert survival_until(time, event, at) == curve.at(np.array([at]))[0]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("groups", [2, 4])
@pytest.mark.parametrize("seed", range(8))
def test_log_rank_is_that_of_lifelines(seed, groups, ties):
    time, event, _ = cohort(seed, ties=ties)
    group = np.random.default_rng(seed).integers(0, groups, len(time))
    reference = multivariate_logrank_test(time, group, event)
    test = log_rank(time, event, group)
    assert test.statistic == pytest.approx(reference.test_statistic, rel=1e-8)
    assert test.p == pytest.approx(reference.p_value, rel=1e-8)


def test_log_rank_of_one_group_or_no_event_is_none():
    time, event, _ = cohort(0)
    assert log_rank(time, event, np.zeros(len(time), dtype=int)) is None
    assert log_rank(time, np.zeros(len(time), dtype=bool), np.arange(len(time)) % 2) is None


def test_log_rank_holds_its_level_without_a_difference():
    rng, small = np.random.default_rng(0), 0
    for _ in range(400):
        time, event, _ = drawn(rng, 40)
        small += log_rank(time, event, rng.integers(0, 2, 40)).p < 0.05
    assert 0.025 <= small / 400 <= 0.085  # .05 and 3.2 standard errors


@pytest.mark.parametrize("seed", range(15))
def test_what_is_weighted_by_censoring_is_that_of_scikit_survival(seed):
    time, event, risk = cohort(seed)
    seen = Surv.from_arrays(event, time)
    at = np.quantile(time[event], np.linspace(0.1, 0.8, 6))
    survival = 1 / (1 + np.exp(risk[:, None] / 3 + at / 500))
    until = float(np.quantile(time, 0.8))
    assert uno_c(time, event, risk, until) == pytest.approx(
        concordance_index_ipcw(seen, seen, risk, tau=until)[0], rel=1e-9
    )
    np.testing.assert_allclose(
        brier(time, event, survival, at), brier_score(seen, seen, survival, at)[1]
    )
    assert integrated_brier(time, event, survival, at) == pytest.approx(
        integrated_brier_score(seen, seen, survival, at), rel=1e-9
    )
    aucs, mean = cumulative_dynamic_auc(seen, seen, risk, at)
    np.testing.assert_allclose(dynamic_auc(time, event, risk, at), aucs)
    assert mean_dynamic_auc(time, event, risk, at) == pytest.approx(mean, rel=1e-9)


@pytest.mark.parametrize("seed", range(10))
def test_events_at_a_tie_come_before_the_end_of_observation(seed):
    time, event, _ = cohort(seed, ties=True)
    at = np.unique(time)
    expected = [slow_censoring(time, event, t) for t in at]
    np.testing.assert_allclose(censoring(time, event).at(at), expected, atol=1e-12)


def test_without_censoring_the_weights_are_one():
    rng = np.random.default_rng(0)
    time, risk = rng.exponential(size=40), rng.normal(size=40)
    event, at = np.ones(40, dtype=bool), np.quantile(time, [0.2, 0.5, 0.8])
    survival = rng.random((40, 3))
    plain = ((time[:, None] > at) - survival) ** 2
    np.testing.assert_allclose(brier(time, event, survival, at), plain.mean(axis=0))
    assert uno_c(time, event, risk, np.inf) == pytest.approx(harrell_c(time, event, risk))


def test_uno_c_does_not_move_with_censoring_where_harrells_does():
    """The true C until 1 of proportional hazards; long followed, then half censored early."""
    rng = np.random.default_rng(0)
    uno, harrell = [], []
    for _ in range(25):
        risk = rng.normal(size=400)
        met = rng.exponential(size=400) * np.exp(-1.2 * risk)
        left = rng.exponential(size=400) * 0.6
        true = uno_c(met, np.ones(400, dtype=bool), risk, 1.0)
        time, event = np.minimum(met, left), met <= left
        uno.append(uno_c(time, event, risk, 1.0) - true)
        harrell.append(harrell_c(time, event, risk) - true)
    assert abs(np.mean(uno)) < 0.01
    assert np.mean(harrell) > 2 * abs(np.mean(uno))


def test_higher_risk_everywhere_is_worth_one_and_its_opposite_nothing():
    time, event, _ = cohort(1)
    at = np.quantile(time[event], [0.3, 0.6])
    for sign, best in ((-1, 1.0), (1, 0.0)):
        assert harrell_c(time, event, sign * time) == best
        assert dynamic_auc(time, event, sign * time, at).tolist() == [best, best]
        interval = harrell_interval(time, event, sign * time)
        assert 0 <= interval.low <= best <= interval.high <= 1
        assert 0 < interval.high - interval.low < 0.5


def test_what_is_undefined_is_none():
    time, event = np.array([1.0, 1.0]), np.array([False, False])
    assert harrell_c(time, event, time) is None
    assert uno_c(time, event, time, 9.0) is None
    assert mean_dynamic_auc(time, event, time, np.array([0.5, 0.7])) is None
    with pytest.raises(ValueError, match="no pair"):
        harrell_interval(time, event, time)
    assert kaplan_meier(time, event).median() is None


def test_interval_covers_the_truth_and_is_wider_for_fewer_cases():
    rng = np.random.default_rng(3)
    true = np.mean([harrell_c(*drawn(rng, 1500)) for _ in range(3)])
    inside, widths = 0, {20: [], 80: []}
    for _ in range(200):
        for n, widths_at_n in widths.items():
            interval = harrell_interval(*drawn(rng, n))
            widths_at_n.append(interval.high - interval.low)
            inside += interval.low <= true <= interval.high
    assert 0.91 <= inside / 400 <= 0.975
    assert np.mean(widths[20]) > 1.6 * np.mean(widths[80])


def test_order_of_cases_changes_nothing():
    time, event, risk = cohort(4, ties=True)
    order = np.random.default_rng(0).permutation(len(time))
    group = (risk > 0).astype(int)
    assert harrell_c(time, event, risk) == harrell_c(time[order], event[order], risk[order])
    assert log_rank(time, event, group).p == pytest.approx(
        log_rank(time[order], event[order], group[order]).p
    )
    assert survival.uno_c(time, event, risk, 3.0) == pytest.approx(
        survival.uno_c(time[order], event[order], risk[order], 3.0)
    )
