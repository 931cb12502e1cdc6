"""Hazard ratios, their adjustment and the proportionality test, against lifelines and by design."""

import csv

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from lifelines.statistics import proportional_hazard_test
from statsmodels.stats.multitest import multipletests

from mil.errors import RunError
from mil.evaluation.regression.design import fit_design
from mil.evaluation.survival.hazards import hazard_table, read_hazards, write_hazards
from tests.mil.followed import drawn


def columns_of(seed=0, n=80):
    rng = np.random.default_rng(seed)
    time, event, risk = drawn(rng, n, strength=1.0)
    columns = {"risk": risk, "age": rng.normal(60, 10, n), "female": (rng.random(n) < 0.5) * 1.0}
    return columns, time, event


@pytest.mark.parametrize("seed", range(3))
def test_table_is_that_of_lifelines_and_statsmodels(seed):
    columns, time, event = columns_of(seed)
    hazards = hazard_table(columns, time, event)
    table = pd.DataFrame(columns).assign(t=time, e=event)
    fitted = CoxPHFitter().fit(table, "t", "e")
    tested = proportional_hazard_test(fitted, table, time_transform="rank").p_value
    together = [hazard for hazard in hazards if hazard.analysis == "multivariable"]
    assert [hazard.term for hazard in together] == list(columns)
    summary = fitted.summary
    np.testing.assert_allclose([e.ratio for e in together], summary["exp(coef)"], rtol=1e-4)
    np.testing.assert_allclose([e.low for e in together], summary["exp(coef) lower 95%"], rtol=1e-4)
    np.testing.assert_allclose([e.p for e in together], summary["p"], rtol=1e-3)
    np.testing.assert_allclose([e.p_proportional for e in together], tested, rtol=1e-3)
    p = [hazard.p for hazard in together]
    for method in ("holm", "bonferroni"):
        expected = multipletests(p, method=method)[1]
        np.testing.assert_allclose([getattr(e, f"p_{method}") for e in together], expected)
    alone = CoxPHFitter().fit(table[["age", "t", "e"]], "t", "e").summary
    [age] = [e for e in hazards if e.analysis == "univariable" and e.term == "age"]
    assert age.ratio == pytest.approx(alone.loc["age", "exp(coef)"], rel=1e-4)


def test_hazard_that_turns_round_is_seen_and_a_steady_one_is_not():
    rng = np.random.default_rng(0)
    n = 400
    steady, turning = rng.normal(size=n), (np.arange(n) % 2).astype(float)
    # First the ones die fast, and who is left of them slowly.
    time = np.where(turning == 1, rng.weibull(0.5, n), rng.weibull(2.5, n)) * np.exp(-steady / 2)
    hazards = hazard_table({"steady": steady, "turning": turning}, time, np.ones(n, dtype=bool))
    p = {e.term: e.p_proportional for e in hazards if e.analysis == "multivariable"}
    assert p["turning"] < 0.001
    alone = hazard_table(*columns_of(1))
    assert all(e.p_proportional > 0.01 for e in alone)


def test_column_that_separates_the_events_is_penalised_and_marked():
    rng = np.random.default_rng(0)
    separating = (np.arange(40) < 20).astype(float)
    hazards = hazard_table({"separating": separating}, rng.exponential(size=40), separating > 0)
    [hazard] = hazards
    assert (hazard.penalty, hazard.p_proportional) == ("Firth", None)
    assert 1 < hazard.low < hazard.ratio < hazard.high < 1e4


def test_column_that_does_not_vary_is_left_out():
    columns, time, event = columns_of()
    hazards = hazard_table(columns | {"same": np.ones(len(time))}, time, event)
    assert "same" not in {hazard.term for hazard in hazards}


def test_table_is_written_row_by_row(tmp_path):
    hazards = hazard_table(*columns_of())
    write_hazards(tmp_path / "cox.csv", {"abmil": hazards})
    with (tmp_path / "cox.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["term"] for row in rows] == [hazard.term for hazard in hazards]
    assert float(rows[0]["hazard_ratio"]) == pytest.approx(hazards[0].ratio, rel=1e-5)
    assert {row["analysis"] for row in rows} == {"univariable", "multivariable"}


def test_table_comes_back_to_the_digits_it_was_written_with(tmp_path):
    columns, time, event = columns_of()
    separating = {"separating": (np.arange(40) < 20) * 1.0}
    tables = {
        "abmil": hazard_table(columns, time, event),
        "mean": hazard_table(separating, time[:40], separating["separating"] > 0),
    }
    write_hazards(tmp_path / "cox.csv", tables)
    back = read_hazards(tmp_path / "cox.csv")
    write_hazards(tmp_path / "again.csv", back)
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "cox.csv").read_bytes()
    assert {hazard.penalty for hazard in back["mean"]} == {"Firth"}
    assert {hazard.p_proportional for hazard in back["mean"]} == {None}
    (tmp_path / "again.csv").write_text("model,analysis\nabmil,univariable,age,1.2,old\n")
    with pytest.raises(
        RunError, match=r"again.csv is not a table of hazards.*Put it back, or remove it"
    ):
        read_hazards(tmp_path / "again.csv")
    for hazard, original in zip(back["abmil"], tables["abmil"], strict=True):
        assert (hazard.analysis, hazard.term) == (original.analysis, original.term)
        for name in ("ratio", "low", "high", "p", "p_holm", "p_bonferroni", "p_proportional"):
            assert getattr(hazard, name) == pytest.approx(getattr(original, name), rel=1e-5), name


def test_categories_have_the_most_frequent_as_reference_and_numbers_their_unit():
    table = {
        "age": ["40", "", "60", "80", "50"],
        "site": ["leg", "arm", "leg", "neck", "NA"],
        "same": ["x"] * 5,
        "name": list("abcde"),
    }
    design = fit_design(table)
    assert [term.name for term in design.terms] == ["age", "site: arm", "site: neck"]
    assert {term.reference for term in design.terms[1:]} == {"leg"}
    expected = [[40, 0, 0], [55, 1, 0], [60, 0, 0], [80, 0, 1], [50, 0, 0]]
    assert design.rows(table).tolist() == expected
    assert design.rows({"age": ["9"], "site": ["foot"]}).tolist() == [[9, 0, 0]]
    assert fit_design({"same": ["x"] * 3}).rows({"same": ["x"] * 3}).shape == (3, 0)
