"""Predicted grades from the table to each model's metrics, by case."""

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from mil.errors import PredictionsError
from mil.evaluation.classification.model_scores import ONE_ANSWER
from mil.evaluation.grade.evaluate import (
    BASELINE,
    evaluate_grades,
    evaluate_model,
    median_of_training,
)
from mil.evaluation.grade.metric_table import METRICS
from mil.evaluation.grade.predictions import GradePredictions, check_grades, grades_of
from mil.evaluation.intervals import wilson
from mil.evaluation.judge import compare, evaluate
from mil.evaluation.predictions import read_predictions, write_predictions
from mil.tasks.grade import Grade
from tests.mil.evaluation.grades import GRADES, grade_predictions, grade_table, scores_of


def test_slides_of_a_case_are_averaged():
    predictions = grade_predictions()
    scores = predictions.case_scores("abmil", 1)
    table = predictions.table
    case = table[(table["model"] == "abmil") & (table["repeat"] == 1) & (table["case"] == "case05")]
    assert len(case) == 2
    row = scores.case.index("case05")
    assert scores.p[row] == pytest.approx(case[["g_1", "g_2", "g_3"]].mean().to_numpy())
    assert GRADES[scores.truth[row]] == case["grade"].iloc[0]
    assert predictions.models == ("abmil", "votes")
    assert predictions.repeats == (0, 1)


def test_values_are_means_over_repeats_of_those_of_scikit_learn():
    predictions = grade_predictions(counts=(8, 7, 5), repeats=3)
    result = evaluate_grades(predictions).models[0]
    kappas, errors = [], []
    for repeat in range(3):
        scores = predictions.case_scores("abmil", repeat)
        grade = [int(np.searchsorted(np.cumsum(row), 0.5)) for row in scores.p]
        kappas.append(cohen_kappa_score(scores.truth, grade, labels=[0, 1, 2], weights="quadratic"))
        errors.append(np.mean(np.abs(grade - scores.truth)))
    assert result.metrics["quadratic_kappa"].value == pytest.approx(np.mean(kappas))
    assert result.per_repeat["quadratic_kappa"] == pytest.approx(kappas)
    assert result.metrics["mae"].value == pytest.approx(np.mean(errors))
    assert result.spread["mae"].sd == pytest.approx(np.std(errors, ddof=1))
    assert result.confusion.sum(axis=1) == pytest.approx([8, 7, 5])
    share = np.trace(result.confusion) / 20
    assert result.metrics["exact"].value == pytest.approx(share)
    assert result.metrics["exact"].low == pytest.approx(wilson(share * 20, 20).low)
    assert list(result.metrics) == [metric.name for metric in METRICS]
    for estimate in result.metrics.values():
        assert estimate.low <= estimate.value <= estimate.high


def test_a_planted_order_is_seen_and_noise_is_not():
    evaluation = evaluate_grades(grade_predictions(counts=(14, 14, 12), repeats=1, signal=1.5))
    planted, noise = evaluation.models
    assert planted.metrics["quadratic_kappa"].low > 0.3
    assert planted.metrics["somers_d"].low > 0.3
    assert noise.metrics["quadratic_kappa"].low < 0 < noise.metrics["quadratic_kappa"].high
    assert evaluation.best() is planted


def timid(p):
    """The same order, so close to the middle grade that this is the median of every case."""
    return 0.9 * np.array([0.1, 0.8, 0.1]) + 0.1 * p


def test_an_order_is_seen_where_every_case_is_given_the_middle_grade():
    table = grade_table(counts=(9, 9, 9), models=("timid", "noise"), repeats=1, signal=2.0)
    columns = ["g_1", "g_2", "g_3"]
    table[columns] = timid(table[columns].to_numpy())
    constant = table[table["model"] == "noise"].assign(model="none", g_1=0.1, g_2=0.8, g_3=0.1)
    both = pd.concat([constant, table], ignore_index=True)
    evaluation = evaluate_grades(GradePredictions(both, GRADES))
    none, order, noise = evaluation.models
    assert [r.metrics["quadratic_kappa"].value for r in evaluation.models] == [0, 0, 0]
    assert evaluation.ranked() == [order, noise, none]
    assert (none.constant, order.constant, noise.constant) == (True, False, False)
    estimates = {r.model: {"somers_d": asdict(r.metrics["somers_d"])} for r in evaluation.models}
    assert Grade.describe_guessing(estimates["timid"]) == ""
    assert Grade.describe_guessing(estimates["noise"]).startswith("Somers' D")
    assert Grade.describe_guessing(estimates["none"]) == "Somers' D undefined"


