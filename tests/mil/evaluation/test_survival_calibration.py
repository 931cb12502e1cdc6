"""Calibration of predicted survival: by hand, against lifelines, and where predictions are right or wrong."""

import json

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, KaplanMeierFitter
from scipy.stats import poisson

from mil.evaluation.intervals import wilson
from mil.evaluation.regression.cox import partial_likelihood
from mil.evaluation.survival.calibration import (
    calibrate_survival,
    calibration_slope,
    calibration_tables,
    expected_hazard,
    observed_survival,
    poisson_limits,
    risk_groups,
)
from mil.evaluation.survival.predictions import CaseRisks

AT = np.linspace(0.1, 1.0, 10)


def cohort(seed, n=60, *, strength=1.0, follow_up=2.0, stretch=1.0, hazard=1.0):
    """Cases that die by the hazards predicted; stretch and hazard spoil the prediction."""
    rng = np.random.default_rng(seed)
    risk = strength * rng.normal(size=n)
    met_at, left_at = rng.exponential(np.exp(-risk)), rng.exponential(follow_up, size=n)
    survival = np.exp(-hazard * np.exp(stretch * risk)[:, None] * AT)
    names, fold = tuple(f"c{i:03d}" for i in range(n)), np.zeros(n, np.int64)
    return CaseRisks(names, np.minimum(met_at, left_at), met_at <= left_at, risk, survival, fold)


TIME = np.array([1.0, 2, 3, 4, 5, 6])
EVENT = np.array([True, False, True, False, True, False])


def test_observed_survival_by_hand():
    # 5/6 until 3, then 5/6 3/4 = .625; 3 of the 6 cases are followed to 4: as many as of 4.8 cases.
    estimate = observed_survival(TIME, EVENT, 4.0)
    assert estimate.value == pytest.approx(0.625)
    limits = wilson(3, 4.8)
    assert (estimate.low, estimate.high) == pytest.approx((limits.low, limits.high))
    before = observed_survival(TIME, EVENT, 0.5)
    assert (before.value, before.high) == (1, 1)
    assert before.low == pytest.approx(wilson(6, 6).low)


@pytest.mark.parametrize("seed", range(4))
def test_observed_survival_is_that_of_lifelines(seed):
    cases = cohort(seed, 25)
    curve = KaplanMeierFitter().fit(cases.time, cases.event)
    for horizon in (0.2, 0.5):
        estimate = observed_survival(cases.time, cases.event, horizon)
        assert estimate.value == pytest.approx(float(curve.predict(horizon)))
        assert estimate.low < estimate.value < estimate.high


def test_survival_where_all_died_or_nobody_is_followed():
    all_died = observed_survival(TIME[:3], np.array([True, True, True]), 9.0)
    assert (all_died.value, all_died.low) == (0, 0)
    assert all_died.high == pytest.approx(wilson(0, 3).high)
    nobody = observed_survival(TIME, EVENT, 9.0)
    assert nobody.value is None
    assert "no case is followed to the horizon" in nobody.note


def test_without_censoring_limits_are_wilsons_of_the_share():
    estimate = observed_survival(TIME, np.ones(6, bool), 4.5)
    limits = wilson(2, 6)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx(
        (1 / 3, limits.low, limits.high)
    )


def test_expected_hazard_by_hand():
    survival = np.exp(-np.array([[0.2, 1.0], [0.1, 0.4]]))
    hazard = expected_hazard(np.array([0.25, 1.5]), survival, np.array([0.5, 1.0]))
    # Half of the way to .2; and all of it until the last horizon.
    assert hazard == pytest.approx([0.1, 0.4])
    halfway = expected_hazard(np.array([0.75, 0.75]), survival, np.array([0.5, 1.0]))
    assert halfway == pytest.approx([0.6, 0.25])


@pytest.mark.parametrize("events", [0, 1, 4, 30])
def test_poisson_limits_leave_a_fortieth_on_either_side(events):
    low, high = poisson_limits(events)
    assert poisson.cdf(events, high) == pytest.approx(0.025)
    if events:
        assert poisson.sf(events - 1, low) == pytest.approx(0.025)
    else:
        assert low == 0


