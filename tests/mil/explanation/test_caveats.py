"""Maps of a model that may be guessing begin with that, whatever it predicts."""

import json
from types import SimpleNamespace

import pytest

from mil.explanation.caveats import chance_caveat


def caveat(folder, **measured):
    (folder / "metrics.json").write_text(json.dumps({"models": [{"model": "mean", **measured}]}))
    return chance_caveat(SimpleNamespace(path=folder), "mean")


def estimate(value, low):
    return {"value": value, "low": low, "high": None}


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        (
            {"quadratic_kappa": estimate(-0.06, -0.22)},
            "quadratic kappa -0.06, 95 % interval from -0.22",
        ),
        ({"quadratic_kappa": estimate(0.4, 0.0)}, "quadratic kappa 0.40, 95 % interval from 0.00"),
        ({"quadratic_kappa": estimate(None, None)}, "quadratic kappa undefined"),
        ({"harrell": estimate(0.55, 0.41)}, "concordance 0.55, 95 % interval from 0.41"),
        ({"p_chance": 0.2, "p_majority": 0.01, "correct": 7, "n": 20}, "7 of 20 right, p = 0.2"),
    ],
)
def test_a_model_that_may_be_guessing_is_named(tmp_path, measured, words):
    assert f"cannot distinguish mean from guessing ({words})" in caveat(tmp_path, **measured)


@pytest.mark.parametrize(
    "measured",
    [
        {"quadratic_kappa": estimate(0.5, 0.1)},
        {"harrell": estimate(0.7, 0.56)},
        {"p_chance": 0.001, "p_majority": 0.01, "correct": 15, "n": 20},
    ],
)
def test_a_model_that_has_learnt_is_not(tmp_path, measured):
    assert caveat(tmp_path, **measured) == ""
