"""Which names are of one patient: barcodes of public programmes, and blocks that share a beginning."""

import re
from collections.abc import Iterable, Sequence

from features.summary import listed
from mil.data.case import Row
from mil.data.names import patient_of
from mil.errors import CohortError

# A number of a patient, then that of a block, a slide or a specimen: Case-3-A12, 17/2, P12b, Case-3-IV.
BLOCK = re.compile(
    r"(.*\d)(?:[-_ ./](?:[A-Za-z]{1,2}\d{0,3}|\d{1,2}[A-Za-z]?|[IVX]{1,5}|[ivx]{1,5})|[A-Za-z])"
)
SIDE = re.compile(r"(.*\w)[-_ ./]+(?:left|right|links|rechts|li|re|l|r)\.?", re.IGNORECASE)
# The number of the block in front: 2-Case-17, A3_Case17.
FRONT = re.compile(r"(?:\d{1,2}|[A-Za-z]\d{1,3})[-_ ./](?P<patient>(?=.*[A-Za-z]).*\d)")
MOST_BLOCKS = 20  # of one patient; more are a site or a year that shares its name with its cases
EXAMPLES = 3


def check_patients(source: str, rows: Iterable[Row]) -> None:
    """Refuse slides of one patient in several cases, as barcodes in either column show.

    Raises:
        CohortError: naming the patient.
    """
    if shared := shared_patient((row.case, row.slide) for row in rows):
        patient, first, second = shared
        raise CohortError(
            f"{source}: cases {first!r} and {second!r} are of one patient, {patient}, who would be "
            "trained on and tested. Give them one case, or set case_from to a pattern that finds "
            "the patient, such as 'TCGA-..-....'."
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
    left = sorted(set(cases))
    for pattern in (SIDE, BLOCK, FRONT):
        groups: dict[str, list[str]] = {}
        for case in left:
            if match := pattern.fullmatch(case):
                groups.setdefault(match.group(1), []).append(case)
        blocks |= {name: group for name, group in groups.items() if 1 < len(group) <= MOST_BLOCKS}
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
