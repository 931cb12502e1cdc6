"""Predictions of survival: time, event, a risk, and, if there is a curve, one ``s_<time>`` per time of it.

The event is 0 or 1; a risk of 0 is that of the median training case; ``s_<time>`` is the probability of no
event until that time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pandas as pd

from mil.errors import PredictionsError
from mil.evaluation.arrays import Bools, Floats, Ints
from mil.evaluation.cells import KEYS, parse_numbers, require_columns
from mil.evaluation.predictions import COUNTERS, Predictions

COLUMNS = (*KEYS, "time", "event", "risk")
PREFIX = "s_"
N_HORIZONS = 20
STILL_OBSERVED = 0.1  # share of the cases observed at the last horizon


@dataclass(frozen=True, eq=False)
class CaseRisks:
    """What one model answered for each case in one repeat, averaged over its slides.

    Attributes:
        case: n case names, sorted.
        time: (n,) until the event or the end of observation.
        event: (n,) whether the event was observed.
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
class RiskPredictions(Predictions):
    """Risks and survival curves out of fold.

    Attributes:
        table: with columns ``COLUMNS`` and ``s_<time>``.
        unit: of the times, for tables and figures.

    Raises:
        PredictionsError: the table contradicts itself; the message names the row, case or model.
    """

    outcome_columns: ClassVar[tuple[str, ...]] = ("time", "event")
    answers: ClassVar[str] = "risks and follow-up"
    evaluator: ClassVar[str] = "mil.evaluation.survival.evaluate:evaluate_survival"
    comparer: ClassVar[str] = "mil.evaluation.survival.comparison:compare_survival_models"
    table_comparer: ClassVar[str] = "mil.evaluation.survival.comparison:compare_survival_tables"
    decider: ClassVar[str] = "mil.evaluation.decision_curves:decide_survival"
    unit: str = "units of time"

    @classmethod
    def recognises(cls, columns: Sequence[str]) -> bool:
        """Whether there are follow-up and risks, and no label."""
        return {"time", "event", "risk"} <= set(columns) and "label" not in columns

    @classmethod
    def parse(cls, table: pd.DataFrame) -> "RiskPredictions":
        """A table of text as predictions."""
        require_columns(table, COLUMNS)
        answers = [str(name) for name in table.columns if str(name).startswith(PREFIX)]
        parse_numbers(table, (*COUNTERS, "event"), ["time", "risk", *answers])
        return cls(table)

    def in_unit(self, time_unit: str) -> "RiskPredictions":
        """The predictions with the unit of their times."""
        return replace(self, unit=time_unit)

    @property
    def curve_columns(self) -> list[str]:
        """Names of the columns of survival, in the order of their times."""
        return [str(name) for name in self.table.columns if str(name).startswith(PREFIX)]

    @property
    def answer_columns(self) -> list[str]:
        """The risk, and the columns of survival."""
        return ["risk", *self.curve_columns]

    @property
    def has_curves(self) -> bool:
        """Whether survival is predicted; if not, there are risks alone."""
        return bool(self.curve_columns)

    @property
    def horizons(self) -> Floats:
        """(T,) times at which survival was predicted, ascending; those that would be chosen if it was not."""
        if self.has_curves:
            return np.array([horizon_of(name) for name in self.curve_columns])
        first = self.case_risks(self.models[0], self.repeats[0])
        return np.array(choose_horizons(first.time, first.event))

    def survival_at(self, horizon: float, risks: CaseRisks) -> Floats:
        """Probability (n,) of no event until any time, on straight lines between the predicted times.

        Raises:
            PredictionsError: the time is not above 0, or lies after the last predicted one.
        """
        if not self.has_curves:
            raise PredictionsError(
                "These predictions hold risks and no survival. Add columns s_<time>, the probability of no "
                "event until each time."
            )
        last = float(self.horizons[-1])
        if not 0 < horizon <= last:
            raise PredictionsError(
                f"Survival is predicted until {last:.6g} {self.unit}; got horizon {horizon:.6g}. Set it "
                "above 0 and no later."
            )
        times = np.concatenate([[0.0], self.horizons])
        return np.array([np.interp(horizon, times, [1.0, *curve]) for curve in risks.survival])

    def case_risks(self, model: str, repeat: int) -> CaseRisks:
        """Average the slides of each case for one model in one repeat.

        Raises:
            PredictionsError: the table holds no such model or repeat.
        """
        by_case = self.rows_of(model, repeat).groupby("case", sort=True)
        first = by_case[["time", "event", "fold"]].first()
        mean = by_case[self.answer_columns].mean()
        return CaseRisks(
            case=tuple(str(name) for name in first.index),
            time=first["time"].to_numpy(dtype=np.float64),
            event=first["event"].to_numpy(dtype=np.int64) > 0,
            risk=mean["risk"].to_numpy(dtype=np.float64),
            survival=mean[self.curve_columns].to_numpy(dtype=np.float64),
            fold=first["fold"].to_numpy(dtype=np.int64),
        )

    def mean_risks(self, model: str) -> CaseRisks:
        """The same, a case's risk and survival averaged over repeats as well."""
        repeats = [self.case_risks(model, repeat) for repeat in self.repeats]
        first = repeats[0]
        return CaseRisks(
            first.case,
            first.time,
            first.event,
            np.mean([risks.risk for risks in repeats], axis=0),
            np.mean([risks.survival for risks in repeats], axis=0),
            first.fold,
        )

    def _check_columns(self) -> None:
        require_columns(self.table, COLUMNS)
        try:
            times = [horizon_of(name) for name in self.curve_columns]
        except ValueError as error:
            raise PredictionsError(
                f"A column s_<time> names no time: {error}. Rename it."
            ) from error
        if len(times) == 1 or any(later <= earlier for earlier, later in pairwise(times)):
            raise PredictionsError(
                "Columns s_<time> are of two or more ascending times, or there is none; got "
                f"{times}."
            )

    def _check_values(self) -> None:
        table = self.table
        for name in ("time", "risk"):
            if not np.isfinite(table[name].to_numpy(dtype=np.float64)).all():
                raise PredictionsError(
                    f"Column {name} holds values that are not finite. Look for a diverged fit."
                )
        if (table["time"] < 0).any() or not table["event"].isin([0, 1]).all():
            raise PredictionsError("A time is 0 or more and an event 0 or 1. Correct the table.")
        survival = table[self.curve_columns].to_numpy(dtype=np.float64)
        # Written so that NaN fails.
        if not ((survival >= 0) & (survival <= 1)).all():
            raise PredictionsError(
                "Survival is a probability in [0, 1]. Correct the columns s_<time>."
            )
        if (np.diff(survival, axis=1) > 1e-9).any():  # two averages may round differently
            raise PredictionsError("Survival rises with time. Correct the columns s_<time>.")


def choose_horizons(time: Floats, event: Bools) -> tuple[float, ...]:
    """Times at which survival is predicted: evenly from the first events to where few are observed.

    They set where predictions are judged and fit nothing, so all cases may set them.

    Args:
        time: (n,) until the event or the end of observation.
        event: (n,) whether the event was observed.
    """
    first = float(np.quantile(time[event], 0.1)) if event.any() else float(time.min())
    last = float(np.quantile(time, 1 - STILL_OBSERVED, method="lower"))
    if not first < last:
        first, last = float(time.min()), float(time.max())
    times = np.linspace(first, last, N_HORIZONS + 1)[:-1]  # someone is observed beyond the last
    return tuple(dict.fromkeys(float(f"{t:.6g}") for t in times))


def column_of(horizon: float) -> str:
    """The column that holds survival until a time."""
    return f"{PREFIX}{horizon:.6g}"


def horizon_of(column: str) -> float:
    """The time of a column of survival.

    Raises:
        ValueError: its name holds none.
    """
    return float(column[len(PREFIX) :])
