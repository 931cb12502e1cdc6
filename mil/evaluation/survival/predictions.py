"""The one table of survival that every model writes and all judging reads.

model, repeat, fold, case, slide, time, event (0 or 1), risk (0 is the median training case), and one
``s_<time>`` for each time at which the probability of no event was predicted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from features.files.atomic import atomic_path
from mil.data.delimiter import guess_delimiter
from mil.errors import RunError
from mil.evaluation.arrays import Bools, Floats, Ints
from mil.evaluation.predictions import CaseTable

NAMES = ("model", "case", "slide")
NUMBERS = ("repeat", "fold", "event")
COLUMNS = ("model", "repeat", "fold", "case", "slide", "time", "event", "risk")
PREFIX = "s_"
N_HORIZONS = 20
STILL_SEEN = 0.1  # share of the cases observed at the last horizon


@dataclass(frozen=True, eq=False)
class CaseRisks:
    """What one model said of each case in one repeat, its slides averaged.

    Attributes:
        case: n case names, sorted.
        time: (n,).
        event: (n,).
        risk: (n,) above 0 is the high-risk half of the training cases.
        survival: (n, T) probability of no event until each horizon.
        fold: (n,) the fold in which the case was predicted.
    """

    case: tuple[str, ...]
    time: Floats
    event: Bools
    risk: Floats
    survival: Floats
    fold: Ints


@dataclass(frozen=True, eq=False)
class SurvivalPredictions(CaseTable):
    """Out-of-fold risks of one or more models over the same cases and folds.

    Attributes:
        table: one row per model, repeat and slide; columns as above. Not to be changed in place.

    Raises:
        RunError: the table contradicts itself; the message names the row, case or model.
    """

    table: pd.DataFrame

    def __post_init__(self) -> None:
        _check_columns(self.table)
        _check_values(self.table, self.columns)
        _check_cases(self.table)

    @property
    def columns(self) -> list[str]:
        """Names of the columns of survival, in the order of their times."""
        return [str(name) for name in self.table.columns if str(name).startswith(PREFIX)]

    @property
    def horizons(self) -> Floats:
        """(T,) times at which survival was predicted, ascending."""
        return np.array([float(name[len(PREFIX) :]) for name in self.columns])

    def case_risks(self, model: str, repeat: int) -> CaseRisks:
        """Average the slides of each case for one model in one repeat.

        Raises:
            RunError: the table holds no such model or repeat.
        """
        by_case = self.rows_of(model, repeat).groupby("case", sort=True)
        first = by_case[["time", "event", "fold"]].first()
        mean = by_case[["risk", *self.columns]].mean()
        return CaseRisks(
            case=tuple(str(name) for name in first.index),
            time=first["time"].to_numpy(dtype=np.float64),
            event=first["event"].to_numpy(dtype=np.int64) > 0,
            risk=mean["risk"].to_numpy(dtype=np.float64),
            survival=mean[self.columns].to_numpy(dtype=np.float64),
            fold=first["fold"].to_numpy(dtype=np.int64),
        )

    def mean_risks(self, model: str) -> CaseRisks:
        """The same, a case's risk and survival averaged over repeats as well."""
        each = [self.case_risks(model, repeat) for repeat in self.repeats]
        first = each[0]
        return CaseRisks(
            first.case,
            first.time,
            first.event,
            np.mean([one.risk for one in each], axis=0),
            np.mean([one.survival for one in each], axis=0),
            first.fold,
        )


def horizons_of(time: Floats, event: Bools) -> tuple[float, ...]:
    """Times at which models are asked for survival: evenly from the first events to where few are seen.

    They say where predictions are judged and fit nothing, so that all cases may set them.
    """
    first = float(np.quantile(time[event], 0.1))
    last = float(np.quantile(time, 1 - STILL_SEEN, method="lower"))
    if not first < last:
        first, last = float(time.min()), float(time.max())
    every = np.linspace(first, last, N_HORIZONS + 1)[:-1]  # someone is seen beyond the last
    return tuple(dict.fromkeys(float(f"{t:.6g}") for t in every))


def column_of(horizon: float) -> str:
    """The column that holds survival until a time."""
    return f"{PREFIX}{horizon:.6g}"


def joined(*parts: SurvivalPredictions) -> SurvivalPredictions:
    """The tables of several models under one another.

    Raises:
        RunError: they contradict one another.
    """
    return SurvivalPredictions(pd.concat([part.table for part in parts], ignore_index=True))


