"""Which names are of one patient: barcodes of public programmes, and blocks that share a beginning."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from features.columns.spelling import plain_header, without_accents
from features.summary import listed
from mil.data.case import Row
from mil.data.names import identity_of, patient_of
from mil.data.values import without_missing
from mil.errors import CohortError

# What names a block, a slide or a specimen of a patient, with a number or by itself.
NUMBERED = (
    "block|slide|slice|section|schnitt|level|core|node|roi|scan|specimen|probe|biopsy|biopsie|bx|lesion"
    "|visit"
)
ALONE = (
    "left|right|links|rechts|li|re|l|r|resection|resektion|resektat|excision|exzision|primary|prim|primär"
    "|primarius|met|mets|metastasis|metastase|recurrence|relapse|rec|rezidiv|tumou?r|normal|baseline"
    "|follow.?up|frozen|ffpe|he|h&e|ihc"
    "|(?:pre|post|before|after|vor|nach)(?:[-_ ]?(?:op|treatment|therapy|therapie|tx))?"
)
# A number of a patient, then that of a block: Case-3-A12, 17/2, P12b, Case-3-IV, P3_block2, P3(1), P3#1; or a
# name, then a word. P1 in the place of a block is a patient.
_PART = (
    r"(?:\s*(?:\(\d{1,2}\)|\[\d{1,2}\]|\#\d{1,2})|[-_ ./]+(?:(?!pt?\d)[a-z]{1,2}\d{0,3}|\d{1,2}[a-z]?"
    rf"|[ivx]{{1,5}}|(?:{NUMBERED})[-_ .]?\d{{0,3}}))"
)
_WORD = rf"[-_ ./]+(?:{ALONE}|{NUMBERED})\.?"
BLOCK = re.compile(rf"(.*\d)(?:{_PART}|[a-z])|(.*\w){_WORD}", re.IGNORECASE)
LAST_PART = re.compile(rf"(.*\w)(?:{_PART}|{_WORD})", re.IGNORECASE)  # of several
# The number of the block in front: 2-Case-17, A3_Case17.
FRONT = re.compile(
    rf"(?:\d{{1,2}}|(?!p)[a-z]\d{{1,3}})[-_ ./](?!(?:{NUMBERED}|{ALONE})[-_ ./\d])"
    r"((?=.*(?:[a-z]{3}|\d{4}))(?=.*[a-z]).*\d)",
    re.IGNORECASE,
)
# A number that may count blocks or cases, with or without parts behind it: H19-7, 2-1, H19-7-A1.
COUNT = re.compile(
    r"[-_ ./]+(?P<letters>[a-z]{0,2})(?P<number>\d{1,9})(?:[-_ ./(].*)?", re.IGNORECASE
)
LETTERED = re.compile(r"[-_ ./]+[a-z]", re.IGNORECASE)
ACCESSION = re.compile(r"[a-zäöü]{0,3}[-_ ]?(?:(?:19|20)\d\d|[012]\d)", re.IGNORECASE)  # H19, B2019
FEW_BLOCKS = 3  # of a patient
# Further columns that name the patient, as plain headers without accents.
PATIENT_HEADER = re.compile(
    "(?:patient(?:en|s)?|pat|subject|subjekt|person|participant|donor|proband(?:en)?|individual|paciente|paziente"
    "|mrn|pid|medicalrecord|hospital|患者|bcrpatient|casesubmitter|submitter)"
    "(?:id|nr|no|num|number|nummer|numero|code|key|pseudonym|identifier|barcode|uid|uuid|hash|#|番号|编号)"
    "|mrn|pid|patientname|(?:patient(?:en)?)?pseudonym|(?:fall|case)(?:nummer|nr)|redcapid|recordid|(?:nhs|chi)(?:no|number|id)"
    "|personnummer|personnumer|cpr(?:nr|nummer)?|bsn|nhc|historiaclinica|codicefiscale|ipp|numerodedossier|studiennummer"
)
YEAR = re.compile(r"(?:19|20)\d\d")  # in front of the number of a case
MOST_PARTS = 3  # that follow the patient: P3-S1-A2-HE
MOST_BLOCKS = 20  # of one patient; more are a site or a year that shares its name with its cases
EXAMPLES = 3


def check_patients(source: str, rows: Iterable[Row]) -> None:
    """Refuse slides of one patient in several cases, as barcodes or another column that names patients show.

    Raises:
        CohortError: naming the patient.
    """
    rows = list(rows)
    for column in filter(_names_patients, rows[0].other if rows else ()):
        _refuse_shared(source, column, rows)
    if shared := shared_patient((row.case, row.slide) for row in rows):
        patient, first, second = shared
        raise CohortError(
            f"{source}: cases {first!r} and {second!r} are of one patient, {patient}, who would be "
            "trained on and tested. Give them one case, or set case_from to a pattern that finds "
            "the patient, such as 'TCGA-..-....'."
        )


def _names_patients(column: str) -> bool:
    """Whether a further column names the patient."""
    return bool(PATIENT_HEADER.fullmatch(without_accents(plain_header(column))))


def _refuse_shared(source: str, column: str, rows: Sequence[Row]) -> None:
    cases: dict[str, list[str]] = {}
    for row, cell in zip(rows, without_missing([row.other[column] for row in rows]), strict=True):
        if cell:
            cases.setdefault(identity_of(cell), []).append(row.case)
    n_cases = len({row.case for row in rows})
    for names in cases.values():
        first, *others = dict.fromkeys(names)
        if others and len(others) < max(2, n_cases // 2):  # more share a word such as anonymous
            raise CohortError(
                f"{source}: cases {first!r} and {others[0]!r} have the same {column}. If it names the "
                "patient, who would be trained on and tested, call this column case and the column case "
                "otherwise; if it says something else, rename it."
            )


def shared_patient(slides: Iterable[tuple[str, str]]) -> tuple[str, str, str] | None:
    """A patient and two cases that are both of this patient, as barcodes show; None if there is none.

    Args:
        slides: the case and the name of each slide.
    """
    case_of: dict[str, str] = {}
    for case, slide in slides:
        for patient in {patient_of(case), patient_of(slide)} - {""}:
            if (first := case_of.setdefault(patient, case)) != case:
                return patient, first, case
    return None


def group_cases(rows: Sequence[Row], pattern: str, source: str) -> list[str]:
    """The cases of rows as a pattern finds them in the column case: its first group, or the whole match.

    Raises:
        CohortError: the pattern is none, or finds nothing in a name.
    """
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise CohortError(
            f"case_from={pattern!r} is no regular expression ({error}). An example is 'TCGA-..-....'."
        ) from error
    cases = []
    for row in rows:
        match = regex.search(row.case)
        case = (match.group(1 if regex.groups else 0) or "") if match else ""
        if not case:
            raise CohortError(
                f"{source}, line {row.line}: case_from={pattern!r} finds no case in {row.case!r}. Change "
                "the pattern or the name."
            )
        cases.append(case)
    return cases


def note_blocks(cases: Iterable[str]) -> str:
    """A remark on cases whose names look like blocks of fewer patients; empty if there are none."""
    blocks: dict[str, list[str]] = {}
    left = sorted(case for case in set(cases) if not patient_of(case))  # barcodes say it themselves
    readings: list[Callable[[str], str]] = [
        *(partial(_before, n_parts=n) for n in range(1, MOST_PARTS + 1)),
        _behind,
    ]
    for patient_in in readings:
        groups: dict[str, list[str]] = {}
        for case in left:
            if patient := patient_in(case):
                groups.setdefault(patient, []).append(case)
        counted = _counted_cases(groups, left) if patient_in is not _behind else set()
        counted |= {start for start, group in groups.items() if _are_letters(start, group, left)}
        blocks |= {
            name: group
            for name, group in groups.items()
            if 1 < len(group) <= MOST_BLOCKS and not YEAR.fullmatch(name) and name not in counted
        }
        left = [case for case in left if not any(case in group for group in blocks.values())]
    if not blocks:
        return ""
    n_cases = sum(map(len, blocks.values()))
    examples = "; ".join(listed(group[:EXAMPLES]) for group in list(blocks.values())[:EXAMPLES])
    patients = "1 patient" if len(blocks) == 1 else f"{len(blocks)} patients"
    return (
        f"{n_cases} cases look like blocks of {len(blocks)}: {examples}. If these are {patients}, they are "
        "trained on and tested at once: give each patient one case, or set case_from to a pattern that finds "
        "the patient in the name."
    )


def _are_letters(start: str, group: Sequence[str], names: Sequence[str]) -> bool:
    """Whether L and R behind a beginning are letters of many, as in case A to case X, and no sides."""
    letters = [
        name for name in names if LETTERED.fullmatch(name, len(start)) and name.startswith(start)
    ]
    return len(letters) > len(group) and {*group} <= {*letters}


def _counted_cases(groups: Mapping[str, Sequence[str]], names: Sequence[str]) -> set[str]:
    """Beginnings behind which a number counts cases and not blocks, as that of a year or a hospital does.

    Such numbers run on, so that few beginnings have many of them, as in H19-1 to H19-40, 2-1 and 2-2. Blocks
    of patients are few, and the patients many.

    Args:
        groups: names by what stands before the part that may be a block.
        names: all of them.
    """
    counts: dict[str, list[re.Match[str]]] = {}
    for start in groups:
        behind = (COUNT.fullmatch(name, len(start)) for name in names if name.startswith(start))
        if matches := [match for match in behind if match]:
            counts[start] = matches
    matched = [match for matches in counts.values() for match in matches]
    if not matched:
        return set()
    bare = not any(match["letters"] for match in matched)
    most = max(int(match["number"]) for match in matched)
    per_start = len(matched) / len(counts)
    runs_on = per_start > max(FEW_BLOCKS, len(counts)) or (bare and most > MOST_BLOCKS)
    is_year = bare and most > FEW_BLOCKS and all(map(ACCESSION.fullmatch, counts))
    return {*counts} if runs_on or is_year or (bare and len(counts) == 1) else set()


def _before(name: str, *, n_parts: int) -> str:
    """What stands before so many parts that may name a block; empty if there are fewer."""
    for _ in range(n_parts - 1):
        match = LAST_PART.fullmatch(name)
        name = match.group(1) if match else ""
    match = BLOCK.fullmatch(name)
    return (match.group(1) or match.group(2)) if match else ""


def _behind(name: str) -> str:
    """What stands behind the number of a block; empty if there is none."""
    match = FRONT.fullmatch(name)
    return match.group(1) if match else ""
