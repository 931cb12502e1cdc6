"""A metric is one function and one row of a table; JSON, CSV and the terminal follow from it."""

import json

import numpy as np
import pytest

from mil.evaluation.classification import metrics
from mil.evaluation.classification.evaluate import evaluate
from mil.evaluation.classification.metric_table import METRICS
from mil.evaluation.comparison import compare_models
from mil.evaluation.display import format_estimate, format_p, state_p
from mil.evaluation.intervals import Estimate, wilson
from mil.evaluation.metric import Metric
from mil.evaluation.survival.evaluate import evaluate_survival
from mil.evaluation.survival.metric_table import METRICS as SURVIVAL_METRICS
from mil.evaluation.survival.predictions import RiskPredictions
from tests.mil.evaluation.test_survival_predictions import table_of


def worst_sensitivity(scores):
    value = np.mean([np.nanmin(metrics.sensitivity(scores.truth, p)) for p in scores.probabilities])
    interval = wilson(value * scores.counts.min(), scores.counts.min())
    return Estimate(float(value), interval.low, interval.high, interval.method)


def share_of_events(scores):
    return Estimate(float(scores.event.mean()), None, None, "none")


def cell(table, column, row):
    return table.rows[row][list(table.header).index(column)]


@pytest.mark.parametrize("shown", ["summary", "further"])
def test_one_function_and_one_row_add_a_metric_of_classes(make, shown):
    row = Metric(
        "worst_sensitivity",
        "worst sensitivity",
        worst_sensitivity,
        per_repeat=lambda scores: scores.per_repeat(metrics.balanced_accuracy),
        guess=lambda scores: 1 / len(scores.classes),
        shown=shown,
    )
    predictions = make(repeats=2)
    plain, more = evaluate(predictions), evaluate(predictions, metric_table=(*METRICS, row))
    estimate = more.models[0].metrics["worst_sensitivity"]
    fields = json.loads(json.dumps(more.to_json()))["models"][0]
    assert fields["worst_sensitivity"]["low"] == estimate.low
    assert fields["per_repeat"]["worst_sensitivity"] == fields["per_repeat"]["balanced_accuracy"]
    assert fields["spread"]["worst_sensitivity"]["mean"] > 0
    [line] = [
        row
        for row in more.rows()
        if row["metric"] == "worst_sensitivity" and row["model"] == more.models[0].model
    ]
    assert (line["class"], line["value"], line["high"]) == ("", estimate.value, estimate.high)
    table = more.tables()[0 if shown == "summary" else 1]
    assert cell(table, "worst sensitivity", 0) == format_estimate(estimate)
    if shown == "summary":
        assert cell(table, "worst sensitivity", -1) == "0.33"
    for one, two in zip(plain.models, more.models, strict=True):
        assert one.metrics == {name: two.metrics[name] for name in one.metrics}


def test_one_function_and_one_row_add_a_metric_of_survival():
    row = Metric("events", "events", share_of_events, digits=1, interval=False, shown="summary")
    predictions = RiskPredictions(table_of(repeats=2)[0])
    evaluation = evaluate_survival(predictions, metric_table=(*SURVIVAL_METRICS, row))
    value = evaluation.models[0].metrics["events"].value
    assert evaluation.to_json()["models"][0]["events"] == value
    assert {
        "model": evaluation.models[0].model,
        "metric": "events",
        "value": value,
    } in evaluation.rows()
    [table, *_] = evaluation.tables()
    assert cell(table, "events", 0) == f"{value:.1f}"
    assert cell(table, "events", -1) == ""


def test_metrics_that_are_not_shown_are_in_the_files(make):
    evaluation = evaluate(make())
    assert "auc_delong" in evaluation.to_json()["models"][0]
    assert not any("DeLong" in name for table in evaluation.tables() for name in table.header)


def test_every_row_of_a_table_has_the_columns_of_its_header(make):
    predictions = make(repeats=2)
    tables = [*evaluate(predictions).tables(), *compare_models(predictions).tables()]
    tables += evaluate_survival(RiskPredictions(table_of()[0])).tables()
    for table in tables:
        assert {len(row) for row in table.rows} == {len(table.header)}
        assert all(isinstance(text, str) for row in table.rows for text in row)


def test_the_best_model_is_the_first_of_the_best(make):
    evaluation = evaluate(make(models=("a", "b", "c")))
    most = max(result.correct for result in evaluation.models)
    assert evaluation.best() is next(r for r in evaluation.models if r.correct == most)
    survival = evaluate_survival(RiskPredictions(table_of()[0]))
    assert survival.best().model == "true"


@pytest.mark.parametrize(
    ("p", "text"),
    [(None, "undefined"), (0.00099, "< 0.001"), (0.001, "0.001"), (0.25, "0.250"), (1.0, "1.000")],
)
def test_p_values_have_three_digits(p, text):
    assert format_p(p) == text


@pytest.mark.parametrize(
    ("p", "text"), [(None, "p undefined"), (4e-9, "p < 0.001"), (0.03, "p = 0.030")]
)
def test_p_values_in_a_sentence_have_the_same_digits(p, text):
    assert state_p(p) == text


def test_estimates_show_what_is_missing():
    assert format_estimate(Estimate(0.5, 0.25, 0.75, "Wilson")) == "0.50 (0.25 to 0.75)"
    assert format_estimate(Estimate(0.5, None, None, "none")) == "0.50 (no interval)"
    assert format_estimate(Estimate(0.5, None, None, "none"), 3, no_interval="") == "0.500"
    assert format_estimate(Estimate(None, None, None, "none", "why")) == "undefined"
