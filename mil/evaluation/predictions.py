"""The table of predictions out of fold, which every model writes and all judging reads.

One row per model, repeat and slide: model, repeat, fold, case, slide, then what became of the case and what
the model answers. Which columns those are makes the kind of a table: probabilities of classes, risks, grades.
"""

import csv
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import ClassVar, Self, cast

import numpy as np
import pandas as pd

from features.files.atomic import atomic_path
from mil.errors import PredictionsError
from mil.evaluation.cells import (
    check_text,
    first_few,
    locate,
    read_text_table,
)

COUNTERS = ("repeat", "fold")  # columns of integers
# Kinds of tables; the first whose columns are there reads the file.
KINDS = (
    "mil.evaluation.survival.predictions:RiskPredictions",
    "mil.evaluation.grade.predictions:GradePredictions",
    "mil.evaluation.classification.predictions:ClassPredictions",
)


@dataclass(frozen=True, eq=False)
class Predictions(ABC):
    """Predictions out of fold of one or more models over the same cases and folds.

    Attributes:
        table: one row per model, repeat and slide; further columns are not read. Not to be changed in place.
        outcome_columns: what became of a case.
        answers: what models answer, in messages.
        evaluator, comparer, table_comparer, decider: functions, ``module:name``, that judge such predictions,
            compare the models of one table and those of two tables, and draw decision curves.

    Raises:
        PredictionsError: the table contradicts itself; the message names the row, case or model.
    """

    outcome_columns: ClassVar[tuple[str, ...]]
    answers: ClassVar[str]
    evaluator: ClassVar[str]
    comparer: ClassVar[str]
    table_comparer: ClassVar[str]
    decider: ClassVar[str]
    table: pd.DataFrame

    def __post_init__(self) -> None:
        self._check_columns()
        if self.table.empty:
            raise PredictionsError("Predictions hold no row. Predict at least one fold.")
        self._check_types()
        self._check_values()
        _check_slides(self.table)
        self._check_outcomes()
        _check_folds(self.table)
        _check_same_cases(self.table)

    @classmethod
    @abstractmethod
    def recognises(cls, columns: Sequence[str]) -> bool:
        """Whether a table with these columns is of this kind."""

    @classmethod
    @abstractmethod
    def parse(cls, table: pd.DataFrame) -> Self:
        """A table of text as predictions.

        Raises:
            PredictionsError: a cell is no number, or the table contradicts itself.
        """

    @classmethod
    def expect(cls, predictions: "Predictions", source: str = "") -> Self:
        """The predictions themselves, if they are of this kind; ``source`` names them in a message.

        Raises:
            PredictionsError: they are of another.
        """
        if not isinstance(predictions, cls):
            raise PredictionsError(
                f"{f'{source} holds' if source else 'These predictions hold'} {predictions.answers}, not "
                f"{cls.answers}. Give a table or a run with {cls.answers}."
            )
        return predictions

    def in_unit(self, time_unit: str) -> Self:
        """The predictions with the unit of their times, for tables and figures.

        Raises:
            PredictionsError: they hold no times.
        """
        raise PredictionsError(
            f"time_unit is for survival; these predictions hold {self.answers}, got {time_unit!r}. "
            "Leave it out."
        )

    @property
    @abstractmethod
    def answer_columns(self) -> list[str]:
        """The columns of what a model answers."""

    @property
    def models(self) -> tuple[str, ...]:
        """Models in order of first appearance."""
        return tuple(str(name) for name in self.table["model"].unique())

    @property
    def repeats(self) -> tuple[int, ...]:
        """Repeats, ascending."""
        return tuple(sorted(int(number) for number in self.table["repeat"].unique()))

    def rows_of(self, model: str, repeat: int) -> pd.DataFrame:
        """The rows of one model in one repeat, by case and slide.

        The order is fixed, so that the floating-point mean over slides does not depend on the table's.

        Raises:
            PredictionsError: the table holds no such model or repeat.
        """
        rows = self.table[(self.table["model"] == model) & (self.table["repeat"] == repeat)]
        if rows.empty:
            raise PredictionsError(
                f"No predictions of model '{model}' in repeat {repeat}. "
                f"Models: {', '.join(self.models)}; repeats: {first_few(self.repeats)}."
            )
        return rows.sort_values(["case", "slide"])

    def select(self, models: Sequence[str]) -> Self:
        """The predictions of some models.

        Raises:
            PredictionsError: one of them is not there.
        """
        if unknown := [name for name in models if name not in self.models]:
            raise PredictionsError(
                f"There is no model {unknown[0]!r} among {', '.join(self.models)}. Name one of these."
            )
        rows = self.table[self.table["model"].isin(models)]
        return replace(self, table=rows.reset_index(drop=True))

    def mean_answers(self, model: str) -> dict[str, dict[str, float]]:
        """The answer for each case by column, mean over its slides and over repeats."""
        by_repeat = [
            self.rows_of(model, repeat).groupby("case", sort=True)[self.answer_columns].mean()
            for repeat in self.repeats
        ]
        mean = np.mean([rows.to_numpy(dtype=np.float64) for rows in by_repeat], axis=0)
        return {
            str(case): dict(zip(self.answer_columns, row, strict=True))
            for case, row in zip(by_repeat[0].index, mean.tolist(), strict=True)
        }

    def outcomes_by_case(self) -> dict[str, tuple[object, ...]]:
        """What became of each case, as the outcome columns hold it."""
        columns = (self.table[name] for name in self.outcome_columns)
        pairs = zip(self.table["case"], zip(*columns, strict=True), strict=True)
        return {str(case): outcome for case, outcome in pairs}

    @abstractmethod
    def _check_columns(self) -> None: ...

    @abstractmethod
    def _check_values(self) -> None: ...

    def _check_types(self) -> None:
        for name in ("model", "case", "slide"):
            check_text(self.table, name)
        for name in COUNTERS:
            if not pd.api.types.is_integer_dtype(self.table[name]):
                raise PredictionsError(
                    f"Column {name} must hold integers; got {self.table[name].dtype}. "
                    f"Number every {name} from 0."
                )

    def _check_outcomes(self) -> None:
        """One outcome per case."""
        outcomes = self.table[["case", *self.outcome_columns]].drop_duplicates()
        for case in outcomes.loc[outcomes.duplicated("case"), "case"]:
            rows = outcomes.loc[outcomes["case"] == case, list(self.outcome_columns)]
            listing = sorted(" ".join(map(str, row)) for row in rows.to_numpy().tolist())
            raise PredictionsError(
                f"Case '{case}' has two outcomes ({', '.join(self.outcome_columns)}): {first_few(listing)}. "
                "A case has one outcome; correct the cohort table."
            )


