"""Words that are probably one: spelt in two ways, of one meaning, or with a slip of typing."""

import itertools
import re
from collections.abc import Callable, Iterable, Sequence

from features.columns.spelling import without_accents
from mil.data.names import spelt_alike
from mil.data.values import FALSE_WORDS, TRUE_WORDS, read_numbers, without_missing
from mil.errors import CohortError

MOST_CATEGORIES = 20  # of a column of words; more are names or remarks
LETTERS = re.compile(r"[^\W\d_]+")
LONG = 7  # letters of a word from which one letter is a slip; myoma is no myxoma
JOINT = re.compile(r"\s*[;,|/+&]\s*|\s+(?:and|or|und|oder|et|ou|y|e|o|en|of)\s+")
SEXES = {
    **dict.fromkeys((
        "f", "w", "female", "fem", "woman", "women", "weiblich", "frau", "feminin", "feminine", "femme",
        "femenino", "mujer", "femminile", "femmina", "feminino", "mulher", "vrouw", "vrouwelijk", "kvinna",
        "kvinde", "kvinne", "kobieta", "女", "女性", "여", "여성",
    ), "f"),
    **dict.fromkeys((
        "m", "male", "man", "men", "mannlich", "maennlich", "mann", "masculin", "masculine", "masculino",
        "hombre", "varon", "maschile", "maschio", "homem", "mannelijk", "mand", "mezczyzna", "男", "男性",
        "남", "남성",
    ), "m"),
}  # fmt: skip
GRADE = re.compile(
    r"(?:grad(?:e|us|o)?|gr|g|stage|stadium|st)?[\s.-]*(?:(?P<number>[0-9])|(?P<roman>i{1,3}|iv|v))"
)
ROMAN = {"i": "1", "ii": "2", "iii": "3", "iv": "4", "v": "5"}


def alike_words(cells: Sequence[str]) -> tuple[str, str, str] | None:
    """Two words of a column of categories that are one, and why; None without any.

    F and f differ in spelling only; m and male, yes and 1, II and G2 seem to mean the same.
    """
    words = sorted({*without_missing(cells)} - {""})
    if not 1 < len(words) <= MOST_CATEGORIES or read_numbers(cells):
        return None
    if pair := spelt_alike(words):
        return *pair, "differ in spelling only"
    if pair := same_meaning(words):
        return *pair, "seem to mean the same"
    return None


def check_labels(source: str, labels: Iterable[str], column: str = "label") -> list[str]:
    """Refuse two labels that mean the same, as yes and 1; remarks on those with a letter more, or joined.

    Raises:
        CohortError: naming both.
    """
    labels = sorted({*labels} - {""})
    if pair := same_meaning(labels):
        raise CohortError(
            f"{source}: {column} {pair[0]!r} and {pair[1]!r} seem to mean the same. Write them alike if they "
            "do, or make the difference plain."
        )
    remarks = [
        f"{source}: label {label!r} joins others and counts as a class of its own. Choose one of them for "
        "each case, or leave its label empty, if that is wrong."
        for label in labels
        if len(parts := {*JOINT.split(label)}) > 1 and parts <= {*labels}
    ]
    if pair := nearly_alike(labels):
        remarks.append(
            f"{source}: label {pair[0]!r} and {pair[1]!r} differ by a letter and count as two classes. Write "
            "them alike if they are the same."
        )
    return remarks


def same_meaning(words: Iterable[str]) -> tuple[str, str] | None:
    """Two words of a column of yes and no, of sexes or of grades that mean the same; None without any."""
    words = list(words)
    # Of single letters alone x and y are no two words for yes.
    long = any(len(word) > 1 for word in words)
    for meaning_of in (*[_yes_or_no] * long, _sex, _grade):
        pair = _same(words, meaning_of)
        if pair or all(map(meaning_of, words)):
            return pair
    return None


def _same(words: Sequence[str], meaning_of: Callable[[str], str]) -> tuple[str, str] | None:
    """Two words of one meaning, where all have one and another has another."""
    first: dict[str, str] = {}
    pairs = [
        (twin, word) for word in words if (twin := first.setdefault(meaning_of(word), word)) != word
    ]
    return pairs[0] if pairs and len(first) > 1 and "" not in first else None


def _yes_or_no(word: str) -> str:
    folded = word.strip().casefold()
    return "yes" if folded in TRUE_WORDS else "no" if folded in FALSE_WORDS else ""


def _sex(word: str) -> str:
    return SEXES.get(without_accents(word.strip().casefold()), "")


def _grade(word: str) -> str:
    match = GRADE.fullmatch(word.strip().casefold())
    return (match["number"] or ROMAN[match["roman"]]) if match else ""


def nearly_alike(words: Iterable[str]) -> tuple[str, str] | None:
    """Two of some words of which one has a letter more, less or otherwise, as Fibrosarkom and Fibrosarcom.

    The words are long, what stands beside them is the same, and neither cell holds a figure; None without
    any.
    """
    parts = {
        word: LETTERS.findall(without_accents(word.casefold()))
        for word in words
        if not re.search(r"\d", word)
    }
    for first, second in itertools.combinations(sorted(parts), 2):
        own, other = parts[first], parts[second]
        differing = [(a, b) for a, b in zip(own, other, strict=False) if a != b]
        if len(own) == len(other) and len(differing) == 1 and _by_a_letter(*differing[0]):
            return first, second
    return None


def _by_a_letter(word: str, other: str) -> bool:
    """Whether two long words differ in one letter, that is missing or another, or in the order of two."""
    if min(len(word), len(other)) < LONG or abs(len(word) - len(other)) > 1:
        return False
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(word, other, strict=False))
    start = sum(1 for _ in same)
    a, b = word[start:], other[start:]
    if len(a) != len(b):
        return a[1:] == b or a == b[1:]
    return a[1:] == b[1:] or (a[:2] == b[1::-1] and a[2:] == b[2:])
