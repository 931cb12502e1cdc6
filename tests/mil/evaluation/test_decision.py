"""Net benefit by counting, by hand from the paper's definition, and at its limits."""

import csv
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PolyCollection

from mil.errors import PredictionsError
from mil.evaluation.classification.predictions import ClassPredictions
from mil.evaluation.decision_curves import (
    TREAT_ALL,
    TREAT_NONE,
    decide,
    decision_curves,
    net_benefit,
    survival_decision_curves,
    survival_net_benefit,
    write_curves,
)
from mil.evaluation.grade.predictions import GradePredictions
from mil.evaluation.survival.predictions import RiskPredictions
from mil.figures.saving import save_figure
from mil.report.decision import draw_decisions
from tests.mil.evaluation.test_survival_predictions import table_of
from tests.mil.followed import drawn

AT = np.array([0.1, 0.25, 0.5, 0.8])


def slow(positive, p, t):
    """True positives less false ones at the odds of the threshold, per case."""
    true = sum(bool(y) and q >= t for y, q in zip(positive, p, strict=True))
    false = sum(not y and q >= t for y, q in zip(positive, p, strict=True))
    return true / len(p) - false / len(p) * t / (1 - t)


@pytest.mark.parametrize("seed", range(20))
def test_net_benefit_is_counted(seed):
    rng = np.random.default_rng(seed)
    positive, p = rng.random(30) < 0.4, np.round(rng.random(30), 1)
    expected = [slow(positive, p, t) for t in AT]
    np.testing.assert_allclose(net_benefit(positive, p, AT), expected, atol=1e-14)


def test_perfect_probabilities_are_worth_the_prevalence_and_wrong_ones_harm():
    positive = np.arange(20) < 5
    assert net_benefit(positive, positive * 1.0, AT).tolist() == [0.25] * 4
    assert (net_benefit(positive, 1.0 - positive, AT) < 0).all()
    # At the prevalence, treating all is worth as much as treating none.
    assert net_benefit(positive, np.ones(20), np.array([0.25]))[0] == pytest.approx(0)