def test_confusion_rows_are_the_truth_in_the_order_of_grades():
    result = evaluate_model("m", [scores_of([0, 0, 1, 2, 2, 2], [0, 2, 1, 1, 1, 2])])
    assert result.confusion.tolist() == [[1, 0, 1], [0, 1, 0], [0, 2, 1]]
    assert result.metrics["bias"].value == pytest.approx((2 - 1 - 1) / 6)
    assert result.metrics["within_one"].value == pytest.approx(5 / 6)


def test_reversing_the_order_of_grades_mirrors_the_results():
    rng = np.random.default_rng(1)
    truth, grade = rng.integers(3, size=20), rng.integers(3, size=20)
    one = evaluate_model("m", [scores_of(truth, grade)]).metrics
    other = evaluate_model("m", [scores_of(2 - truth, 2 - grade)]).metrics
    for name in ("quadratic_kappa", "linear_kappa", "mae", "exact", "within_one", "somers_d"):
        assert one[name].value == pytest.approx(other[name].value)
    assert one["bias"].value == pytest.approx(-other["bias"].value)


def test_baseline_is_the_median_grade_of_the_other_folds():
    truth, fold = [0, 0, 0, 1, 2, 2], [0, 0, 1, 1, 2, 2]
    scores = median_of_training(scores_of(truth, truth, fold=fold))
    # Without fold 0: 0 1 2 2, lower median 1; without fold 1: 0 0 2 2, 0; without fold 2: 0 0 0 1, 0.
    assert scores.p.argmax(axis=1).tolist() == [1, 1, 0, 0, 0, 0]
    assert median_of_training(scores_of(truth, truth)) is None
    evaluation = evaluate_grades(grade_predictions(counts=(8, 7, 5)))
    assert evaluation.baseline.model == BASELINE
    estimate = evaluation.baseline.metrics["somers_d"]
    assert (estimate.value, estimate.note) == (None, ONE_ANSWER)
    assert evaluate_grades(grade_predictions(folds=1)).baseline is None


def test_one_true_grade_has_no_kappa():
    result = evaluate_model("m", [scores_of([1] * 6, [1, 1, 2, 0, 1, 1])])
    for name in ("quadratic_kappa", "linear_kappa", "somers_d"):
        assert result.metrics[name].value is None
        assert "cases of one grade only" in result.metrics[name].note
        assert result.per_repeat[name] == (None,)
        assert result.spread[name] is None
    assert result.metrics["mae"].value == pytest.approx(1 / 3)


def test_a_perfect_ranking_has_limits_of_somers_d():
    truth = [0, 0, 0, 1, 1, 1, 2, 2, 2]
    result = evaluate_model("m", [scores_of(truth, truth)])
    assert result.metrics["somers_d"].value == 1
    assert 0 < result.metrics["somers_d"].low < 0.5
    assert result.metrics["quadratic_kappa"].value == 1


def test_two_grades_have_no_share_within_one():
    evaluation = evaluate_grades(grade_predictions(counts=(6, 6)))
    estimate = evaluation.models[0].metrics["within_one"]
    assert (estimate.value, "never farther apart" in estimate.note) == (None, True)
    assert evaluation.grades == ("1", "2")


def test_evaluation_as_plain_values():
    evaluation = evaluate_grades(grade_predictions(counts=(8, 7, 5)))
    written = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert written["task"] == "grade"
    assert written["grades"] == ["1", "2", "3"]
    assert written["grade_counts"] == [8, 7, 5]
    assert (written["n_cases"], written["n_slides"]) == (20, 30)
    assert written["models"][0]["mae"]["method"] == "Dirichlet, n - 1"
    assert np.sum(written["models"][1]["confusion"]) == pytest.approx(20)
    assert written["baseline"]["model"] == BASELINE
    rows = evaluation.rows()
    assert len(rows) == 3 * len(METRICS)
    assert rows[0]["model"] == "abmil"
    assert rows[0]["metric"] == "quadratic_kappa"
    assert {"value", "low", "high", "method", "note"} < set(rows[0])


