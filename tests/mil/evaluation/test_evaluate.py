import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from benchmarks.auc_intervals import macro_auc_interval
from mil.evaluation.classification import metrics
from mil.evaluation.classification.evaluate import evaluate
from mil.evaluation.classification.model_scores import ONE_ANSWER
from mil.evaluation.classification.predictions import ClassPredictions
from mil.evaluation.intervals import Estimate, balanced_accuracy_interval, wilson


def test_one_repeat_is_the_metrics_and_their_intervals(make):
    predictions = make(repeats=1)
    scores = predictions.case_scores("votes", 0)
    result = evaluate(predictions).models[1]
    assert result.model == "votes"
    assert result.n == 12
    assert result.correct == np.trace(metrics.confusion(scores.truth, scores.p))
    assert result.metrics["accuracy"].value == metrics.accuracy(scores.truth, scores.p)
    interval = wilson(result.correct, 12)
    assert (result.metrics["accuracy"].low, result.metrics["accuracy"].high) == (
        interval.low,
        interval.high,
    )
    auc = macro_auc_interval(scores.truth, scores.p)
    assert result.metrics["auc"] == Estimate(
        metrics.macro_auc(scores.truth, scores.p), auc.low, auc.high, auc.method
    )
    balanced = metrics.balanced_accuracy(scores.truth, scores.p)
    interval = balanced_accuracy_interval(balanced, np.array([3, 4, 5]))
    assert result.metrics["balanced_accuracy"] == Estimate(
        balanced, interval.low, interval.high, "Wilson, effective n"
    )
    np.testing.assert_array_equal(result.confusion, metrics.confusion(scores.truth, scores.p))


def test_what_is_of_the_matrix_is_averaged_over_repeats_too(make):
    result = evaluate(make(repeats=3)).models[0]
    for name in ("macro_f1", "mcc", "kappa"):
        estimate = result.metrics[name]
        assert estimate.value == pytest.approx(np.mean(result.per_repeat[name]), abs=1e-12)
        assert estimate.value == pytest.approx(result.spread[name].mean, abs=1e-12)
        assert estimate.low < estimate.value < estimate.high


@pytest.mark.parametrize("counts", [(6, 0), (0, 6), (0, 0, 6)])
def test_of_one_class_nothing_that_tells_classes_apart_is_defined(make, counts):
    result = evaluate(make(counts=counts, repeats=2)).models[0]
    assert result.metrics["accuracy"].value is not None
    for name in ("auc", "average_precision", "macro_f1", "mcc", "kappa"):
        assert result.metrics[name].value is None
        assert "undefined" in result.metrics[name].note
    assert [of_class.average_precision.value for of_class in result.per_class] == [None] * len(
        counts
    )
    assert result.per_repeat["macro_f1"] == (None, None)
    json.dumps(evaluate(make(counts=counts)).to_json(), allow_nan=False)


