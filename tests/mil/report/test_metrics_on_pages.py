"""A metric is one function and one row of a table: the page of a run shows every row."""

import re
from dataclasses import replace

import pytest

from mil.evaluation.classification import evaluate as classes
from mil.evaluation.grade import evaluate as grades
from mil.evaluation.intervals import Estimate
from mil.evaluation.metric import Metric, page_columns
from mil.evaluation.survival import evaluate as survival
from mil.report.page import render
from tests.mil.report.parsed import Page
from tests.mil.report.test_grade_page import report_of
from tests.mil.report.test_survival_page import made

NUMBER = 0.8127
KINDS = {
    "diagnosis": (classes.evaluate, classes.METRICS),
    "grade": (grades.evaluate_grades, grades.METRICS),
    "survival": (survival.evaluate_survival, survival.METRICS),
}


@pytest.fixture(scope="module")
def reports(make):
    return {"diagnosis": make(), "grade": report_of(), "survival": made()}


def with_row(report, kind, row):
    """The report with one more metric."""
    evaluate, table = KINDS[kind]
    evaluation = evaluate(report.predictions, metric_table=(*table, row))
    return replace(report, evaluation=evaluation)


@pytest.mark.parametrize("shown", ["summary", "further", "nowhere"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_row_of_the_table_is_on_the_page_in_the_json_and_the_csv(reports, kind, shown):
    row = Metric(
        "novelty",
        "Novelty of Newman",
        lambda _scores: Estimate(NUMBER, 0.7, 0.9, "made"),
        shown=shown,
        digits=4,
    )
    report = with_row(reports[kind], kind, row)
    text = Page(render(report)).text()
    assert "Novelty of Newman" in text
    n_models = len(report.evaluation.models)
    assert text.count("0.8127 0.7000 to 0.9000") >= n_models
    assert report.evaluation.to_json()["models"][0]["novelty"]["value"] == NUMBER
    assert sum(row["metric"] == "novelty" for row in report.evaluation.rows()) >= n_models


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_has_a_column_for_each_row_and_none_besides(reports, kind):
    report = reports[kind]
    names = getattr(report.evaluation, "classes", getattr(report.evaluation, "grades", ()))
    columns = sum(page_columns(report.evaluation.metric_table, names), ())
    assert len(columns) == len(report.evaluation.metric_table)
    text = Page(render(report)).text()
    assert not [m.name for m in columns if m.page_heading(names) not in text]


def test_a_metric_that_needs_more_classes_has_no_column_for_two():
    text = Page(render(report_of(grades=("low", "high")))).text()
    assert "within one grade" not in re.sub(r"\s+", " ", text)
    assert "linear kappa" in text
