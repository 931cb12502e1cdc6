"""Tables of hazard ratios, univariable and multivariable, with a test of proportional hazards."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from features.files.tables import write_table
from mil.errors import FitError, RunError
from mil.evaluation.arrays import Bools, Floats
from mil.evaluation.paired_tests import holm
from mil.evaluation.regression.cox import CoxFit, fit_cox

HEADER = (
    "analysis", "term", "hazard_ratio", "low", "high", "p", "p_holm", "p_bonferroni", "p_proportional",
    "penalty",
)  # fmt: skip

NUMBERS = ("ratio", "low", "high", "p", "p_holm", "p_bonferroni", "p_proportional")


@dataclass(frozen=True)
class Hazard:
    """Hazard ratio of one term.

    Attributes:
        analysis: ``univariable``, the term alone, or ``multivariable``, beside all others.
        term: name of the term.
        ratio: hazard ratio per unit of the term.
        low: lower 95 % limit: Wald's, or of the profile penalised likelihood under Firth's penalty.
        high: upper limit; infinite where it does not exist.
        p: p value: Wald's, or of the penalised likelihood ratio test under Firth's penalty.
        p_holm: p adjusted over all terms of the analysis by Holm.
        p_bonferroni: p adjusted likewise by Bonferroni.
        p_proportional: p value of the test of proportional hazards (P. Grambsch, T. Therneau, Biometrika
            1994, 81:515, on ranks of time); None for a penalised fit, which has no such test, and where
            columns are collinear, so that their ratios are not identified.
        penalty: ``none``, or ``Firth`` where the maximum likelihood estimate does not exist.
    """

    analysis: str
    term: str
    ratio: float
    low: float
    high: float
    p: float
    p_holm: float
    p_bonferroni: float
    p_proportional: float | None
    penalty: str


def hazard_table(columns: Mapping[str, Floats], time: Floats, event: Bools) -> tuple[Hazard, ...]:
    """Cox regression on each column alone, and on all columns together.

    Args:
        columns: (n,) numbers by name; constant columns are left out.
        time: (n,) time of the event or of censoring.
        event: (n,) True where the event was observed.

    Raises:
        FitError: no event.
    """
    varying = {name: values for name, values in columns.items() if np.ptp(values) > 0}
    alone = [_fit_terms({name: values}, time, event)[0] for name, values in varying.items()]
    hazards = _adjusted("univariable", list(varying), alone)
    if len(varying) > 1:
        hazards += _adjusted("multivariable", list(varying), _fit_terms(varying, time, event))
    return tuple(hazards)


def write_hazards(path: Path, tables: Mapping[str, Sequence[Hazard]]) -> None:
    """Write one row per model, analysis and term as CSV."""
    rows = []
    for model, table in tables.items():
        for hazard in table:
            numbers = [getattr(hazard, name) for name in NUMBERS]
            fields = ["" if value is None else f"{value:.6g}" for value in numbers]
            rows.append([model, hazard.analysis, hazard.term, *fields, hazard.penalty])
    write_table(path, ["model", *HEADER], rows)


def read_hazards(path: Path) -> dict[str, tuple[Hazard, ...]]:
    """Read the tables by model, as ``write_hazards`` wrote them.

    Raises:
        RunError: the file contains another table.
    """
    tables: dict[str, tuple[Hazard, ...]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))[1:]
    try:
        for model, analysis, term, *numbers, proportional, penalty in lines:
            ratio, low, high, p, holms, bonferronis = map(float, numbers)
            tested = float(proportional) if proportional else None
            adjusted = (p, holms, bonferronis, tested)
            hazard = Hazard(analysis, term, ratio, low, high, *adjusted, penalty)
            tables[model] = (*tables.get(model, ()), hazard)
    except ValueError as error:
        raise RunError(
            f"{path} is not a table of hazards as a run writes it ({error}). Put it back, or remove it."
        ) from error
    return tables


class _Term(NamedTuple):
    """A fitted term: log hazard ratio with limits, p values, and the penalty of the fit."""

    coefficient: float
    low: float
    high: float
    p: float
    p_proportional: float | None
    penalty: str


def _fit_terms(columns: Mapping[str, Floats], time: Floats, event: Bools) -> list[_Term]:
    rows = np.stack(list(columns.values()), axis=1)
    proportional: list[float | None] = [None] * rows.shape[1]
    try:
        fitted, penalty = fit_cox(rows, time, event), "none"
        if np.isfinite(fitted.errors).all():
            proportional = list(proportionality(fitted, rows, time, event))
    except FitError:
        fitted, penalty = fit_cox(rows, time, event, firth=True), "Firth"
    inference = fitted.inference
    numbers = zip(
        fitted.coefficients, inference.low, inference.high, inference.p, proportional, strict=True
    )
    return [
        _Term(float(b), float(low), float(high), float(p), p_proportional, penalty)
        for b, low, high, p, p_proportional in numbers
    ]


def proportionality(fitted: CoxFit, rows: Floats, time: Floats, event: Bools) -> Floats:
    """P values (K,) of the test of proportional hazards.

    The test is of the correlation between scaled Schoenfeld residuals and the rank of the event time.

    Args:
        fitted: fit of these cases without a penalty.
        rows: (n, K) columns.
        time: (n,) time of the event or of censoring.
        event: (n,) True where the event was observed.
    """
    from lifelines import CoxPHFitter
    from lifelines.statistics import proportional_hazard_test

    table = pd.DataFrame(rows, columns=[str(k) for k in range(rows.shape[1])])
    table["time of the case"], table["event of the case"] = time, event
    model = CoxPHFitter().fit(
        table,
        "time of the case",
        "event of the case",
        initial_point=fitted.coefficients * rows.std(axis=0, ddof=1),
    )
    tested = proportional_hazard_test(model, table, time_transform="rank")
    return np.atleast_1d(np.asarray(tested.p_value, dtype=np.float64))


def _adjusted(analysis: str, names: Sequence[str], terms: Sequence[_Term]) -> list[Hazard]:
    stepped = holm([term.p for term in terms])
    return [
        Hazard(
            analysis,
            name,
            _ratio(term.coefficient),
            _ratio(term.low),
            _ratio(term.high),
            term.p,
            p_holm,
            min(1.0, len(terms) * term.p),
            term.p_proportional,
            term.penalty,
        )
        for name, term, p_holm in zip(names, terms, stepped, strict=True)
    ]


def _ratio(coefficient: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp(coefficient))
