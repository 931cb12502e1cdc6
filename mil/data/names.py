"""When two spellings are one name: a case written twice must not be trained on and tested."""

import re
import unicodedata
from collections.abc import Iterable

from mil.errors import CohortError

# Cyrillic and Greek letters that look like Latin ones, small or capital.
LOOKALIKES = str.maketrans("авекмнорстухіјѕαβεζηικμνορτυχ", "abekmhopctyxijsabezhikmnoptyx")

NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")
NEGATIVE = re.compile(r"[-\u2010-\u2015\u2212]\W*$")  # MDM2-, (-)
OF_A_PERSON = ("case", "slide")  # names in which a dash at the end is a slip


def matching(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """Those of the names, sorted, that are among the others in any spelling: Case_01 is case-01."""
    known = set(map(normalised, others))
    return sorted({name for name in names if normalised(name) in known})


def normalised(name: str) -> str:
    """A name without what the eye does not tell apart, or a hand writes now so and now otherwise.

    Equal numbers are one name: 7, 007 and 7.0. A dash counts between two digits alone, where it tells 1-12
    from 11-2, and before a number. The signs + < > = count.
    """
    seen = unicodedata.normalize("NFKC", name).casefold().translate(LOOKALIKES).strip()
    seen = "".join(letter for letter in seen if unicodedata.category(letter) != "Cf")  # invisible
    if NUMBER.fullmatch(seen):
        whole, _, decimals = seen.removeprefix("+").replace(",", ".").partition(".")
        sign, digits = "-" * whole.startswith("-"), whole.lstrip("-0")
        return f"{sign}{digits or 0}.{decimals.rstrip('0')}".removesuffix(".")
    parts = re.sub(r"[^\w+<>=]+|_+", "-", seen.replace("\u2264", "<=").replace("\u2265", ">="))
    return re.sub(r"(?<!\d)(?<!^)-|-(?!\d)", "", re.sub(r"-+", "-", parts))


def check_spelling(source: str, column: str, names: Iterable[str]) -> None:
    """Refuse one name in two spellings: other capitals, spaces, dashes or dots, or 7 and 007.

    A dash at the end of a label counts, as in MDM2-.

    Raises:
        CohortError: naming both.
    """
    spellings: dict[tuple[str, bool], str] = {}
    for name in names:
        negative = column not in OF_A_PERSON and bool(NEGATIVE.search(name))
        twin = spellings.setdefault((normalised(name), negative), name)
        if twin != name:
            raise CohortError(
                f"{source}: {column} {twin!r} and {name!r} differ in spelling only. Write them alike if they "
                "are the same, or make the difference plain."
            )


def find_column(name: str, columns: Iterable[str]) -> str | None:
    """The column that is called so, or else so without regard to capitals, blanks and underscores."""
    columns = list(columns)
    if name in columns:
        return name
    alike = [column for column in columns if plain_header(column) == plain_header(name)]
    return alike[0] if len(alike) == 1 else None


def plain_header(name: str) -> str:
    """The name of a column without capitals, blanks, underscores, dots and dashes."""
    return re.sub(r"[\s_.\-]+", "", name.casefold())
