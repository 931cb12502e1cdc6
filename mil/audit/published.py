"""A published table of results, every number as the range that its printed digits leave."""

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mil.errors import RunError

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
ABSENT = ("", "-", "\N{EN DASH}", "\N{EM DASH}", "na", "n/a", "nan", "none")
PARTS = {"n": ("n_pos", "n_neg"), "n_pos": ("tp", "fn"), "n_neg": ("fp", "tn")}
SLACK = 1e-9
MISPRINT = 2.0  # a number without a sign up to here is no per cent
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)")


@dataclass(frozen=True)
class Printed:
    """A share as printed.

    Attributes:
        text: as it stands in the table.
        value: the same as a share.
        low, high: what its digits leave for the true value.
        limits: its confidence limits, each with its own digits; None where not printed.
        averaged: whether a spread is printed with it: it is a mean, over folds or repeats.
    """

    text: str
    value: float
    low: float
    high: float
    limits: tuple["Printed", "Printed"] | None = None
    averaged: bool = False

    def meets(self, low: float, high: float) -> bool:
        """Whether it may lie in this range."""
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
        """Whether any of its numbers is a mean over folds."""
        return any(rate.averaged for rate in self.rates.values())


@dataclass(frozen=True)
class PublishedTable:
    """A table of results.

    Attributes:
        rows: in the order of the file.
        unread: columns that no rule reads.
    """

    rows: tuple[Published, ...]
    unread: tuple[str, ...] = field(default=())


def read_published(path: Path) -> PublishedTable:
    """Read a table of results: CSV with commas, semicolons or tabs, one row per model.

    A share may be printed as ``.83``, ``83 %``, ``0.83 ± 0.02`` or ``0.83 (0.71-0.92)``; limits and
    spread may also stand in columns ``accuracy_low``, ``accuracy_high``, ``accuracy_sd``. A cell is in per
    cent where it or its header says so; those that say nothing are where none of their column is a share.

    Raises:
        RunError: no such file, no column that a rule reads, a cell that is no number, or a column of shares
            and per cents that nothing tells apart.
    """
    header, lines = _cells(path)
    columns = _columns(path, header)
    found = {name for name in columns.values() if name.split("@")[0] in RATES}
    if not found:
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


def completed(counts: Mapping[str, int]) -> dict[str, int]:
    """The counts with those that follow from two others."""
    known = dict(counts)
    for whole, (one, other) in reversed(PARTS.items()):
        if whole not in known and {one, other} <= known.keys():
            known[whole] = known[one] + known[other]
    for whole, (one, other) in PARTS.items():
        for mine, theirs in ((one, other), (other, one)):
            if whole in known and known.get(theirs, math.inf) <= known[whole]:
                known.setdefault(mine, known[whole] - known[theirs])
    return known


def _cells(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The header, and (line, cell by column) of each row."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(
            f"{path}: cannot be read as a table ({error}). Save it as CSV UTF-8."
        ) from error
    first = text.split("\n", 1)[0]
    reader = csv.reader(text.splitlines(), delimiter=max(",;\t", key=first.count))
    lines = [(reader.line_num, fields) for fields in reader if any(map(str.strip, fields))]
    if len(lines) < 2:
        raise RunError(f"{path}: a table of results has a header and a row below it.")
    header = [name.strip() for name in lines[0][1]]
    for line, fields in lines[1:]:
        if len(fields) != len(header):
            raise RunError(
                f"{path}, line {line}: {len(fields)} fields under {len(header)} columns. Quote fields that "
                "hold commas."
            )
    return header, [(n, dict(zip(header, map(str.strip, f), strict=True))) for n, f in lines[1:]]


def _columns(path: Path, header: Sequence[str]) -> dict[str, str]:
    """Column of the file to ours: a rate, a count, ``name``, or a rate with @low, @high or @sd."""
    known = {alias: name for name, aliases in (RATES | COUNTS).items() for alias in aliases}
    found: dict[str, str] = {}
    for column in header:
        plain = re.sub(r"[\W_]+", " ", column.casefold()).strip()
        stem, _, end = plain.rpartition(" ")
        stem = stem.removesuffix(" ci")
        if plain in known:
            ours = known[plain]
        elif known.get(stem) in RATES and end in ("low", "high", "sd"):
            ours = f"{known[stem]}@{end}"
        elif plain in NAMES and "name" not in found.values():
            ours = "name"
        else:
            continue
        if ours in found.values():
            twin = next(name for name, mine in found.items() if mine == ours)
            raise RunError(f"{path}: columns {twin!r} and {column!r} both mean {ours}. Remove one.")
        found[column] = ours
    return found


def _in_percent(path: Path, column: str, cells: Sequence[str]) -> bool:
    """Whether cells without a sign are in per cent; a share just above 1 is a misprint, not a per cent."""
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
    told = {ours: fields[column] for column, ours in columns.items()}
    told = {ours: cell for ours, cell in told.items() if cell.casefold() not in ABSENT}
    rates, counts = {}, {}
    for ours, cell in told.items():
        try:
            if ours in RATES:
                rates[ours] = _printed(ours, told, per_cent=ours in percent)
            elif ours in COUNTS:
                counts[ours] = int(cell)
        except ValueError as error:
            raise RunError(
                f"{path}, line {line}: {ours} is {cell!r}, which is not a number as a table prints it "
                f"({error}). Write .83, 83 %, 0.83 ± 0.02 or 0.83 (0.71-0.92); leave it empty where unknown."
            ) from error
    if any(count < 0 for count in counts.values()):
        raise RunError(f"{path}, line {line}: a count is below 0. Mend the table.")
    if completed(counts).get("n", 1) == 0:
        raise RunError(f"{path}, line {line}: a row of no case. Mend n, or leave it empty.")
    return Published(line, told.get("name", f"line {line}"), rates, counts)


def _printed(ours: str, told: Mapping[str, str], *, per_cent: bool) -> Printed:
    """A cell, with the limits and the spread beside it."""
    cell = told[ours]
    numbers = [
        match.group().lstrip("+")
        for match in NUMBER.finditer(re.sub(r"(?<=\d)\s*[-\N{EN DASH}]", " ", cell))
    ]
    rest = re.sub(r"\b(to|ci)\b|[\s%()\[\],;:\N{EN DASH}±+-]|\d|\.", "", cell.casefold())
    spread = "±" in cell or "+-" in cell or "+/-" in cell
    beside = [told.get(f"{ours}@low", ""), told.get(f"{ours}@high", "")]
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
        averaged=spread or f"{ours}@sd" in told,
    )


def _ranged(text: str, *, per_cent: bool) -> Printed:
    """What the digits of a number leave: half a unit of the last one to each side."""
    scale = 100 if per_cent else 1
    value, half = float(text) / scale, 0.5 * 10.0 ** -len(text.partition(".")[2]) / scale
    least, most = (0.0, 1.0) if 0 <= value <= 1 else (-math.inf, math.inf)
    return Printed(text, value, max(least, value - half), min(most, value + half))
