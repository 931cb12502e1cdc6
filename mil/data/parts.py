"""Columns that say which cases are for testing, under another name than split."""

import re
from collections.abc import Mapping, Sequence

from mil.data.case import Row
from mil.data.values import FALSE_WORDS, TRUE_WORDS, is_missing
from mil.errors import CohortError

_ENDING = (
    "(?:sets?|cohorts?|kohorten?|kollektiv|groups?|gruppen?|data|daten(?:satz)?|satz|menge|cases)?"
)
# What a word of a cell, or of a header, says of a case.
KINDS = {
    kind: re.compile(f"(?:{words}){_ENDING}")
    for kind, words in {
        "train": "train(?:ings?)?|trn?|learn(?:ing)?|lern|development|derivation|discovery|entwicklungs?"
        "|entraînement|apprentissage|entrenamiento|addestramento",
        "test": "test(?:s|ing)?|tst|holdout|heldout|eval(?:uation)?|prueba|reserved|aside",
        "valid": "val|valid(?:ation|ierungs?)?|validación|validazione|replication",
        "external": "external|externe?r?|ext|independent|unseen",
        "internal": "internal|interne?r?",
        "short": "te|ts",  # for testing beside tr alone
    }.items()
}
FILLERS = frozenset((
    "a", "an", "are", "as", "belongs", "case", "cases", "cohort", "cohorts", "data", "dataset", "flag",
    "fold", "folds", "for", "group", "groups", "in", "is", "ist", "kept", "kohorte", "of", "only", "part",
    "patient", "patients", "sample", "samples", "set", "sets", "slide", "slides", "split", "splits", "subset",
    "subsets", "the", "to", "use", "used",
))  # fmt: skip
# Headers under which a single such word tells.
PARTS = frozenset((
    "allocation", "assignment", "cohort", "cohorts", "cv", "data", "dataset", "datasets", "datensatz", "fold",
    "folds", "group", "groups", "gruppe", "kohorte", "mode", "part", "partition", "partitions", "phase",
    "purpose", "role", "set", "sets", "split", "splits", "subset", "subsets", "teilmenge", "usage", "use",
))  # fmt: skip
# Beside these a test is an arm of a trial, or of a laboratory.
OTHER_TESTS = frozenset((
    "arm", "control", "controls", "failed", "intervention", "kontrolle", "neg", "negative", "passed",
    "pending", "placebo", "pos", "positive", "reference", "sham", "standard", "treated", "treatment",
))  # fmt: skip
# Headers over yes and no that may say something else, unless they name a set or a cohort.
AMBIGUOUS = frozenset((
    "derivation", "development", "discovery", "eval", "evaluation", "ext", "independent", "internal", "learn",
    "learning", "lern", "replication", "te", "tr", "ts", "val", "valid",
))  # fmt: skip
TESTED = ("test", "valid", "external")
MOST_WORDS = 4  # of a cell that names a part; more are a remark
WORD = re.compile(r"[^\W\d_]+|\d+")
LETTERS = re.compile(r"[^\W\d_]{2}")
CAMEL = re.compile(r"(?<=[a-zäöü])(?=[A-ZÄÖÜ])")
OUT = re.compile(r"\b(hold|held)[\W_]*out")
FOLDER = re.compile(r"[^/\\]+(?=[/\\])")


def check_parts(rows: Sequence[Row], *, to_judge: bool = False) -> None:
    """``check_columns`` of all columns of rows that may be the one."""
    if not any(row.split for row in rows):
        columns = {"slide": [row.slide for row in rows], "site": [row.site for row in rows]}
        for name in rows[0].other if rows else ():
            columns[name] = [row.other.get(name, "") for row in rows]
        check_columns("The table", columns, [row.line for row in rows], to_judge=to_judge)


def check_columns(
    source: str, columns: Mapping[str, Sequence[str]], lines: Sequence[int], *, to_judge: bool
) -> None:
    """Refuse rows of which another column than split says that some are for testing.

    Words of the cells decide, as in ``TCGA-train`` beside ``TCGA-test``; or a header such as ``is_test`` over
    yes and no; or folders in front of the slides.

    Args:
        source: of the table, for messages.
        columns: cells by the name of the column; ``slide`` and ``site`` are those of the study.
        lines: of the cells in the file.
        to_judge: whether the rows may be there to be judged, so that all may be for testing.

    Raises:
        CohortError: naming the column and a cell.
    """
    for name, cells in columns.items():
        places = tested_places(name, cells)
        if places and not (to_judge and len(places) == len(cells)):
            raise CohortError(
                f"{source}: column {name!r} seems to say which cases are for testing ({cells[places[0]]!r} "
                f"on line {lines[places[0]]}). Name it split, with train or test in each row, "
                "so that these are not trained on. If it says something else, rename or remove it, or "
                "write train throughout a column split."
            )


