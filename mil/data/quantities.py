"""Numbers with a unit, and dates, in the cells of a table."""

import re
from collections import Counter
from collections.abc import Sequence
from datetime import date

PLAIN_UNITS = (
    "%", "‰", "x", "u/l", "iu/l", "g/dl", "g/l", "mmol/l", "mg/dl", "pg/ml", "u/ml", "miu/ml", "k/ul",
    "mut/mb", "mm/h", "cells/mm2", "/hpf", "hpf", "°c", "/mm2", "/mm²", "/10hpf", "hu", "suv", "mmhg",
)  # fmt: skip
# Factors to the first unit of each line.
UNITS: dict[str, tuple[str, float]] = {
    word: (words.split()[0], factor)
    for words, factors in (
        ("mm cm dm m µm um μm nm", (1, 10, 100, 1000, 1e-3, 1e-3, 1e-3, 1e-6)),
        ("in inch inches", (1, 1, 1)),
        ("mm2 mm² cm2 cm²", (1, 1, 100, 100)),
        ("ml cc cm3 cm³ mm3 mm³ l", (1, 1, 1, 1, 1e-3, 1e-3, 1000)),
        ("d day days tag tage t", (1,) * 6),
        ("wk week weeks woche wochen", (1,) * 5),
        ("mo mon month months monat monate monaten", (1,) * 7),
        ("y yr yrs yo year years jahr jahre jahren ans j j.", (1,) * 12),
        ("g kg mg", (1, 1000, 1e-3)),
        ("gy cgy", (1, 1e-2)),
        ("kg/m2 kg/m² kg/m^2", (1, 1, 1)),
        ("x10^9/l x10e9/l g/nl /nl", (1,) * 4),
        ("ug/l µg/l μg/l ng/ml", (1,) * 4),
        ("umol/l µmol/l μmol/l", (1, 1, 1)),
        ("/ul /µl /μl", (1, 1, 1)),
        ("m2 m² qm", (1, 1, 1)),
        ("h hr hrs hour hours std", (1,) * 6),
        *((word, (1,)) for word in PLAIN_UNITS),
    )
    for word, factor in zip(words.split(), factors, strict=True)
}  # fmt: skip
QUANTITY = re.compile(r"(?P<number>[+-]?[\d.,]*\d)\s*(?P<unit>[^\d\s.,+-].*)")
QUALIFIED = re.compile(  # ca. 4, ~4, <4, 4?, 4*, 4 cm (MRI)
    r"(?:ca\.?|circa|approx\.?|about|etwa|[~<>=\u2248\u2264\u2265]+)?\s*(?P<number>\d[\d.,]*)"
    r"\s*(?P<unit>[^\d\W]+|%)?\s*(?:[?*]+|\(.*\))?",
    re.IGNORECASE,
)
PRODUCT = re.compile(r"[\d.,]+(\s*[x*\u00d7]\s*[\d.,]+)+(\s*[a-zµ]+)?", re.IGNORECASE)
MONTH = "jan|feb|mar|mär|mrz|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez|ene|abr|ago|dic|fév|avr|aoû|déc"
ISO = re.compile(
    r"(?P<y>(?:19|20)\d\d)[-/.](?P<m>0?[1-9]|1[0-2])(?:[-/.](?P<d>\d{1,2}))?(?:[ T]\d\d:\d\d.*)?"
)
DAY_FIRST = re.compile(r"(?P<d>\d{1,2})[-/.](?P<m>\d{1,2})[-/.](?P<y>\d{4}|\d\d)")
IN_WORDS = re.compile(rf"(\d{{1,2}}\.?[ -]?)?({MONTH})[a-zä]*\.?[ -]?\d{{0,4}}", re.IGNORECASE)


def read_unit(text: str) -> tuple[str, str]:
    """The number of a cell, as text, and the unit behind it in small letters; empty where it has none."""
    match = QUANTITY.fullmatch(text.strip().replace("\N{MINUS SIGN}", "-"))
    return (match["number"], re.sub(r"\s+", "", match["unit"].casefold())) if match else ("", "")


def factor_between(unit: str, other: str) -> float | None:
    """What a number in one unit is multiplied by in another; None where they measure different things."""
    if unit == other:
        return 1.0
    (base, factor), (other_base, other_factor) = (UNITS.get(u, (u, 1.0)) for u in (unit, other))
    return factor / other_factor if base == other_base else None


def common_unit(cells: Sequence[str]) -> str:
    """The commonest known unit of some cells; empty where none has one."""
    units = Counter(unit for _, unit in map(read_unit, cells) if unit in UNITS)
    return units.most_common(1)[0][0] if units else ""


def read_dates(cells: Sequence[str]) -> list[float] | None:
    """Days of a column of dates, NaN where a cell is empty; None where another cell is no date.

    The middle of 03/25/2020 tells that the month goes first; 03/04/2020 is taken as the third of April.
    """
    matches = [
        (ISO.fullmatch(cell) or DAY_FIRST.fullmatch(cell)) if cell else None for cell in cells
    ]
    parts = [(int(m["y"]), int(m["m"]), int(m["d"] or 15)) if m else None for m in matches]
    if not any(parts) or any(cell and not part for cell, part in zip(cells, parts, strict=True)):
        return None
    month_first = any(part and part[1] > 12 for part in parts)
    try:
        return [
            float("nan") if part is None
            else float(date(part[0], *(part[:0:-1] if month_first else part[1:])).toordinal())
            for part in parts
        ]  # fmt: skip
    except ValueError:
        return None


def is_date(cell: str) -> bool:
    """Whether a cell is a date, in numbers or with the name of a month."""
    return bool(ISO.fullmatch(cell) or DAY_FIRST.fullmatch(cell) or IN_WORDS.fullmatch(cell))
