"""Maps of a model that may be guessing begin with that, whatever it predicts."""

import json

import pytest

from mil.explanation.caveats import chance_caveat
from mil.runs.facts import RunFacts


def caveat(folder, task, **measured):
    (folder / "metrics.json").write_text(json.dumps({"models": [{"model": "mean", **measured}]}))
    return chance_caveat(RunFacts(folder, {"settings": {"task": task}}), "mean")


def estimate(value, low):
    return {"value": value, "low": low, "high": None}


@pytest.mark.parametrize(
    ("task", "measured", "words"),
    [
        (
            "grade",
            {"somers_d": estimate(-0.06, -0.22)},
            "Somers' D -0.06, 95 % interval from -0.22",
        ),
        (
            "grade",
            {"somers_d": estimate(0.4, 0.0)},
            "Somers' D 0.40, 95 % interval from 0.00",
        ),
        ("grade", {"somers_d": estimate(None, None)}, "Somers' D undefined"),
        (
            "survival",
            {"harrell": estimate(0.55, 0.41)},
            "concordance 0.55, 95 % interval from 0.41",
        ),
        (
            "diagnosis",
            {"p_chance": 0.2, "p_majority": 0.01, "correct": 7, "n": 20},
            "7 of 20 right, p = 0.200",
        ),
    ],
)
def test_a_model_that_may_be_guessing_is_named(tmp_path, task, measured, words):
    assert f"do not show that mean beats guessing ({words})" in caveat(tmp_path, task, **measured)


@pytest.mark.parametrize(
    ("task", "measured"),
    [
        ("grade", {"somers_d": estimate(0.5, 0.1)}),
        ("survival", {"harrell": estimate(0.7, 0.56)}),
        ("diagnosis", {"p_chance": 0.001, "p_majority": 0.01, "correct": 15, "n": 20}),
    ],
)
def test_a_model_that_has_learnt_is_not(tmp_path, task, measured):
    assert caveat(tmp_path, task, **measured) == ""
