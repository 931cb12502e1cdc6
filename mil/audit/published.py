"""Published tables of results, with every number as the range that its printed digits allow."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mil.data.headers import unique_columns
from mil.data.sheet import read_sheet
from mil.data.values import is_missing
from mil.errors import CohortError, RunError

RATES = {
    "accuracy": ("accuracy", "acc", "overall accuracy"),
    "sensitivity": ("sensitivity", "sens", "recall", "tpr", "true positive rate"),
    "specificity": ("specificity", "spec", "tnr", "true negative rate"),
    "precision": ("precision", "prec", "ppv", "positive predictive value"),
    "npv": ("npv", "negative predictive value"),
    "f1": ("f1", "f1 score", "f score", "f measure", "dice"),
    "balanced_accuracy": ("balanced accuracy", "bacc", "bal acc"),
    "prevalence": ("prevalence", "share of positives"),
    "auc": ("auc", "auroc", "roc auc"),
}
COUNTS = {
    "n": ("n", "cases", "patients", "total"),
    "n_pos": ("n pos", "positives", "n positive"),
    "n_neg": ("n neg", "negatives", "n negative"),
    "tp": ("tp",),
    "fn": ("fn",),
    "fp": ("fp",),
    "tn": ("tn",),
    "classes": ("classes", "n classes"),
}
NAMES = ("model", "name", "method", "row", "set", "system")
PARTS = {"n": ("n_pos", "n_neg"), "n_pos": ("tp", "fn"), "n_neg": ("fp", "tn")}
SLACK = 1e-9
MISPRINT = 2.0  # a number without a % sign up to here is a share
DECIMAL_COMMA = re.compile(r"(?<=\d),(?=\d)")
THOUSANDS = re.compile(r"[1-9]\d{0,2}(?:[,.'\u2019\u00a0\u2009\u202f ]\d{3})+")  # 1,200 cases
ONE_COMMA = re.compile(r"[-+]?\d+,\d+\s*%?")
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)")


@dataclass(frozen=True)
class Printed:
    """A share as printed.

    Attributes:
        text: text in the table.
        value: value as a share.
        low: lower end of the range that the digits allow.
        high: upper end of that range.
        limits: confidence limits, with the ranges of their own digits; None where not printed.
        averaged: whether a spread is printed with it, so that it is a mean over folds or repeats.
    """

    text: str
    value: float
    low: float
    high: float
    limits: tuple["Printed", "Printed"] | None = None
    averaged: bool = False

    def meets(self, low: float, high: float) -> bool:
        """Whether the value may lie in a range."""
        return low <= self.high + SLACK and high >= self.low - SLACK


@dataclass(frozen=True)
class Published:
    """One row of a table of results."""

    line: int
    name: str
    rates: Mapping[str, Printed]
    counts: Mapping[str, int]

    @property
    def averaged(self) -> bool:
        """Whether a number of the row is a mean over folds."""
        return any(rate.averaged for rate in self.rates.values())


@dataclass(frozen=True)
class PublishedTable:
    """A table of results.

    Attributes:
        rows: rows in the order of the file.
        unread: columns that no rule reads.
    """

    rows: tuple[Published, ...]
    unread: tuple[str, ...] = field(default=())


def read_published(path: Path) -> PublishedTable:
    """Read a table of results: CSV with commas, semicolons or tabs, one row per model.

    Decimals may have a comma: in tables with commas between the cells where nothing else can be meant. A
    share may be written as ``.83``, ``83 %``, ``0.83 ± 0.02`` or ``0.83 (0.71-0.92)``; limits and
    spread may also stand in columns ``accuracy_low``, ``accuracy_high``, ``accuracy_sd``. A cell is in per
    cent where it or its header has a % sign. Cells without a sign are in per cent where no cell of their
    column is a share.

    Raises:
        RunError: no such file, no column that a rule reads, a cell that is not a number, or a column that
            mixes shares and per cents without % signs.
    """
    header, lines, delimiter = _cells(path)
    columns = _columns(path, header)
    lines = _with_points(lines, columns, commas_are_decimal=delimiter not in (",", ""))
    names = {name for name in columns.values() if name.split("@")[0] in RATES}
    if not names:
        raise RunError(
            f"{path}: no column of results; it has {', '.join(header)}. Name them accuracy, sensitivity, "
            "specificity, precision, f1, n, n_pos."
        )
    percent = {
        name.split("@")[0]
        for column, name in columns.items()
        if name.split("@")[0] in RATES
        and not name.endswith("@sd")
        and _in_percent(path, column, [fields[column] for _, fields in lines])
    }
    rows = tuple(_published(path, line, fields, columns, percent) for line, fields in lines)
    unread = tuple(name for name in header if name and name not in columns)
    return PublishedTable(rows, unread)


def complete_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """The counts, completed by those that follow from two others."""
    known = dict(counts)
    for whole, (one, other) in reversed(PARTS.items()):
        if whole not in known and {one, other} <= known.keys():
            known[whole] = known[one] + known[other]
    for whole, (one, other) in PARTS.items():
        for part, counterpart in ((one, other), (other, one)):
            if whole in known and known.get(counterpart, math.inf) <= known[whole]:
                known.setdefault(part, known[whole] - known[counterpart])
    return known


def _cells(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]], str]:
    """The header, the line number and cells by column of each row, and what separates the cells."""
    try:
        sheet = read_sheet(path)
    except CohortError as error:
        raise RunError(f"{error}") from error
    if not sheet.lines:
        raise RunError(f"{path}: a table of results has a header and a row below it.")
    return list(sheet.header), list(sheet.lines), sheet.delimiter


def _with_points(
    lines: Sequence[tuple[int, dict[str, str]]],
    columns: Mapping[str, str],
    *,
    commas_are_decimal: bool,
) -> list[tuple[int, dict[str, str]]]:
    """The lines with decimal points in the columns of shares, for commas and raised dots.

    Between commas as delimiters, limits may be written (71,92): there a comma is decimal behind 0, or where
    it is the only one of a cell.
    """

    def pointed(cell: str) -> str:
        cell = re.sub(r"(?<=\d)\u00b7(?=\d)", ".", cell)
        if commas_are_decimal or ("." not in cell and ONE_COMMA.fullmatch(cell)):
            return DECIMAL_COMMA.sub(".", cell)
        return cell if "." in cell else re.sub(r"(?<=\b0),(?=\d)", ".", cell)

    shares = {column for column, name in columns.items() if name.split("@")[0] in RATES}
    return [
        (number, {column: pointed(c) if column in shares else c for column, c in cells.items()})
        for number, cells in lines
    ]


def _columns(path: Path, header: Sequence[str]) -> dict[str, str]:
    """Name by column of the file: a rate, a count, ``name``, or a rate with @low, @high or @sd."""
    known = {alias: name for name, aliases in (RATES | COUNTS).items() for alias in aliases}
    columns: list[tuple[str, str]] = []
    for column in header:
        plain = re.sub(r"[\W_]+", " ", column.casefold()).strip()
        stem, _, end = plain.rpartition(" ")
        stem = stem.removesuffix(" ci")
        if plain in known:
            columns.append((known[plain], column))
        elif known.get(stem) in RATES and end in ("low", "high", "sd"):
            columns.append((f"{known[stem]}@{end}", column))
        elif plain in NAMES and "name" not in dict(columns):
            columns.append(("name", column))
    named = unique_columns(path, columns, RunError)
    return {column: name for name, column in named.items()}


def _in_percent(path: Path, column: str, cells: Sequence[str]) -> bool:
    """Whether cells without a % sign are in per cent; a number just above 1 is a misprinted share."""
    if "%" in column:
        return True
    numbers = [NUMBER.match(cell) for cell in cells if "%" not in cell]
    values = [float(number.group()) for number in numbers if number]
    if max(values, default=0.0) <= MISPRINT:
        return False
    if shares := [value for value in values if 0 < value <= 1]:
        raise RunError(
            f"{path}: column {column!r} holds {max(values):g} and {shares[0]:g}, and no sign says which is "
            "in per cent. Write % behind those that are."
        )
    return True


def _published(
    path: Path, line: int, fields: Mapping[str, str], columns: Mapping[str, str], percent: set[str]
) -> Published:
    cells = {name: fields[column] for column, name in columns.items()}
    cells = {name: cell for name, cell in cells.items() if not is_missing(cell)}
    rates, counts = {}, {}
    for name, cell in cells.items():
        try:
            if name in RATES:
                rates[name] = _printed(name, cells, per_cent=name in percent)
            elif name in COUNTS:
                counts[name] = _count(cell)
        except ValueError as error:
            raise RunError(
                f"{path}, line {line}: {name} is {cell!r}, which is not a number as a table prints it "
                f"({error}). Write .83, 83 %, 0.83 ± 0.02 or 0.83 (0.71-0.92); leave it empty where unknown."
            ) from error
    if any(count < 0 for count in counts.values()):
        raise RunError(f"{path}, line {line}: a count is below 0. Correct the table.")
    if complete_counts(counts).get("n", 1) == 0:
        raise RunError(
            f"{path}, line {line}: n is 0: the row has no cases. Correct n, or leave it empty."
        )
    return Published(line, cells.get("name", f"line {line}"), rates, counts)


def _count(cell: str) -> int:
    """A whole number, with or without a sign between thousands."""
    if THOUSANDS.fullmatch(cell):
        return int(re.sub(r"\D", "", cell))
    return int(cell.removesuffix(".0"))


def _printed(name: str, cells: Mapping[str, str], *, per_cent: bool) -> Printed:
    """A cell with its limits and spread."""
    cell = cells[name]
    numbers = [
        match.group().lstrip("+")
        for match in NUMBER.finditer(re.sub(r"(?<=\d)\s*[-\N{EN DASH}]", " ", cell))
    ]
    rest = re.sub(r"\b(to|ci)\b|[\s%()\[\],;:\N{EN DASH}±+-]|\d|\.", "", cell.casefold())
    spread = "±" in cell or "+-" in cell or "+/-" in cell
    beside = [cells.get(f"{name}@low", ""), cells.get(f"{name}@high", "")]
    limits = numbers[-2:] if len(numbers) >= 3 else beside if all(beside) else []
    if (
        not numbers
        or rest.strip("/")
        or len(numbers) > (2 if spread else 3)
        or (len(numbers) == 2 and not spread)
    ):
        raise ValueError(cell)
    signed = per_cent or "%" in cell
    value = _ranged(numbers[0], per_cent=signed)
    pair = [
        _ranged(text.rstrip(" %"), per_cent=per_cent or "%" in (text if text in beside else cell))
        for text in limits
    ]
    return Printed(
        numbers[0] + (" %" if signed else ""),
        value.value,
        value.low,
        value.high,
        (pair[0], pair[1]) if pair else None,
        averaged=spread or f"{name}@sd" in cells,
    )


def _ranged(text: str, *, per_cent: bool) -> Printed:
    """The range that the digits of a number allow: half a unit of the last digit to each side."""
    scale = 100 if per_cent else 1
    value, half = float(text) / scale, 0.5 * 10.0 ** -len(text.partition(".")[2]) / scale
    least, most = (0.0, 1.0) if 0 <= value <= 1 else (-math.inf, math.inf)
    return Printed(text, value, max(least, value - half), min(most, value + half))
