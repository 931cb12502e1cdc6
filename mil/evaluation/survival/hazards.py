"""A table of hazard ratios, each alone and all together, with the test that they stay the same over time."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm

from features.files.atomic import atomic_path
from mil.errors import FitError, RunError
from mil.evaluation.arrays import Bools, Floats
from mil.evaluation.comparison import holm
from mil.evaluation.regression.cox import CoxFit, fit_cox

HEADER = (
    "analysis", "term", "hazard_ratio", "low", "high", "p", "p_holm", "p_bonferroni", "p_proportional",
    "penalty",
)  # fmt: skip


@dataclass(frozen=True)
class Hazard:
    """What one term does to the hazard.

    Attributes:
        analysis: ``univariable``, the term alone, or ``multivariable``, beside all others.
        term: its name.
        ratio: of hazards, per unit of the term.
        low: 95 % limits by Wald.
        high: likewise.
        p: by Wald.
        p_holm: adjusted for all terms of the analysis.
        p_bonferroni: likewise.
        p_proportional: that the ratio is the same at all times (P. Grambsch, T. Therneau, Biometrika 1994,
            81:515, on ranks of time); None of a penalised fit, which has no such test, and where columns say
            the same, so that nobody knows their ratios.
        penalty: ``none``, or ``Firth`` where the likelihood has no top.
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
    """Cox regressions of the outcome on each column alone, and on all of them.

    Args:
        columns: name to (n,) numbers; one that does not vary is left out.
        time: (n,).
        event: (n,).

    Raises:
        FitError: no event.
    """
    kept = {name: values for name, values in columns.items() if np.ptp(values) > 0}
    alone = [_terms({name: values}, time, event)[0] for name, values in kept.items()]
    found = _adjusted("univariable", list(kept), alone)
    if len(kept) > 1:
        found += _adjusted("multivariable", list(kept), _terms(kept, time, event))
    return tuple(found)


def write_hazards(path: Path, tables: Mapping[str, Sequence[Hazard]]) -> None:
    """One row per model, analysis and term."""
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model", *HEADER])
        for model, table in tables.items():
            for each in table:
                numbers = [each.ratio, each.low, each.high, each.p, each.p_holm, each.p_bonferroni]
                shown = [f"{value:.6g}" for value in numbers]
                shown.append("" if each.p_proportional is None else f"{each.p_proportional:.6g}")
                writer.writerow([model, each.analysis, each.term, *shown, each.penalty])


def read_hazards(path: Path) -> dict[str, tuple[Hazard, ...]]:
    """The tables by model, as ``write_hazards`` wrote them.

    Raises:
        RunError: the file holds another table.
    """
    tables: dict[str, tuple[Hazard, ...]] = {}
    with path.open(newline="") as file:
        lines = list(csv.reader(file))[1:]
    try:
        for model, analysis, term, *numbers, proportional, penalty in lines:
            ratio, low, high, p, holms, bonferronis = map(float, numbers)
            tested = float(proportional) if proportional else None
            adjusted = (p, holms, bonferronis, tested)
            each = Hazard(analysis, term, ratio, low, high, *adjusted, penalty)
            tables[model] = (*tables.get(model, ()), each)
    except ValueError as error:
        raise RunError(
            f"{path} is not a table of hazards as `mil crossval` writes it ({error}). Put it back, or remove "
            "it."
        ) from error
    return tables


_Told = tuple[
    float, float, float, float | None, str
]  # coefficient, error, p, p_proportional, penalty


def _terms(columns: Mapping[str, Floats], time: Floats, event: Bools) -> list[_Told]:
    rows = np.stack(list(columns.values()), axis=1)
    proportional: list[float | None] = [None] * rows.shape[1]
    try:
        fitted, penalty = fit_cox(rows, time, event), "none"
        if np.isfinite(fitted.errors).all():
            proportional = list(proportionality(fitted, rows, time, event))
    except FitError:
        fitted, penalty = fit_cox(rows, time, event, firth=True), "Firth"
    numbers = zip(
        map(float, fitted.coefficients),
        map(float, fitted.errors),
        map(float, fitted.p),
        strict=True,
    )
    return [(*told, tested, penalty) for told, tested in zip(numbers, proportional, strict=True)]


def proportionality(fitted: CoxFit, rows: Floats, time: Floats, event: Bools) -> Floats:
    """(K,) p that each coefficient does not change over time.

    The correlation of the scaled Schoenfeld residuals of events with the rank of their time.

    Args:
        fitted: of these cases, without a penalty.
        rows: (n, K).
        time: (n,).
        event: (n,).
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


def _adjusted(analysis: str, names: Sequence[str], terms: Sequence[_Told]) -> list[Hazard]:
    stepped = holm([p for _, _, p, _, _ in terms])
    half = float(norm.isf(0.025))
    return [
        Hazard(
            analysis,
            name,
            float(np.exp(b)),
            float(np.exp(b - half * error)),
            float(np.exp(b + half * error)),
            p,
            adjusted,
            min(1.0, len(terms) * p),
            tested,
            penalty,
        )
        for name, (b, error, p, tested, penalty), adjusted in zip(
            names, terms, stepped, strict=True
        )
    ]
