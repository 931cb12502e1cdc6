"""What commas and points in numbers separate: decimals, or thousands."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mil.data.quantities import BEHIND, UNITS, plain_unit
from mil.data.values import MOSTLY, PLAIN, without_missing

# Numbers by what is certain of their signs; 1,234 and 1.234 may be read in two ways.
KINDS = tuple(
    (kind, re.compile(f"[+-]?(?:{pattern})"))
    for kind, pattern in (
        ("whole", r"\d+"),
        ("1,234", r"[1-9]\d{0,2},\d{3}"),
        ("1.234", r"[1-9]\d{0,2}\.\d{3}"),
        ("decimal comma", r"\d+,\d+(?:[eE][+-]?\d+)?"),
        ("decimal point", PLAIN.pattern.removeprefix("[+-]?")),
        ("thousands comma", r"\d{1,3}(?:(?:,\d{3})+\.\d+|(?:,\d{3}){2,})"),
        ("thousands point", r"\d{1,3}(?:\.\d{3}){2,}"),
        ("thousands point, decimal comma", r"\d{1,3}(?:\.\d{3})+,\d+"),
    )
)
SPACED = re.compile(
    r"[+-]?[1-9]\d{0,2}(['\u2019\u00a0\u2009\u202f ]\d{3})+([.,]\d+)?"
)  # 1'234, 1 234
AROUND = re.compile(  # >1.234,5 cm
    rf"(?P<before>[<>=\u2264\u2265~]*\s*)(?P<number>[+-]?[\d.,]*\d(?:[eE][+-]?\d+)?)(?P<behind>\s*\+|{BEHIND}|)"
)
SIGN = {"comma": ",", "point": "."}
ENOUGH = 8  # numbers of a column from which three decimals of each are no accident
HUNDREDS = 3  # whole numbers of a column, the largest from 100, beside which 1.234 is one as well


@dataclass(frozen=True)
class Signs:
    """What the columns of a table say of its commas and points.

    Attributes:
        by_columns: commas are decimal where nothing else tells, as what separates the columns says.
        commas: decimal commas occur for certain.
        points: decimal points occur for certain.
        semicolons: stand between the columns.
    """

    by_columns: bool
    commas: bool = False
    points: bool = False
    semicolons: bool = False

    @property
    def points_are_doubtful(self) -> bool:
        """Whether 1.234 may be a thousand."""
        return self.commas or (self.semicolons and not self.points)


@dataclass(frozen=True)
class Pointed:
    """A column whose numbers have a decimal point and nothing between thousands.

    Attributes:
        cells: of the column.
        unclear: places of cells that may be read in two ways, and are left as they are.
        settled: places of cells that could be read in two ways, had the others not told.
        sign: the one that may be read in two ways: comma or point.
    """

    cells: tuple[str, ...]
    unclear: tuple[int, ...] = ()
    settled: tuple[int, ...] = ()
    sign: str = ""


def signs_of(columns: Sequence[Sequence[str]], delimiter: str) -> Signs:
    """What the columns of a table say of its commas and points together.

    Args:
        columns: cells of each.
        delimiter: between the cells of the file; empty in a workbook.
    """
    kinds = {_kind(_number_in(cell.strip())) for cells in columns for cell in {*cells}}
    return Signs(
        by_columns=delimiter not in (",", ""),
        commas=any(kind.endswith("decimal comma") for kind in kinds),
        points=bool(kinds & {"decimal point", "thousands comma"}),
        semicolons=delimiter == ";",
    )


def with_points(cells: Sequence[str], signs: Signs) -> Pointed:
    """A column with decimal points. What a sign means is decided for the whole column; words stay.

    Args:
        cells: of one column.
        signs: of its table.
    """
    cells = [re.sub(r"[^\d.,+-]", "", c) if SPACED.fullmatch(c) else c for c in cells]
    present = [(i, cell) for i, cell in enumerate(without_missing(cells)) if re.search(r"\d", cell)]
    numbers = {i: number for i, cell in present if (number := _number_in(cell))}
    kinds = {i: kind for i, number in numbers.items() if (kind := _kind(number))}
    occurring = {*kinds.values()}
    if occurring <= {"whole", "decimal point"} or len(kinds) < MOSTLY * len(present):
        return Pointed(tuple(cells))
    written = [numbers[i] for i in kinds]
    for sign, either, decimal in (
        ("comma", "1,234", _comma_is_decimal(occurring, written, signs)),
        ("point", "1.234", _point_is_decimal(occurring, written, signs)),
    ):
        if decimal is None:
            starts = (either, f"thousands {sign}")
            unclear = tuple(i for i, kind in kinds.items() if kind.startswith(starts))
            return Pointed(tuple(cells), unclear=unclear, sign=sign)
        if not decimal:
            numbers = {i: number.replace(SIGN[sign], "") for i, number in numbers.items()}
    doubtful = {"1.234"} if signs.points_are_doubtful else set[str]()
    if _beside_hundreds(written) and occurring <= {"whole", "1,234", "1.234"}:
        doubtful |= {"1,234", "1.234"}
    settled = [i for i, kind in kinds.items() if kind in doubtful]
    for i in kinds:
        around = AROUND.fullmatch(cells[i])
        pointed = numbers[i].replace(",", ".")
        cells[i] = f"{around['before']}{pointed}{around['behind']}" if around else pointed
    return Pointed(tuple(cells), settled=tuple(settled), sign="point")


def _number_in(cell: str) -> str:
    """The number of a cell that may be a limit, or have a known unit behind it; empty of any other."""
    match = AROUND.fullmatch(cell.replace("\N{MINUS SIGN}", "-"))
    behind = match["behind"].strip() if match else ""
    return match["number"] if match and (behind in ("", "+") or plain_unit(behind) in UNITS) else ""


def _comma_is_decimal(kinds: set[str], cells: Sequence[str], signs: Signs) -> bool | None:
    """Whether the commas of a column are decimal; None where they may be either."""
    decimal = any(kind.endswith("decimal comma") for kind in kinds)
    thousands = "thousands comma" in kinds
    if decimal or thousands:
        return None if decimal and thousands else decimal
    if "1,234" not in kinds:
        return True
    # Decimal points say that the comma is none, and what separates the columns says that it is.
    points = "decimal point" in kinds or (signs.points and not signs.commas)
    if not signs.by_columns or points:
        return None
    if kinds == {"whole", "1,234"} and (n_whole := _beside_hundreds(cells)):
        return False if n_whole >= HUNDREDS else None
    return None if all(cell.endswith(",000") for cell in cells) else True


def _point_is_decimal(kinds: set[str], cells: Sequence[str], signs: Signs) -> bool | None:
    """Whether the points of a column are decimal; None where they may be either."""
    decimal = bool(kinds & {"decimal point", "thousands comma"})
    thousands = any(kind.startswith("thousands point") for kind in kinds)
    if decimal or thousands:
        return None if decimal and thousands else decimal
    if "1.234" not in kinds:
        return True
    if "decimal comma" in kinds:
        return None
    n_whole = _beside_hundreds(cells) if kinds == {"whole", "1.234"} else 0
    if n_whole >= HUNDREDS:
        return False
    if not (signs.points_are_doubtful or (signs.by_columns and n_whole)):
        return True
    rounded = sum(cell.endswith("0") for cell in cells)
    uniform = kinds == {"1.234"} and len(cells) >= ENOUGH and 2 * rounded <= len(cells)
    return True if uniform and not signs.commas else None


def _beside_hundreds(cells: Sequence[str]) -> int:
    """How many of the numbers are whole, where they reach the hundreds, so that 1.234 is one as well; else 0.

    Of decimals hardly all would have three digits or none.
    """
    whole = [abs(int(cell)) for cell in cells if "." not in cell and "," not in cell]
    return len(whole) if max(whole, default=0) >= 100 else 0


def _kind(cell: str) -> str:
    """Of a number, as ``KINDS`` names it; empty for anything else."""
    return next((kind for kind, pattern in KINDS if pattern.fullmatch(cell)), "")
