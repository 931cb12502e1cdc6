"""The table of predicted grades: model, repeat, fold, case, slide, grade and one ``g_<grade>`` each.

``grade`` is the true grade of the case, as text. The columns ``g_<grade>`` hold the probability of each
grade and stand in the order of the grades, lowest first.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from mil.errors import RunError
from mil.evaluation.arrays import Floats
from mil.evaluation.predictions import CaseScores, CaseTable

NAMES = ("model", "case", "slide", "grade")
NUMBERS = ("repeat", "fold")
COLUMNS = ("model", "repeat", "fold", "case", "slide", "grade")
PREFIX = "g_"
SUM_TOLERANCE = 1e-3  # single-precision softmax, and tables rounded to four digits


@dataclass(frozen=True, eq=False)
class GradePredictions(CaseTable):
    """Out-of-fold probabilities of ordered grades, of one or more models over the same cases and folds.

    Attributes:
        table: one row per model, repeat and slide; columns as above. Not to be changed in place.
        grades: names of the grades, lowest first.

    Raises:
        RunError: the table contradicts itself; the message names the row, case or model.
    """

    table: pd.DataFrame
    grades: tuple[str, ...]

    def __post_init__(self) -> None:
        check_grades(self.grades)
        _check_columns(self.table, self.p_columns)
        _check_values(self.table, self.grades, self.p_columns)
        _check_cases(self.table)

    @property
    def p_columns(self) -> list[str]:
        """Names of the probability columns, in the order of the grades."""
        return [PREFIX + name for name in self.grades]

    def case_scores(self, model: str, repeat: int) -> CaseScores:
        """Average the slides of each case for one model in one repeat; truth is the index of the grade.

        Raises:
            RunError: the table holds no such model or repeat.
        """
        by_case = self.rows_of(model, repeat).groupby("case", sort=True)
        first = by_case[["grade", "fold"]].first()
        return CaseScores(
            case=tuple(str(name) for name in first.index),
            truth=np.array([self.grades.index(name) for name in first["grade"]], dtype=np.int64),
            p=by_case[self.p_columns].mean().to_numpy(dtype=np.float64),
            fold=first["fold"].to_numpy(dtype=np.int64),
        )


def grades_of(table: pd.DataFrame) -> tuple[str, ...]:
    """The grades of a table: its columns ``g_<grade>`` in their order."""
    return tuple(str(n)[len(PREFIX) :] for n in table.columns if str(n).startswith(PREFIX))


def check_grades(grades: tuple[str, ...]) -> None:
    """Refuse what is no order of two or more grades.

    Raises:
        RunError: fewer than two grades, a grade twice, or numbers that do not rise.
    """
    if len(grades) < 2 or len(set(grades)) < len(grades):
        raise RunError(
            f"An ordinal outcome needs two or more distinct grades; got {', '.join(grades) or 'none'}. "
            "Give one column g_<grade> per grade, the lowest first."
        )
    try:
        numbers = [float(name) for name in grades]
    except ValueError:
        return  # names stand in the order stated
    if any(b <= a for a, b in pairwise(numbers)):
        raise RunError(
            f"Grades must rise from the lowest to the highest; got {', '.join(grades)}. Sort the columns "
            "g_<grade>."
        )


def _check_columns(table: pd.DataFrame, columns: list[str]) -> None:
    if missing := [name for name in (*COLUMNS, *columns) if name not in table.columns]:
        raise RunError(f"Predictions of grades lack {', '.join(missing)}. Add what is missing.")
    if repeated := table.columns[table.columns.duplicated()].tolist():
        raise RunError(f"Predictions hold column {repeated[0]} twice. Rename or drop one.")
    if strange := [n for n in table.columns if str(n).startswith(PREFIX) and n not in columns]:
        raise RunError(
            f"Predictions hold {strange[0]} beside the grades {', '.join(columns)}. Rename the column, or "
            "name the grade."
        )
    if table.empty:
        raise RunError("Predictions hold no row. Predict at least one fold.")


def _check_values(table: pd.DataFrame, grades: tuple[str, ...], columns: list[str]) -> None:
    for name in NAMES:
        if strange := [value for value in table[name] if not (isinstance(value, str) and value)]:
            raise RunError(
                f"Column {name} must hold text; got {strange[0]!r}. Fill it in, and read it as text."
            )
    for name in NUMBERS:
        if not pd.api.types.is_integer_dtype(table[name]):
            raise RunError(f"Column {name} must hold integers; got {table[name].dtype}.")
    unknown = table[~table["grade"].isin(grades)]
    if len(unknown):
        case, grade = unknown[["case", "grade"]].iloc[0]
        raise RunError(
            f"Case {case!r} has grade {grade!r}, which is none of {', '.join(grades)}. Mend the grade, or "
            f"add its column g_<grade>."
        )
    _check_probabilities(table, table[columns].to_numpy(dtype=np.float64))


def _check_probabilities(table: pd.DataFrame, p: Floats) -> None:
    # Written so that NaN fails.
    proper = ((p >= 0) & (p <= 1)).all(axis=1) & (np.abs(p.sum(axis=1) - 1) <= SUM_TOLERANCE)
    if not proper.all():
        row = int(np.argmin(proper))
        model, slide = table[["model", "slide"]].iloc[row]
        shown = ", ".join(f"{value:.6g}" for value in p[row])
        raise RunError(
            f"Model {model!r}, slide {slide!r}: the probabilities of the grades must lie in [0, 1] and sum "
            f"to 1; got {shown}. Look for a diverged fit where they are nan."
        )


def _check_cases(table: pd.DataFrame) -> None:
    """One row per slide; one grade per case; one fold per case and repeat; all models alike."""
    if (duplicate := table.duplicated(["model", "repeat", "slide"])).any():
        raise RunError(
            f"Slide {table['slide'][duplicate].iloc[0]!r} is predicted twice by one model in one repeat."
        )
    outcomes = table[["case", "grade"]].drop_duplicates()
    if (differing := outcomes["case"].duplicated()).any():
        raise RunError(
            f"Case {outcomes['case'][differing].iloc[0]!r} has two grades. Mend the cohort table."
        )
    places = table[["model", "repeat", "case", "fold"]].drop_duplicates()
    if (split := places.duplicated(["model", "repeat", "case"])).any():
        raise RunError(
            f"Case {places['case'][split].iloc[0]!r} lies in two folds of one repeat. Split cases, not "
            "slides."
        )
    every = set(zip(places["repeat"], places["case"], places["fold"], strict=True))
    n_places = table["case"].nunique() * table["repeat"].nunique()
    for model, rows in places.groupby("model"):
        of_model = set(zip(rows["repeat"], rows["case"], rows["fold"], strict=True))
        if of_model != every or len(of_model) != n_places:
            raise RunError(
                f"Model {model!r} did not predict every case in every repeat in the same fold as the others. "
                "Run every model over the same cohort and folds."
            )