def write_survival(path: Path, predictions: SurvivalPredictions) -> None:
    """Write the table as CSV with all digits; the file appears whole or not at all."""
    with atomic_path(path) as temporary:
        predictions.table.to_csv(temporary, index=False, lineterminator="\n")


def is_survival(path: Path) -> bool:
    """Whether a table of predictions tells outcomes and risks, and no class.

    Raises:
        RunError: it cannot be read.
    """
    columns = _read(path, nrows=0).columns
    return {"time", "event", "risk"} <= set(columns) and "label" not in columns


def read_survival(path: Path) -> SurvivalPredictions:
    """Read a table as ``write_survival`` wrote it; also with semicolons or tabs.

    Raises:
        RunError: no such file, a number that is not one, or an inconsistent table; the message names the
            file.
    """
    table = _read(path)
    try:
        return _parsed(table)
    except RunError as error:
        raise RunError(f"{path}: {error}") from error


def _read(path: Path, nrows: int | None = None) -> pd.DataFrame:
    try:
        return pd.read_csv(
            path,
            sep=guess_delimiter(path),
            dtype=str,
            keep_default_na=False,
            encoding="utf-8",
            nrows=nrows,
        )
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise RunError(f"{path} cannot be read as a table of predictions: {error}.") from error


def _parsed(table: pd.DataFrame) -> SurvivalPredictions:
    """The table with its numbers as numbers."""
    _check_columns(table)
    for name in table.columns:
        if name in NAMES:
            continue
        try:
            table[name] = table[name].map(int if name in NUMBERS else float)
        except ValueError as error:
            raise RunError(f"column {name} must hold numbers; got {error}.") from error
    return SurvivalPredictions(table)


def _check_columns(table: pd.DataFrame) -> None:
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise RunError(f"Predictions of survival lack {', '.join(missing)}. Add what is missing.")
    if table.empty:
        raise RunError("Predictions hold no row. Predict at least one fold.")
    told = [str(name)[len(PREFIX) :] for name in table.columns if str(name).startswith(PREFIX)]
    try:
        times = [float(name) for name in told]
    except ValueError as error:
        raise RunError(f"A column s_<time> names no time: {error}. Rename it.") from error
    if len(times) < 2 or any(b <= a for a, b in pairwise(times)):
        raise RunError(
            f"Predictions of survival need columns s_<time> of two or more rising times; got {times}."
        )


def _check_values(table: pd.DataFrame, columns: Sequence[str]) -> None:
    for name in ("time", "risk"):
        if not np.isfinite(table[name].to_numpy(dtype=np.float64)).all():
            raise RunError(f"Column {name} holds what is not finite. Look for a diverged fit.")
    if (table["time"] < 0).any() or not table["event"].isin([0, 1]).all():
        raise RunError("A time is 0 or more and an event 0 or 1. Mend the table.")
    survival = table[columns].to_numpy(dtype=np.float64)
    # Written so that NaN fails; two averages may round differently.
    if not ((survival >= 0) & (survival <= 1)).all():
        raise RunError("Survival is a probability in [0, 1]. Mend the columns s_<time>.")
    if (np.diff(survival, axis=1) > 1e-9).any():
        raise RunError("Survival rises with time. Mend the columns s_<time>.")


def _check_cases(table: pd.DataFrame) -> None:
    """One row per slide; one outcome per case; one fold per case and repeat; all models alike."""
    if (twice := table.duplicated(["model", "repeat", "slide"])).any():
        raise RunError(f"Slide {table['slide'][twice].iloc[0]!r} is predicted twice by one model.")
    told = table[["case", "time", "event"]].drop_duplicates()
    if (differ := told["case"].duplicated()).any():
        raise RunError(f"Case {told['case'][differ].iloc[0]!r} has two outcomes. Mend the table.")
    places = table[["model", "repeat", "case", "fold"]].drop_duplicates()
    if (split := places.duplicated(["model", "repeat", "case"])).any():
        raise RunError(
            f"Case {places['case'][split].iloc[0]!r} lies in two folds of one repeat. Split cases, not "
            "slides."
        )
    every = set(zip(places["repeat"], places["case"], places["fold"], strict=True))
    n_cases, n_repeats = table["case"].nunique(), table["repeat"].nunique()
    for model, rows in places.groupby("model"):
        mine = set(zip(rows["repeat"], rows["case"], rows["fold"], strict=True))
        if mine != every or len(mine) != n_cases * n_repeats:
            raise RunError(
                f"Model {model!r} did not predict every case in every repeat in the same fold as the others. "
                "Run every model over the same cohort and folds."
            )
