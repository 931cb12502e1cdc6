"""The table of predictions out of fold, which every model writes and all judging reads.

One row per model, repeat and slide: model, repeat, fold, case, slide, then what became of the case and what
the model answers. Which columns those are makes the kind of a table: probabilities of classes, risks, grades.
"""

import csv
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
import pandas as pd

from features.files.atomic import atomic_path
from mil.data.headers import FOLLOW_UP, first_column, match_columns
from mil.data.sheet import read_sheet, with_decimal_points
from mil.data.values import is_missing
from mil.errors import CohortError, PredictionsError

KEYS = ("model", "repeat", "fold", "case", "slide")
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


def read_text_table(path: Path) -> pd.DataFrame:
    """A table of text cells.

    Raises:
        PredictionsError: the file cannot be read.
    """
    if not path.exists():
        raise PredictionsError(f"{path}: no such run or table of predictions. Check the path.")
    try:
        sheet = read_sheet(path, exact=True)
        sheet = with_decimal_points(sheet, set(sheet.header) - {*KEYS, "label"})
    except CohortError as error:
        raise PredictionsError(
            f"{path} cannot be read as a table of predictions: {error}"
        ) from error
    names = _own_names(path, sheet.header)
    columns = [names.get(name, name) for name in sheet.header]
    return pd.DataFrame(
        [list(cells.values()) for _, cells in sheet.lines], columns=columns, dtype=str
    )


def _own_names(path: Path, header: Sequence[str]) -> dict[str, str]:
    """Our names of the columns of follow-up and risk that another tool wrote; none in other tables.

    Raises:
        PredictionsError: two columns hold the same.
    """
    if {*FOLLOW_UP} <= set(header) or first_column(header, FOLLOW_UP["risk"]) is None:
        return {}
    theirs = match_columns(path, header, FOLLOW_UP, PredictionsError)
    return {column: name for name, column in theirs.items()} if len(theirs) == 3 else {}


def parse_numbers(table: pd.DataFrame, integers: Sequence[str], floats: Sequence[str]) -> None:
    """Turn columns of text into numbers, in place, by Python's own parser: floats keep their last bit.

    Raises:
        PredictionsError: naming the column.
    """
    for name in (*integers, *floats):
        table[name] = parse_column(table[name], int if name in integers else float)


def parse_column(
    cells: "pd.Series[str]", number: type[int] | type[float], kind: str = "numbers"
) -> "pd.Series[Any]":
    """The numbers of a column of text; ``kind`` is what a message calls them.

    Raises:
        PredictionsError: naming the column and the first cell that holds none.
    """
    try:
        return cells.map(number)
    except ValueError as error:
        odd = next(cell for cell in cells if not _reads_as(cell, number))
        what = "which means that it is missing" if is_missing(odd) else "which is none"
        raise PredictionsError(
            f"column {cells.name} must hold {kind}; got {odd!r}, {what}. Correct the cell, or leave the case "
            "out."
        ) from error


def _reads_as(cell: str, number: type[int] | type[float]) -> bool:
    try:
        number(cell)
    except ValueError:
        return False
    return True


def check_text(table: pd.DataFrame, name: str) -> None:
    """Refuse cells that are empty or no text.

    Raises:
        PredictionsError: naming the column and a cell.
    """
    if bad := [value for value in table[name] if not (isinstance(value, str) and value)]:
        raise PredictionsError(
            f"Column {name} must hold text; got {bad[0]!r}. Fill it in, and read it as text, so that 007 and "
            "NA stay what they are."
        )


def require_columns(table: pd.DataFrame, names: Sequence[str]) -> None:
    """Refuse a table that lacks columns, or has one twice.

    Raises:
        PredictionsError: naming them.
    """
    if missing := [name for name in names if name not in table.columns]:
        raise PredictionsError(
            f"Predictions lack {first_few(missing)}; got columns {first_few(table.columns, 12)}. "
            "Add what is missing."
        )
    if repeated := table.columns[table.columns.duplicated()].tolist():
        raise PredictionsError(
            f"Predictions hold column {first_few(repeated)} twice. Rename or drop one."
        )


def locate(table: pd.DataFrame, row: int) -> str:
    """A row of the table in words."""
    cells = table.iloc[row]
    return f"Model '{cells['model']}', repeat {cells['repeat']}, slide '{cells['slide']}'"


def first_few(names: Iterable[object], limit: int = 5) -> str:
    """The first few of a collection, for a message."""
    texts = [str(name) for name in names]
    return ", ".join(texts[:limit]) + (f" and {len(texts) - limit} more" if texts[limit:] else "")


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
