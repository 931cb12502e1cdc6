"""Risks of new cases among those of known ones."""

from dataclasses import replace

import numpy as np
import pytest

from mil.answers.reading import FitAnswer
from mil.answers.risks import HALVES, KnownRisks, RiskReader

CURVE = ("s_12", "s_24")


def known(n=40, *, orders=True):
    """Fold 0 gives risks from -1 to 1, fold 1 the same plus 10: fits are not on one scale."""
    folds = np.arange(n) % 2
    risk = np.linspace(-1, 1, n) + 10 * folds
    return KnownRisks(tuple(f"case {i}" for i in range(n)), folds[None], risk[None], orders, CURVE)


def answers_of(risk):
    return [
        FitAnswer(0, fold, {"risk": risk + 10 * fold, "s_12": 0.8 + 0.1 * fold, "s_24": 0.5})
        for fold in (0, 1)
    ]


def test_a_risk_is_ranked_by_the_fit_that_has_not_seen_the_known_case():
    reading = RiskReader(known()).read(answers_of(0.5))
    assert reading.values["rank"] == pytest.approx(0.75, abs=0.02)
    assert reading.values["risk"] == pytest.approx(5.5)
    assert reading.values["s_12"] == pytest.approx(0.85)
    assert (reading.predicted, reading.candidates) == ("high risk", ("high risk",))


@pytest.mark.parametrize(
    ("times", "shown"),
    [
        ([], []),
        ([6], [6]),
        ([6, 9], [6, 9]),
        ([1, 2, 4, 7, 30], [1, 4, 30]),
        (range(20), [0, 10, 19]),
    ],
)
def test_three_times_at_most_are_shown_where_there_is_little_room(times, shown):
    reader = RiskReader(replace(known(), curve=tuple(f"s_{t}" for t in times)))
    assert reader.brief_names == ("risk", "rank", *(f"s_{t}" for t in shown))
    assert reader.value_names == ("risk", "rank", *(f"s_{t}" for t in times))
    assert RiskReader(None).brief_names == ("risk",)


def test_a_rank_near_one_half_is_undecided():
    reading = RiskReader(known()).read(answers_of(0.1))
    assert reading.candidates == HALVES
    assert RiskReader(known()).read(answers_of(-0.9)).candidates == ("low risk",)


def test_a_model_that_orders_nothing_decides_nothing():
    reader = RiskReader(known(orders=False))
    reading = reader.read(answers_of(5.0))
    assert (reading.candidates, reading.predicted) == (HALVES, "")
    assert "does not order risks better than guessing" in reader.promise()


def test_few_known_cases_decide_only_the_extremes():
    reader = RiskReader(known(8))
    assert reader.read(answers_of(0.5)).candidates == HALVES
    assert reader.read(answers_of(5.0)).candidates == ("high risk",)


def test_a_known_case_is_ranked_among_the_others():
    reader = RiskReader(known())
    [_, second] = answers_of(float(known().risk[0, 39] - 10))
    reading = reader.read([second], ["case 39"])
    assert reading.values["rank"] == 1.0  # of the other cases of its fold all lie below


def test_a_case_that_can_be_compared_with_none_is_undecided():
    reader = RiskReader(known())
    reading = reader.read(answers_of(5.0)[:1], [f"case {i}" for i in range(0, 40, 2)])
    assert (reading.values["rank"], reading.candidates) == (0.5, HALVES)


def test_without_known_cases_the_sign_decides():
    reader = RiskReader(None)
    assert reader.read([FitAnswer(0, 0, {"risk": -0.2})]).candidates == ("low risk",)
    assert "This model was never tested on unseen cases" in reader.promise()


def test_the_reader_comes_back_from_json():
    reader = RiskReader(known())
    assert RiskReader.from_json(reader.to_json()).read(answers_of(0.3)) == reader.read(
        answers_of(0.3)
    )
