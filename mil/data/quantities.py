"""Numbers with a unit, and dates, in the cells of a table."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from datetime import date

PLAIN_UNITS = (
    "%", "‰", "x", "u/l", "iu/l", "g/dl", "g/l", "mmol/l", "mg/dl", "pg/ml", "u/ml", "miu/ml",
    "mut/mb", "mm/h", "cells/mm2", "/hpf", "hpf", "°c", "/mm2", "/10hpf", "hu", "suv", "mmhg",
)  # fmt: skip
# Of one kind in each line, with factors to the first.
_KINDS = (
    "mm cm=10 dm=100 m=1000 um=1e-3 nm=1e-6",
    "in inch inches",
    "mm2 cm2=100",
    "ml cc cm3 ccm mm3=1e-3 l=1000",
    "d day days tag tage tagen t jours dias giorni dagen",
    "wk wks week weeks woche wochen semaines semanas settimane weken",
    "mo mon mos mth mths month months monat monate monaten mois mes meses mesi maanden",
    "y yr yrs yo y/o year years jahr jahre jahren an ans j j. anos años anni jaar",
    "h hr hrs hour hours std stunden",
    "g kg=1000 mg=1e-3",
    "gy cgy=1e-2",
    "kg/m2 kg/m^2",
    "m2 qm",
    # Cells of the blood: a billion per litre is a thousand per microlitre.
    "10^9/l g/nl /nl 10^3/ul 10^3/mm3 k/ul tsd/ul tsd./ul gpt/l /ul=1e-3 /mcl=1e-3",
    "10^12/l 10^6/ul 10^6/mm3 mio/ul mio./ul tpt/l /pl",
    "ug/l mcg/l ng/ml",
    "umol/l",
)
UNITS: dict[str, tuple[str, float]] = {word: (word, 1.0) for word in PLAIN_UNITS} | {
    word: (kind.split()[0], float(factor or 1))
    for kind in _KINDS
    for word, _, factor in (part.partition("=") for part in kind.split())
}
POWER = r"10\s*(?:\^|\*\*?|e)?\s*(?P<power>\d{1,2})\s*/"  # 10^9/l, 10e9/l, 10*9/l, 109/l
BEHIND = rf"\s*[^\d\s.,+-].*|\s+{POWER}.+"
QUANTITY = re.compile(rf"(?P<number>[+-]?[\d.,]*\d)(?P<unit>{BEHIND})")
TIMES = re.compile(r"[x*\u00d7\u00b7]?" + POWER)
QUALIFIED = re.compile(  # ca. 4, ~4, <4, 4?, 4*, 4 cm (MRI)
    r"(?:ca\.?|circa|approx\.?|about|etwa|[~<>=\u2248\u2264\u2265]+)?\s*(?P<number>\d[\d.,]*)"
    r"\s*(?P<unit>[^\d\W]+|%)?\s*(?:[?*]+|\(.*\))?",
    re.IGNORECASE,
)
_SIZE = r"[\d.,]+\s*(?:[a-zµμ]{1,2})?"
PRODUCT = re.compile(  # 4x3, 4 cm x 3 cm, 45±3
    rf"{_SIZE}(?:\s*(?:[x*\u00d7\u00b1]|\+/-|\+-)\s*{_SIZE})+", re.IGNORECASE
)
RATIO = re.compile(  # nodes 3/20, 120/80; 8890/3 is a code of morphology
    r"(?!\d{4}/\d$)\d+\s*(?:/|:|of|von|sur|de|di|out of)\s*\d+", re.IGNORECASE
)
# Of seven languages, whole or by their first three or four letters.
_MONTHS = (
    "january february march april may june july august september october november december januar februar"
    " märz mrz mai juni juli oktober dezember janvier février mars avril juin juillet août septembre octobre"
    " novembre décembre enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre"
    " diciembre gennaio febbraio aprile maggio giugno luglio settembre ottobre dicembre janeiro fevereiro"
    " março maio junho julho setembro outubro novembro dezembro januari februari maart mei augustus"
)
MONTH = "|".join(
    sorted(
        {start for name in _MONTHS.split() for start in (name, name[:4], name[:3])},
        key=len,
        reverse=True,
    )
)
ISO = re.compile(
    r"(?P<y>(?:19|20)\d\d)[-/.](?P<m>0?[1-9]|1[0-2])(?:[-/.](?P<d>\d{1,2}))?(?:[ T]\d\d:\d\d.*)?"
)
MONTH_YEAR = re.compile(r"(?P<m>0?[1-9]|1[0-2])[-/.](?P<y>(?:19|20)\d\d)")
DAY_FIRST = re.compile(r"(?P<d>\d{1,2})[-/.](?P<m>\d{1,2})[-/.](?P<y>\d{4}|\d\d)")
IN_WORDS = re.compile(  # 3. Mai, Mar-01, 12 Jan 2019
    rf"(?=.*\d)(?:\d{{1,2}}(?:\.|st|nd|rd|th)?[ -]?)?(?:{MONTH})\.?(?:[ -]?\d{{1,2}},?)?(?:[ -]?\d{{4}})?",
    re.IGNORECASE,
)


def read_unit(text: str) -> tuple[str, str]:
    """The number of a cell, as text, and the unit behind it in small letters; empty where it has none."""
    match = QUANTITY.fullmatch(_plain(text))
    return (match["number"], plain_unit(match["unit"])) if match else ("", "")


def plain_unit(unit: str) -> str:
    """A unit in small letters without blanks, raised digits and a dot at its end: mm² is mm2, µl is ul."""
    plain = re.sub(r"\s+", "", _plain(unit).casefold()).replace("\N{GREEK SMALL LETTER MU}", "u")
    plain = TIMES.sub(lambda match: f"10^{int(match['power'])}/", plain)
    return plain if plain in UNITS or not plain.endswith(".") else plain[:-1]


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text.strip()).replace("\N{MINUS SIGN}", "-")


def factor_between(unit: str, other: str) -> float | None:
    """What a number in one unit is multiplied by in another; None where they measure different things."""
    unit, other = plain_unit(unit), plain_unit(other)
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
    return any(kind.fullmatch(cell) for kind in (ISO, DAY_FIRST, MONTH_YEAR, IN_WORDS))
