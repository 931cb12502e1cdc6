"""What a cell of a table means: whether it is missing, and which number it holds."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from features.columns.missing_words import MISSING_WORDS
from features.columns.spelling import without_accents
from mil.data.quantities import (
    PRODUCT,
    QUALIFIED,
    RATIO,
    UNITS,
    common_unit,
    factor_between,
    is_date,
    read_unit,
)

_MISSING = MISSING_WORDS | {without_accents(word) for word in MISSING_WORDS}
ABBREVIATED = re.compile(
    r"(?:[^\W\d_]\.\s?){2,4}|(?:[^\W\d_]\s){1,3}[^\W\d_]|[^\W\d_](?:\s?/\s?[^\W\d_])+"
)  # n. d., k A
_ABBREVIATIONS = {re.sub(r"[.\s/]", "", word) for word in _MISSING if ABBREVIATED.fullmatch(word)}
_REPORT = (
    "(?:results?|reviews?|reports?|diagnosis|pathology|histology|confirmation|analysis|data|tests?|befunde?|ergebnis(?:se)?"
    "|diagnose|histologie|analyse|r[ée]sultats?|resultados?|risultat[oi])"
)
AWAITED = re.compile(  # results pending, Befund ausstehend, TODO, xxx
    rf"{_REPORT} (?:pending|awaited|ausstehend|steht aus|en attente|pendientes?|in attesa|pendentes?)"
    rf"|(?:pending|awaiting) {_REPORT}|to ?do|x{{3,}}"
)
IN_BRACKETS = frozenset(("completed", "redacted"))  # missing only as the GDC writes them
MISSING_SIGNS = re.compile(
    r"[\s?._/\\*\u00b7\u2022\u2026\u2010-\u2015\u2212-]*"
)  # and nothing else in the cell
INVISIBLE = re.compile("[\u200b-\u200d\u2060\ufeff]")
REMARK = re.compile(r"(.+?)(?:\s*[(\[](.+)[)\]]|\s*[,;:\u2013-]\s+(.+))")  # N/A (not tested)
BRACKETS = re.compile(r"[\[(<](.*)[\])>]")
PLUS = re.compile(r"\(?\++\)?")  # a column with such cells means negative by a dash
DASH = re.compile(r"\(?[\u2010-\u2015\u2212-]+\)?")
# Words for a missing value that may also say that something is not there.
NOT_THERE = frozenset(("none", "nil", "nd", "n.d.", "n/d", "undetermined"))
POSITIVE = re.compile(
    r"\S*\+|(.* )?(pos|positive?|positivo|p|y|yes|ja|j|oui|o|s[ií]|true|t|present|vorhanden|detected"
    r"|mutant|mutated|mut|amp|amplified|amplifiziert|fused|rearranged|translocated|lost|loss|gain"
    r"|mild|moderate|severe|minimal|marked|focal|diffuse|extensive|some|few|many)\.?"
)
NEGATIVE = re.compile(
    r"\S+-|(.* )?(neg|negative?|negativo|n|no|nein|non|false|f|0|0\.0|absent|undetected|unmutated"
    r"|wild.?type|wt|not \w+|non.?amplified|unamplified|normal|intact|retained|kept)\.?"
)

# Yes and no, as spreadsheets of several countries and programs write them.
TRUE_WORDS = frozenset((
    "1", "1.0", "1.", "true", "t", "yes", "y", "ja", "j", "wahr", "oui", "o", "vrai", "si", "sí", "s",
    "verdadero", "vero", "x", "sim", "tak", "да", "evet", "是", "はい", "예",
))  # fmt: skip
FALSE_WORDS = frozenset((
    "0", "0.0", "0.", "false", "f", "no", "n", "nein", "falsch", "non", "faux", "falso", "nee", "nej", "nei",
    "não", "nao", "nie", "нет", "否", "いいえ", "아니요",
))  # fmt: skip

EXPLAINED = re.compile(r"(?P<code>\d{1,2})\s*\((?P<word>[^\W\d].*)\)")
PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
COMMA = re.compile(  # is decimal
    r"[+-]?(0,\d+|\d{4,},\d+|\d+,(\d{1,2}|\d{4,})|\d{1,3}(\.\d{3})+,\d+|\d+,\d+(?=[eE]))([eE][+-]?\d+)?"
)
LIMIT = re.compile(
    r"(?:[<>\u2264\u2265]=?|=[<>])\s*(?P<of>\S.*)|(?P<from>[\d.,]+)\s*\+"
)  # >89, 90+
MANY = 5  # different numbers from which a column is hardly one of codes
MOSTLY = 0.8  # share of numbers from which a column is one of numbers


def is_missing(text: str) -> bool:
    """Whether a cell holds no value: empty, signs only, or one of ``MISSING_WORDS``, also in brackets.

    So does such a word with another as a remark, as in ``N/A (not tested)``.
    """
    word = INVISIBLE.sub("", text).strip().removeprefix("'").strip().casefold()
    if _all_missing(re.split(r"\s*[|/;,]\s*", word), several="|" in word):
        return True
    word = re.sub(r"\s*/\s*", "/", word.replace("_", " ").strip() or word)
    inside = BRACKETS.fullmatch(word)
    bare = inside.group(1).strip() if inside else word
    if word.startswith("[") and word.endswith("]") and bare in IN_BRACKETS:
        return True
    if word in _MISSING or bare in _MISSING or MISSING_SIGNS.fullmatch(bare):
        return True
    if ABBREVIATED.fullmatch(bare) and re.sub(r"[.\s/]", "", bare) in _ABBREVIATIONS:
        return True
    if AWAITED.fullmatch(bare):
        return True
    if word.startswith("n/a not "):  # as SEER writes: N/A not seq 0-59
        return True
    remark = REMARK.fullmatch(word)
    return remark is not None and all(map(is_missing, filter(None, remark.groups())))


def _all_missing(parts: Sequence[str], *, several: bool) -> bool:
    """Whether a cell of several values, one for each sample of a case, holds none; n/a is one word."""
    several = several or (len(parts) > 1 and all(len(part) > 1 for part in parts))
    return several and all(map(is_missing, parts))


def without_missing(cells: Sequence[str], meant: Sequence[str] = ()) -> list[str]:
    """The cells of a column, empty where they are missing.

    A dash in a column that also holds a plus is a value: positive and negative.

    Args:
        cells: of one column.
        meant: words that are values here, however they read.
    """
    signs = any(PLUS.fullmatch(cell.strip()) for cell in cells)

    def is_value(cell: str) -> bool:
        return cell in meant or (signs and bool(DASH.fullmatch(cell))) or not is_missing(cell)

    return [cell if is_value(cell) else "" for cell in map(str.strip, cells)]


def doubtful_word(
    cells: Sequence[str], meant: Sequence[str] = (), *, of_labels: bool = False
) -> tuple[str, str] | None:
    """A word that is read as missing and may say that something is not there, as a dash beside ``pos``.

    So may a dash, or none, where a column says positive of some cases and negative of no other. In labels so
    does one that stands beside a single other value, and none in small letters; None is left to programs.

    Args:
        cells: of one column.
        meant: words that are values here, however they read.
        of_labels: whether the column holds the labels.

    Returns:
        The word and a value beside it, as they are written; None where there is no doubt.
    """
    blanked = without_missing(cells, meant)
    values = {cell.casefold(): cell for cell in blanked if cell}
    words = [
        cell
        for cell, value in zip(map(str.strip, cells), blanked, strict=True)
        if not value and (DASH.fullmatch(cell) or cell.casefold() in NOT_THERE)
    ]
    negative = [value for value in values if NEGATIVE.fullmatch(value)]
    if not words or not values or (negative and len(values) > 1):
        return None
    beside = next((cell for value, cell in values.items() if POSITIVE.fullmatch(value)), "")
    by_hand = [word for word in words if word != "None"]  # which Python writes
    if of_labels and not beside:
        words = by_hand if len(values) == 1 else [word for word in by_hand if word == "none"]
        beside = next(iter(values.values()))
    return (words[0], beside) if words and beside else None


def read_number(text: str) -> float:
    """The number in a cell; NaN where it holds none.

    A single comma is a decimal point (4,5 is 4.5), unless it may separate thousands (1,234).
    """
    text = text.strip().replace("\N{MINUS SIGN}", "-")
    if COMMA.fullmatch(text) and "." not in text:
        text = text.replace(",", ".")
    return float(text) if PLAIN.fullmatch(text) else math.nan


def number_in(text: str, unit: str) -> float:
    """The number in a cell of a column in a unit, which the cell may have, or a multiple of it, or none.

    Of a cell that says more or less than a number, as ``>89`` and ``90+``, it is that number.
    """
    number = _exact_number(text, unit)
    if math.isfinite(number) or not (limit := LIMIT.fullmatch(text.strip())):
        return number
    return _exact_number(limit["of"] or limit["from"], unit)


def _exact_number(text: str, unit: str) -> float:
    number = read_number(text)
    if not unit or math.isfinite(number):
        # .45 among percentages may be a share.
        return math.nan if unit == "%" and 0 < number < 1 else number
    digits, own = read_unit(text)
    factor = factor_between(own, unit)
    return read_number(digits) * factor if factor else math.nan


@dataclass(frozen=True)
class Numbers:
    """A column of numbers.

    Attributes:
        values: one per case; NaN where the cell is missing or odd.
        odd: places of cells that hold something else than a number.
        unit: of the values, where most cells have one behind the number.
        limits: places of cells that say more or less than their value, as ``>89``.
    """

    values: tuple[float, ...]
    odd: tuple[int, ...]
    unit: str = ""
    limits: tuple[int, ...] = ()


def read_numbers(cells: Sequence[str]) -> Numbers | None:
    """A column as numbers; None where it is empty, or more than a fifth of its values are none.

    Where four of five have a unit behind the number, all are read in the commonest of these.
    """
    present = without_missing(cells)
    n_present = sum(map(bool, present))
    unit = common_unit(present)
    if unit and sum(bool(read_unit(cell)[1]) for cell in present) < MOSTLY * n_present:
        unit = ""
    values = tuple(number_in(cell, unit) for cell in present)
    inexact = [
        i for i, cell in enumerate(present) if cell and not math.isfinite(_exact_number(cell, unit))
    ]
    if not n_present or n_present - len(inexact) < MOSTLY * n_present:
        return None
    values = tuple(value if math.isfinite(value) else math.nan for value in values)
    odd = tuple(i for i in inexact if math.isnan(values[i]))
    limits = tuple(i for i in inexact if not math.isnan(values[i]))
    return Numbers(values, odd, unit, limits)


def unclear_numbers(cells: Sequence[str]) -> tuple[str, list[str]] | None:
    """Why a column that looks like numbers is none, and the cells; None for numbers and for plain words.

    Dates; sizes such as 4x3; many different ratios such as 3/20; numbers of which some have a unit, or all an
    unknown one; more than a fifth of other cells among many different numbers.
    """
    present = [cell for cell in without_missing(cells) if cell]
    if not present or read_numbers(cells):
        return None
    enough = MOSTLY * len(present)
    for reason, of_kind in (
        ("holds dates", is_date),
        ("holds several numbers in a cell", PRODUCT.fullmatch),
    ):
        if sum(map(bool, map(of_kind, present))) >= enough:
            return reason, present
    ratios = {cell for cell in present if RATIO.fullmatch(cell)}
    if len(ratios) >= MANY and sum(cell in ratios for cell in present) >= enough:
        return "holds several numbers in a cell", present
    units = [read_unit(cell)[1] for cell in present]
    plain = [math.isfinite(read_number(cell)) for cell in present]
    known = [bool(unit and common_unit([cell])) for unit, cell in zip(units, present, strict=True)]
    if any(known) and sum(known) + sum(plain) >= enough:
        return "holds numbers in several units, or with and without one", present
    # One letter behind a number may make a class, as in 2a.
    one_unit = len({*units}) == 1 and (len(units[0]) > 1 or units[0] in "$€£°")
    if one_unit and units[0] and len({*present}) > 2:
        return (
            f"holds numbers with {units[0]!r} behind them, which is no unit that is known",
            present,
        )
    if _explains_codes(present):
        return None
    numbers = [_qualified(cell) for cell in present]
    if (
        2 * sum(map(math.isfinite, numbers)) >= len(present)
        and len({*numbers} - {math.nan}) >= MANY
    ):
        odd = [cell for cell, number in zip(present, plain, strict=True) if not number]
        return "holds numbers and other cells", odd
    return None


def _explains_codes(cells: Sequence[str]) -> bool:
    """Whether each number of a column has a remark of its own, as in 0 (none) and 1 (focal)."""
    matches = [EXPLAINED.fullmatch(cell) for cell in cells]
    pairs = {(match["code"], match["word"].casefold()) for match in matches if match}
    codes, words = ({pair[i] for pair in pairs} for i in range(2))
    return all(matches) and len(codes) == len(words) == len(pairs) < len(cells)


def _qualified(cell: str) -> float:
    """The number of a cell that may say more of it, as ca. 4 and 4 cm?; NaN for classes such as 2a."""
    match = QUALIFIED.fullmatch(cell)
    if not match or (match["unit"] and match["unit"].casefold() not in UNITS):
        return math.nan
    return read_number(match["number"])
