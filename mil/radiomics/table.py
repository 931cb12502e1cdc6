"""Read a wide table of radiomic features, as pyradiomics, LIFEx, MIRP and Nyxus write it.

A column is a feature only if its name is that of a family of features, or if the user names it: a column of
another kind, such as an outcome in numbers, would otherwise be learnt from.
"""

import ast
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.columns.features import doubtful_columns
from features.columns.names import is_outcome
from features.columns.radiomics import best_tool
from features.columns.spelling import plain_header
from features.summary import listed
from mil.data.headers import RADIOMICS, first_column
from mil.data.names import check_spelling
from mil.data.sheet import Sheet, read_sheet, with_decimal_points
from mil.data.values import is_missing, read_number
from mil.errors import CohortError

SETTINGS = "diagnostics_Configuration_Settings"  # of pyradiomics, as a dictionary
NO_SETTINGS = (
    "label",
    "label_channel",
    "additionalInfo",
    "geometryTolerance",
    "correctMask",
    "preCrop",
)
OF_CASES = ("split", "site", "slide")  # columns of a table of cases, never features


@dataclass(frozen=True)
class FeatureTable:
    """Features of cases.

    Attributes:
        path: of the file.
        tool: that wrote it, by the names of its features; ``columns`` where the user names them.
        cases: (n) names, in the order of the file.
        names: (D) features; with several modalities ``<modality>_<feature>``.
        modalities: (D) the modality of every feature; empty without such a column.
        values: (n, D); NaN where a cell is empty or a case lacks the modality.
        settings: columns of one value for all rows that are no features, as ``diagnostics_*``.
        others: further columns that are no features.
        extraction: by modality, the settings that change values, as pyradiomics states them.
    """

    path: Path
    tool: str
    cases: tuple[str, ...]
    names: tuple[str, ...]
    modalities: tuple[str, ...]
    values: NDArray[np.float64]
    settings: dict[str, str]
    others: tuple[str, ...]
    extraction: dict[str, str]


def read_feature_table(path: Path, columns: Sequence[str] = ()) -> FeatureTable:
    """Read a table with a row per case, or per case and modality.

    Args:
        path: CSV or a workbook.
        columns: patterns of the names of features, with ``*`` and ``?``; empty recognises those of the tools.
            Labels and what is known from the follow-up alone are features only if they are named in full.

    Raises:
        CohortError: there is no column of cases, no feature, a case twice, or a cell that is no number.
    """
    sheet = read_sheet(path)
    case = _case_column(sheet)
    modality = first_column(sheet.header, RADIOMICS["modality"]) or ""
    tool, features = _features(sheet, columns, (case, modality))
    sheet = with_decimal_points(sheet, features)
    rows = _rows(sheet, case, modality)
    check_spelling(str(path), "case", {key[0] for key in rows})
    check_spelling(str(path), "modality", {key[1] for key in rows})
    cases = tuple(dict.fromkeys(key[0] for key in rows))
    modalities = tuple(dict.fromkeys(key[1] for key in rows))
    blocks = [_block(sheet, rows, cases, name, features) for name in modalities]
    prefixes = [f"{name}_" if len(modalities) > 1 else "" for name in modalities]
    rest = [name for name in sheet.header if name not in (*features, case, modality)]
    constant = {name: {cells[name] for _, cells in sheet.lines} for name in rest}
    return FeatureTable(
        path=path,
        tool=tool,
        cases=cases,
        names=tuple(prefix + name for prefix in prefixes for name in features),
        modalities=tuple(name for name in modalities for _ in features),
        values=np.concatenate(blocks, axis=1),
        settings={n: next(iter(v)) for n, v in constant.items() if len(v) == 1},
        others=tuple(name for name, values in constant.items() if len(values) > 1),
        extraction=_extraction(sheet, rows),
    )


