"""Wrong types are refused at the door of every public function, with what to pass instead."""

import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import features
import mil
from features.arguments import matches
from features.errors import ArgumentError
from mil.errors import CohortError, FitError

RECIPE = mil.Recipe()
COHORT = (
    r"cohort must be a Cohort( or .*)?; got 'cohort\.csv', a str\. "
    r"Load it with load_cohort\(table, store\)\."
)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mil.cross_validate("cohort.csv", ["mean"], out="run"), f"cross_validate: {COHORT}"),
        (lambda: mil.fit("cohort.csv"), f"fit: {COHORT}"),
        (lambda: mil.learning_curve("cohort.csv", out="x"), f"learning_curve: {COHORT}"),
        (lambda: mil.evaluate("run"), r"evaluate: predictions must be a Predictions; got 'run'.*open_run"),
        (lambda: mil.compare(None), r"compare: first must be a Predictions; got None\..*read_predict"),
        (lambda: mil.explain("model", None), r"fitted must be a FittedModel; got 'model'.*load_model"),
        (lambda: mil.predict(3, None), r"predict: fitted must be a FittedModel; got 3, an int\."),
        (lambda: mil.load_cohort(["a"], "b"), r"table must be a text or a path; got \['a'\], a list"),
        (lambda: mil.load_cohort("a", "b", task=3), r"task must be a Task or a text or None; got 3, an int"),
        (lambda: mil.load_cohort("a"), r"'store'\. Call it as load_cohort\(table, store, t"),
        (lambda: mil.read_bag(7), r"read_bag: path must be a path or a text; got 7, an int"),
        (lambda: features.write_bag("x.h5", "bag"), r"bag must be a Bag; got 'bag'.*read_bag\(path\)"),
        (lambda: mil.extract("a", out="b", recipe=RECIPE, worker=2), r"no option 'worker'.*workers"),
        (lambda: features.extract("a", "b", recipe="c"), r"extract: recipe must be a Recipe or .*; got 'c'"),
        (lambda: features.extract("a", "b", recipe=RECIPE, workers="2"), "workers must be a whole number"),
        (lambda: mil.list_models(3), r"list_models: too many positional arguments"),
        (lambda: mil.split_cases(["a"], ["b"], 5, None), r"sites must be a list of texts; got 5"),
        (lambda: mil.Run("x", {}, {}).explain(3), r"Run\.explain: slide must be a text; got 3, an int"),
        (lambda: mil.Run("x", {}, {}).evaluate("exact"), r"must be a JudgeSettings or None; got 'exact'"),
    ],
)  # fmt: skip
def test_an_argument_of_another_type_is_refused_with_the_remedy(call, message):
    with pytest.raises(ArgumentError, match=message) as caught:
        call()
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: mil.FitSettings(epochs="2"), FitError, "epochs must be a whole number; got '2', a str"),
        (lambda: mil.FitSettings(width=1.5), FitError, "width must be a whole number; got 1.5, a float"),
        (lambda: mil.FitSettings(seeds=True), FitError, "seeds must be a whole number; got True, a bool"),
        (lambda: mil.FitSettings(dropout="x"), FitError, "dropout must be a number; got 'x', a str"),
        (lambda: mil.FitSettings(clinical=(1,)), FitError, "clinical must be a tuple of texts; got"),
        (lambda: mil.SplitSettings(repeats="3"), CohortError, "repeats must be a whole number; got '3'"),
        (lambda: mil.SplitSettings(folds=2.5), CohortError, "folds must be a text; got 2.5, a float"),
        (lambda: mil.Recipe(mpp="0.5"), features.FeaturesError, "mpp must be a number; got '0.5', a str"),
        (lambda: mil.JudgeSettings(coverage=None), mil.PredictionsError, "must be a number; got None"),
    ],
)  # fmt: skip
def test_a_setting_of_another_type_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_what_fits_is_taken():
    assert mil.SplitSettings(folds=4).folds == "4"
    assert mil.FitSettings(epochs=np.int64(3), dropout=0, clinical=["age"]).epochs == 3
    names = np.array(["a", "b", "c", "d"])
    assert len(mil.split_cases(names, ["x", "y"] * 2, ("",) * 4, mil.SplitSettings(folds=2))) == 2


@pytest.mark.parametrize(
    ("value", "hint", "fits"),
    [
        (1, float, True), (True, int, False), (np.float32(1), float, True), (1.0, int, False),
        (np.bool_(True), bool, True), (1, bool, False), (None, int | None, True),
        ("ab", Sequence[str], True), (["a", 1], Sequence[str], False), (np.zeros(3), Sequence[int], True),
        (3, Sequence[int], False), (print, Callable[[str], None], True), (3, Callable[[str], None], False),
        (int, type[int], True), ("int", type[int], False), (object(), Any, True), ({}, dict[str, int], True),
    ],
)  # fmt: skip
def test_types_are_compared_as_a_reader_of_the_hints_expects(value, hint, fits):
    assert matches(value, hint) == fits


def test_a_public_function_can_be_sent_to_another_process():
    assert pickle.loads(pickle.dumps(mil.predict)) is mil.predict
    assert mil.predict.__doc__
