"""How numbers, p values and names are written on a page."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

DASH = "\N{EN DASH}"


def percent(share: float, digits: int = 0) -> str:
    """A share in per cent; only exactly 0 and 1 are written as 0 % and 100 %."""
    text = f"{100 * share:.{digits}f}"
    if float(text) in {0.0, 100.0} and share not in {0.0, 1.0}:
        if digits == 0:
            return percent(share, 1)
        step = 10.0**-digits
        text = f"< {step:g}" if share < 0.5 else f"> {100 - step:g}"
    return f"{text}\N{NO-BREAK SPACE}%"


def between(shares: Sequence[float | None]) -> str:
    """The range of shares, e.g. limits of an interval or values over repeats: 70 to 97 %."""
    known = [share for share in shares if share is not None]
    if not known:
        return DASH
    low, high = percent(min(known)), percent(max(known))
    return high if low == high else f"{low[:-2]} to {high}"


def cell(value: object) -> str:
    """A value of the cohort table."""
    if value is None or value is pd.NA or value != value or value == "":
        return DASH
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return count(int(value))
    return f"{value:g}" if isinstance(value, (float, np.floating)) else str(value)


def count(number: int) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def correct(cases: float, repeats: int) -> str:
    """Cases classified correctly: a whole number, or a mean over repeats with one decimal."""
    return f"{cases:.0f}" if repeats == 1 else f"{cases:.1f}"


def in_units(time: float | None, unit: str) -> str:
    """A time with its unit."""
    return "not reached" if time is None else f"{time:.4g} {unit}"


def sentence(text: str, name: str = "") -> str:
    """The text with a capital and a full stop; a name at its start, as of a slide or a file, stays as it is.

    Args:
        text: not empty.
        name: of the slide that it is about.

    Example:
        >>> sentence("too few tiles"), sentence("case-7.svs: no tile.")
        ('Too few tiles.', 'case-7.svs: no tile.')
    """
    is_name = bool(name and text.startswith(name)) or not text.split()[0].isalpha()
    start = text if is_name else text[0].upper() + text[1:]
    return start if start.endswith(".") else f"{start}."
