"""What the Genomic Data Commons says of a slide and of a case, and what is wrong with it.

An entry that is damaged, or contradicts itself, says so and stops no other.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from mil.data.values import is_missing
from mil.fetch.barcode import DIAGNOSTIC, SlideBarcode, parse_barcode

DAYS_PER_YEAR = 365.25
LONGEST_LIFE = 125.0  # years
AGREEMENT = 2.0  # years between two statements of one age
SAFE_NAME = re.compile(r"[\w()+,@=][\w()+,@=. -]*")
LONGEST_NAME = 200  # characters; file systems take 255 bytes, with the ending of a part
SAFE_ID = re.compile(r"[\w-]+")
MD5 = re.compile(r"[0-9a-f]{32}")
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?\s*")
NORMAL_TYPE = re.compile(r"normal", re.IGNORECASE)
TUMOUR_TYPE = re.compile(
    r"(?!.*(normal|peritumo)).*(tumou?r|metasta|recurren|primary)", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True)
class SlideFile:
    """A slide image.

    Attributes:
        id, name, size, md5: of the file.
        cases: that it belongs to; one, as a rule.
        is_diagnostic, is_tumour: by the barcode's positions, or by the service's words where there is no
            barcode.
        is_stated: whether either says what the sample is of.
        site: code of the hospital; empty where it is not known.
        order: sorts the slides of a case.
        problem: why it cannot be used; empty if it can.
    """

    id: str
    name: str
    size: int
    md5: str
    cases: tuple[str, ...]
    is_diagnostic: bool
    is_tumour: bool
    is_stated: bool
    site: str
    order: tuple[int, int, str]
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class CaseFacts:
    """A case; what is not known is empty.

    Attributes:
        name: as the service submits it, ``TCGA-DX-AB2Z``.
        spellings: of the label, as the service has them; several where a case has several diagnoses.
        site: code of the hospital.
        sex: ``female`` or ``male``.
        age: years at diagnosis.
        time: days to death or to the last follow-up.
        event: 1 if the case died, 0 if it was alive at the last follow-up.
        problem: why it cannot be used; empty if it can.
        remarks: on facts that are left empty because they cannot be.
    """

    name: str
    spellings: tuple[str, ...]
    site: str
    sex: str
    age: str
    time: str
    event: str
    problem: str = ""
    remarks: tuple[str, ...] = ()


Entry = TypeVar("Entry", SlideFile, CaseFacts)


def slide_file(hit: Any) -> SlideFile:
    """A slide of its entry, whatever is wrong with that."""
    hit = _mapping(hit)
    name, file_id = str(hit.get("file_name") or ""), str(hit.get("file_id") or "")
    cases = [one for one in _entries(hit.get("cases")) if one.get("submitter_id")]
    types = [
        kind
        for case in cases
        for sample in _entries(case.get("samples"))
        if (kind := _kind(sample))
    ]
    size, md5 = _whole_number(hit.get("file_size")), str(hit.get("md5sum") or "").lower()
    names = tuple(sorted({str(case["submitter_id"]) for case in cases}))
    barcode = parse_barcode(name)
    is_diagnostic = hit.get("experimental_strategy") == "Diagnostic Slide"
    is_tumour = bool(types) and all(map(TUMOUR_TYPE.match, types))
    problem = ""
    if not SAFE_NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        problem = "no name of a file"
    elif not SAFE_ID.fullmatch(file_id):
        problem = f"id {file_id!r}"
    elif not MD5.fullmatch(md5):
        problem = f"md5 {hit.get('md5sum')!r}"
    elif size < 0:
        problem = f"size {hit.get('file_size')!r}"
    elif not names:
        problem = "no case"
    return SlideFile(
        id=file_id,
        name=name,
        size=max(0, size),
        md5=md5,
        cases=names,
        is_diagnostic=barcode.kind == DIAGNOSTIC if barcode else is_diagnostic,
        is_tumour=barcode.is_tumour if barcode else is_tumour,
        is_stated=bool(barcode or types),
        site=barcode.site if barcode else "",
        order=barcode.order if barcode else (0, 0, name),
        problem=problem or _contradiction(barcode, names, types),
    )


def _kind(sample: Mapping[str, Any]) -> str:
    """What a sample is of: ``Primary Tumor``, or, as newer entries have it, ``Tumor``; empty if unknown.

    Source: GDC data dictionary, sample: ``tissue_type`` took the place of ``sample_type``.
    """
    known = (str(sample.get(key) or "") for key in ("sample_type", "tissue_type"))
    return next((text for text in known if not is_missing(text)), "")


def _contradiction(barcode: SlideBarcode | None, cases: Sequence[str], types: Sequence[str]) -> str:
    """What the barcode says otherwise than the entry."""
    if barcode is None:
        return ""
    if barcode.case not in cases:
        return f"barcode of another case than {', '.join(cases)}"
    tumour = all(map(TUMOUR_TYPE.match, types))
    normal = all(map(NORMAL_TYPE.search, types))
    if types and (normal if barcode.is_tumour else tumour):
        return f"sample {barcode.sample:02d} of the barcode against {types[0]!r}"
    return ""


def case_facts(hit: Any, field: str) -> CaseFacts:
    """A case of its entry, whatever is wrong with that.

    Args:
        hit: the entry.
        field: with dots, that is the label.
    """
    hit = _mapping(hit)
    demographic = _mapping(hit.get("demographic"))
    diagnoses = _primary(_entries(hit.get("diagnoses")))
    facts = {**hit, "diagnoses": diagnoses}
    spellings = dict.fromkeys(
        str(value).strip() for value in _values(facts, field) if not is_missing(str(value))
    )
    age, doubtful_age = _age(demographic, facts)
    time, event, doubtful_time = _outcome(demographic, facts)
    name = hit.get("submitter_id")
    return CaseFacts(
        name=str(name or ""),
        spellings=tuple(spellings),
        site=str(_mapping(hit.get("tissue_source_site")).get("code") or ""),
        sex=_sex(demographic),
        age=age,
        time=time,
        event=event,
        problem="" if name else "no name",
        remarks=tuple(remark for remark in (doubtful_age, doubtful_time) if remark),
    )


def merge_twins(entries: Iterable[Entry]) -> list[Entry]:
    """One entry of each name; of several that differ none can be used."""
    by_name: dict[str, Entry] = {}
    for number, entry in enumerate(entries):
        name = entry.name or str(number)
        known = by_name.setdefault(name, entry)
        if known != entry:
            by_name[name] = replace(known, problem="listed twice, and differently")
    return list(by_name.values())


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _entries(value: Any) -> list[Mapping[str, Any]]:
    """The entries of a list, without those that are none."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _whole_number(value: Any) -> int:
    """-1 where it is none."""
    number = _number(value)
    return int(number) if number is not None and number >= 0 and number == int(number) else -1


