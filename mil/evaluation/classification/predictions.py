"""Predictions of classes: a label, and one ``p_<class>`` per class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from mil.errors import PredictionsError
from mil.evaluation.arrays import Floats, Ints
from mil.evaluation.cells import KEYS, check_text, first_few, locate, parse_numbers, require_columns
from mil.evaluation.predictions import COUNTERS, Predictions

COLUMNS = (*KEYS, "label")
PREFIX = "p_"
SUM_TOLERANCE = 1e-3  # single-precision softmax, and tables rounded to four digits


@dataclass(frozen=True, eq=False)
class CaseScores:
    """What one model answered for each case in one repeat, averaged over its slides.

    Attributes:
        case: n case names, sorted.
        truth: (n,) index of the true class.
        p: (n, C) probabilities; each row sums to 1.
        fold: (n,) the fold in which the case was predicted.
    """

    case: tuple[str, ...]
    truth: Ints
    p: Floats
    fold: Ints


@dataclass(frozen=True, eq=False)
class ClassPredictions(Predictions):
    """Probabilities of classes out of fold.

    Attributes:
        table: with columns ``COLUMNS`` and one ``p_<class>`` per class.
        classes: class names, in the order in which probabilities are read.

    Raises:
        PredictionsError: the table contradicts itself; the message names the row, case or model.
    """

    outcome_columns: ClassVar[tuple[str, ...]] = ("label",)
    answers: ClassVar[str] = "probabilities of classes"
    evaluator: ClassVar[str] = "mil.evaluation.classification.evaluate:evaluate"
    comparer: ClassVar[str] = "mil.evaluation.comparison:compare_models"
    table_comparer: ClassVar[str] = "mil.evaluation.comparison:compare_tables"
    decider: ClassVar[str] = "mil.evaluation.decision_curves:decide_class"
    classes: tuple[str, ...]

    @classmethod
    def recognises(cls, columns: Sequence[str]) -> bool:
        """Whether there are probabilities of classes."""
        return any(name.startswith(PREFIX) for name in columns)

    @classmethod
    def parse(cls, table: pd.DataFrame) -> "ClassPredictions":
        """A table of text as predictions; the classes are its p_ columns, in their order."""
        columns = [str(name) for name in table.columns]
        classes = tuple(name[len(PREFIX) :] for name in columns if name.startswith(PREFIX))
        _check_probability_columns(table, classes)
        parse_numbers(table, COUNTERS, [PREFIX + name for name in classes])
        return cls(table, classes)

    @property
    def answer_columns(self) -> list[str]:
        """Names of the probability columns, in the order of the classes."""
        return [PREFIX + name for name in self.classes]

    def case_scores(self, model: str, repeat: int) -> CaseScores:
        """Average the slides of each case for one model in one repeat.

        Raises:
            PredictionsError: the table holds no such model or repeat.
        """
        by_case = self.rows_of(model, repeat).groupby("case", sort=True)
        first = by_case[["label", "fold"]].first()
        index_of = {name: index for index, name in enumerate(self.classes)}
        return CaseScores(
            case=tuple(str(name) for name in first.index),
            truth=np.array([index_of[label] for label in first["label"]], dtype=np.int64),
            p=by_case[self.answer_columns].mean().to_numpy(dtype=np.float64),
            fold=first["fold"].to_numpy(dtype=np.int64),
        )

    def _check_columns(self) -> None:
        _check_probability_columns(self.table, self.classes)

    def _check_types(self) -> None:
        super()._check_types()
        check_text(self.table, "label")

    def _check_values(self) -> None:
        _check_labels(self.table, self.classes)
        _check_probabilities(self.table, self.answer_columns)


def _check_probability_columns(table: pd.DataFrame, classes: tuple[str, ...]) -> None:
    probabilities = [name for name in table.columns if str(name).startswith(PREFIX)]
    if not probabilities:
        raise PredictionsError(
            f"Predictions hold no probability; got columns {first_few(table.columns, 12)}. "
            "Give one column p_<class> per class."
        )
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise PredictionsError(
            f"Predictions need two or more distinct classes; got {first_few(classes)}. "
            "Give one column p_<class> per class."
        )
    expected = [*COLUMNS, *(PREFIX + name for name in classes)]
    require_columns(table, expected)
    if unexpected := [name for name in probabilities if name not in expected]:
        raise PredictionsError(
            f"Predictions hold {first_few(unexpected)} beside the classes {first_few(classes)}. "
            "Rename the column, or name the class."
        )


def _check_labels(table: pd.DataFrame, classes: tuple[str, ...]) -> None:
    unknown = table[~table["label"].isin(classes)]
    if len(unknown):
        raise PredictionsError(
            f"Case '{unknown['case'].iloc[0]}' has the label '{unknown['label'].iloc[0]}', which "
            f"is none of the classes {first_few(classes)}. Correct the label, or add its p_ column."
        )


def _check_probabilities(table: pd.DataFrame, columns: list[str]) -> None:
    if bad := [name for name in columns if not pd.api.types.is_float_dtype(table[name])]:
        raise PredictionsError(
            f"Column {bad[0]} must hold floats; got {table[bad[0]].dtype}. "
            "Give probabilities, not votes or names."
        )
    p = table[columns].to_numpy(dtype=np.float64)
    # Written so that NaN fails both.
    in_range = ((p >= 0) & (p <= 1)).all(axis=1)
    sums_to_one = np.abs(p.sum(axis=1) - 1) <= SUM_TOLERANCE
    if not in_range.all():
        row = int(np.argmin(in_range))
        raise PredictionsError(
            f"{locate(table, row)}: probabilities must lie in [0, 1]; got {first_few(p[row])}. "
            "Give softmax outputs, not logits; look for a diverged fit where they are nan."
        )
    if not sums_to_one.all():
        row = int(np.argmin(sums_to_one))
        raise PredictionsError(
            f"{locate(table, row)}: probabilities must sum to 1 within {SUM_TOLERANCE}; "
            f"got {p[row].sum():.6g}. Give softmax outputs over all classes."
        )
