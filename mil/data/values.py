"""What a cell of a table means: whether it is missing, which number it holds, what separates columns."""

import math
import re
from pathlib import Path

# Words that spreadsheets, registries and the GDC write where a value is missing.
MISSING_WORDS = frozenset((
    "", "?", "-", "--", "\N{EN DASH}", "\N{EM DASH}", ".", "na", "n/a", "#n/a", "nan", "none", "null",
    "missing", "unknown", "not available", "not applicable", "not evaluated", "not reported", "discrepancy",
))  # fmt: skip
DELIMITERS = ",;\t"  # spreadsheets of many countries write semicolons


def is_missing(text: str) -> bool:
    """Whether a cell holds no value: empty, or one of ``MISSING_WORDS``, with or without brackets."""
    return text.strip().strip("[]<>").strip().casefold() in MISSING_WORDS


def read_number(text: str) -> float:
    """The number in a cell; NaN where it holds none.

    A single comma is a decimal point (4,5 is 4.5), unless it may separate thousands (1,234).
    """
    if re.fullmatch(r"\s*-?(0,\d+|\d+,(\d{1,2}|\d{4,}))\s*", text):
        text = text.replace(",", ".")
    try:
        return float(text)
    except ValueError:
        return math.nan


def guess_delimiter(path: Path) -> str:
    """What separates the columns of a table, judged by its header: a comma, a semicolon or a tab.

    Raises:
        OSError: the file cannot be opened.
        UnicodeDecodeError: it is not UTF-8.
    """
    with path.open(encoding="utf-8-sig") as file:
        return delimiter_in(file.readline())


def delimiter_in(header: str) -> str:
    """The delimiter that occurs most often in a header."""
    return max(DELIMITERS, key=header.count)
