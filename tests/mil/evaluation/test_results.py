"""Evaluations and comparisons from Python in one call, with their files."""

import json

import pandas as pd
import pytest

from mil.errors import PredictionsError, RunError
from mil.evaluation.comparison import compare_tables
from mil.evaluation.judge import compare, evaluate
from mil.evaluation.predictions import read_predictions


def test_an_evaluation_of_some_models_is_written_with_their_predictions(make, tmp_path):
    predictions = make(models=("a", "b", "c"))
    evaluation = evaluate(predictions, models=["c", "a"], out=tmp_path / "judged")
    assert {result.model for result in evaluation.models} == {"a", "c"}
    assert json.loads((tmp_path / "judged" / "metrics.json").read_text()) == json.loads(
        json.dumps(evaluation.to_json())
    )
    table = pd.read_csv(tmp_path / "judged" / "metrics.csv")
    assert len(table) == len(evaluation.rows())
    assert set(read_predictions(tmp_path / "judged" / "predictions.csv").models) == {"a", "c"}


def test_two_tables_are_compared_as_their_models_are_named(make, tmp_path):
    first, second = make(models=("a", "b")), make(models=("b", "c"), seed=3)
    comparison = compare(first, second, names=("old", "new"), models=["b"], out=tmp_path / "out")
    assert (
        comparison.rows()
        == compare_tables(first.select(["b"]), second.select(["b"]), ("old", "new")).rows()
    )
    assert [list(row.values())[:2] for row in comparison.rows()] == [["old: b", "new: b"]]
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["pairs"]
    assert len(pd.read_csv(tmp_path / "out" / "comparison.csv")) == 1


def test_results_are_not_written_into_a_run_and_a_model_must_be_there(make, tmp_path):
    (tmp_path / "run.json").write_text("{}")
    for judge in (evaluate, compare):
        with pytest.raises(RunError, match="is a run folder"):
            judge(make(), out=tmp_path)
        with pytest.raises(PredictionsError, match="no model 'z'"):
            judge(make(), models=["z"])
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_an_evaluation_prints_as_one_line(make):
    text = repr(evaluate(make(models=("a", "b"))))
    assert text.startswith("ClassEvaluation(12 cases: a ")
    assert len(text) < 100
