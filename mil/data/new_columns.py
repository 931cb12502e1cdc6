"""Columns of new cases beside those that a clinical model has learnt from: another unit, or another word."""

import math
from collections.abc import Mapping, Sequence

from features.summary import listed
from mil.data.encoding import Column, ColumnEncoding
from mil.data.values import is_missing, number_in

FAR = 6.0  # spreads of the training cases from their middle; sizes in mm beside cm are ten


def unlike_values(
    encodings: Sequence[ColumnEncoding], cases: Mapping[str, Mapping[str, str]]
) -> list[str]:
    """Why columns of new cases are unlike all that the fits of a model have learnt from; empty if none is.

    Args:
        encodings: of the fits.
        cases: cells by column of each case, by its name.
    """
    reasons = []
    for name, columns in _by_name(encodings).items():
        cells = {case: other.get(name, "") for case, other in cases.items()}
        odd = {
            case: cell for case, cell in cells.items() if all(_is_unlike(c, cell) for c in columns)
        }
        if odd:
            reasons.append(f"column {name} holds {_listed(odd)}, {_known(columns)}")
    return reasons


def unread_values(
    encodings: Sequence[ColumnEncoding], cases: Mapping[str, Mapping[str, str]]
) -> list[str]:
    """Remarks on cells of new cases that hold no number where the model reads numbers; none without any."""
    notes = []
    for name, (column, *_) in _by_name(encodings).items():
        cells = {case: other.get(name, "") for case, other in cases.items()}
        odd = {
            case: cell
            for case, cell in cells.items()
            if not (column.categories or is_missing(cell))
            and not math.isfinite(number_in(cell, column.unit))
        }
        if odd:
            notes.append(
                f"Column {name} holds {_listed(odd)}: no number as the model reads them, and "
                "taken as missing."
            )
    return notes


def _by_name(encodings: Sequence[ColumnEncoding]) -> dict[str, list[Column]]:
    columns: dict[str, list[Column]] = {}
    for column in (column for encoding in encodings for column in encoding.columns):
        columns.setdefault(column.name, []).append(column)
    return columns


def _is_unlike(column: Column, cell: str) -> bool:
    if is_missing(cell):
        return False
    if column.categories:
        return cell.strip() not in column.categories
    number = number_in(cell, column.unit)
    return math.isfinite(number) and abs(number - column.middle) > FAR * column.spread


def _known(columns: Sequence[Column]) -> str:
    """What the fits have learnt from."""
    first = columns[0]
    words = sorted({word for column in columns for word in column.categories})
    if words:
        return f"a word that no training case has; they have {listed(words)}"
    unit = f" {first.unit}" if first.unit else ""
    return (
        f"far from those of training cases, about {first.middle:.3g}{unit} with a spread of "
        f"{first.spread:.3g}: perhaps another unit"
    )


def _listed(cells: Mapping[str, str]) -> str:
    return listed([f"{cell!r} ({case})" if case else repr(cell) for case, cell in cells.items()])