@pytest.mark.parametrize("seed", range(5))
def test_of_survival_without_censoring_it_is_that_of_the_event_until_then(seed):
    rng = np.random.default_rng(seed)
    time, p = rng.exponential(size=40), rng.random(40)
    benefit = survival_net_benefit(time, np.ones(40, dtype=bool), p, 0.8, AT)
    np.testing.assert_allclose(benefit, net_benefit(time <= 0.8, p, AT), atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_dcurves_finds_the_same(seed):
    """dcurves acts above the threshold, we from it on: drawn probabilities never lie on one."""
    from dcurves import dca

    rng = np.random.default_rng(seed)
    p, time, event = rng.random(60), rng.exponential(size=60), rng.random(60) < 0.7
    table = pd.DataFrame({"y": time < 0.8, "p": p, "time": time, "event": event.astype(int)})
    options = {"modelnames": ["p"], "thresholds": AT.tolist()}
    of_class = dca(data=table, outcome="y", **options).query("model == 'p'")["net_benefit"]
    np.testing.assert_allclose(net_benefit(time < 0.8, p, AT), of_class, atol=1e-12)
    met = dca(data=table, outcome="event", time=0.8, time_to_outcome_col="time", **options)
    np.testing.assert_allclose(
        survival_net_benefit(time, event, p, 0.8, AT),
        met.query("model == 'p'")["net_benefit"],
        atol=1e-12,
    )


def test_censored_cases_are_not_taken_for_survivors():
    rng = np.random.default_rng(0)
    met, left = rng.exponential(size=4000), rng.exponential(size=4000)
    p = np.clip(rng.random(4000) + 0.2 * (met < 0.8), 0, 1)
    full = net_benefit(met <= 0.8, p, AT)
    seen = survival_net_benefit(np.minimum(met, left), met <= left, p, 0.8, AT)
    np.testing.assert_allclose(seen, full, atol=0.03)
    naive = net_benefit((met <= left) & (met <= 0.8), p, AT)
    assert (naive < full - 0.08)[:3].all()


def predictions(seed=0, n=40):
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        label = "abc"[i % 3]
        for model, strength in (("good", 3.0), ("noise", 0.0)):
            p = rng.dirichlet(1 + strength * (np.array(list("abc")) == label))
            rows.append([model, 0, i % 5, f"c{i:02d}", f"s{i:02d}", label, *p])
    columns = ["model", "repeat", "fold", "case", "slide", "label", "p_a", "p_b", "p_c"]
    return ClassPredictions(pd.DataFrame(rows, columns=columns), ("a", "b", "c"))


def test_curves_of_all_models_stand_beside_treating_all_and_none():
    table = predictions()
    curves = {c.name: c for c in decision_curves(table, "b", AT)}
    assert list(curves) == ["good", "noise", TREAT_ALL, TREAT_NONE]
    scores = table.case_scores("good", 0)
    np.testing.assert_allclose(
        curves["good"].benefit, net_benefit(scores.truth == 1, scores.p[:, 1], AT)
    )
    share = (scores.truth == 1).mean()
    np.testing.assert_allclose(curves[TREAT_ALL].benefit, share - (1 - share) * AT / (1 - AT))
    assert (curves[TREAT_NONE].benefit == 0).all()
    assert curves["good"].benefit[2] > curves["noise"].benefit[2]
    for curve in curves.values():
        assert (curve.low <= curve.benefit + 1e-12).all()
        assert (curve.benefit <= curve.high + 1e-12).all()


def test_band_is_as_wide_as_the_standard_error_says():
    [curve, *_] = decision_curves(predictions(n=120), "a", AT)
    scores = predictions(n=120).case_scores("good", 0)
    acts = scores.p[:, :1] >= AT
    benefits = np.where(scores.truth[:, None] == 0, acts, -AT / (1 - AT) * acts)
    expected = 2 * 1.96 * benefits.std(axis=0) / np.sqrt(120)
    np.testing.assert_allclose((curve.high - curve.low)[:3], expected[:3], rtol=0.15)


def test_band_is_the_same_for_the_same_seed_and_other_for_another():
    one, two, other = (decision_curves(predictions(), "a", AT, seed=s)[0].low for s in (0, 0, 1))
    assert (one == two).all()
    assert (one != other).any()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_survival_has_curves_at_any_horizon_between_predicted_times(share):
    table = RiskPredictions(table_of(repeats=1)[0])
    before, after = (float(time) for time in table.horizons[10:12])
    horizon = before + share * (after - before)
    curves = survival_decision_curves(table, horizon, AT)
    risks = table.mean_risks("true")
    p = 1 - (1 - share) * risks.survival[:, 10] - share * risks.survival[:, 11]
    expected = survival_net_benefit(risks.time, risks.event, p, horizon, AT)
    [true] = [curve for curve in curves if curve.name == "true"]
    np.testing.assert_allclose(true.benefit, expected)


def test_until_the_first_predicted_time_survival_falls_from_one():
    table = RiskPredictions(table_of(repeats=1)[0])
    risks, first = table.mean_risks("true"), float(table.horizons[0])
    expected = 1 - (1 - risks.survival[:, 0]) / 4
    np.testing.assert_allclose(table.survival_at(first / 4, risks), expected)


@pytest.mark.parametrize("horizon", [0.0, -3.0, math.inf, math.nan])
def test_horizon_without_a_prediction_is_refused(horizon):
    table = RiskPredictions(table_of(repeats=1)[0])
    with pytest.raises(PredictionsError, match="Survival is predicted until"):
        survival_decision_curves(table, horizon, AT)
    with pytest.raises(PredictionsError, match="Survival is predicted until"):
        survival_decision_curves(table, float(table.horizons[-1]) * 1.01, AT)


def test_no_one_acted_on_is_worth_nothing():
    time, event, _ = drawn(np.random.default_rng(0), 20)
    assert (survival_net_benefit(time, event, np.zeros(20), 500.0, AT) == 0).all()


@pytest.mark.parametrize(
    ("positive", "at", "message"),
    [("d", AT, "No class 'd'"), ("a", AT + 0.5, "above 0 and below 1")],
)
def test_unknown_class_and_bad_threshold_are_refused(positive, at, message):
    with pytest.raises(PredictionsError, match=message):
        decision_curves(predictions(), positive, at)


def test_curves_are_drawn_and_tabulated(tmp_path):
    curves = decision_curves(predictions(), "a", AT)
    write_curves(tmp_path / "d.csv", curves)
    save_figure(draw_decisions(curves, "a against the rest"), tmp_path / "d")
    with (tmp_path / "d.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 4 * len(AT)
    svg = (tmp_path / "d.svg").read_text()
    assert all(name in svg for name in ("good", "noise", TREAT_ALL, TREAT_NONE))


def test_no_model_has_the_colour_of_treating_all_and_the_legend_lies_on_no_curve():
    curves = decision_curves(predictions(), "a", AT)
    model = next(curve for curve in curves if curve.name == "good")
    figure = draw_decisions([*curves, *(replace(model, name=f"m{i}") for i in range(3))], "a")
    [axes] = figure.axes
    colours = {line.get_label(): line.get_color() for line in axes.lines}
    rules = {colours.pop(TREAT_ALL), colours.pop(TREAT_NONE)}
    assert len(colours) == 5
    assert not rules & {*colours.values()}
    figure.draw_without_rendering()
    assert axes.get_legend() is None
    assert not figure.legends[0].get_window_extent().overlaps(axes.get_window_extent())


@pytest.mark.parametrize("n", [1, 2, 4, 7])
def test_intervals_of_several_models_stand_side_by_side(n):
    """One model has a band; the intervals of several share no threshold, and are those of the curves."""
    curves = decision_curves(predictions(), "a", AT)
    model = next(curve for curve in curves if curve.name == "good")
    rules = [curve for curve in curves if curve.name in (TREAT_ALL, TREAT_NONE)]
    models = [replace(model, name=f"m{i}") for i in range(n)]
    [axes] = draw_decisions([*models, *rules], "a").axes
    whiskers = [one for one in axes.collections if isinstance(one, LineCollection)]
    bands = [one for one in axes.collections if isinstance(one, PolyCollection)]
    assert (len(whiskers), len(bands)) == ((0, 1) if n == 1 else (n, 0))
    ends = np.array([segment for one in whiskers for segment in one.get_segments()]).reshape(
        -1, 2, 2
    )
    at = np.sort(ends[:, 0, 0])
    assert (np.diff(at) > 1e-3).all()
    assert all(AT[0] < place < AT[-1] for place in at)
    np.testing.assert_allclose(ends[:, 0, 1], np.interp(ends[:, 0, 0], AT, model.low))
    np.testing.assert_allclose(ends[:, 1, 1], np.interp(ends[:, 0, 0], AT, model.high))


def test_a_grade_or_a_higher_one_is_that_sum_of_classes():
    """The twin: the same probabilities as two classes, below the grade and from it on."""
    rng = np.random.default_rng(2)
    p, truth = rng.dirichlet(np.ones(3), 40), np.arange(40) % 3
    keys = pd.DataFrame(
        {"model": "m", "repeat": 0, "fold": np.arange(40) % 4, "case": [f"c{i}" for i in range(40)]}
    )
    keys["slide"] = keys["case"]
    graded = keys.assign(grade=truth.astype(str), g_0=p[:, 0], g_1=p[:, 1], g_2=p[:, 2])
    high = np.where(truth > 0, "high", "low")
    split = keys.assign(label=high, p_low=p[:, 0], p_high=p[:, 1] + p[:, 2])
    decision = decide(GradePredictions(graded, ("0", "1", "2")), AT, positive="1")
    twin = decide(ClassPredictions(split, ("low", "high")), AT)
    assert decision.title == "grade 1 or higher"
    assert twin.title == "high against the rest"
    for curve, other in zip(decision.curves, twin.curves, strict=True):
        assert curve.benefit == pytest.approx(other.benefit)
        assert curve.low == pytest.approx(other.low)
