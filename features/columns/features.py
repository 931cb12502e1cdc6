"""Which columns of a table of features are none: outcomes, names, places, and what is the same for a bag.

What a table says of a case in a column beside its features would be learnt as a feature, and be there again
in every test case. Names show it, in the words by which tables of cases are read, too. So do values that
count the rows or are the same in all rows of a bag, and a name that stands alone beside numbered ones.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from features.columns.follow_up_words import NO_EVENT_HEADER, VITAL_HEADER
from features.columns.names import CASE, ID_NAMES, OUTCOME, ROW_NAMES, SLIDE, is_outcome
from features.columns.part_headers import kinds_of, marks_of, words_of
from features.columns.part_words import FILLERS, GROUPS, SETS, SIDES
from features.columns.radiomics import best_tool
from features.columns.spelling import plain_header, without_accents

NUMBERED = re.compile(r"(?P<stem>.*?)(?P<number>\d+)")  # f1, feature_017, 5
ENOUGH_ROWS = 5  # that count on
MOST_OWN = 4  # columns, of which two named by a tool say nothing of the others
ENOUGH_BAGS, FEW_VALUES = 10, 5  # of one row each; of a label in numbers
SAME_IN_BAG = "the same in all rows of a bag"
NAMED = 8  # of doubtful columns, before the rest is counted
NAMED_CHARS = 1500  # of a list of columns; the rest is counted
_CASE = frozenset(map(plain_header, (*CASE, *SLIDE)))
ROWS = re.compile(
    "(?:tile|instance|patch|cell|nucleus|object|row|bag|image|file|region|roi|annotation)(?:s|index|idx|id|no|nr"
    "|num|number|name)?|idx|slidename|casename|filename|image|imagenumber|imagename|srno|sno|key|name|path"
)
PLACES = re.compile(
    "(?:coord\\w*|pos(?:ition)?|centroid|cent(?:er|re)|tile|patch|loc(?:ation)?|slide|level0|top|left|grid)?[xy]"
    "(?:coord\\w*|pos(?:ition)?|centroid|um|µm|μm|px|mm|l0|level0|min|max|start|end|cent(?:er|re))?"
    "|coord\\w*|(?:tile|grid|patch)?(?:row|col|column)s?|left|top|right|bottom|mpp|magnification"
)
# What is known of a patient, or of the place that made the slide.
OF_CASES = re.compile(
    "(?:patients?|cases?|subjects?|donors?|participants?|persons?|pat|pid|mrn)(?:id|no|nr|num|number|name|code|index)?"
    "|.*(?:patient|subject|donor)(?:id|no|nr|num|number|name|code)"
    "|(?:patients?)?(?:age|sex|gender|race|ethnicity|bmi|alter|geschlecht|sexe|edad|sexo|eta|sesso|idade|leeftijd"
    "|geslacht|alder|kjonn|wiek|plec)(?:at\\w+|bei\\w+|years?|group)?"
    "|(?:tissuesource|acquisition|submitting)?(?:sites?|cent(?:er|re)s?|hospitals?|institut(?:e|ion)s?|clinics?|klinik"
    "|zentrum|scanners?|vendors?|batch(?:es)?|lab|laborator(?:y|ies)|stainer|year|jahr|annee)(?:id|no|nr|code|name)?"
)
# Of a row, as pathologists draw it: what is to be found out, tile by tile.
DRAWN = re.compile(
    "(?:is|has|in|any)?(?:tumou?rs?|cancer|malignan(?:t|cy)|benign|neoplas(?:m|tic|ia)|sarcomas?|carcinomas?|lesions?"
    "|positives?|negatives?|normals?|metasta(?:sis|ses|tic)|gutartig|bosartig|boesartig|maligne?|benigne?|tumoral"
    "|maligno|benigno|tumore|kwaadaardig|annotat(?:ed|ion)|keytile|key|iskey|witness)(?:yn|flag|01|binary)?"
)
# What another model, a pathologist or the follow-up says of a case, one row of which may be all there is.
SAID = re.compile(
    "(?:is|has)?(?:disease|illness|krankheit|erkrankung|maladie|enfermedad|malattia|doenca)(?:state|status|type|free)?"
    "|pred(?:icted|iction)?s?(?:class|label|score)?|prob(?:a|ability|abilities|s)?(?:tumou?r|cancer|malignant|pos)?"
    "|(?:test|lab)?results?|resultado|ergebnis|(?:risk|riskgroup|riskclass|riskcategory|category|kategorie)"
    "|huvos(?:grade)?|y?c?p?t(?:stage)?|y?p?n(?:stage)?|c?p?tnm(?:stage)?|pt|pn|pm|ct|cn|cm"
    "|mutat(?:ion|ed|ions)(?:status)?|(?:therapy|treatment|arm|therapie|behandlung)|healthy|gesund|estado|zustand|诊断|診断"
    "|is(?:lms|ss|ddlps|mpnst|ups|wdlps|mfs|gist|case|control)"
)
_Y_WORDS = frozenset((
    "bag", "case", "gt", "hat", "instance", "inst", "label", "patient", "pred", "score", "slide", "test",
    "train", "true", "y",
))  # fmt: skip
# Words of outcomes that begin the names of measurements, too: response_mean, class_entropy.
_WEAK = frozenset(("class", "classes", "response", "type", "typ", "types"))


def doubtful_columns(
    names: Sequence[str],
    values: NDArray[np.float64] | None = None,
    bag_of: NDArray[np.int64] | None = None,
    *,
    trusted: Sequence[str] = (),
) -> dict[str, str]:
    """Columns that are no features, or may be none, each with the reason.

    Args:
        names: (D) of the columns that would be features.
        values: (n, D) their values; names alone are looked at if not given.
        bag_of: (n,) the number of the bag of each row; one bag if not given.
        trusted: patterns of columns that are features whatever they look like, with ``*`` and ``?``.
    """
    main = numbered_columns(names)
    tool, of_tool = best_tool(names) or ("", [])  # original_glcm_Id numbers no rows
    doubtful = {}
    for column, name in enumerate(names):
        if any(fnmatchcase(name, pattern) for pattern in trusted):
            continue
        reason = "" if name in of_tool else _by_stem(name) if name in main else _by_name(name)
        if not reason and values is not None:
            reason = _by_values(values[:, column], bag_of)
        if not reason and main and name not in (*main, *of_tool):
            reason = "not numbered as the others are"
        if not reason and 2 * len(of_tool) >= max(len(names), MOST_OWN) and name not in of_tool:
            reason = f"no feature of {tool}, as the others are"
        if reason:
            doubtful[name] = reason
    if not doubtful and values is not None:
        codes = _codes_among(values, bag_of)
        if codes is not None and not any(fnmatchcase(names[codes], one) for one in trusted):
            return {names[codes]: "a few whole numbers beside measurements, as a label is"}
    return doubtful


def _codes_among(values: NDArray[np.float64], bag_of: NDArray[np.int64] | None) -> int | None:
    """The one column of a few whole numbers among measurements, where every bag has one row."""
    if bag_of is None or len(np.unique(bag_of)) < len(values) or len(values) < ENOUGH_BAGS:
        return None
    n_values = [len(np.unique(column)) for column in values.T]
    coded = [n for n, count in enumerate(n_values) if 1 < count <= FEW_VALUES]
    others = [count for n, count in enumerate(n_values) if n not in coded]
    if len(coded) != 1 or len(others) < 2 or min(others) < len(values) / 2:
        return None
    column = values[:, coded[0]]
    _, counts = np.unique(column, return_counts=True)
    return coded[0] if counts.min() > 1 and (column == np.round(column)).all() else None


def numbered_columns(names: Sequence[str]) -> frozenset[str]:
    """The columns that are numbered under one name (f1, f2, f3), if these are half of all or more."""
    stems = {name: match["stem"] for name in names if (match := NUMBERED.fullmatch(name))}
    counts = Counter(stems.values())
    stem, n_columns = counts.most_common(1)[0] if counts else ("", 0)
    if n_columns < 2 or 2 * n_columns < len(names):
        return frozenset()
    return frozenset(name for name, own in stems.items() if own == stem)


def refusal_of_columns(doubtful: Mapping[str, str]) -> str:
    """Why columns are refused as features, and what to do; empty if there are none."""
    if not doubtful:
        return ""
    first = [f"{name!r} ({why})" for name, why in list(doubtful.items())[:NAMED]]
    if len(doubtful) == 1:
        return (
            f"column {first[0]} is no feature. Remove it from the table or, if it is one, set "
            "feature_columns to its name."
        )
    more = f" and {len(doubtful) - NAMED} more" if len(doubtful) > NAMED else ""
    return (
        f"columns {', '.join(first)}{more} are no features. Remove them from the table, or set "
        "feature_columns to the names of those that are features."
    )


def name_columns(names: Sequence[str]) -> str:
    """The columns in their order, those that count on as one: ``f1 to f512, area``."""
    runs: list[list[str]] = []
    for name in names:
        if runs and _counts_on(runs[-1][-1], name):
            runs[-1].append(name)
        else:
            runs.append([name])
    parts = [part for run in runs for part in ([f"{run[0]} to {run[-1]}"] if len(run) > 2 else run)]
    text = ", ".join(parts)
    if len(text) <= NAMED_CHARS:
        return text
    return f"{text[:NAMED_CHARS].rpartition(', ')[0]} ... {parts[-1]} ({len(names)} columns)"


def _counts_on(before: str, name: str) -> bool:
    """Whether a name is the next one after another: f9, f10."""
    one, two = NUMBERED.fullmatch(before), NUMBERED.fullmatch(name)
    if not (one and two) or one["stem"] != two["stem"]:
        return False
    return int(one["number"]) + 1 == int(two["number"])


def _by_stem(name: str) -> str:
    """Why a numbered column is no feature by the name before its number; empty if it may be one."""
    match = NUMBERED.fullmatch(name)
    assert match
    return _of_outcomes(match["stem"]) or _of_cases(match["stem"])


def _by_name(name: str) -> str:
    """Why a column is no feature by its name; empty if it may be one."""
    plain = without_accents(plain_header(name))
    if not plain:
        return "without a name"
    if plain in ROW_NAMES or ROWS.fullmatch(plain) or ID_NAMES.fullmatch(name.strip()):
        return "a name or number of rows"
    reason = _of_outcomes(name) or _of_cases(name)
    return reason or ("a place" if PLACES.fullmatch(plain) else "")


def _of_outcomes(name: str) -> str:
    """What a name says of an outcome, or a part of the study; empty if nothing."""
    plain = without_accents(plain_header(name))
    words = [word for word in words_of(name) if not word.isdigit()]
    if is_outcome(name) or DRAWN.fullmatch(plain) or ("y" in words and {*words} <= _Y_WORDS):
        return "an outcome, by its name"
    if words and (
        _is_outcome_word(words[-1]) or (_is_outcome_word(words[0]) and words[0] not in _WEAK)
    ):
        return "an outcome, by its name"
    parts = [word for word in words if word not in FILLERS] or words
    if any(form.fullmatch(plain) for form in (NO_EVENT_HEADER, VITAL_HEADER, SAID)):
        return "an outcome, by its name"
    is_group = len(words) == 1 and words[0] in GROUPS - SIDES - {"data", "daten"}
    is_set = any(map(SETS.fullmatch, parts[:1])) or all(map(_is_part, parts))
    if words and (is_group or is_set or marks_of(name) is not None):
        return "a part of the study, by its name"
    return ""


def _is_outcome_word(word: str) -> bool:
    return word not in ("x", "y") and bool(OUTCOME.fullmatch(word))


def _is_part(word: str) -> bool:
    return word == "or" or bool((len(word) > 3 or word == "val") and kinds_of(word))


def _of_cases(name: str) -> str:
    """What a name says of a case; empty if nothing."""
    plain = without_accents(plain_header(name))
    return "a fact of the case, by its name" if plain in _CASE or OF_CASES.fullmatch(plain) else ""


def _by_values(column: NDArray[np.float64], bag_of: NDArray[np.int64] | None) -> str:
    """Why a column is no feature by its values; empty if it may be one."""
    bags = np.zeros(len(column), np.int64) if bag_of is None else bag_of
    order = np.argsort(bags, kind="stable")
    own, values = bags[order], column[order]
    starts = np.flatnonzero(np.r_[True, own[1:] != own[:-1]])
    within = np.diff(values)[own[1:] == own[:-1]]
    if (len(column) >= ENOUGH_ROWS and (np.diff(column) == 1).all()) or (
        len(within) >= ENOUGH_ROWS and (within == 1).all()
    ):
        return "a count of the rows"
    sizes = np.diff(np.r_[starts, len(values)])
    low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    return SAME_IN_BAG if is_of_bags(low[sizes > 1], high[sizes > 1]) else ""


def is_of_bags(low: NDArray[np.float64], high: NDArray[np.float64]) -> bool:
    """Whether a column has one value in every bag, and several bags have another than most.

    Args:
        low: (n,) its lowest value in each bag of more than one row.
        high: (n,) its highest.
    """
    if len(low) < 2 or not (low == high).all():
        return False
    _, counts = np.unique(low, return_counts=True)
    return bool(len(low) - counts.max() >= min(2, len(low) - 1))