def test_evaluation_as_text():
    evaluation = evaluate_grades(grade_predictions(counts=(8, 7, 5), repeats=1))
    summary, further, confusion, _ = evaluation.tables()
    assert summary.title.startswith(
        "20 cases (8 of grade 1, 7 of grade 2, 5 of grade 3), 30 slides"
    )
    assert "median of the predicted distribution" in summary.notes[0]
    assert list(summary.header) == [
        "model", "kappa, quadratic", "mean absolute error", "exact", "within one",
    ]  # fmt: skip
    assert [row[0] for row in summary.rows] == ["abmil", "votes", BASELINE]
    kappa = evaluation.models[0].metrics["quadratic_kappa"]
    assert summary.rows[0][1] == f"{kappa.value:.2f} ({kappa.low:.2f} to {kappa.high:.2f})"
    labels = [metric.label for metric in METRICS if metric.shown == "further"]
    assert {"Somers' D", "kappa, linear", "mean error"} <= set(labels)
    assert list(further.header) == ["model", *labels]
    assert further.rows[2][further.header.index("Somers' D")] == "undefined"
    assert confusion.title.startswith("abmil: cases by true grade (rows)")
    assert [row[0] for row in confusion.rows] == ["1", "2", "3"]
    assert [sum(map(float, row[1:])) for row in confusion.rows] == [8, 7, 5]


def test_best_has_the_highest_kappa_then_the_smallest_error():
    evaluation = evaluate_grades(grade_predictions(models=("votes", "abmil"), counts=(8, 7, 5)))
    kappas = {one.model: one.metrics["quadratic_kappa"].value for one in evaluation.models}
    assert kappas[evaluation.best().model] == max(kappas.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="fold"), "lack fold"),
        (lambda t: t[:0], "hold no row"),
        (lambda t: t.assign(g_3=t["g_3"] + 0.5), r"must lie in \[0, 1\] and sum to 1"),
        (lambda t: t.assign(g_3=np.nan), "diverged fit"),
        (lambda t: t.assign(grade="4"), "has grade '4', which is none of 1, 2, 3"),
        (lambda t: t.assign(grade=2), "Column grade must hold text; got 2"),
        (lambda t: t.assign(fold=0.5), "Column fold must hold integers"),
        (lambda t: t.assign(slide="s"), "slide 's' is predicted twice"),
        (lambda t: t.assign(g_4=0.0), "hold g_4 beside the grades"),
        (lambda t: t[(t["model"] == "abmil") | (t["case"] != "case02")], "lacks 1 of 12 cases in repeat 0"),
        (lambda t: t.assign(fold=np.where(t["slide"] == "case03-1", 9, t["fold"])), "lies in folds"),
        (lambda t: t.assign(grade=np.where(t["slide"] == "case03-1", "3", t["grade"])), "has two outcomes"),
    ],
)  # fmt: skip
def test_a_table_that_contradicts_itself_is_refused(change, message):
    with pytest.raises(PredictionsError, match=message):
        GradePredictions(change(grade_table()), GRADES)


def test_a_table_comes_back_as_it_was_written_and_is_judged(tmp_path):
    predictions = grade_predictions()
    write_predictions(tmp_path / "p.csv", predictions)
    again = read_predictions(tmp_path / "p.csv")
    assert isinstance(again, GradePredictions)
    assert again.grades == GRADES
    pd.testing.assert_frame_equal(again.table, predictions.table, check_exact=True)
    assert evaluate(again).to_json() == evaluate_grades(predictions).to_json()
    assert len(compare(again).to_json()["pairs"]) == 1


def test_grades_are_two_or_more_in_rising_order():
    assert grades_of(grade_table()) == GRADES
    for grades in (("1", "2"), ("low", "high"), ("1", "2", "10")):
        check_grades(grades)
    for grades in ((), ("1",), ("1", "1"), ("1", "1.0"), ("2", "1"), ("1", "10", "2")):
        with pytest.raises(PredictionsError, match=r"grades|rise"):
            check_grades(grades)
