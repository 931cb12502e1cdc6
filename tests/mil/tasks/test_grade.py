"""Grades: the table's order, fits that never rise, a planted order found, and nothing found in noise."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from mil.data.case import Row
from mil.data.cohort import Cohort
from mil.errors import CohortError, FitError
from mil.evaluation.judge import compare, evaluate
from mil.evaluation.predictions import read_predictions, write_predictions
from mil.heads.registry import head_class
from mil.heads.table import MODELS
from mil.learning.crossval import cross_validate
from mil.learning.fitted import load_model, predict, save_model
from mil.learning.training import fit_model
from mil.settings import FitSettings
from mil.tasks.grade import Grade
from mil.tasks.grade_objective import GradeReadout, exceedance
from mil.tasks.registry import task_class, task_from
from tests.mil.made import folds_of, made_case

GRADES = ("1", "2", "3")
SETTINGS = FitSettings(
    task="grade", seeds=1, epochs=25, width=16, learning_rate=5e-3, early_stopping="never"
)
QUICK = replace(SETTINGS, epochs=2, width=8)
ABLE = [name for name in MODELS if head_class(name).supports("ordered")]


def graded_cohort(counts=(8, 7, 9), *, planted=True, seed=0, n_tiles=30, dim=8):
    """One slide per case, two of every third; in a planted cohort key tiles rise with the grade."""
    rng = np.random.default_rng(seed)
    labels = [grade for grade, count in zip(GRADES, counts, strict=True) for _ in range(count)]
    cases = []
    for i, grade in enumerate(labels):
        slides = []
        for _ in range(2 if i % 3 == 0 else 1):
            features = rng.normal(size=(n_tiles, dim))
            level = GRADES.index(grade) if planted else rng.integers(3)
            features[: round((0.1 + 0.3 * level) * n_tiles), 0] += 3
            slides.append(rng.permutation(features).astype(np.float32))
        cases.append(made_case(f"c{i:03d}", grade, *slides))
    return Cohort(cases=tuple(cases), classes=GRADES, task=Grade())


def judged(cohort, models, settings, seed=0):
    folds = folds_of(cohort, folds="4", seed=seed)
    predictions = cross_validate(cohort, folds, models, settings, seed=seed)
    return predictions, {result.model: result for result in evaluate(predictions).models}


def rows_of(*grades, column="grade"):
    return [
        Row(line=i + 2, case=f"c{i}", slide=f"s{i}", label="x", other={column: grade, "age": "3"})
        for i, grade in enumerate(grades)
    ]


def test_a_planted_order_is_found_by_heads_and_baselines():
    _, results = judged(graded_cohort(), ["majority", "pooled-logistic", "mean", "abmil"], SETTINGS)
    for model in ("pooled-logistic", "mean", "abmil"):
        assert results[model].metrics["quadratic_kappa"].low > 0.1, model
        assert results[model].metrics["mae"].high < results["majority"].metrics["mae"].value, model
    assert results["majority"].metrics["quadratic_kappa"].value in (None, 0.0)


@pytest.mark.parametrize("model", ["pooled-logistic", "mean"])
def test_noise_comes_out_at_chance(model):
    values = [
        judged(graded_cohort(planted=False, seed=s), [model], SETTINGS, s)[1][model]
        .metrics["quadratic_kappa"]
        .value
        for s in range(6)
    ]
    assert abs(np.mean(values)) < 3.3 * np.std(values, ddof=1) / len(values) ** 0.5
    assert max(values) < 0.6


def test_every_model_that_can_learns_grades_and_every_other_is_refused():
    assert {"abmil", "mean", "pooled-logistic", "clinical", "majority", "chance"} <= set(ABLE)
    cohort = graded_cohort((4, 4, 4), n_tiles=5)
    predictions, results = judged(cohort, ABLE, QUICK)
    assert set(results) == set(ABLE)
    p = predictions.table[predictions.answer_columns].to_numpy()
    assert np.allclose(p.sum(axis=1), 1)
    assert (p >= 0).all()
    for name in set(MODELS) - set(ABLE):
        with pytest.raises(FitError, match=name):
            fit_model(name, cohort.cases, (), GRADES, QUICK, seed=0, task=Grade())


def test_exceedance_never_rises_and_equals_its_definition():
    logits = torch.tensor([[2.0, 1.0, -1.0], [0.0, 3.0, 1.0]], dtype=torch.float64)
    expected = [[min(row[: k + 1]) for k in range(3)] for row in logits.sigmoid().tolist()]
    assert exceedance(logits).numpy() == pytest.approx(np.array(expected))
    answer = GradeReadout(("a", "b", "c", "d")).answer(logits[1])
    assert list(answer.values()) == pytest.approx([0.5, 0.0, 0.0, 0.5])


@pytest.mark.parametrize(
    ("p", "grade"), [((0.6, 0.2, 0.2), "1"), ((0.3, 0.3, 0.4), "2"), ((0.1, 0.2, 0.7), "3")]
)
def test_the_called_grade_is_the_median(p, grade):
    readout = GradeReadout(GRADES)
    assert readout.verdict(dict(zip(readout.answer_names, p, strict=True))) == grade


def test_the_score_rises_with_every_logit():
    logits = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    GradeReadout(GRADES).score(logits, 0).sum().backward()
    assert (logits.grad == 1).all()


@pytest.mark.parametrize("model", ["abmil", "pooled-logistic", "majority"])
def test_a_saved_model_answers_the_same(model, tmp_path):
    cohort = graded_cohort((3, 3, 3), n_tiles=6)
    settings = replace(QUICK, seeds=2)
    fitted = fit_model(model, cohort.cases, (), GRADES, settings, seed=1, task=Grade())
    save_model(tmp_path / "m.safetensors", fitted)
    bag = cohort.cases[0].bags[0]
    assert predict(load_model(tmp_path / "m.safetensors"), bag) == predict(fitted, bag)
    card = json.loads((tmp_path / "m.json").read_text())
    assert card["timeline"]["grades"] == list(GRADES)


def test_predictions_are_read_back_as_grades_and_compared(tmp_path):
    predictions, _ = judged(graded_cohort((4, 4, 4), n_tiles=6), ["majority", "mean"], QUICK)
    write_predictions(tmp_path / "p.csv", predictions)
    back = read_predictions(tmp_path / "p.csv")
    assert type(back) is type(predictions)
    assert back.grades == GRADES
    assert compare(back).to_json() == compare(predictions).to_json()


def test_grades_are_ordered_by_number_or_as_stated():
    assert Grade().order_classes(["10", "2", "2"], "t") == ("2", "10")
    assert Grade().order_classes(["G3", "G1"], "t") == ("G1", "G3")
    stated = Grade(grade_order=("low", "mid", "high"))
    assert stated.order_classes(["high", "low"], "t") == ("low", "high")


@pytest.mark.parametrize(
    ("task", "labels", "message"),
    [
        (Grade(), ["low", "high"], "State it with grade_order"),
        (Grade(), ["G1", "2"], "State it with grade_order"),
        (Grade(), ["2", "2"], "only grade '2'"),
        (Grade(grade_order=("1", "2")), ["1", "3"], "'3' is not in grade_order"),
    ],
)
def test_an_order_that_is_not_plain_is_refused(task, labels, message):
    with pytest.raises(CohortError, match=message):
        task.order_classes(labels, "t.csv")


def test_rows_take_their_grade_and_no_clinical_model_reads_it():
    rows = Grade().label_rows(rows_of("1", "[Not Available]", "3"), "t.csv")
    assert [row.label for row in rows] == ["1", "", "3"]
    assert rows[0].other == {"age": "3", "label": "x"}
    with pytest.raises(CohortError, match=r"no column 'grade'.*Set grade to"):
        Grade().label_rows(rows_of("1", column="fnclcc"), "t.csv")
    with pytest.raises(CohortError, match="no case has a grade"):
        Grade().label_rows(rows_of("", "NA"), "t.csv")


def test_a_case_with_two_grades_is_refused():
    first, second = rows_of("1", "2")
    with pytest.raises(CohortError, match="'c0' has grade '1' on line 2 and '2' on line 3"):
        Grade().label_rows([first, replace(second, case="c0")], "t.csv")


def test_settings_name_the_task_and_its_columns():
    task = task_from({"task": "grade", "grade": "fnclcc", "grade_order": ["1", "2"], "epochs": 3})
    assert task == Grade(grade="fnclcc", grade_order=("1", "2"))
    assert task_from(task.to_settings() | {"task": "grade"}) == task
    with pytest.raises(CohortError, match="Did you mean 'grade'"):
        task_class("grades")


@pytest.mark.parametrize("grades", [("none", "mild", "severe"), ("2+", "1+", "-"), ("-", "3")])
def test_a_lowest_grade_that_reads_like_a_missing_word_is_stated_or_refused(grades):
    rows = rows_of(*grades, *grades)
    with pytest.raises(
        CohortError, match=r"column 'grade' holds .* Name all grades in grade_order"
    ):
        Grade().label_rows(rows, "t.csv")
    labelled = Grade(grade_order=grades).label_rows(rows, "t.csv")
    assert [row.label for row in labelled] == [*grades, *grades]


def test_a_dash_among_numbered_grades_is_missing():
    labelled = Grade().label_rows(rows_of("1", "2", "-", "3"), "t.csv")
    assert [row.label for row in labelled] == ["1", "2", "", "3"]