def tested_places(header: str, cells: Sequence[str]) -> list[int]:
    """The places of the cells that mark their cases for testing, where a column says so of some."""
    if (marks := _marks_of(header)) is not None:
        words = [cell.strip().casefold() for cell in cells]
        known = {word for word in words if not is_missing(word)}
        if known and known <= TRUE_WORDS | FALSE_WORDS:
            return [i for i, word in enumerate(words) if (word in TRUE_WORDS) == marks]
    if not LETTERS.search("\n".join(cells)):
        return []
    kinds = {cell: _kind(cell) for cell in {*cells}}
    occurring = {kind for kind, _ in kinds.values()}
    # Beside test cases those for validation choose among models.
    tested_kinds = {"test", "external", "short"} & occurring or {"valid"}
    tested = {cell for cell, (kind, _) in kinds.items() if kind in tested_kinds}
    if not tested or not _names_parts(header, cells, kinds):
        return []
    return [i for i, cell in enumerate(cells) if cell in tested]


def trained_places(header: str, cells: Sequence[str]) -> list[int]:
    """The places of the cells that mark their cases as trained on, beside others that are for testing."""
    tested = {*tested_places(header, cells)}
    if not tested:
        return []
    others = [i for i in range(len(cells)) if i not in tested]
    if _marks_of(header) is not None and {"test", "train"} & _header_kinds(header):
        return others
    return [i for i in others if _kind(cells[i])[0] == "train"]


def _header_kinds(header: str) -> set[str]:
    return {kind for word in _words(header) for kind in _kinds_of(word)}


def _marks_of(header: str) -> bool | None:
    """Whether yes under a header marks a case for testing, or for training; None where it says neither."""
    words = _words(header)
    telling = {word for word in words if _kinds_of(word)}
    rest = {*words} - telling
    if not telling or not rest <= FILLERS or (telling <= AMBIGUOUS and not rest & PARTS):
        return None
    return any(kind in TESTED for word in telling for kind in _kinds_of(word))


def _names_parts(header: str, cells: Sequence[str], kinds: Mapping[str, tuple[str, bool]]) -> bool:
    """Whether a column in which some cells have a word for testing says so of its cases.

    Args:
        header: of the column.
        cells: of the column.
        kinds: of each cell, as ``_kind`` tells.
    """
    present = [cell for cell in cells if cell and not is_missing(cell)]
    n_known = sum(bool(kinds[cell][0]) for cell in present)
    occurring = {kinds[cell][0] for cell in present}
    is_part = not PARTS.isdisjoint(_words(header)) or _marks_of(header) is not None
    if "train" in occurring and (is_part or 2 * n_known >= len(present)):
        return True
    if any(OTHER_TESTS.intersection(_words(cell)) for cell in {*present}):
        return False
    if header == "slide":  # a folder of trials, say
        return False
    if not is_part:
        return n_known == len(present) and ("test", True) in kinds.values()
    return any(
        whole or kind == "test" or (kind == "external" and "internal" in occurring)
        for kind, whole in kinds.values()
        if kind in TESTED
    )


def _kind(cell: str) -> tuple[str, bool]:
    """What a cell says of its case, one of ``KINDS`` or nothing, and whether it says nothing else."""
    folders = FOLDER.findall(cell)
    if folders:
        named = map(_kind, folders)
        return next((kind for kind in named if kind[0] and kind[1]), ("", False))
    words = _words(cell)
    kinds = {kind for word in words for kind in _kinds_of(word)}
    if len(words) > MOST_WORDS or not kinds or {"train", "test"} <= kinds:
        return "", False
    whole = all(_kinds_of(word) or word in FILLERS or word.isdigit() for word in words)
    if {"external", "valid"} <= kinds:
        return "test", whole
    order = ("test", "train", "valid", "external", "internal", "short")
    return next(kind for kind in order if kind in kinds), whole


def _kinds_of(word: str) -> list[str]:
    return [kind for kind, pattern in KINDS.items() if pattern.fullmatch(word)]


def _words(text: str) -> list[str]:
    """Words and numbers in small letters; ``testSet`` is two, ``hold-out`` one."""
    return WORD.findall(OUT.sub(r"\1out", CAMEL.sub(" ", text).casefold()))
