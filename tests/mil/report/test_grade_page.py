"""The page of ordered grades: its numbers, the order of its cases and grades, and names as plain text."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mil.evaluation.classification.model_scores import ONE_ANSWER
from mil.evaluation.grade.comparison import compare_grade_models
from mil.evaluation.grade.evaluate import evaluate_grades
from mil.evaluation.grade.predictions import GradePredictions
from mil.evaluation.intervals import wilson
from mil.report.facts import Facts
from mil.report.grade_cards import grade_cards
from mil.report.grade_sections import GradeSections
from mil.report.page import render, write_report
from mil.report.sections import Report
from tests.mil.report.parsed import NASTY, Page, check_page, check_text_only, plain_for

N = 21


def report_of(
    *, grades=("1", "2", "3"), models=("skilled", "noise"), repeats=1, stem="case-", **changes
):
    """`skilled` leans to the true grade, every other model does not."""
    rng = np.random.default_rng(5)
    cases = [f"{stem}{i:02d}" for i in range(N)]
    truth = np.arange(N) % len(grades)
    rows = []
    for model in models:
        for repeat in range(repeats):
            for i, case in enumerate(cases):
                p = rng.dirichlet(np.ones(len(grades)))
                p[truth[i]] += 0.4 if model == models[0] else 0
                row = (model, repeat, (i + repeat) % 3, case, f"{case}/0", grades[truth[i]])
                rows.append((*row, *(p / p.sum())))
    columns = ["model", "repeat", "fold", "case", "slide", "grade", *(f"g_{g}" for g in grades)]
    predictions = GradePredictions(pd.DataFrame(rows, columns=columns), tuple(grades))
    label = [grades[t] for t in truth]
    folds = [(r, (i + r) % 3, cases[i], label[i]) for r in range(repeats) for i in range(N)]
    facts = {
        "title": "run-7",
        "created": "2025-03-01 12:00:00 UTC",
        "warnings": (),
        "in_table": (N, N),
        "cohort": pd.DataFrame({"case": cases, "label": label, "slides": 1, "tiles": 900 + truth}),
        "excluded": (),
        "folds": pd.DataFrame(folds, columns=["repeat", "fold", "case", "label"]),
        "heatmaps": {},
        "recipe": {},
        "settings": {},
        "versions": {},
    }
    return Report(
        page="mil.report.grade_sections:GradeSections",
        facts=Facts(**(facts | changes)),
        predictions=predictions,
        evaluation=evaluate_grades(predictions),
        comparison=compare_grade_models(predictions),
    )


@pytest.mark.parametrize(
    "shape", [{}, {"repeats": 3}, {"models": ("skilled",)}, {"grades": ("low", "high")}]
)
def test_the_page_is_whole_and_stands_by_itself(shape):
    source = render(report_of(**shape))
    check_page(source)
    assert "None" not in Page(source).text()
    assert not re.search(r"\b(nan|inf)\b", source, re.IGNORECASE)


def test_the_table_prints_what_was_evaluated():
    report = report_of()
    text = Page(render(report)).text()
    for result in report.evaluation.models:
        kappa, error = result.metrics["quadratic_kappa"], result.metrics["mae"]
        row = f"{result.model} {kappa.value:.2f} {kappa.low:.2f} to {kappa.high:.2f}"
        assert f"{row} {error.value:.2f} {error.low:.2f} to {error.high:.2f}" in text
    assert "(median training grade)" in text
    lead = report.evaluation.best()
    assert lead.model == "skilled"
    assert f"quadratic kappa of {lead.metrics['quadratic_kappa'].value:.2f}" in text
    assert "It is the best of 2 models" in text


def test_the_confusion_matrix_stands_in_the_order_of_the_grades():
    report = report_of()
    source = render(report)
    start = source.index('aria-label="Confusion matrix of skilled"')
    matrix = source[start : source.index("</table>", start)]
    counts = [int(n) for n in re.findall(r'class="count[^>]*>(\d+)<', matrix)]
    assert counts == report.evaluation.models[0].confusion.astype(int).ravel().tolist()
    assert re.findall(r"<th scope=\"row\">(\d)<", matrix) == ["1", "2", "3"]


def test_cases_stand_furthest_from_the_truth_first():
    report = report_of(repeats=3)
    shown = re.findall(r"<h3>(case-\d\d)</h3>", render(report))
    cards = {card.case: card for card in grade_cards(report.predictions)}
    distances = [cards[case].verdicts[0].distance for case in shown]
    assert distances == sorted(distances, reverse=True)
    assert len(shown) == N
    missed = [case for case in shown if cards[case].verdicts[0].wrong]
    assert missed
    assert all(
        cards[case].verdicts[0].called[int(cards[case].outcome[1]) - 1] < 2 for case in missed
    )
    assert (
        f"another grade than the true one to {len(missed)} of {N} cases"
        in Page(render(report)).text()
    )


def test_figures_lie_beside_the_page(tmp_path):
    report = report_of()
    write_report(report, tmp_path / "report.html")
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {
        f"confusion.{kind}" for kind in ("csv", "png", "svg")
    }
    assert pd.read_csv(tmp_path / "figures" / "confusion.csv")["cases"].sum() == 2 * N


def test_a_model_without_skill_is_not_said_to_have_learned():
    sections = GradeSections(report_of(models=("other", "noise")))
    report = report_of(models=("first",))
    flat = report.predictions.table.assign(g_1=0.0, g_2=1.0, g_3=0.0)
    predictions = GradePredictions(flat, report.predictions.grades)
    constant = Report(
        page=report.page, facts=report.facts, predictions=predictions,
        evaluation=evaluate_grades(predictions), comparison=compare_grade_models(predictions),
    )  # fmt: skip
    assert "has not learned the grades" in GradeSections(constant).headline()[-1]
    assert "composition" in " ".join(sections.limitations())


def test_an_order_without_grades_is_said_to_be_one():
    """All cases are given the middle grade, in the right order of their expected grades."""
    report = report_of(models=("skilled",))
    p = np.linspace(0.02, 0.4, N)
    place = report.predictions.table["grade"].astype(int).rank(method="first").astype(int) - 1
    table = report.predictions.table.assign(g_1=0.42 - p[place], g_2=0.58, g_3=p[place])
    predictions = GradePredictions(table, report.predictions.grades)
    timid = replace(
        report,
        predictions=predictions,
        evaluation=evaluate_grades(predictions),
        comparison=compare_grade_models(predictions),
    )
    last = GradeSections(timid).headline()[-1]
    assert "Use its order, not its grades" in last
    assert GradeSections(timid).beats_guessing
    assert "reaches down to chance (Somers' D" in GradeSections(report_of()).headline()[-1]


@pytest.mark.parametrize("nasty", NASTY[:2])
def test_names_are_text_and_nothing_else(nasty):
    def named(name):
        return render(
            report_of(
                grades=(name, f"{name}2"), models=(name, f"{name}2"), stem=name, title=name, created=name,
                warnings=(name,), excluded=((name, name),), settings={name: name},
            )
        )  # fmt: skip

    check_text_only(nasty, named(nasty), plain_for(nasty), named(plain_for(nasty)))


def test_acting_on_each_grade_or_a_higher_one_has_its_curve():
    report = report_of()
    source = render(report)
    part = source[source.index('<section id="decisions">') : source.index('<section id="errors">')]
    titles = re.findall(r"<figcaption>([^<]*)</figcaption>", part)
    assert titles == ["grade 2 or higher", "grade 3"]
    decisions = GradeSections(report).values()["decisions"]
    scores = report.predictions.case_scores("skilled", 0)
    for decision, cut in zip(decisions, (1, 2), strict=True):
        positive, p = scores.truth >= cut, scores.p[:, cut:].sum(axis=1)
        curve = decision.of("skilled")
        for t, benefit in zip(curve.threshold, curve.benefit, strict=True):
            acts = p >= t
            by_hand = (acts & positive).mean() - (acts & ~positive).mean() * t / (1 - t)
            assert benefit == pytest.approx(by_hand)


def test_why_a_number_is_missing_stands_once_below_the_table():
    report = report_of(models=("skilled", "flat"))
    table = report.predictions.table
    table.loc[table["model"] == "flat", ["g_1", "g_2", "g_3"]] = [0.2, 0.5, 0.3]
    predictions = GradePredictions(table, report.predictions.grades)
    report = replace(
        report, predictions=predictions, evaluation=evaluate_grades(predictions),
        comparison=compare_grade_models(predictions),
    )  # fmt: skip
    source = render(report)
    reason = ONE_ANSWER
    assert Page(source).text().count(reason) == 1
    assert f"Somers&#39; D of flat and (median training grade): {reason}." in source
    rows = source[source.index('aria-label="Models compared"') :]
    assert reason not in rows[: rows.index("</table>")]


def test_each_grade_has_its_share_with_its_interval_and_its_name():
    report = report_of()
    source = render(report)
    start = source.index('aria-label="Confusion matrix of skilled"')
    text = Page(source[start : source.index("</table>", start)]).text()
    row = report.evaluation.models[0].confusion[1]
    limits = wilson(row[1], row.sum())
    assert f"{100 * limits.low:.0f} to {100 * limits.high:.0f} %" in text
    cases = source[source.index('aria-label="All cases"') :]
    assert '<th scope="col">grade</th>' in cases
    assert ">label</th>" not in source
