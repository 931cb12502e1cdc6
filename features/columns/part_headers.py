"""What a header, or a cell, says of the parts of a study: training, test, validation, a group of cases."""

import re

from features.columns.part_words import AMBIGUOUS, FILLERS, GROUPS, KINDS, NEGATIONS, SETS
from features.columns.spelling import without_accents

TESTED = ("test", "valid", "external")
WORD = re.compile(r"[^\W\d_]+|\d+")
CAMEL = re.compile(r"(?<=[a-zäöü])(?=[A-ZÄÖÜ])")
OUT = re.compile(r"\b(hold|held)[\W_]*out")


def marks_of(header: str) -> bool | None:
    """Whether yes under a header marks a case for testing, or for training; None where it says neither."""
    words = words_of(header)
    telling = {word for word in words if kinds_of(word)}
    rest = {*words} - telling
    denied = bool(rest & NEGATIONS)
    if not telling or not rest <= FILLERS | NEGATIONS:
        return None
    if telling <= AMBIGUOUS and not any(map(is_part_word, rest)):
        return None
    return any(kind in TESTED for word in telling for kind in kinds_of(word)) != denied


def is_part_word(word: str) -> bool:
    """Whether a word of a header names parts, or groups, of a study."""
    return word in GROUPS or bool(SETS.fullmatch(word))


def kinds_of(word: str) -> list[str]:
    """The parts, of ``KINDS``, that a word stands for."""
    return [kind for kind, pattern in KINDS.items() if pattern.fullmatch(word)]


def words_of(text: str) -> list[str]:
    """Words and numbers in small letters without accents; ``testSet`` is two, ``hold-out`` one."""
    text = OUT.sub(r"\1out", CAMEL.sub(" ", text).casefold())
    return WORD.findall(without_accents(text))
