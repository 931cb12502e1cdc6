"""Regressions against statsmodels and a general optimiser; points against the regression they stand for."""

import csv

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.optimize import minimize
from scipy.special import expit

from mil.data.outcomes import Outcomes
from mil.errors import FitError
from mil.evaluation.regression.models import fit_regression, select_columns
from mil.evaluation.regression.nomogram import make_nomogram, round_marks, write_nomogram
from mil.figures.saving import save_figure
from mil.report.nomogram import draw_nomogram


def made(seed=0, n=120):
    """A table, the class that age, size and sex tell of, and outcomes likewise."""
    rng = np.random.default_rng(seed)
    age, size = rng.normal(60, 12, n).round(), rng.gamma(3, 3, n).round(1)
    sex, site = rng.choice(["f", "m"], n), rng.choice(["arm", "leg", "trunk"], n, p=[0.2, 0.5, 0.3])
    linear = 0.05 * (age - 60) + 0.2 * (size - 9) + 1.0 * (sex == "m")
    table = {
        "age": [f"{a:g}" for a in age], "sex": [str(s) for s in sex], "site": [str(s) for s in site],
        "size": [f"{s:g}" for s in size], "noise": [f"{x:.3f}" for x in rng.normal(size=n)],
    }  # fmt: skip
    met, left = rng.exponential(size=n) * np.exp(-linear), rng.exponential(size=n) * 3
    return table, rng.random(n) < expit(linear - 0.5), Outcomes(np.minimum(met, left), met <= left)


@pytest.mark.parametrize("seed", range(4))
def test_logistic_regression_is_that_of_statsmodels(seed):
    table, truth, _ = made(seed)
    fitted = fit_regression(table, truth)
    reference = sm.Logit(truth * 1.0, sm.add_constant(fitted.design.rows(table))).fit(
        disp=0, tol=1e-12
    )
    np.testing.assert_allclose(
        [fitted.intercept, *fitted.coefficients], reference.params, rtol=1e-6
    )
    np.testing.assert_allclose(fitted.errors, reference.bse[1:], rtol=1e-5)
    assert fitted.log_likelihood == pytest.approx(reference.llf, rel=1e-10)
    assert fitted.penalty == "none"


def test_separated_classes_are_fitted_by_firth_to_the_top_of_the_penalised_likelihood():
    rng = np.random.default_rng(0)
    x = np.sort(rng.normal(size=16))
    table, truth = {"x": [f"{v:.8f}" for v in x]}, x > x[8]
    fitted = fit_regression(table, truth)
    assert fitted.penalty == "Firth"
    rows = sm.add_constant(np.array([float(v) for v in table["x"]]))

    def below(beta):
        p = expit(rows @ beta)
        value = np.log(np.where(truth, p, 1 - p)).sum()
        return -value - 0.5 * np.linalg.slogdet((rows * (p * (1 - p))[:, None]).T @ rows)[1]

    best = minimize(
        below, [0.0, 1.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12}
    ).x
    np.testing.assert_allclose([fitted.intercept, *fitted.coefficients], best, rtol=1e-4)


def test_firths_fit_of_one_category_adds_half_a_case_to_every_cell():
    """Of a 2 x 2 table Firth's penalty is Jeffreys' prior: odds of counts plus a half."""
    word = ["a"] * 10 + ["b"] * 10
    truth = np.array([False] * 10 + [True] * 7 + [False] * 3)
    fitted = fit_regression({"word": word}, truth)
    expected = np.log(7.5 / 3.5) - np.log(0.5 / 10.5)
    assert abs(fitted.coefficients[0]) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", ["logistic", "cox"])
def test_points_of_every_case_read_back_to_its_probability(kind):
    table, truth, outcomes = made()
    horizon = None if kind == "logistic" else 0.7
    fitted = fit_regression(table, truth if kind == "logistic" else outcomes)
    nomogram = make_nomogram(fitted, table, horizon)
    n = len(truth)
    totals = np.array([nomogram.points({k: v[i] for k, v in table.items()}) for i in range(n)])
    expected = fitted.probability(fitted.linear(table), horizon)
    np.testing.assert_allclose(nomogram.probability(totals), expected, rtol=1e-9)
    assert totals.min() >= 0
    assert totals.max() <= nomogram.most
    for total, share in nomogram.readings():
        assert nomogram.probability(np.array([total]))[0] == pytest.approx(share, abs=2e-3)


