"""From logits to risk and survival, by hand and against what the loss means."""

import math

import numpy as np
import pytest

from mil.data.outcomes import Outcomes
from mil.errors import FitError
from mil.evaluation.survival.metrics import kaplan_meier
from mil.tasks.risk_model import (
    IntervalHazards,
    event_observed,
    fit_hazard_ratio,
    fit_interval_hazards,
    interval_cuts,
    interval_index,
    risk_model_from_json,
)
from tests.mil.followed import drawn

OUTCOMES = Outcomes(*drawn(np.random.default_rng(0), 60)[:2])


def test_risk_is_measured_from_the_median_training_case():
    logits = np.random.default_rng(1).normal(size=(61, 1)) + 7
    outcomes = Outcomes(*drawn(np.random.default_rng(0), 61)[:2])
    assert np.median(fit_hazard_ratio(logits, outcomes).risk(logits)) == pytest.approx(0)
    many = np.random.default_rng(1).normal(size=(61, 3)) - 2
    assert np.median(fit_interval_hazards(np.array([1.0, 2, 3]), many).risk(many)) == pytest.approx(
        0
    )


def test_level_that_the_cox_loss_leaves_open_changes_nothing():
    logits = np.random.default_rng(1).normal(size=(60, 1))
    at = np.quantile(OUTCOMES.time, [0.2, 0.7])
    here, there = fit_hazard_ratio(logits, OUTCOMES), fit_hazard_ratio(logits + 9, OUTCOMES)
    np.testing.assert_allclose(here.risk(logits), there.risk(logits + 9), atol=1e-12)
    np.testing.assert_allclose(here.survival(logits, at), there.survival(logits + 9, at))


def test_equal_risks_have_nearly_the_kaplan_meier_curve():
    readout = fit_hazard_ratio(np.zeros((60, 1)), OUTCOMES)
    at = np.quantile(OUTCOMES.time, [0.1, 0.5, 0.8])
    curve = kaplan_meier(OUTCOMES.time, OUTCOMES.event).at(at)
    np.testing.assert_allclose(readout.survival(np.zeros((1, 1)), at)[0], curve, atol=0.02)


def test_survival_of_intervals_is_the_product_and_even_within():
    readout = IntervalHazards(centre=0.0, cuts=(10.0, 30.0))
    logits = np.array([[0.0, math.log(3)]])  # hazards .5 and .75
    probabilities = readout.survival(logits, np.array([0.0, 5.0, 10.0, 20.0, 30.0, 99.0]))[0]
    np.testing.assert_allclose(probabilities, [1, math.sqrt(0.5), 0.5, 0.25, 0.125, 0.125])
    assert readout.risk(logits)[0] == pytest.approx(-(0.5 + 0.125) / 2)


def test_cases_fall_into_the_intervals_they_met_or_survived():
    outcomes = Outcomes(
        np.array([5.0, 10, 11, 30, 9, 10, 29, 30, 99, 99]),
        np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 1], dtype=bool),
    )
    cuts = np.array([10.0, 30.0])
    assert interval_index(outcomes, cuts).tolist() == [0, 0, 1, 1, -1, 0, 0, 1, 1, 1]
    assert event_observed(outcomes, cuts).tolist() == [True] * 4 + [False] * 6


@pytest.mark.parametrize("count", [1, 2, 4])
def test_intervals_hold_as_many_events_each(count):
    cuts = interval_cuts(OUTCOMES, count)
    times = OUTCOMES.time[OUTCOMES.event]
    events_per_interval = np.bincount(
        interval_index(OUTCOMES, cuts)[OUTCOMES.event], minlength=count
    )
    assert cuts[-1] == times.max()
    assert events_per_interval.max() - events_per_interval.min() <= 1


def test_too_few_times_for_the_intervals_are_refused():
    outcomes = Outcomes(np.array([1.0, 1, 1, 2]), np.ones(4, dtype=bool))
    with pytest.raises(
        FitError, match=r"2 distinct times .* 4 intervals\. Use fewer intervals, or the cox loss"
    ):
        interval_cuts(outcomes, 4)


@pytest.mark.parametrize("logit", [-2000.0, 2000.0])
def test_survival_is_a_probability_at_any_logit(logit):
    readout = IntervalHazards(centre=0.0, cuts=(1.0, 2.0))
    probabilities = readout.survival(np.full((1, 2), logit), np.array([0.0, 0.5, 1.5, 2.0]))
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert (np.diff(probabilities) <= 0).all()


@pytest.mark.parametrize(
    "timeline",
    [
        fit_hazard_ratio(np.arange(60.0)[:, None], OUTCOMES),
        IntervalHazards(centre=0.1, cuts=(1.0, 2.5)),
    ],
    ids=["cox", "discrete"],
)
def test_timeline_comes_back_from_json(timeline):
    import json

    assert risk_model_from_json(json.loads(json.dumps(timeline.to_json()))) == timeline