def _primary(diagnoses: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The diagnosis of the disease that the project is about, where the service marks it; else all."""
    marked = [one for one in diagnoses if _is_yes(one.get("diagnosis_is_primary_disease"))]
    return marked or diagnoses


def _is_yes(value: object) -> bool:
    return str(value).casefold() in ("true", "yes")


def _values(facts: object, field: str) -> list[Any]:
    """All values of a field with dots, through lists."""
    if isinstance(facts, list | tuple):
        return [value for one in facts for value in _values(one, field)]
    first, _, rest = field.partition(".")
    value = facts.get(first) if isinstance(facts, Mapping) else None
    if rest:
        return _values(value, rest)
    plain = value if isinstance(value, list) else [value]
    return [one for one in plain if one is not None and not isinstance(one, Mapping | list)]


def _number(value: Any) -> float | None:
    """A finite number, also one that is written as text."""
    if isinstance(value, str) and NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _numbers(facts: object, field: str) -> tuple[list[float], bool]:
    """The numbers of a field, and whether there is anything else that is not simply missing."""
    values = [value for value in _values(facts, field) if not is_missing(str(value))]
    numbers = [number for value in values if (number := _number(value)) is not None]
    return numbers, len(numbers) < len(values)


def _sex(demographic: Mapping[str, Any]) -> str:
    """Sex at birth, which older entries call gender."""
    for key in ("sex_at_birth", "gender"):
        value = str(demographic.get(key) or "").strip().casefold()
        if value in ("female", "male"):
            return value
    return ""


def _age(demographic: Mapping[str, Any], facts: object) -> tuple[str, str]:
    """Years, with a decimal where the service states days; and why they are empty."""
    days, odd_days = _numbers(facts, "diagnoses.age_at_diagnosis")
    stated, odd_years = _numbers(demographic, "age_at_index")
    years = sorted(one / DAYS_PER_YEAR for one in days)
    if odd_days or odd_years or any(not 0 <= one <= LONGEST_LIFE for one in (*years, *stated)):
        return "", "age that cannot be"
    if not years or not stated:
        return (f"{years[0]:.1f}" if years else f"{stated[0]:g}" if stated else ""), ""
    nearest = min(years, key=lambda one: abs(one - stated[0]))
    if abs(nearest - stated[0]) > AGREEMENT:
        return "", "age in days that contradicts the age in years"
    return f"{nearest:.1f}", ""


def _outcome(demographic: Mapping[str, Any], facts: object) -> tuple[str, str, str]:
    """Days and event; both empty where either is not known, as of a death without a date; and why."""
    status = str(demographic.get("vital_status") or "").strip().casefold()
    death, odd_death = _numbers(demographic, "days_to_death")
    days, odd_days = _numbers(facts, "diagnoses.days_to_last_follow_up")
    more, odd_more = _numbers(facts, "follow_ups.days_to_follow_up")
    if status == "alive" and (death or odd_death):
        return "", "", "days to death of a case that is alive"
    if status not in ("alive", "dead"):
        return "", "", ""
    known, odd = (death, odd_death) if status == "dead" else (days + more, odd_days or odd_more)
    if odd:
        return "", "", "days that are no number"
    if not known:
        return "", "", ""
    if max(known) < 0:
        return "", "", "days before the diagnosis"
    return f"{max(known):g}", str(int(status == "dead")), ""