def test_points_of_a_case_are_the_sum_of_those_on_its_scales():
    table, truth, _ = made()
    nomogram = make_nomogram(fit_regression(table, truth), table)
    points = {(s.column, value): p for s in nomogram.scales for value, p in s.marks}
    case = {"age": "60", "sex": "m", "site": "leg", "size": "10", "noise": "1"}
    expected = sum(points[item] for item in case.items())
    assert nomogram.points(case) == pytest.approx(expected, rel=1e-9)
    assert max(points.values()) == pytest.approx(100)
    for scale in nomogram.scales:
        assert min(p for _, p in scale.marks) == pytest.approx(0)


def test_cox_nomogram_is_calibrated_to_the_cases_it_was_made_of():
    table, _, outcomes = made(n=400)
    fitted = fit_regression(table, outcomes)
    from mil.evaluation.survival.metrics import kaplan_meier

    predicted = fitted.probability(fitted.linear(table), 0.7).mean()
    seen = 1 - kaplan_meier(outcomes.time, outcomes.event).at(np.array([0.7]))[0]
    assert predicted == pytest.approx(seen, abs=0.03)


@pytest.mark.parametrize("kind", ["logistic", "cox"])
def test_selection_keeps_what_tells_and_little_else(kind):
    selected = []
    for seed in range(10):
        table, truth, outcomes = made(seed, n=200)
        selected += select_columns(table, truth if kind == "logistic" else outcomes)
    assert min(selected.count("age"), selected.count("size"), selected.count("sex")) >= 6
    assert selected.count("noise") + selected.count("site") <= 4


def test_column_that_says_nothing_is_never_selected():
    _, truth, _ = made()
    assert select_columns({"same": ["x"] * len(truth)}, truth) == ()


def test_of_two_columns_that_say_the_same_one_is_selected():
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    truth = x + rng.normal(size=60) > 0
    size, noise = [f"{v:.6f}" for v in x], [f"{v:.6f}" for v in x + 0.02 * rng.normal(size=60)]
    assert select_columns({"size": size, "again": size}, truth) == ("size",)
    assert len(select_columns({"size": size, "nearly": noise}, truth)) == 1


@pytest.mark.parametrize(
    ("low", "high", "marks"),
    [
        (23, 91, [20, 40, 60, 80, 100]),
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-3, 3, [-3, -2, -1, 0, 1, 2, 3]),
    ],
)
def test_marks_are_round_and_hold_both_ends(low, high, marks):
    assert round_marks(low, high) == marks


def test_what_cannot_be_drawn_is_refused():
    table, truth, outcomes = made()
    with pytest.raises(FitError, match="A Cox regression needs a horizon"):
        make_nomogram(fit_regression(table, truth), table, 1.0)
    with pytest.raises(FitError, match="A Cox regression needs a horizon"):
        make_nomogram(fit_regression(table, outcomes), table)
    same = {"same": ["x"] * len(truth)}
    with pytest.raises(FitError, match="No column has an effect"):
        make_nomogram(fit_regression(same, truth), same)
    with pytest.raises(FitError, match="both classes"):
        fit_regression(table, np.ones(len(truth), dtype=bool))


def test_nomogram_is_drawn_and_tabulated(tmp_path):
    table, truth, _ = made()
    nomogram = make_nomogram(fit_regression(table, truth), table)
    write_nomogram(tmp_path / "n.csv", nomogram)
    save_figure(draw_nomogram(nomogram, "title"), tmp_path / "n")
    with (tmp_path / "n.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["column"] for row in rows} == {*table, "(probability)"}
    svg = (tmp_path / "n.svg").read_text()
    assert all(name in svg for name in (*table, "total points", "probability", "trunk"))