def _extraction(
    sheet: Sheet, rows: dict[tuple[str, str], tuple[int, dict[str, str]]]
) -> dict[str, str]:
    """How the features of each modality were computed, where the table says so.

    Raises:
        CohortError: those of two cases were computed otherwise, so that they cannot be compared.
    """
    settings: dict[str, tuple[int, str]] = {}
    for (_, modality), (line, cells) in rows.items():
        own = _plain_settings(cells.get(SETTINGS, ""))
        first, other = settings.setdefault(modality, (line, own))
        if own and other and own != other:
            raise CohortError(
                f"{sheet.path}: {SETTINGS} differs between the lines {first} and {line}: features of other "
                "settings cannot be compared. Extract all cases with one file of parameters."
            )
    return {modality: own for modality, (_, own) in settings.items() if own}


def _plain_settings(text: str) -> str:
    """The settings that change values, in one order; the text where it is no dictionary."""
    try:
        settings = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text.strip()
    if not isinstance(settings, dict):
        return text.strip()
    return str(sorted((str(k), str(v)) for k, v in settings.items() if k not in NO_SETTINGS))


def _case_column(sheet: Sheet) -> str:
    """The column of cases."""
    if column := first_column(sheet.header, RADIOMICS["case"]):
        return column
    raise CohortError(
        f"{sheet.path}: no column case; it has {listed(sheet.header)}. Name the column of patients case."
    )


def _features(sheet: Sheet, columns: Sequence[str], others: Sequence[str]) -> tuple[str, list[str]]:
    """The tool, and the columns that are features."""
    names = [name for name in sheet.header if name not in others]
    if columns:
        matching = [name for name in names if any(fnmatchcase(name, one) for one in columns)]
        doubtful = doubtful_columns(matching)
        chosen = [
            name
            for name in matching
            if name in columns or not (name in doubtful or _is_outcome(name))
        ]
        if not chosen:
            raise CohortError(
                f"{sheet.path}: no column is named like {', '.join(columns)}. It has {listed(sheet.header)}."
            )
        return "columns", chosen
    if best := best_tool([name for name in names if not _is_outcome(name)]):
        return best
    raise CohortError(
        f"{sheet.path}: no column is named like a feature of pyradiomics, LIFEx, MIRP or Nyxus; it has "
        f"{listed(sheet.header)}. Name the features (columns), with * for any letters, and no outcome."
    )


def _is_outcome(name: str) -> bool:
    """Whether a column, by its name, is an outcome or of a table of cases, which a pattern may fit too."""
    return is_outcome(name) or plain_header(name) in OF_CASES


def _rows(
    sheet: Sheet, case: str, modality: str
) -> dict[tuple[str, str], tuple[int, dict[str, str]]]:
    """The lines by case and modality."""
    rows: dict[tuple[str, str], tuple[int, dict[str, str]]] = {}
    for line, cells in sheet.lines:
        key = (cells[case].strip(), cells[modality].strip() if modality else "")
        if is_missing(key[0]):
            raise CohortError(f"{sheet.path}, line {line}: {case} is empty. Fill it in.")
        if key in rows:
            of = f" of {key[1]}" if key[1] else ""
            raise CohortError(
                f"{sheet.path}, line {line}: {key[0]}{of} has a row on line {rows[key][0]} already. "
                "Give each case one row, or one per modality, in a column modality; put the second "
                "observer's readings in a separate file."
            )
        rows[key] = (line, cells)
    return rows


def _block(
    sheet: Sheet,
    rows: dict[tuple[str, str], tuple[int, dict[str, str]]],
    cases: Sequence[str],
    modality: str,
    features: Sequence[str],
) -> NDArray[np.float64]:
    """(n, D) the features of one modality."""
    block = np.full((len(cases), len(features)), np.nan)
    for i, case in enumerate(cases):
        if (case, modality) in rows:
            line, cells = rows[case, modality]
            block[i] = [_number(sheet.path, line, name, cells[name]) for name in features]
    return block


def _number(path: Path, line: int, name: str, cell: str) -> float:
    """The number in a cell; NaN where it is empty or infinite."""
    if is_missing(cell):
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        value = read_number(cell)
        if math.isnan(value):
            raise CohortError(
                f"{path}, line {line}: {name} is {cell!r}, which is no number. Correct it, or empty it."
            ) from None
    return value if math.isfinite(value) else math.nan