def left_out_one_by_one(answers):
    """A model's answers, (cases, 2), to ten cases of each of two classes, one per fold."""
    n = len(answers)
    names = [f"c{i:02d}" for i in range(n)]
    table = {"model": "m", "repeat": 0, "fold": range(n), "case": names, "slide": names}
    label = np.where(np.arange(n) < n // 2, "a", "b")
    answers_by_column = {"label": label, "p_a": answers[:, 0], "p_b": answers[:, 1]}
    return ClassPredictions(pd.DataFrame(table | answers_by_column), ("a", "b"))


def test_a_perfect_model_that_leaves_one_out_ranks_and_the_counts_do_not():
    perfect = np.eye(2)[np.arange(20) // 10]
    result = evaluate(left_out_one_by_one(perfect)).models[0]
    assert (result.metrics["auc"].value, result.metrics["average_precision"].value) == (1.0, 1.0)
    assert [of_class.auc.value for of_class in result.per_class] == [1.0, 1.0]
    counts = (10 - perfect) / 19
    assert evaluate(left_out_one_by_one(counts)).models[0].metrics["auc"].value is None


def test_one_case_is_judged():
    result = evaluate(left_out_one_by_one(np.array([[0.7, 0.3]]))).models[0]
    assert (result.n, result.metrics["auc"].value) == (1, None)


def test_the_cohort_is_counted_in_cases(predictions):
    evaluation = evaluate(predictions)
    assert (evaluation.n_cases, evaluation.n_slides, evaluation.repeats) == (12, 18, (0, 1))
    assert evaluation.class_counts == (3, 4, 5)
    assert evaluation.chance_accuracy == pytest.approx(1 / 3)
    assert evaluation.majority_share == pytest.approx(5 / 12)


def test_repeats_are_averaged_and_never_more_cases(make):
    predictions = make(repeats=3)
    scores = [predictions.case_scores("abmil", repeat) for repeat in range(3)]
    result = evaluate(predictions).models[0]
    counts = [np.trace(metrics.confusion(of_repeat.truth, of_repeat.p)) for of_repeat in scores]
    assert result.correct == pytest.approx(np.mean(counts))
    interval = wilson(np.mean(counts), 12)
    assert (result.metrics["accuracy"].low, result.metrics["accuracy"].high) == pytest.approx(
        (interval.low, interval.high)
    )
    aucs = [metrics.macro_auc(of_repeat.truth, of_repeat.p) for of_repeat in scores]
    assert result.metrics["auc"].value == pytest.approx(np.mean(aucs))
    assert result.per_repeat["auc"] == tuple(aucs)
    assert result.per_repeat["accuracy"] == pytest.approx([count / 12 for count in counts])
    assert result.confusion.sum() == pytest.approx(12)


def test_the_same_repeat_thrice_changes_nothing(make):
    once = make(repeats=1)
    thrice = pd.concat([once.table.assign(repeat=repeat) for repeat in range(3)])
    a = evaluate(once).models
    b = evaluate(ClassPredictions(thrice, once.classes)).models
    for one, three in zip(a, b, strict=True):
        for name in ("accuracy", "balanced_accuracy", "auc"):
            x, y = one.metrics[name], three.metrics[name]
            assert (x.value, x.low, x.high) == pytest.approx((y.value, y.low, y.high))


def test_a_slide_more_of_a_case_is_not_a_case_more(make):
    few = make(slides=1, repeats=1)
    again = few.table.assign(slide=few.table["slide"] + "b")
    doubled = ClassPredictions(pd.concat([few.table, again]), few.classes)
    a, b = evaluate(few), evaluate(doubled)
    assert b.n_slides == 2 * a.n_slides
    assert a.to_json()["models"] == b.to_json()["models"]


def test_order_of_rows_changes_nothing(predictions):
    whole = evaluate(predictions).to_json()
    for seed in range(5):
        table = predictions.table.sample(frac=1, random_state=seed)
        mixed = evaluate(ClassPredictions(table, predictions.classes)).to_json()
        whole["models"].sort(key=lambda result: result["model"])
        mixed["models"].sort(key=lambda result: result["model"])
        assert mixed == whole


def test_two_classes_take_the_auc_of_class_1(make):
    predictions = make(counts=(6, 7), repeats=1)
    scores = predictions.case_scores("abmil", 0)
    assert evaluate(predictions).models[0].metrics["auc"].value == metrics.macro_auc(
        scores.truth, scores.p
    )


def test_an_absent_class_is_noted_and_json_has_no_nan(predictions):
    table = predictions.table[predictions.table["label"] != "c1"]
    evaluation = evaluate(ClassPredictions(table, predictions.classes))
    result = evaluation.models[0]
    assert result.metrics["auc"] == Estimate(None, None, None, "none", "undefined: no case of c1")
    assert result.per_repeat["auc"] == (None, None)
    assert result.metrics["balanced_accuracy"].note == "no case of c1: mean of the other classes"
    assert 0 <= result.metrics["balanced_accuracy"].value <= 1
    back = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert back == evaluation.to_json()
    assert back["models"][0]["auc"]["value"] is None
    assert back["class_counts"] == [3, 0, 5]


def test_a_perfect_model_has_finite_limits(make):
    result = evaluate(make(signal=60.0)).models[0]
    for estimate in (
        result.metrics["accuracy"],
        result.metrics["balanced_accuracy"],
        result.metrics["auc"],
    ):
        assert estimate.value == 1
        assert estimate.high == 1
        assert 0.5 < estimate.low < 1


def test_judging_needs_no_torch():
    code = (
        "import sys, mil.evaluation.classification.evaluate, mil.evaluation.comparison; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_model_with_one_answer_per_fold_has_no_auc():
    """Majority over uneven folds: pooled, its AUC would fall far below .5 without meaning anything."""
    rows = []
    for fold, labels in enumerate(["aab", "abb", "aaa"]):
        share = 0.4 + 0.1 * fold
        for number, label in enumerate(labels):
            name = f"{fold}-{number}"
            rows.append(("majority", 0, fold, name, name, label, share, 1 - share))
            rows.append(("model", 0, fold, name, name, label, share + 0.01 * number, 0.99 - share))
    columns = ["model", "repeat", "fold", "case", "slide", "label", "p_a", "p_b"]
    table = pd.DataFrame(rows, columns=columns)
    table["p_b"] = 1 - table["p_a"]
    evaluation = evaluate(ClassPredictions(table, ("a", "b")))
    majority, model = evaluation.models
    assert majority.correct >= model.correct
    assert evaluation.ranked() == [model, majority]
    assert majority.metrics["auc"].value is None
    assert majority.metrics["auc"].note == ONE_ANSWER
    for estimate in (majority.metrics["average_precision"], *(c.auc for c in majority.per_class)):
        assert estimate == majority.metrics["auc"]
    assert model.metrics["auc"].value is not None
    assert model.per_class[0].auc.value is not None
