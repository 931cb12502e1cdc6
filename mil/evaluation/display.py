"""Results as plain text: tables, and the one format of estimates and p values."""

from collections.abc import Sequence
from dataclasses import dataclass

from mil.evaluation.intervals import Estimate

UNDEFINED = "undefined"
NO_INTERVAL = " (no interval)"


@dataclass(frozen=True)
class Table:
    """A table of text for the terminal.

    Attributes:
        title: line above the table; may be empty.
        header: names of the columns.
        rows: one text per column.
        notes: lines below the table.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def format_number(value: float | None, digits: int = 2) -> str:
    """A number with a fixed number of digits, or ``undefined``."""
    return UNDEFINED if value is None else f"{value:.{digits}f}"


def format_estimate(estimate: Estimate, digits: int = 2, no_interval: str = NO_INTERVAL) -> str:
    """A number with its 95 % limits.

    Args:
        estimate: the number.
        digits: digits after the point.
        no_interval: text that stands for missing limits.
    """
    if estimate.value is None:
        return UNDEFINED
    value = format_number(estimate.value, digits)
    if estimate.low is None or estimate.high is None:
        return value + no_interval
    return f"{value} ({estimate.low:.{digits}f} to {estimate.high:.{digits}f})"


def format_p(p: float | None) -> str:
    """A p value with three digits; ``< 0.001`` below that."""
    return UNDEFINED if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def state_p(p: float | None) -> str:
    """A p value inside a sentence: ``p = 0.012``, ``p < 0.001``, ``p undefined``."""
    words = format_p(p)
    return f"p {words}" if p is None or words.startswith("<") else f"p = {words}"


def format_count(number: int, noun: str) -> str:
    """``1 slide``, ``2 slides``."""
    return f"{number} {noun}" + ("" if number == 1 else "s")