@pytest.mark.parametrize("seed", range(3))
def test_slope_is_that_of_lifelines_with_limits_where_the_likelihood_ratio_ends(seed):
    cases = cohort(seed)
    estimate = calibration_slope(cases.risk, cases.time, cases.event)
    table = pd.DataFrame({"t": cases.time, "e": cases.event, "x": cases.risk})
    assert estimate.value == pytest.approx(
        CoxPHFitter().fit(table, "t", "e").params_["x"], abs=1e-4
    )
    top = partial_likelihood(estimate.value * cases.risk, cases.time, cases.event)
    for limit in (estimate.low, estimate.high):
        drop = top - partial_likelihood(limit * cases.risk, cases.time, cases.event)
        assert 2 * drop == pytest.approx(3.841459, abs=1e-5)
    assert estimate.low < estimate.value < estimate.high


def test_slope_that_is_undefined_says_why():
    for linear, event, note in (
        (TIME, np.zeros(6, bool), "no event"),
        (np.ones(6), EVENT, "every case has the same prediction"),
        (-TIME, EVENT, "without an error"),
        (np.sqrt(TIME), TIME == 6, "no other case was observed"),
    ):
        estimate = calibration_slope(linear, TIME, event)
        assert (estimate.value, estimate.low) == (None, None)
        assert note in estimate.note


def test_right_predictions_look_right_and_wrong_ones_wrong():
    right = calibrate_survival([cohort(1, 400)], AT)
    assert right.slope.low < 1 < right.slope.high
    assert right.ratio.low < 1 < right.ratio.high
    assert right.difference.low < 0 < right.difference.high
    extreme = calibrate_survival([cohort(1, 400, stretch=2.0)], AT)
    assert extreme.slope.high < 0.8
    # But for the least survival, which is drawn to 1e-12.
    assert extreme.slope.value == pytest.approx(right.slope.value / 2, rel=1e-3)
    optimist = calibrate_survival([cohort(1, 400, hazard=0.4)], AT)
    assert optimist.ratio.low > 1.5
    assert optimist.difference.high < 0
    assert optimist.slope.value == pytest.approx(right.slope.value)
    for group in optimist.horizons[1].groups:
        assert group.observed < group.predicted


def test_ratio_of_events_by_hand():
    cases = cohort(2, 40)
    calibration = calibrate_survival([cases], AT)
    middle = AT[4]
    assert calibration.middle == middle
    observed = int((cases.event & (cases.time <= middle)).sum())
    # The predicted hazard is constant, so that it is exact between horizons as well.
    expected = float((np.exp(cases.risk) * np.minimum(cases.time, middle)).sum())
    assert calibration.ratio.value == pytest.approx(observed / expected, rel=1e-9)
    assert calibration.ratio.low == pytest.approx(poisson_limits(observed)[0] / expected)
    assert calibration.ratio.note == f"{observed} observed, {expected:.1f} expected"


@pytest.mark.parametrize(
    ("n", "follow_up", "count"),
    [(6, 2.0, 1), (8, 2.0, 2), (20, 2.0, 2), (30, 20.0, 3), (80, 9.0, 4)],
)
def test_groups_are_two_to_four_by_cases_and_events(n, follow_up, count):
    cases = cohort(3, n, follow_up=follow_up)
    groups = risk_groups(cases.time, cases.event, cases.survival[:, 4], AT[4])
    assert len(groups) == count
    assert sum(group.n for group in groups) == n
    assert max(group.n for group in groups) - min(group.n for group in groups) <= 1
    predicted = [group.predicted for group in groups]
    assert predicted == sorted(predicted)
    assert sum(group.events for group in groups) == (cases.event & (cases.time <= AT[4])).sum()
    assert sum(group.followed for group in groups) == (cases.time > AT[4]).sum()


def test_few_events_make_fewer_groups_and_a_note():
    cases = cohort(4, 80, follow_up=0.1)
    event = cases.event & (np.cumsum(cases.event) <= 7)
    few = CaseRisks(cases.case, cases.time, event, cases.risk, cases.survival, cases.fold)
    calibration = calibrate_survival([few], AT)
    assert all(len(horizon.groups) == 2 for horizon in calibration.horizons)
    assert calibration.note.startswith("7 events among 80 cases: limits so wide")
    assert calibrate_survival([cohort(5, 80)], AT).note == ""


