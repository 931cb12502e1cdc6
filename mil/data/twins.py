"""Cases under two names that may be one patient, as equal facts show: a birth date and sex, or all facts."""

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from features.columns.spelling import plain_header, without_accents
from features.summary import listed
from mil.data.case import Case, Row
from mil.data.columns import numbers_rows
from mil.data.quantities import DAY_FIRST, ISO, read_dates
from mil.data.values import is_missing, read_numbers

BIRTH = re.compile(
    "(?:patient(?:en|s)?)?(?:dob|birth(?:date|day)?|date(?:of)?birth|born(?:on)?|geburts(?:datum|tag)"
    "|geb(?:datum|am|dat)?|(?:date|jour)de(?:la)?naissance|naissance|ddn|fecha(?:de)?nac(?:imiento)?|nacimiento"
    "|data(?:di|de)?nasc(?:ita|imento)|nascita|nascimento|geboortedatum|fodelsedatum|fodselsdato|dataurodzenia"
    "|датарождения|生年月日|出生日期|出生年月日|생년월일)"
)
SEX = re.compile(
    "(?:patient(?:en|s)?)?(?:sex|gender|geschlecht|sexe|sexo|sesso|genere|genero|geslacht|kon|kjonn|plec|пол|性别"
    "|性別|성별)"
)
SERIAL = re.compile(r"[1-4]\d{4}")  # a day, as a spreadsheet counts it
FIRST_DAY = 693_594  # of a spreadsheet, as Python counts days
BORN_OVER = 60 * 365  # days over which the patients of a study are born, about
MOST_BY_CHANCE = 3.0  # pairs born on one day, from which they tell nothing
MOST_ON_A_DAY = 3  # patients; more have a day in the place of an unknown one
ENOUGH = 0.1  # pairs born on one day by chance from which it is said how many
NEVER = 0.01  # pairs that would agree in all facts by chance, at most
FINE, MANY = 2, 10  # columns of so many different values, without which facts are too coarse

Pair = tuple[str, str]


def note_twins(cases: Sequence[Row | Case]) -> list[str]:
    """Remarks on cases that may be one patient under two names; none without any.

    Args:
        cases: or rows of a table, of which the first of each case counts.
    """
    first = {_name(case): case for case in reversed(cases)}
    unique = [first[name] for name in sorted(first)]
    if not unique or not unique[0].other:
        return []
    notes, born = [], _born_alike(unique)
    remedy = (
        "If these are one patient, give both names one case: else a model is tested on what it was trained "
        "on."
    )
    by_chance = len(unique) * (len(unique) - 1) / 2 / BORN_OVER
    if born and by_chance < MOST_BY_CHANCE:
        chance = f" (by chance about {by_chance:.1g} would)" if by_chance >= ENOUGH else ""
        notes.append(f"{_pairs(born)} have the same date of birth{chance}. {remedy}")
    if alike := sorted({*_alike_in_all(unique)} - {*born}):
        notes.append(f"{_pairs(alike)} agree in every fact of the table. {remedy}")
    return notes


def _born_alike(cases: Sequence[Row | Case]) -> list[Pair]:
    """Pairs of cases with one full date of birth and no different sex."""
    sexes = [name for name in cases[0].other if SEX.fullmatch(_plain(name))]
    pairs: set[Pair] = set()
    for column in filter(lambda name: BIRTH.fullmatch(_plain(name)), cases[0].other):
        born: dict[float, list[Row | Case]] = {}
        for case, day in zip(cases, _days([c.other.get(column, "") for c in cases]), strict=True):
            if math.isfinite(day):
                born.setdefault(day, []).append(case)
        pairs |= {
            (_name(a), _name(b))
            for group in born.values()
            if len(group) <= MOST_ON_A_DAY
            for a, b in itertools.combinations(group, 2)
            if not any(_differ(a.other.get(sex, ""), b.other.get(sex, "")) for sex in sexes)
        }
    return sorted(pairs)


def _days(cells: Sequence[str]) -> list[float]:
    """Days of the cells that hold a full date; NaN for any other."""
    cells = [cell.strip() for cell in cells]
    dates = [
        cell if DAY_FIRST.fullmatch(cell) or ((match := ISO.fullmatch(cell)) and match["d"]) else ""
        for cell in cells
    ]
    days = read_dates(dates) or [math.nan] * len(cells)
    of_months = Counter(
        date[-5:] if ISO.fullmatch(date) else date[:5] for date in filter(None, dates)
    )
    if of_months and max(of_months.values()) > max(
        2, len(dates) // 5
    ):  # years alone, as 1950-01-01
        return [math.nan] * len(cells)
    return [
        float(int(cell) + FIRST_DAY) if SERIAL.fullmatch(cell) else day
        for cell, day in zip(cells, days, strict=True)
    ]


def _alike_in_all(cases: Sequence[Row | Case]) -> list[Pair]:
    """Pairs of cases that agree in all facts, where hardly any would by chance.

    The probability that two cases agree in a column is the share of pairs that do; those of the columns are
    multiplied, as if they had nothing to do with each other.
    """
    columns = [
        cells
        for name in cases[0].other
        if not _names(name, cells := [case.other.get(name, "").strip() for case in cases])
    ]
    columns += [[case.label for case in cases], [str(case.time) for case in cases]]
    n_pairs = len(cases) * (len(cases) - 1) / 2
    by_chance = n_pairs if sum(len({*cells}) >= MANY for cells in columns) >= FINE else 0.0
    for cells in columns:
        by_chance *= sum(math.comb(n, 2) for n in Counter(cells).values()) / max(n_pairs, 1)
    if not 0 < by_chance <= NEVER:
        return []
    groups: dict[tuple[str, ...], list[str]] = {}
    for case, *facts in zip(cases, *columns, strict=True):
        groups.setdefault(tuple(map(str, facts)), []).append(_name(case))
    return [pair for group in groups.values() for pair in itertools.combinations(group, 2)]


def _names(column: str, cells: Sequence[str]) -> bool:
    """Whether a column has a name, a number or a remark of its own for each case, which are no facts."""
    is_remark = len({*cells}) == len(cells) and read_numbers(cells) is None
    return is_remark or numbers_rows(column, cells)


def _pairs(pairs: Iterable[Pair]) -> str:
    return f"Cases {listed([f'{a} and {b}' for a, b in pairs])}"


def _differ(sex: str, other: str) -> bool:
    """Whether two cells state different sexes; f is female."""
    return not (
        is_missing(sex)
        or is_missing(other)
        or sex.strip()[:1].casefold() == other.strip()[:1].casefold()
    )


def _name(case: Row | Case) -> str:
    return case.case if isinstance(case, Row) else case.name


def _plain(name: str) -> str:
    return without_accents(plain_header(name))
