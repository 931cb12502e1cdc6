"""The table of survival: read back as written, refused where it contradicts itself."""

import numpy as np
import pandas as pd
import pytest

from mil.errors import PredictionsError
from mil.evaluation.judge import evaluate
from mil.evaluation.predictions import read_predictions, write_predictions
from mil.evaluation.survival.evaluate import evaluate_survival
from mil.evaluation.survival.metrics import harrell_c, log_rank
from mil.evaluation.survival.predictions import (
    RiskPredictions,
    choose_horizons,
    column_of,
)
from mil.settings import JudgeSettings
from tests.mil.followed import drawn

N = 24


def table_of(models=("null", "true"), repeats=2, seed=0):
    """Two slides of every other case; `true` says the risk, and its high half dies sooner."""
    rng = np.random.default_rng(seed)
    time, event, risk = drawn(rng, N)
    at = choose_horizons(time, event)
    rows = []
    for model in models:
        for repeat in range(repeats):
            for i in range(N):
                told = risk[i] - np.median(risk) if model == "true" else rng.normal()
                for slide in range(1 + i % 2):
                    s = np.exp(-np.exp(told) * np.array(at) / 1000)
                    rows.append(
                        {"model": model, "repeat": repeat, "fold": i % 3, "case": f"c{i:02d}"}
                        | {"slide": f"c{i:02d}-{slide}", "time": time[i], "event": int(event[i])}
                        | {"risk": told} | dict(zip(map(column_of, at), s, strict=True))
                    )  # fmt: skip
    return pd.DataFrame(rows), time, event, risk


def test_table_comes_back_as_it_was_written(tmp_path):
    predictions = RiskPredictions(table_of()[0])
    write_predictions(tmp_path / "p.csv", predictions)
    back = read_predictions(tmp_path / "p.csv")
    pd.testing.assert_frame_equal(back.table, predictions.table, check_exact=True)


@pytest.mark.parametrize("sep", ["\t", ";"])
def test_table_is_read_with_tabs_and_semicolons_too(sep, tmp_path):
    predictions = RiskPredictions(table_of()[0])
    predictions.table.to_csv(tmp_path / "p.csv", index=False, sep=sep)
    assert isinstance(read_predictions(tmp_path / "p.csv"), RiskPredictions)
    pd.testing.assert_frame_equal(read_predictions(tmp_path / "p.csv").table, predictions.table)


def test_models_are_judged_by_cases():
    table, time, event, risk = table_of()
    found = evaluate_survival(RiskPredictions(table))
    null, true = found.models
    assert (found.n_cases, found.n_events, found.n_slides) == (N, event.sum(), N * 3 // 2)
    assert true.metrics["harrell"].value == pytest.approx(harrell_c(time, event, risk))
    assert true.metrics["harrell"].low > null.metrics["harrell"].low
    assert true.metrics["ibs"].value < found.guessing_ibs < null.metrics["ibs"].value
    high = (risk > np.median(risk)).astype(int)
    assert true.groups.p == pytest.approx(log_rank(time, event, high).p)
    assert true.groups.high == high.sum()
    assert true.groups.p_bonferroni == pytest.approx(2 * true.groups.p)
    assert true.groups.p <= true.groups.p_holm <= true.groups.p_bonferroni
    assert null.metrics["harrell"].value == pytest.approx(np.mean(null.per_repeat))


def test_model_that_says_the_same_of_all_is_worth_a_half_without_an_interval():
    table = table_of(models=("majority",))[0].assign(risk=0.0)
    [found] = evaluate_survival(RiskPredictions(table)).models
    assert (found.metrics["harrell"].value, found.metrics["harrell"].low, found.groups.p) == (
        0.5,
        None,
        None,
    )


def test_row_order_changes_no_number():
    table = table_of()[0]
    shuffled = table.sample(frac=1, random_state=0).sort_values("model", kind="stable")
    first, second = (evaluate_survival(RiskPredictions(t)) for t in (table, shuffled))
    assert first.to_json() == second.to_json()


def test_horizons_rise_and_end_while_cases_are_observed():
    time, event, _ = drawn(np.random.default_rng(0), 40)
    at = np.array(choose_horizons(time, event))
    assert len(at) == 20
    assert (np.diff(at) > 0).all()
    assert at[0] >= time[event].min()
    assert (time > at[-1]).sum() >= 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop(columns="risk"), "lack risk"),
        (lambda t: t.iloc[:0], "no row"),
        (lambda t: t.assign(risk=np.nan), "risk holds values that are not finite"),
        (lambda t: t.assign(event=2), "an event 0 or 1"),
        (lambda t: t.assign(time=-1.0), "A time is 0 or more"),
        (lambda t: t.assign(**{t.columns[-1]: 1.5}), r"probability in \[0, 1\]"),
        (lambda t: t.assign(**{t.columns[-1]: 1.0}), "rises with time"),
        (lambda t: t.rename(columns={t.columns[-1]: "s_late"}), "names no time"),
        (lambda t: t.rename(columns={t.columns[-1]: "s_0"}), "ascending times"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "predicted twice"),
        (lambda t: t.assign(time=[t["time"][0] + 1, *t["time"][1:]]).assign(case="c00"), "two outcomes"),
        (lambda t: t.assign(fold=range(len(t))), "lies in folds|in another fold"),
        (lambda t: t[~((t["model"] == "true") & (t["case"] == "c00"))], "lacks 1 of 24 cases"),
    ],
)  # fmt: skip
def test_table_that_contradicts_itself_is_refused(change, said):
    with pytest.raises(PredictionsError, match=said):
        RiskPredictions(change(table_of()[0]))


def test_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(PredictionsError, match=r"none\.csv: no such run or table of predictions"):
        read_predictions(tmp_path / "none.csv")
    table = table_of()[0]
    table.assign(risk="high").to_csv(tmp_path / "p.csv", index=False)
    with pytest.raises(PredictionsError, match="column risk must hold numbers"):
        read_predictions(tmp_path / "p.csv")


def test_times_are_in_the_unit_of_the_predictions_and_settings_of_classes_are_refused():
    predictions = RiskPredictions(table_of()[0], unit="months")
    assert evaluate(predictions).unit == "months"
    with pytest.raises(PredictionsError, match="for predictions of classes; these hold risks"):
        evaluate(predictions, JudgeSettings(coverage=0.8))
