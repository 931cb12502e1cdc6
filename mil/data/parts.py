"""Columns that say which cases are for testing, under another name than split."""

import re
from collections.abc import Mapping, Sequence

from features.columns.part_headers import TESTED, is_part_word, kinds_of, marks_of, words_of
from features.columns.part_words import (
    AMBIGUOUS,
    AMINO_ACIDS,
    ARMS,
    CODED,
    FILLERS,
    GROUPS,
    LEFT_OUT,
    NEGATIONS,
    RESULTS,
    SETS,
    SIDES,
    STUDY,
    TAKEN,
)
from features.columns.spelling import plain_header
from features.summary import listed
from mil.data.case import Row
from mil.data.values import FALSE_WORDS, TRUE_WORDS, is_missing
from mil.errors import CohortError

MOST_WORDS = 4  # of a cell that names a part; more are a remark
CODE = re.compile(r"(?:[a-z]{1,6}[-_ ]?)?(?:[0-4]|i{1,3}|[a-d]|[tv])")  # 2, set 2, II, B
CODE_WORDS = frozenset(("code", "coded", "de", "id", "nr", "no", "number", "type"))
MOST_CODES = 4  # training, validation, test and external cases
FOLDS = re.compile(
    "(?:cv|outer|test)?folds?(?:id|nr|no|number|index|k)?|cv(?:split|set|part)|kfold"
)
LETTERS = re.compile(r"[^\W\d_]{2}")
FOLDER = re.compile(r"[^/\\]+(?=[/\\])")
PATH = re.compile(r".*[/\\].*(?:[/\\].*|\.\w{2,6})")  # a/b/c, a/b.svs; Val/Met is none


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
    """Refuse rows of which another column than split says that some are for testing, or left out.

    Words of the cells decide, as in ``TCGA-train`` beside ``TCGA-test``, or ``train`` beside a blank; or a
    header such as ``is_test`` over yes and no; or folders in front of the slides.

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
                f"on line {lines[places[0]]}). Name it split, with train or test in each row, so that these "
                "are not trained on. If it says something else, keep it and add a column split with train in "
                "each row."
            )
        if codes := coded_parts(name, cells):
            raise CohortError(
                f"{source}: column {name!r} may say by codes which cases are for testing: it holds "
                f"{listed(codes)}. Name it split, with train or test in each row. If it says something else, "
                "keep it and add a column split with train in each row."
            )
        if places := _left_out_places(name, cells):
            raise CohortError(
                f"{source}: column {name!r} seems to say which cases are left out ({cells[places[0]]!r} on "
                f"line {lines[places[0]]}). Remove their rows. If it says something else, keep it and add a "
                "column split with train in each row."
            )


def tested_places(header: str, cells: Sequence[str]) -> list[int]:
    """The places of the cells that mark their cases for testing, where a column says so of some."""
    words = [cell.strip().casefold() for cell in cells]
    known = {word for word in words if not is_missing(word)}
    if (marks := marks_of(header)) is not None and known and known <= TRUE_WORDS | FALSE_WORDS:
        return [i for i, word in enumerate(words) if (word in TRUE_WORDS) == marks]
    if (
        _is_either(header) and len(known) == 2
    ):  # train_test over 1 and 2: one of them is for testing
        return [i for i, word in enumerate(words) if word != words[0]]
    if not LETTERS.search("\n".join(cells)):
        return []
    by_cell = {cell: _kind(cell, header) for cell in {*cells}}
    occurring = {kind for kind, _ in by_cell.values()}
    # Beside test cases those for validation choose among models.
    tested_kinds = {"test", "external", "short"} & occurring or {"valid"}
    tested = {cell for cell, (kind, _) in by_cell.items() if kind in tested_kinds}
    if tested and _names_parts(header, cells, by_cell):
        return [i for i, cell in enumerate(cells) if cell in tested]
    if not tested and _names_training(header, by_cell):
        return [i for i, cell in enumerate(cells) if by_cell[cell][0] != "train"]
    return []


def coded_parts(header: str, cells: Sequence[str], *, doubtful: bool = False) -> list[str]:
    """The codes of a column that may say which cases are for testing, as 1 and 2 under set; none of others.

    So may -1 among the numbers of folds.

    Args:
        header: of the column.
        cells: of the column.
        doubtful: look for headers under which codes are as often something else, as cohort, instead.
    """
    codes = sorted({cell.strip().removesuffix(".0") for cell in cells if not is_missing(cell)})
    if FOLDS.fullmatch(plain_header(header)):
        numbers = all(re.fullmatch(r"-1|\d\d?", code) for code in codes)
        return codes if numbers and "-1" in codes and len(codes) > 2 and not doubtful else []
    words = [word for word in words_of(header) if not word.isdigit()]
    naming = [word for word in words if SETS.fullmatch(word)]
    rest = {*words} - {*naming} - FILLERS - GROUPS - CODE_WORDS
    is_either = _is_either(header)
    if not (naming or is_either) or any(not kinds_of(word) for word in rest):
        return []
    is_clear = is_either or any(map(CODED.fullmatch, naming)) or bool(rest)
    if is_clear == doubtful or not 1 < len(codes) <= MOST_CODES or len(codes) == len(cells):
        return []
    return codes if all(CODE.fullmatch(code.casefold()) for code in codes) else []


def note_codes(source: str, columns: Mapping[str, Sequence[str]]) -> list[str]:
    """Remarks on columns whose codes may say which cases are for testing, and as often something else."""
    return [
        f"{source}: column {name!r} holds {listed(codes)}. If that says which cases are for testing, name it "
        "split, with train or test in each row."
        for name, cells in columns.items()
        if (codes := coded_parts(name, cells, doubtful=True))
    ]


def trained_places(header: str, cells: Sequence[str]) -> list[int]:
    """The places of the cells that mark their cases as trained on, beside others that are for testing."""
    tested = {*tested_places(header, cells)}
    if not tested:
        return []
    others = [i for i in range(len(cells)) if i not in tested]
    if marks_of(header) is not None and {"test", "train"} & _header_kinds(header):
        return others
    return [i for i in others if _kind(cells[i], header)[0] == "train"]


def _is_either(header: str) -> bool:
    """Whether a header names both training and testing."""
    kinds = _header_kinds(header)
    return "train" in kinds and bool({"test", "valid"} & kinds) and marks_of(header) is not None


def _header_kinds(header: str) -> set[str]:
    return {kind for word in words_of(header) for kind in kinds_of(word)}


def _left_out_places(header: str, cells: Sequence[str]) -> list[int]:
    """The places of cells that say by yes or no that their cases are left out."""
    words = {*words_of(header)}
    telling = words & (LEFT_OUT | TAKEN)
    answers = [cell.strip().casefold() for cell in cells]
    known = {answer for answer in answers if not is_missing(answer)}
    if (
        not telling
        or not words - telling <= FILLERS | STUDY
        or not known <= TRUE_WORDS | FALSE_WORDS
    ):
        return []
    is_out = bool(telling & LEFT_OUT)
    return [i for i, word in enumerate(answers) if known and (word in TRUE_WORDS) == is_out]


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
    is_part = _is_part(header)
    if "train" in occurring and (is_part or 2 * n_known >= len(present)):
        return True
    words = {word for cell in {*present} for word in words_of(cell)}
    if ARMS & words or (AMINO_ACIDS & words and occurring <= {"", "valid"}) or header == "slide":
        return False
    if _names_sets(header):
        return any(
            whole or (kind == "test" and not RESULTS.intersection(words_of(cell)))
            or (kind == "external" and "internal" in occurring)
            for cell, (kind, whole) in kinds.items()
            if kind in TESTED
        )  # fmt: skip
    if RESULTS & words:
        return False
    if not is_part:
        return n_known == len(present) and ("test", True) in kinds.values()
    both = "internal" in occurring and SIDES.isdisjoint(words_of(header))
    return any(
        kind == "test" or (whole and (kind == "valid" or both))
        for cell, (kind, whole) in kinds.items()
        if kind in TESTED and not {*words_of(cell)} & AMBIGUOUS
    )


def _names_training(header: str, kinds: Mapping[str, tuple[str, bool]]) -> bool:
    """Whether a column says of some cases that they are for training, and so of the others that they are not.

    Args:
        header: of the column.
        kinds: of each cell, as ``_kind`` tells; none is for testing.
    """
    training = [cell for cell, kind in kinds.items() if kind == ("train", True)]
    others = {
        cell if not is_missing(cell) else "" for cell, kind in kinds.items() if kind[0] != "train"
    }
    if not training or not others or header == "slide":
        return False
    if _names_sets(header):
        return True
    if all({*words_of(cell)} & AMBIGUOUS for cell in training):
        return False
    if any(ARMS.intersection(words_of(cell)) for cell in others):
        return False
    return _is_part(header) or len(others) == 1


def _is_part(header: str) -> bool:
    return any(map(is_part_word, words_of(header))) or marks_of(header) is not None


def _names_sets(header: str) -> bool:
    """Whether a header speaks of sets of cases, and hardly of anything else."""
    return any(map(SETS.fullmatch, words_of(header))) or marks_of(header) is not None


def _kind(cell: str, header: str = "") -> tuple[str, bool]:
    """What a cell says of its case, one of ``KINDS`` or nothing, and whether it says nothing else."""
    folders = FOLDER.findall(cell)
    if folders and (header == "slide" or PATH.fullmatch(cell)):
        named = map(_kind, folders)
        return next((kind for kind in named if kind[0] and kind[1]), ("", False))
    words = words_of(cell)
    kinds = {kind for word in words for kind in kinds_of(word)}
    if len(words) > MOST_WORDS or not kinds or {"train", "test"} <= kinds:
        return "", False
    if kinds == {"train"} and NEGATIONS.intersection(words):
        return "", False
    whole = all(kinds_of(word) or word in FILLERS or word.isdigit() for word in words)
    if {"external", "valid"} <= kinds:
        return "test", whole
    order = ("test", "train", "valid", "external", "internal", "short")
    return next(kind for kind in order if kind in kinds), whole
