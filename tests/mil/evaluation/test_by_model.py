"""An evaluation gives the result of a model by its name, whatever was predicted."""

from dataclasses import dataclass

import pytest

from mil.errors import PredictionsError
from mil.evaluation.by_model import ByModel
from mil.evaluation.classification.evaluate import ClassEvaluation
from mil.evaluation.grade.evaluate import GradeEvaluation
from mil.evaluation.survival.evaluate import SurvivalEvaluation


@dataclass(frozen=True)
class OneNumber:
    model: str
    number: int


@dataclass(frozen=True)
class Numbers(ByModel[OneNumber]):
    models: tuple[OneNumber, ...]


def test_result_has_the_name_that_is_looked_up():
    numbers = Numbers((OneNumber("abmil", 1), OneNumber("mean", 2)))
    assert numbers["mean"].number == 2
    assert numbers["abmil"].number == 1


@pytest.mark.parametrize("name", ["", "ABMIL", 0])
def test_another_name_is_refused_with_the_known_ones(name):
    numbers = Numbers((OneNumber("abmil", 1), OneNumber("mean", 2)))
    with pytest.raises(PredictionsError, match=rf"^No model {name!r}\..* Known: abmil, mean\.$"):
        numbers[name]


@pytest.mark.parametrize("kind", [ClassEvaluation, SurvivalEvaluation, GradeEvaluation])
def test_evaluations_of_every_task_are_looked_up(kind):
    assert issubclass(kind, ByModel)
