"""Profile limits and likelihood ratio tests under Firth's penalty, against firthmodels."""

import numpy as np
import pytest
from firthmodels import FirthCoxPH, FirthLogisticRegression

from mil.evaluation.regression.cox import fit_cox
from mil.evaluation.regression.models import fit_regression
from mil.evaluation.survival.hazards import hazard_table


def carriers(seed, n=24, k=5):
    """Cases of which k carry a mutation and all of these have an early event, without ties."""
    rng = np.random.default_rng(seed)
    carrier, age = (np.arange(n) < k) * 1.0, rng.normal(60, 10, n)
    time, event = rng.exponential(10, n), rng.random(n) < 0.6
    time[:k], event[:k] = rng.random(k), True
    return np.stack([carrier, age], axis=1), time, event


@pytest.mark.parametrize("seed", range(5))
def test_cox_limits_and_p_are_those_of_firthmodels(seed):
    rows, time, event = carriers(seed)
    fitted = fit_cox(rows, time, event, firth=True)
    reference = FirthCoxPH().fit(rows, (event, time)).lrt()
    limits = reference.conf_int(method="pl", max_iter=100, tol=1e-7)
    inference = fitted.inference
    np.testing.assert_allclose(np.stack([inference.low, inference.high], axis=1), limits, rtol=1e-4)
    np.testing.assert_allclose(inference.p, reference.lrt_pvalues_, rtol=1e-3)
    half = 1.959964 * fitted.errors[0]
    assert inference.high[0] > fitted.coefficients[0] + half  # Wald's limits are symmetric
    assert inference.p[0] < 2e-3


@pytest.mark.parametrize("seed", range(5))
def test_logistic_limits_and_p_are_those_of_firthmodels(seed):
    rows, *_ = carriers(seed)
    truth = (rows[:, 0] > 0) | (np.random.default_rng(seed).random(len(rows)) < 0.3)
    table = {name: [repr(float(v)) for v in rows.T[k]] for k, name in enumerate(("carrier", "age"))}
    fitted = fit_regression(table, truth)
    assert fitted.penalty == "Firth"
    reference = FirthLogisticRegression().fit(rows, truth.astype(int)).lrt()
    limits = reference.conf_int(method="pl", max_iter=100, tol=1e-7)[:2]
    inference = fitted.inference
    np.testing.assert_allclose(np.stack([inference.low, inference.high], axis=1), limits, rtol=1e-4)
    np.testing.assert_allclose(inference.p, reference.lrt_pvalues_[:2], rtol=1e-3)


def test_units_of_a_column_scale_its_limits_alone():
    rows, time, event = carriers(1)
    plain = fit_cox(rows, time, event, firth=True).inference
    scaled = fit_cox(rows * [1, 1000], time, event, firth=True).inference
    np.testing.assert_allclose(scaled.p, plain.p, rtol=1e-5)
    np.testing.assert_allclose(scaled.low * [1, 1000], plain.low, rtol=1e-5)
    np.testing.assert_allclose(scaled.high * [1, 1000], plain.high, rtol=1e-5)


def test_hazards_take_the_profile_where_the_fit_is_penalised_and_wald_elsewhere():
    rows, time, event = carriers(0)
    carrier, age, *_ = hazard_table({"carrier": rows[:, 0], "age": rows[:, 1]}, time, event)
    alone = fit_cox(rows[:, :1], time, event, firth=True).inference
    assert (carrier.penalty, age.penalty) == ("Firth", "none")
    assert (carrier.low, carrier.high) == pytest.approx(
        (np.exp(alone.low[0]), np.exp(alone.high[0]))
    )
    assert carrier.p == pytest.approx(alone.p[0])
    fitted = fit_cox(rows[:, 1:], time, event)
    expected = np.exp(fitted.coefficients[0] + 1.959964 * fitted.errors[0])
    assert age.high == pytest.approx(expected, rel=1e-6)


def test_a_limit_that_does_not_exist_is_infinite():
    rows, time, event = carriers(0)
    carrier = rows[:, 0]
    table = hazard_table({"carrier": carrier, "again": 2 * carrier}, time, event)[2:]
    assert [(h.penalty, h.low, h.high, h.p) for h in table] == [("Firth", 0.0, np.inf, 1.0)] * 2


def test_walds_limits_and_p_are_far_off_where_all_carriers_have_the_first_events():
    carrier, time = (np.arange(24) < 5) * 1.0, np.arange(1.0, 25.0)
    fitted = fit_cox(carrier[:, None], time, np.ones(24, dtype=bool), firth=True)
    wald_limits = fitted.coefficients[0] + np.array([-1, 1]) * 1.959964 * fitted.errors[0]
    assert np.exp(wald_limits) == pytest.approx([3.6, 2604], rel=0.02)
    [hazard] = hazard_table({"carrier": carrier}, time, carrier > 0)
    assert (hazard.ratio, hazard.low, hazard.high) == pytest.approx((97.3, 10.07, 13069), rel=1e-3)
    assert hazard.p == pytest.approx(7.7e-6, rel=0.01)
