"""Predictions of ordered grades: the true grade, and one ``g_<grade>`` per grade, the lowest first.

``grade`` is the true grade of the case, as text; ``g_<grade>`` holds the probability of each grade.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pandas as pd

from mil.errors import PredictionsError
from mil.evaluation.arrays import Floats
from mil.evaluation.cells import KEYS, check_text, first_few, locate, parse_numbers, require_columns
from mil.evaluation.classification.predictions import CaseScores
from mil.evaluation.predictions import COUNTERS, Predictions

COLUMNS = (*KEYS, "grade")
PREFIX = "g_"
GROUP = "grade"  # what the label of a case is called
SUM_TOLERANCE = 1e-3  # single-precision softmax, and tables rounded to four digits


@dataclass(frozen=True, eq=False)
class GradePredictions(Predictions):
    """Probabilities of ordered grades out of fold.

    Attributes:
        table: with columns ``COLUMNS`` and one ``g_<grade>`` per grade.
        grades: names of the grades, lowest first.

    Raises:
        PredictionsError: the table contradicts itself; the message names the row, case or model.
    """

    outcome_columns: ClassVar[tuple[str, ...]] = ("grade",)
    answers: ClassVar[str] = "probabilities of grades"
    evaluator: ClassVar[str] = "mil.evaluation.grade.evaluate:evaluate_grades"
    comparer: ClassVar[str] = "mil.evaluation.grade.comparison:compare_grade_models"
    table_comparer: ClassVar[str] = "mil.evaluation.grade.comparison:compare_grade_tables"
    decider: ClassVar[str] = "mil.evaluation.decision_curves:decide_grade"
    grades: tuple[str, ...]

    @classmethod
    def recognises(cls, columns: Sequence[str]) -> bool:
        """Whether there is a true grade and probabilities of grades."""
        return "grade" in columns and any(name.startswith(PREFIX) for name in columns)

    @classmethod
    def parse(cls, table: pd.DataFrame) -> "GradePredictions":
        """A table of text as predictions; the grades are its g_ columns, in their order."""
        grades = grades_of(table)
        require_columns(table, COLUMNS)
        parse_numbers(table, COUNTERS, [PREFIX + name for name in grades])
        return cls(table, grades)

    @property
    def answer_columns(self) -> list[str]:
        """Names of the probability columns, in the order of the grades."""
        return [PREFIX + name for name in self.grades]

    def case_scores(self, model: str, repeat: int) -> CaseScores:
        """Average the slides of each case for one model in one repeat; truth is the index of the grade.

        Raises:
            PredictionsError: the table holds no such model or repeat.
        """
        by_case = self.rows_of(model, repeat).groupby("case", sort=True)
        first = by_case[["grade", "fold"]].first()
        return CaseScores(
            case=tuple(str(name) for name in first.index),
            truth=np.array([self.grades.index(name) for name in first["grade"]], dtype=np.int64),
            p=by_case[self.answer_columns].mean().to_numpy(dtype=np.float64),
            fold=first["fold"].to_numpy(dtype=np.int64),
        )

    def _check_columns(self) -> None:
        check_grades(self.grades)
        require_columns(self.table, [*COLUMNS, *self.answer_columns])
        columns = [str(name) for name in self.table.columns]
        if unexpected := [
            n for n in columns if n.startswith(PREFIX) and n not in self.answer_columns
        ]:
            raise PredictionsError(
                f"Predictions hold {unexpected[0]} beside the grades {', '.join(self.grades)}. Rename the "
                "column, or name the grade."
            )

    def _check_types(self) -> None:
        super()._check_types()
        check_text(self.table, "grade")

    def _check_values(self) -> None:
        unknown = self.table[~self.table["grade"].isin(self.grades)]
        if len(unknown):
            case, grade = unknown[["case", "grade"]].iloc[0]
            raise PredictionsError(
                f"Case {case!r} has grade {grade!r}, which is none of {', '.join(self.grades)}. Correct the "
                "grade, or add its column g_<grade>."
            )
        _check_probabilities(self.table, self.table[self.answer_columns].to_numpy(dtype=np.float64))


def grades_of(table: pd.DataFrame) -> tuple[str, ...]:
    """The grades of a table: its columns ``g_<grade>`` in their order."""
    return tuple(str(n)[len(PREFIX) :] for n in table.columns if str(n).startswith(PREFIX))


def check_grades(grades: tuple[str, ...]) -> None:
    """Refuse what is no order of two or more grades.

    Raises:
        PredictionsError: fewer than two grades, a grade twice, or numbers that do not rise.
    """
    if len(grades) < 2 or len(set(grades)) < len(grades):
        raise PredictionsError(
            f"An ordinal outcome needs two or more distinct grades; got {', '.join(grades) or 'none'}. "
            "Give one column g_<grade> per grade, the lowest first."
        )
    try:
        numbers = [float(name) for name in grades]
    except ValueError:
        return  # names stand in the order stated
    if any(higher <= lower for lower, higher in pairwise(numbers)):
        raise PredictionsError(
            f"Grades must rise from the lowest to the highest; got {', '.join(grades)}. Sort the columns "
            "g_<grade>."
        )


def _check_probabilities(table: pd.DataFrame, p: Floats) -> None:
    # Written so that NaN fails.
    proper = ((p >= 0) & (p <= 1)).all(axis=1) & (np.abs(p.sum(axis=1) - 1) <= SUM_TOLERANCE)
    if not proper.all():
        row = int(np.argmin(proper))
        raise PredictionsError(
            f"{locate(table, row)}: the probabilities of the grades must lie in [0, 1] and sum to 1; got "
            f"{first_few(f'{value:.6g}' for value in p[row])}. Look for a diverged fit where they are nan."
        )
