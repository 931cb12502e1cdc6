"""Names and labels that a spreadsheet has changed, or that are codes for what is not known."""

import re
from collections.abc import Iterable, Sequence

from mil.data.quantities import is_date
from mil.errors import CohortError

SHORTENED = re.compile(r"\d[.,]\d+e[+-]?\d+", re.IGNORECASE)  # 1.23E+10 of a long number
DATED = re.compile(
    r"(19|20)\d\d[-._/]?[01]\d|[0-3]\d[-._/][01]\d[-._/](19|20)?\d\d"
)  # a date in a name
WHOLE = re.compile(r"[+-]?\d{1,5}")
CODES = frozenset((-1, -9, -99, -999, 9, 77, 88, 98, 99, 777, 888, 998, 999, 9999))
MOST_CLASSES = 8  # as numbers, beside which 9 or 99 is a code
FIGURE = re.compile(r"\d")
MOST_ALONE = 2  # labels of which one may be a number, as MSI and 0
GAP = 4  # between the largest class and a code


def check_written(
    source: str, column: str, names: Iterable[str], meant: Sequence[str] = ()
) -> None:
    """Refuse names that a spreadsheet has shortened, and labels that it has made dates or that are codes.

    Args:
        source: of the table, for messages.
        column: case, slide or label.
        names: its cells.
        meant: labels that are meant as they are.

    Raises:
        CohortError: naming the cell.
    """
    cells = {*names} - {*meant} - {""}
    if shortened := sorted(filter(SHORTENED.fullmatch, cells)):
        raise CohortError(
            f"{source}: {column} {shortened[0]!r} was shortened by a spreadsheet, so that several names may "
            "have become one. Export the table again with this column as text."
        )
    dates = sorted(filter(is_date, cells))
    if column != "label":
        others = sorted(cells - {*dates})
        if dates and others and not any(map(DATED.search, others)):
            raise CohortError(
                f"{source}: {column} {dates[0]!r} is a date, which spreadsheets make of 1-3 or 3/1, and "
                f"{others[0]!r} is none. Write the name again, as text."
            )
        return
    if dates:
        raise CohortError(
            f"{source}: label {dates[0]!r} is a date, which spreadsheets make of 1-3 or 3/1. Write the class "
            "again, as text; set label_is to it if it is meant."
        )
    if code := code_among(cells):
        raise CohortError(
            f"{source}: label {code!r}, beside {', '.join(sorted(cells - {code}))}, is often a code for one "
            f"that is not known. Leave these cells empty, or set label_is to {code!r} if it "
            "is a class."
        )


def code_among(cells: Iterable[str]) -> str:
    """A number that is a code for a missing one beside small ones, as 9 beside 1, 2 and 3; else empty.

    So is such a number, or 0, beside words: spreadsheets write 0 for a reference to an empty cell.
    """
    cells = {*cells}
    numbers = [*filter(WHOLE.fullmatch, cells)]
    if (
        len(numbers) == 1
        and len(cells) > MOST_ALONE
        and not any(map(FIGURE.search, cells - {*numbers}))
    ):
        return numbers[0] if int(numbers[0]) in CODES | {0} else ""
    if not all(map(WHOLE.fullmatch, cells)):
        return ""
    others = [int(cell) for cell in cells if int(cell) not in CODES]
    if len(others) < 2 or min(others) < 0 or max(others) > MOST_CLASSES:
        return ""
    codes = [cell for cell in sorted(cells) if int(cell) in CODES]
    return next((c for c in codes if not 0 <= int(c) < max(others) + GAP), "")