def concat(parts: Sequence[Predictions]) -> Predictions:
    """Put the tables of several models or repeats under one another.

    Raises:
        PredictionsError: no part, parts of different kinds or answers, or parts that contradict one another.
    """
    if not parts:
        raise PredictionsError("There are no predictions to join. Predict with a model first.")
    first = parts[0]
    for part in parts[1:]:
        if type(part) is not type(first) or part.answer_columns != first.answer_columns:
            raise PredictionsError(
                f"Predictions with columns {first_few(part.answer_columns)} cannot join those with "
                f"{first_few(first.answer_columns)}. Predict both from one cohort."
            )
    return replace(first, table=pd.concat([part.table for part in parts], ignore_index=True))


def write_predictions(path: str | Path, predictions: Predictions) -> None:
    """Write the table as CSV; the file appears complete or not at all.

    Names are quoted and floats carry all their digits, so that reading gives equal values.
    """
    with atomic_path(Path(path)) as temporary:
        predictions.table.to_csv(
            temporary, index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n"
        )


def read_predictions(path: str | Path) -> Predictions:
    """Read a table of predictions of any kind, with commas, semicolons or tabs.

    Names such as NA, 007 or 1e5 stay as written. Columns that are not ours are read as text.

    Raises:
        PredictionsError: no such file, a number that is not one, or an inconsistent table; the message names
            the file.
    """
    table = read_text_table(Path(path))
    try:
        return kind_of(list(table.columns)).parse(table)
    except PredictionsError as error:
        raise PredictionsError(f"{path}: {error}") from error


def kind_of(columns: Sequence[str]) -> type[Predictions]:
    """The kind of a table with these columns; tables of classes where no kind is recognised."""
    kinds = [_resolve(target) for target in KINDS]
    return next((kind for kind in kinds if kind.recognises(columns)), kinds[-1])


def _resolve(target: str) -> type[Predictions]:
    module, _, name = target.partition(":")
    return cast("type[Predictions]", getattr(import_module(module), name))


def _check_slides(table: pd.DataFrame) -> None:
    """One row per model, repeat and slide."""
    repeated = table.duplicated(["model", "repeat", "slide"]).to_numpy()
    if repeated.any():
        raise PredictionsError(
            f"{locate(table, int(repeated.argmax()))} is predicted twice. Keep one row per model, "
            "repeat and slide; a slide belongs to one case and one fold."
        )


def _check_folds(table: pd.DataFrame) -> None:
    """One fold per case and repeat."""
    places = table[["model", "repeat", "case", "fold"]].drop_duplicates()
    split = places[places.duplicated(["model", "repeat", "case"])]
    if len(split):
        model, repeat, case, _ = split.iloc[0]
        rows = places[(places["model"] == model) & (places["repeat"] == repeat)]
        folds = sorted(rows.loc[rows["case"] == case, "fold"])
        raise PredictionsError(
            f"Case '{case}' lies in folds {first_few(folds)} of repeat {repeat}. Split cases, "
            "not slides: otherwise the model has seen the patient it is judged on."
        )


def _check_same_cases(table: pd.DataFrame) -> None:
    """Every model predicted every case in every repeat, in the same fold as the others."""
    cases = set(table["case"])
    for repeat in sorted(table["repeat"].unique()):
        in_repeat = table[table["repeat"] == repeat]
        first: dict[str, int] = {}
        for model in table["model"].unique():
            rows = in_repeat[in_repeat["model"] == model]
            fold_of = dict(zip(rows["case"], rows["fold"], strict=True))
            if missing := sorted(cases - set(fold_of)):
                raise PredictionsError(
                    f"Model '{model}' lacks {len(missing)} of {len(cases)} cases in repeat "
                    f"{repeat}: {first_few(missing)}. Run every model over the same cohort and folds."
                )
            first = first or fold_of
            if moved := sorted(case for case in cases if first[case] != fold_of[case]):
                raise PredictionsError(
                    f"Model '{model}' predicted case {first_few(moved)} in another fold of repeat "
                    f"{repeat} than the models before it. Run every model over the same folds."
                )
