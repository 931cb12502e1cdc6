"""The one table that every model writes and all judging reads."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.files.atomic import atomic_path
from mil.data.delimiter import guess_delimiter
from mil.errors import RunError

NAMES = ("model", "case", "slide", "label")
NUMBERS = ("repeat", "fold")
COLUMNS = ("model", "repeat", "fold", "case", "slide", "label")
PREFIX = "p_"
SUM_TOLERANCE = 1e-3  # single-precision softmax, and tables rounded to four digits


@dataclass(frozen=True, eq=False)
class CaseScores:
    """What one model said of each case in one repeat, its slides averaged.

    Attributes:
        case: n case names, sorted.
        truth: (n,) index of the true class.
        p: (n, C) probabilities; each row sums to 1.
        fold: (n,) the fold in which the case was predicted.
    """

    case: tuple[str, ...]
    truth: npt.NDArray[np.int64]
    p: npt.NDArray[np.float64]
    fold: npt.NDArray[np.int64]


class CaseTable:
    """What tables of predictions have in common: a row per model, repeat and slide."""

    table: pd.DataFrame

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

        In a fixed order, so that the floating-point mean of slides is independent of the table's.

        Raises:
            RunError: the table holds no such model or repeat.
        """
        rows = self.table[(self.table["model"] == model) & (self.table["repeat"] == repeat)]
        if rows.empty:
            raise RunError(
                f"No predictions of model '{model}' in repeat {repeat}. "
                f"Known models: {', '.join(self.models)}; repeats: {_some(self.repeats)}."
            )
        return rows.sort_values(["case", "slide"])


@dataclass(frozen=True, eq=False)
class Predictions(CaseTable):
    """Out-of-fold probabilities of one or more models over the same cases and folds.

    Attributes:
        table: one row per model, repeat and slide: model, case, slide, label (str), repeat, fold
            (integers) and one p_<class> (float) per class. Other columns ride along unread.
            Not to be changed in place.
        classes: class names, in the order in which probabilities are read.

    Raises:
        RunError: the table contradicts itself; the message names the row, case or model.
    """

    table: pd.DataFrame
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_columns(self.table, self.classes)
        _check_kinds(self.table)
        _check_labels(self.table, self.classes)
        _check_probabilities(self.table, self.p_columns)
        _check_units(self.table)
        _check_models_alike(self.table)

    @property
    def p_columns(self) -> list[str]:
        """Names of the probability columns, in the order of the classes."""
        return [PREFIX + name for name in self.classes]

    def case_scores(self, model: str, repeat: int) -> CaseScores:
        """Average the slides of each case for one model in one repeat.

        Raises:
            RunError: the table holds no such model or repeat.
        """
        by_case = self.rows_of(model, repeat).groupby("case", sort=True)
        first = by_case[["label", "fold"]].first()
        place = {name: index for index, name in enumerate(self.classes)}
        return CaseScores(
            case=tuple(str(name) for name in first.index),
            truth=np.array([place[label] for label in first["label"]], dtype=np.int64),
            p=by_case[self.p_columns].mean().to_numpy(dtype=np.float64),
            fold=first["fold"].to_numpy(dtype=np.int64),
        )


def concat(parts: Sequence[Predictions]) -> Predictions:
    """Put the tables of several models or repeats under one another.

    Raises:
        RunError: no part, parts with different classes, or parts that contradict one another.
    """
    if not parts:
        raise RunError("No predictions to put together; got an empty list. Predict a model first.")
    classes = parts[0].classes
    for part in parts[1:]:
        if part.classes != classes:
            raise RunError(
                f"Predictions with classes {_some(part.classes)} cannot join those with classes "
                f"{_some(classes)}. Predict both from one cohort."
            )
    return Predictions(pd.concat([part.table for part in parts], ignore_index=True), classes)


def write_predictions(path: str | Path, predictions: Predictions) -> None:
    """Write the table as CSV; the file appears whole or not at all.

    Names are quoted and floats carry all their digits, so that reading gives equal values.
    """
    with atomic_path(Path(path)) as temporary:
        predictions.table.to_csv(
            temporary, index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n"
        )


def read_predictions(path: str | Path) -> Predictions:
    """Read a table of predictions; the classes are its p_ columns, in their order.

    Commas, semicolons or tabs stand between the columns. Names such as NA, 007 or 1e5 stay as written.
    Columns that are not ours are read as text.

    Raises:
        RunError: no such file, a number that is not one, or an inconsistent table.
    """
    try:
        sep = guess_delimiter(Path(path))
        table = pd.read_csv(path, sep=sep, dtype=str, keep_default_na=False, encoding="utf-8")
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as exc:
        raise RunError(f"{path} cannot be read as a table of predictions: {exc}.") from exc
    classes = tuple(name[len(PREFIX) :] for name in table.columns if name.startswith(PREFIX))
    _check_columns(table, classes)
    for name in (*NUMBERS, *(PREFIX + each for each in classes)):
        try:
            # Python's own parser: every float comes back to the last bit.
            table[name] = table[name].map(int if name in NUMBERS else float)
        except ValueError as exc:
            raise RunError(f"{path}: column {name} must hold numbers; got {exc}.") from exc
    return Predictions(table, classes)


def _some(names: Iterable[object], limit: int = 5) -> str:
    """The first few of a collection, for a message."""
    every = [str(name) for name in names]
    return ", ".join(every[:limit]) + (f" and {len(every) - limit} more" if every[limit:] else "")


