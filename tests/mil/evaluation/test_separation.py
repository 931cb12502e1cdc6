"""Where a column separates the cases: Firth's penalty there and nowhere else, judged by linear programmes."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from lifelines import CoxPHFitter
from scipy.optimize import linprog

from mil.data.outcomes import Outcomes
from mil.errors import FitError
from mil.evaluation.regression.cox import fit_cox
from mil.evaluation.regression.models import fit_regression
from mil.evaluation.survival.hazards import hazard_table


def parts(sides):
    """K. Konis 2007: some b has ``sides @ b`` nowhere below 0 and somewhere above it."""
    solution = linprog(
        -sides.sum(axis=0), A_ub=-sides, b_ub=np.zeros(len(sides)), bounds=(-1, 1), method="highs"
    )
    return -solution.fun > 1e-6


def logistic_sides(rows, truth):
    return np.where(truth, 1, -1)[:, None] * sm.add_constant(rows, has_constant="add")


def cox_sides(rows, time, event):
    """Of every event and each case that it is compared with."""
    pairs = [(i, j) for i in np.flatnonzero(event) for j in np.flatnonzero(time >= time[i])]
    first, second = np.array(pairs).T
    return rows[first] - rows[second]


def made(seed):
    """Ages, a level of 1 to 4 cases, classes and outcomes; every second level separates the cases."""
    rng = np.random.default_rng(seed)
    n, few = int(rng.choice([20, 40, 60, 100, 200])), int(rng.integers(1, 5))
    rare, age = np.arange(n) < few, rng.integers(30, 90, n) * rng.choice([1e-4, 1.0, 1e5])
    truth, event = rng.random(n) < 0.4, rng.random(n) < 0.7
    time = np.ceil(rng.exponential(20, n) * rng.choice([0.3, 100]))  # many ties, or few
    if seed % 2:
        truth[rare], event[rare] = True, False
        time[rare] = np.sort(time)[-few:] + 1
    else:  # one of each kind, so that the level is not what parts
        truth[:2], event[:2], rare[:2] = (True, False), (True, False), True
    table = {"age": [f"{v:.9g}" for v in age], "mutated": [["no", "yes"][v] for v in rare * 1]}
    return table, np.column_stack([age, rare]), truth, Outcomes(time, event)


@pytest.mark.parametrize("seed", range(60))
def test_firths_penalty_is_taken_where_a_linear_programme_separates_the_cases_and_only_there(seed):
    table, rows, truth, outcomes = made(seed)
    scaled = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    logistic, cox = fit_regression(table, truth), fit_regression(table, outcomes)
    separated = parts(logistic_sides(scaled, truth))
    separated_in_time = parts(cox_sides(scaled, outcomes.time, outcomes.event))
    assert separated >= seed % 2
    assert separated_in_time >= seed % 2
    assert (logistic.penalty, cox.penalty) == tuple(
        "Firth" if separation else "none" for separation in (separated, separated_in_time)
    )
    for fitted in (logistic, cox):
        width = fitted.errors * rows.std(axis=0)
        assert (width > 0.02).all()
        assert (width < 10).all()
        assert (np.abs(fitted.coefficients) * rows.std(axis=0) < 10).all()
    if not separated:
        reference = sm.Logit(truth * 1.0, sm.add_constant(scaled)).fit(disp=0, tol=1e-12)
        np.testing.assert_allclose(
            logistic.coefficients * rows.std(axis=0), reference.params[1:], rtol=1e-5
        )
        np.testing.assert_allclose(logistic.errors * rows.std(axis=0), reference.bse[1:], rtol=1e-5)
    if not separated_in_time:
        frame = pd.DataFrame(scaled).assign(t=outcomes.time, e=outcomes.event)
        reference = CoxPHFitter().fit(frame, "t", "e", fit_options={"step_size": 0.25})
        np.testing.assert_allclose(
            cox.coefficients * rows.std(axis=0), reference.params_, rtol=2e-4, atol=1e-6
        )
        np.testing.assert_allclose(
            cox.errors * rows.std(axis=0), reference.standard_errors_, rtol=2e-4
        )


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_nearly_parted_classes_keep_their_likelihoods_top_in_any_unit(unit):
    """Two cases overlap by a thousandth: steep, but with a top."""
    x = np.concatenate([np.linspace(-2, -0.001, 20), [0.001], np.linspace(0.002, 2, 20)])
    truth = x > 0
    truth[[19, 20]] = [True, False]
    fitted = fit_regression({"x": [f"{v * unit:.12g}" for v in x]}, truth)
    reference = sm.Logit(truth * 1.0, sm.add_constant(x)).fit(disp=0, tol=1e-12, maxiter=200)
    assert fitted.penalty == "none"
    np.testing.assert_allclose(fitted.coefficients[0] * unit, reference.params[1], rtol=1e-5)


def test_columns_that_part_the_cases_together_only():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 50))
    truth = a + b > 0
    table = {"a": [f"{v:.6f}" for v in a], "b": [f"{v:.6f}" for v in b]}
    assert fit_regression(table, truth).penalty == "Firth"
    assert fit_regression({"a": table["a"]}, truth).penalty == "none"
    time = np.exp(-a - b)  # whoever is likeliest is always the next
    with pytest.raises(FitError, match="Firth"):
        fit_cox(np.column_stack([a, b]), time, np.ones(50, dtype=bool))


def test_of_columns_that_say_the_same_nobody_knows_the_share():
    rng = np.random.default_rng(1)
    age, size = rng.normal(size=(2, 80))
    time, event = rng.exponential(size=80) * np.exp(-age), rng.random(80) < 0.7
    fitted = fit_cox(np.column_stack([age, size, 1000 * age + 3]), time, event)
    assert np.isinf(fitted.errors).tolist() == [True, False, True]
    assert fitted.inference.p.tolist() == [1.0, pytest.approx(fitted.inference.p[1]), 1.0]
    alone = fit_cox(np.column_stack([age, size]), time, event)
    assert fitted.log_likelihood == pytest.approx(alone.log_likelihood, rel=1e-9)
    np.testing.assert_allclose(
        [fitted.coefficients[1], fitted.errors[1]],
        [alone.coefficients[1], alone.errors[1]],
        rtol=1e-6,
    )
    ages = [f"{v:.6f}" for v in age]
    assert np.isinf(fit_regression({"age": ages, "again": ages}, event).errors).all()
    both = hazard_table({"age": age, "months": 12 * age}, time, event)[2:]
    assert [(hazard.low, hazard.high, hazard.p, hazard.p_proportional) for hazard in both] == [
        (0.0, np.inf, 1.0, None)
    ] * 2


def test_level_that_no_event_meets_is_unknown_rather_than_certain():
    """Its only case left before the first event."""
    rng = np.random.default_rng(2)
    time, event = 1 + rng.exponential(size=40), rng.random(40) < 0.7
    time[0], event[0] = 0.5, False
    fitted = fit_cox(np.column_stack([np.arange(40) == 0, rng.normal(size=40)]), time, event)
    assert np.isinf(fitted.errors).tolist() == [True, False]
    assert fitted.coefficients[0] == pytest.approx(0, abs=1e-9)


def test_hazard_ratio_of_a_level_without_an_event_has_an_interval():
    """Three of 24 cases, seen until late."""
    rng = np.random.default_rng(3)
    time, event, level = rng.exponential(20, 24), rng.random(24) < 0.6, np.arange(24) < 3
    time[:3], event[:3] = [60, 70, 80], False
    columns = {"age": rng.normal(60, 9, 24), "margin: R1": level * 1.0}
    for hazard in hazard_table(columns, time, event):
        if hazard.term == "margin: R1":
            assert hazard.penalty == "Firth"
            assert 0 < 5 * hazard.low < hazard.ratio < hazard.high / 5
            assert hazard.p > 0.01
