"""Whether a label of a table may mean a label of a study that is spelled otherwise."""

import re
from collections.abc import Iterable
from difflib import SequenceMatcher

from mil.data.names import normalised

_SHARED = """
sarcoma sarcomas tumor tumour tumors tumours neoplasm lesion cell cells type grade soft tissue nos not
otherwise specified and with without the non other none malignant benign primary
"""
GENERAL = frozenset(_SHARED.split())  # words that labels of different diseases share
NEGATIONS = frozenset(
    ["no", "non", "not", "without", "free", "negative", "neg", "kein", "keine", "ohne"]
)
ALIKE = 0.8  # of the letters of two words of one spelling
STEM = 0.7  # of the letters of a word, its ending left off
SHORTEST_WORD, SHORTEST_STEM, SHORTEST_INITIALS, SHORTEST_START = 3, 6, 3, 3
SHORTEST_INSIDE = 4  # of a label within another; shorter ones stand in words by chance


def resembled(label: str, names: Iterable[str]) -> str | None:
    """The first of the names that a label may mean; None where it is like none of them.

    It resembles a name that shares a word with it, but for words such as sarcoma; of which it is the
    beginning or the end, or that is a part of it, as a whole or but for an ending; that abbreviates it, or
    the reverse; or that differs from it in few letters.

    Args:
        label: as in a table.
        names: as a study calls its labels.
    """
    return next((name for name in names if _resembles(label, name)), None)


def _resembles(label: str, name: str) -> bool:
    one, other = _plain(label), _plain(name)
    if not one or not other or _is_negated(label) != _is_negated(name):
        return False
    words, named = _words(label), _words(name)
    return (
        other in words
        or bool({word for word in words & named if _tells(word)})
        or _begins(one, other)
        or (len(other) >= SHORTEST_INSIDE and other in one and other not in GENERAL)
        or (len(one) >= SHORTEST_WORD and other.endswith(one) and one not in GENERAL)
        or any(_stem(word) in one for word in named if _has_stem(word))
        or _initials(label) == other
        or _initials(name) == one
        or SequenceMatcher(None, one, other, autojunk=False).ratio() >= ALIKE
    )


def _is_negated(text: str) -> bool:
    """Whether a label says what is absent."""
    return bool(_words(text) & NEGATIONS) or text.strip().endswith("-")


def _plain(text: str) -> str:
    """Letters and digits alone."""
    return re.sub(r"\W|_", "", normalised(text))


def _words(text: str) -> set[str]:
    return {word for part in re.split(r"[\W_]+", text) if (word := _plain(part))}


def _tells(word: str) -> bool:
    """Whether a word says which disease is meant: G3 does, cell does not."""
    enough = 2 if any(letter.isdigit() for letter in word) else SHORTEST_WORD
    return len(word) >= enough and word not in GENERAL


def _begins(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    return len(short) >= SHORTEST_START and long.startswith(short)


def _has_stem(word: str) -> bool:
    return len(word) > SHORTEST_STEM and word not in GENERAL


def _stem(word: str) -> str:
    return word[: max(SHORTEST_STEM, round(STEM * len(word)))]


def _initials(text: str) -> str:
    """The first letters of three words or more; empty for fewer."""
    words = [part for part in re.split(r"[\W_]+", text) if part]
    return "".join(_plain(word)[:1] for word in words) if len(words) >= SHORTEST_INITIALS else ""
