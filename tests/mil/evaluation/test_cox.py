"""Proportional hazards against lifelines, a general optimiser and Firth's own case."""

import numpy as np
import pandas as pd
import pytest
from lifelines import BreslowFlemingHarringtonFitter, CoxPHFitter
from scipy.optimize import minimize

from mil.errors import FitError
from mil.evaluation.regression.cox import breslow, fit_cox, partial_likelihood
from tests.mil.followed import drawn


def cohort(seed, n=60, *, ties=False):
    rng = np.random.default_rng(seed)
    time, event, risk = drawn(rng, n, ties=ties)
    rows = np.stack(
        [risk + rng.normal(size=n), 10 * rng.normal(size=n), rng.random(n) < 0.4], axis=1
    )
    return rows, time, event


def slow_likelihood(rows, time, event, beta):
    """Efron's, event by event."""
    risk, total = rows @ beta, 0.0
    for t in sorted(set(time[event])):
        dead = np.flatnonzero((time == t) & event)
        for rank, i in enumerate(dead):
            left = np.exp(risk[time >= t]).sum() - rank / len(dead) * np.exp(risk[dead]).sum()
            total += risk[i] - np.log(left)
    return total


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_fit_is_that_of_lifelines(seed, ties):
    rows, time, event = cohort(seed, ties=ties)
    table = pd.DataFrame(rows, columns=list("abc")).assign(t=time, e=event)
    reference, fitted = CoxPHFitter().fit(table, "t", "e"), fit_cox(rows, time, event)
    np.testing.assert_allclose(fitted.coefficients, reference.params_, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(fitted.errors, reference.standard_errors_, rtol=1e-4)
    np.testing.assert_allclose(fitted.inference.p, reference.summary["p"], rtol=1e-3)
    assert fitted.log_likelihood == pytest.approx(reference.log_likelihood_, rel=1e-8)
    assert fitted.log_likelihood == pytest.approx(
        slow_likelihood(rows, time, event, fitted.coefficients), rel=1e-9
    )


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("penalty", ["ridge", "firth"])
def test_penalised_fit_is_the_top_a_general_optimiser_finds(penalty, ties):
    rows, time, event = cohort(1, n=25, ties=ties)
    rows = rows / rows.std(axis=0)

    def below(beta):
        value = -slow_likelihood(rows, time, event, beta)
        if penalty == "ridge":
            return value + 0.5 * 3.0 * beta @ beta
        return value - 0.5 * np.linalg.slogdet(information(beta))[1]

    def information(beta):
        """Of the mean rows of the risk sets, by differences of the gradient."""
        total = np.zeros((3, 3))
        risk = np.exp(rows @ beta)
        for t in set(time[event]):
            dead = (time == t) & event
            for rank in range(dead.sum()):
                w = risk * ((time >= t) - rank / dead.sum() * dead)
                total += np.cov(rows.T, aweights=np.maximum(w, 0), ddof=0)
        return total

    options = {"ridge": 3.0} if penalty == "ridge" else {"firth": True}
    best = minimize(below, np.zeros(3), method="BFGS", options={"gtol": 1e-7}).x
    np.testing.assert_allclose(fit_cox(rows, time, event, **options).coefficients, best, atol=2e-4)


def test_column_that_separates_the_events_is_refused_without_a_penalty_and_finite_with_firths():
    rng = np.random.default_rng(0)
    rows, time = (np.arange(30) < 15).astype(float)[:, None], rng.exponential(size=30)
    event = rows[:, 0] > 0
    with pytest.raises(FitError, match="Firth"):
        fit_cox(rows, time, event)
    fitted = fit_cox(rows, time, event, firth=True)
    assert 1 < fitted.coefficients[0] < 6
    assert 0 < fitted.errors[0] < 3


def test_firths_penalty_vanishes_with_many_cases():
    rows, time, event = cohort(2, n=1500)
    plain, firth = (fit_cox(rows, time, event, firth=f).coefficients for f in (False, True))
    np.testing.assert_allclose(plain, firth, atol=0.01)


def test_constant_column_gets_no_weight():
    rows, time, event = cohort(3)
    rows = np.column_stack([rows, np.ones(len(rows))])
    assert fit_cox(rows, time, event).coefficients[3] == 0
    assert abs(fit_cox(rows, time, event, ridge=1.0).coefficients[3]) < 1e-12


def test_fit_without_an_event_is_refused():
    rows, time, _ = cohort(0)
    with pytest.raises(FitError, match="needs an event"):
        fit_cox(rows, time, np.zeros(len(time), dtype=bool))


def test_units_of_a_column_change_its_coefficient_alone():
    rows, time, event = cohort(5)
    scaled = fit_cox(rows * [1, 1000, 1], time, event)
    plain = fit_cox(rows, time, event)
    np.testing.assert_allclose(scaled.coefficients, plain.coefficients / [1, 1000, 1], rtol=1e-5)
    np.testing.assert_allclose(scaled.inference.p, plain.inference.p, rtol=1e-4)


def test_baseline_without_covariates_is_nelson_aalens():
    _, time, event = cohort(6)
    curve = breslow(np.zeros(len(time)), time, event)
    reference = BreslowFlemingHarringtonFitter().fit(time, event)
    expected = curve.survival(np.zeros(1), curve.time)[0]
    np.testing.assert_allclose(
        expected, reference.survival_function_at_times(curve.time), rtol=1e-10
    )


def test_baseline_of_a_fit_is_that_of_lifelines():
    rows, time, event = cohort(7)
    table = pd.DataFrame(rows, columns=list("abc")).assign(t=time, e=event)
    reference = CoxPHFitter().fit(table, "t", "e")
    risk = (rows - rows.mean(axis=0)) @ reference.params_.to_numpy()
    at = np.sort(time[event])[[2, 10, 20]]  # between events reference is drawn straight
    expected = reference.predict_survival_function(table, times=at).T
    np.testing.assert_allclose(breslow(risk, time, event).survival(risk, at), expected, rtol=1e-6)


def test_survival_stays_a_probability_whatever_the_risk():
    _, time, event = cohort(8)
    curve = breslow(np.zeros(len(time)), time, event).survival(
        np.array([-800.0, 0.0, 800.0]), np.array([0.0, 1e9])
    )
    assert (curve[:, 0] == 1).all()
    assert (curve[[0, 2], 1] == [1, 0]).all()


def test_partial_likelihood_is_the_losses():
    import torch

    from mil.learning.losses import cox_efron

    rows, time, event = cohort(9, ties=True)
    loss = cox_efron(*map(torch.tensor, (rows[:, 0], time, event)))
    assert partial_likelihood(rows[:, 0], time, event) == pytest.approx(-float(loss), rel=1e-10)