def _check_columns(table: pd.DataFrame, classes: tuple[str, ...]) -> None:
    found = [name for name in table.columns if str(name).startswith(PREFIX)]
    if not found:
        raise RunError(
            f"Predictions hold no probability; got columns {_some(table.columns, 12)}. "
            "Give one column p_<class> per class."
        )
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise RunError(
            f"Predictions need two or more distinct classes; got {_some(classes)}. "
            "Give one column p_<class> per class."
        )
    wanted = [*COLUMNS, *(PREFIX + name for name in classes)]
    if missing := [name for name in wanted if name not in table.columns]:
        raise RunError(
            f"Predictions lack {_some(missing)}; got columns {_some(table.columns, 12)}. "
            "Add what is missing."
        )
    if twice := table.columns[table.columns.duplicated()].tolist():
        raise RunError(f"Predictions hold column {_some(twice)} twice. Rename or drop one.")
    if strange := [name for name in found if name not in wanted]:
        raise RunError(
            f"Predictions hold {_some(strange)} beside the classes {_some(classes)}. "
            "Rename the column, or name the class."
        )
    if table.empty:
        raise RunError("Predictions hold no row. Predict at least one fold.")


def _check_kinds(table: pd.DataFrame) -> None:
    for name in NAMES:
        if strange := [value for value in table[name] if not (isinstance(value, str) and value)]:
            raise RunError(
                f"Column {name} must hold text; got {strange[0]!r}. Fill it in, and read it as "
                "text, so that 007 and NA stay what they are."
            )
    for name in NUMBERS:
        if not pd.api.types.is_integer_dtype(table[name]):
            raise RunError(
                f"Column {name} must hold integers; got {table[name].dtype}. "
                f"Number every {name} from 0."
            )


def _check_labels(table: pd.DataFrame, classes: tuple[str, ...]) -> None:
    strange = table[~table["label"].isin(classes)]
    if len(strange):
        raise RunError(
            f"Case '{strange['case'].iloc[0]}' has the label '{strange['label'].iloc[0]}', which "
            f"is none of the classes {_some(classes)}. Mend the label, or add its p_ column."
        )


def _check_probabilities(table: pd.DataFrame, columns: list[str]) -> None:
    if strange := [name for name in columns if not pd.api.types.is_float_dtype(table[name])]:
        raise RunError(
            f"Column {strange[0]} must hold floats; got {table[strange[0]].dtype}. "
            "Give probabilities, not votes or names."
        )
    p = table[columns].to_numpy(dtype=np.float64)
    # Written so that NaN fails both.
    inside = ((p >= 0) & (p <= 1)).all(axis=1)
    normalised = np.abs(p.sum(axis=1) - 1) <= SUM_TOLERANCE
    if not inside.all():
        row = int(np.argmin(inside))
        raise RunError(
            f"{_where(table, row)}: probabilities must lie in [0, 1]; got {_some(p[row])}. "
            "Give softmax outputs, not logits; look for a diverged fit where they are nan."
        )
    if not normalised.all():
        row = int(np.argmin(normalised))
        raise RunError(
            f"{_where(table, row)}: probabilities must sum to 1 within {SUM_TOLERANCE}; "
            f"got {p[row].sum():.6g}. Give softmax outputs over all classes."
        )


def _where(table: pd.DataFrame, row: int) -> str:
    at = table.iloc[row]
    return f"Model '{at['model']}', repeat {at['repeat']}, slide '{at['slide']}'"


def _check_units(table: pd.DataFrame) -> None:
    """One row per slide, one label per case, one fold per case and repeat."""
    twice = table.duplicated(["model", "repeat", "slide"]).to_numpy()
    if twice.any():
        raise RunError(
            f"{_where(table, int(np.argmax(twice)))} is predicted twice. Keep one row per model, "
            "repeat and slide; a slide belongs to one case and one fold."
        )
    labels = table[["case", "label"]].drop_duplicates()
    for case in labels.loc[labels.duplicated("case"), "case"]:
        found = sorted(labels.loc[labels["case"] == case, "label"])
        raise RunError(
            f"Case '{case}' has two labels: {_some(found)}. A label belongs to the case; "
            "mend the cohort table."
        )
    places = table[["model", "repeat", "case", "fold"]].drop_duplicates()
    split = places[places.duplicated(["model", "repeat", "case"])]
    if len(split):
        model, repeat, case, _ = split.iloc[0]
        mine = places[(places["model"] == model) & (places["repeat"] == repeat)]
        folds = sorted(mine.loc[mine["case"] == case, "fold"])
        raise RunError(
            f"Case '{case}' lies in folds {_some(folds)} of repeat {repeat}. Split cases, "
            "not slides: otherwise the model has seen the patient it is judged on."
        )


def _check_models_alike(table: pd.DataFrame) -> None:
    """Every model predicted every case in every repeat, in the same fold as the others."""
    every = set(table["case"])
    for repeat in sorted(table["repeat"].unique()):
        in_repeat = table[table["repeat"] == repeat]
        first: dict[str, int] = {}
        for model in table["model"].unique():
            rows = in_repeat[in_repeat["model"] == model]
            mine = dict(zip(rows["case"], rows["fold"], strict=True))
            if missing := sorted(every - set(mine)):
                raise RunError(
                    f"Model '{model}' lacks {len(missing)} of {len(every)} cases in repeat "
                    f"{repeat}: {_some(missing)}. Run every model over the same cohort and folds."
                )
            first = first or mine
            if moved := sorted(case for case in every if first[case] != mine[case]):
                raise RunError(
                    f"Model '{model}' predicted case {_some(moved)} in another fold of repeat "
                    f"{repeat} than the models before it. Run every model over the same folds."
                )
