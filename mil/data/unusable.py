"""Rows of which a column says that they are not to be used: a slide that failed, a patient who withdrew."""

from collections.abc import Mapping, Sequence

from features.columns.part_headers import words_of
from features.columns.part_words import FILLERS, NEGATIONS, STUDY
from features.columns.quality_words import (
    BAD_MARKS,
    BAD_WORDS,
    BESIDE,
    GOOD_MARKS,
    LEFT_OUT_WORDS,
    REASONS,
)
from features.summary import listed
from mil.data.values import FALSE_WORDS, TRUE_WORDS, is_missing


def note_unusable(
    source: str, columns: Mapping[str, Sequence[str]], slides: Sequence[str]
) -> list[str]:
    """Remarks on columns that say of some rows that they are not to be used; one for each column.

    Args:
        source: of the table.
        columns: cells by the name of the column.
        slides: of the rows.
    """
    notes = []
    for name, cells in columns.items():
        if places := unusable_places(name, cells):
            rows = "1 row is" if len(places) == 1 else f"{len(places)} rows are"
            named = listed([f"{slides[i]} ({cells[i].strip()})" for i in places])
            notes.append(
                f"{source}: column {name!r} seems to say that {rows} not to be used: {named}. The column is "
                "not heeded; remove such rows from the table if they should not be used."
            )
    return notes


def unusable_places(header: str, cells: Sequence[str]) -> list[int]:
    """The places of the cells that say that their row is not to be used.

    ``no`` under qc_pass, ``yes`` under unusable, ``poor`` under image quality, anything under a reason for
    exclusion; ``excluded`` under any header.
    """
    folded = [" ".join(words_of(cell)) for cell in cells]
    by_word = [i for i, cell in enumerate(folded) if cell in LEFT_OUT_WORDS]
    words = {*words_of(header)}
    marks = words & (GOOD_MARKS | BAD_MARKS)
    rest = words - marks
    if not marks or not rest <= FILLERS | NEGATIONS | STUDY | BESIDE | REASONS:
        return by_word
    is_bad = bool(marks & BAD_MARKS)
    if is_bad and rest & REASONS:
        return [i for i, cell in enumerate(cells) if not _says_no(cell)]
    yes_is_bad = is_bad != bool(rest & NEGATIONS)
    known = {cell.strip().casefold() for cell in cells if not is_missing(cell)}
    if known <= TRUE_WORDS | FALSE_WORDS:
        telling = TRUE_WORDS if yes_is_bad else FALSE_WORDS
        return [i for i, cell in enumerate(cells) if cell.strip().casefold() in telling]
    return [i for i, cell in enumerate(folded) if cell in BAD_WORDS | LEFT_OUT_WORDS]


def _says_no(cell: str) -> bool:
    return is_missing(cell) or cell.strip().casefold() in FALSE_WORDS