def test_equal_predictions_stay_in_one_group():
    cases = cohort(6, 40)
    (group,) = risk_groups(cases.time, cases.event, np.full(40, 0.5), 0.5)
    assert group.n == 40
    survival = np.where(np.arange(40) < 5, 0.2, 0.7)
    groups = risk_groups(cases.time, cases.event, survival, 0.5)
    assert [(group.n, group.predicted) for group in groups] == [(5, 0.2), (35, pytest.approx(0.7))]


def test_numbers_are_means_over_repeats():
    one, other = cohort(7), cohort(7, stretch=1.7)
    both = calibrate_survival([one, other], AT)
    alone = [calibrate_survival([cases], AT) for cases in (one, other)]
    for name in ("value", "low", "high"):
        slopes = [getattr(calibration.slope, name) for calibration in alone]
        assert getattr(both.slope, name) == pytest.approx(np.mean(slopes))
        differences = [getattr(calibration.difference, name) for calibration in alone]
        assert getattr(both.difference, name) == pytest.approx(np.mean(differences))
    assert 1 / both.ratio.value == pytest.approx(np.mean([1 / c.ratio.value for c in alone]))
    assert both.horizons == alone[0].horizons


@pytest.mark.parametrize("n", [2, 9, 40])
@pytest.mark.parametrize("events", ["none", "some"])
def test_calibration_as_plain_values(n, events):
    cases = cohort(8, n)
    event = cases.event & (events == "some")
    cases = CaseRisks(cases.case, cases.time, event, cases.risk, cases.survival, cases.fold)
    written = json.loads(json.dumps(calibrate_survival([cases], AT).to_json(), allow_nan=False))
    assert [horizon["horizon"] for horizon in written["horizons"]] == pytest.approx(
        [AT[2], AT[4], AT[7]]
    )
    assert written["events"] == event.sum()


def test_two_horizons_are_enough():
    cases = cohort(9)
    short = CaseRisks(
        cases.case, cases.time, cases.event, cases.risk, cases.survival[:, [3, 6]], cases.fold
    )
    calibration = calibrate_survival([short], AT[[3, 6]])
    assert [horizon.horizon for horizon in calibration.horizons] == [AT[3], AT[6]]
    assert calibration.middle == AT[3]


def test_risks_that_tell_no_cases_apart_have_no_slope_and_one_group():
    cases = cohort(12, 30)
    by_fold = np.where(np.arange(30) < 11, 0.6, 0.3)[:, None] * np.ones(len(AT))
    flat = CaseRisks(cases.case, cases.time, cases.event, np.zeros(30), by_fold, cases.fold)
    calibration = calibrate_survival([flat, flat], AT)
    assert calibration.slope.value is None
    assert calibration.slope.note == "undefined: every case has the same risk"
    for horizon in calibration.horizons:
        (group,) = horizon.groups
        assert (group.n, group.predicted) == (30, pytest.approx((11 * 0.6 + 19 * 0.3) / 30))


def test_the_text_holds_the_numbers_of_every_model_and_its_middle_groups():
    models = {
        name: calibrate_survival([cohort(seed, 24)], AT) for name, seed in (("a", 3), ("b", 4))
    }
    numbers, groups = calibration_tables(models, "weeks")
    assert numbers.title == f"Calibration of predicted survival until {AT[4]:.4g} weeks:"
    slope = models["b"].slope
    assert numbers.rows[1][0] == "b"
    assert numbers.rows[1][3] == f"{slope.value:.2f} ({slope.low:.2f} to {slope.high:.2f})"
    assert [row[0] for row in groups.rows] == ["a", "a", "b", "b"]
    first = models["a"].middle_groups[0]
    assert groups.rows[0][1:4] == [str(first.n), str(first.events), f"{first.predicted:.2f}"]
    assert groups.rows[0][4].startswith(f"{first.observed:.2f} ({first.low:.2f} to")
