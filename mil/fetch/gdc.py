"""What the Genomic Data Commons knows of a project: its slide images and its cases."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from features.choices import suggest
from mil.data.values import is_missing
from mil.errors import FetchError
from mil.fetch.barcode import DIAGNOSTIC, parse_barcode
from mil.fetch.service import Service, parse_answer

ADDRESS = "https://api.gdc.cancer.gov"
VARIABLE = "SARCOMIL_GDC_SERVER"
PAGE = 500  # hits of one answer
LABEL_FIELD = "diagnoses.primary_diagnosis"
FILE_FIELDS = (
    "file_id", "file_name", "file_size", "md5sum", "access", "experimental_strategy",
    "cases.submitter_id", "cases.samples.sample_type",
)  # fmt: skip
CASE_FIELDS = (
    "submitter_id", "tissue_source_site.code", "demographic.gender", "demographic.sex_at_birth",
    "demographic.vital_status", "demographic.days_to_death", "demographic.age_at_index",
    "diagnoses.age_at_diagnosis", "diagnoses.days_to_last_follow_up",
    "diagnoses.diagnosis_is_primary_disease", "follow_ups.days_to_follow_up",
)  # fmt: skip
FILE_LIST, CASE_LIST = "The list of slide images", "The list of cases"
DAYS_PER_YEAR = 365.25
SAFE_NAME = re.compile(r"[\w()+,@=][\w()+,@=. -]*")
TUMOUR_TYPE = re.compile(r"(?!.*normal).*(tumou?r|metasta|recurren|primary)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class SlideFile:
    """A slide image.

    Attributes:
        id, name, size, md5: of the file.
        cases: that it belongs to; one, as a rule.
        is_diagnostic, is_tumour: by the barcode's positions, or by the service's words where there is no
            barcode.
        site: code of the hospital; empty where it is not known.
        order: sorts the slides of a case.
    """

    id: str
    name: str
    size: int
    md5: str
    cases: tuple[str, ...]
    is_diagnostic: bool
    is_tumour: bool
    site: str
    order: tuple[int, int, str]


@dataclass(frozen=True, kw_only=True)
class CaseFacts:
    """A case; what is not known is empty.

    Attributes:
        name: as the service submits it, ``TCGA-DX-AB2Z``.
        spelling: of the label, as the service has it.
        site: code of the hospital.
        sex: ``female`` or ``male``.
        age: years at diagnosis.
        time: days to death or to the last follow-up.
        event: 1 if the case died, 0 if it was alive at the last follow-up.
    """

    name: str
    spelling: str
    site: str
    sex: str
    age: str
    time: str
    event: str


def list_slides(service: Service, project: str) -> tuple[SlideFile, ...]:
    """All open slide images of a project.

    Raises:
        FetchError: there are none, or the service answers otherwise than expected.
    """
    conditions = [
        _condition("cases.project.project_id", project),
        _condition("data_type", "Slide Image"),
        _condition("access", "open"),
    ]
    hits = _hits(service, "files", conditions, FILE_FIELDS, "file_id:asc")
    files = [_slide_file(hit) for hit in hits]
    if not files:
        raise FetchError(_no_slides(service, project))
    return tuple(files)


def list_cases(
    service: Service, project: str, label_field: str = LABEL_FIELD
) -> dict[str, CaseFacts]:
    """The cases of a project by name.

    Args:
        service: that knows them.
        project: as ``TCGA-SARC``.
        label_field: of the service's cases, as ``diagnoses.primary_diagnosis`` or ``disease_type``.

    Raises:
        FetchError: no case has such a field, or the service answers otherwise than expected.
    """
    field = label_field.removeprefix("cases.")
    hits = _hits(
        service,
        "cases",
        [_condition("project.project_id", project)],
        [*CASE_FIELDS, field],
        "submitter_id:asc",
    )
    cases = [_case_facts(hit, field) for hit in hits]
    if cases and not any(case.spelling for case in cases):
        raise FetchError(
            f"No case of {project} has a single value in {label_field!r}. Set label_field to a field of the "
            f"service's cases, such as {LABEL_FIELD}, disease_type, diagnoses.tumor_grade or "
            "demographic.gender."
        )
    return {case.name: case for case in cases}


def data_url(service: Service, file_id: str) -> str:
    """Where the bytes of a file are."""
    return f"{service.address}/data/{file_id}"


def _condition(field: str, value: str) -> dict[str, Any]:
    return {"op": "in", "content": {"field": field, "value": [value]}}


def _hits(
    service: Service,
    endpoint: str,
    conditions: Sequence[Mapping[str, Any]],
    fields: Sequence[str],
    order: str,
) -> Iterator[Mapping[str, Any]]:
    """All hits of a search, page by page."""
    first = 0
    while True:
        question = {
            "filters": {"op": "and", "content": list(conditions)},
            "fields": ",".join(fields),
            "format": "JSON",
            "size": PAGE,
            "from": first,
            "sort": order,
        }
        source = f"{service.address}/{endpoint}"
        answer = parse_answer(source, service.ask(source, question))
        try:
            hits, total = answer["data"]["hits"], int(answer["data"]["pagination"]["total"])
            yield from hits
        except (KeyError, TypeError, ValueError) as error:
            raise _unexpected(source, error) from error
        first += len(hits)
        if first >= total or not hits:
            break
    if first != total:
        raise FetchError(
            f"{source}: lists {first} of {total} hits. It is changing: run the same call again later."
        )


def _unexpected(source: str, error: Exception) -> FetchError:
    return FetchError(
        f"{source} answers otherwise than expected ({type(error).__name__}: {error}). Check the address of "
        "the server; if the service has changed, a newer version of this program may know it."
    )


def _slide_file(hit: Mapping[str, Any]) -> SlideFile:
    try:
        name, size = str(hit["file_name"]), int(hit["file_size"])
        file_id, md5 = str(hit["file_id"]), str(hit["md5sum"]).lower()
        cases = tuple(sorted({str(case["submitter_id"]) for case in hit["cases"]}))
        types = [
            str(sample.get("sample_type"))
            for case in hit["cases"]
            for sample in case.get("samples", ())
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unexpected(FILE_LIST, error) from error
    if not SAFE_NAME.fullmatch(name) or not re.fullmatch(r"[\w-]+", file_id):
        raise FetchError(
            f"The service names a file {name!r} ({file_id!r}), which is no name of a file. "
            "Check the address of the server."
        )
    if not re.fullmatch(r"[0-9a-f]{32}", md5) or size < 0:
        raise FetchError(
            f"The service states {md5!r} as the md5 and {size} as the size of {name}. "
            "Check the address of the server."
        )
    barcode = parse_barcode(name)
    if barcode:
        kind = barcode.kind == DIAGNOSTIC, barcode.is_tumour
        site, order = barcode.site, barcode.order
    else:
        diagnostic = hit.get("experimental_strategy") == "Diagnostic Slide"
        kind = diagnostic, bool(types) and all(map(TUMOUR_TYPE.match, types))
        site, order = "", (0, 0, name)
    return SlideFile(
        id=file_id,
        name=name,
        size=size,
        md5=md5,
        cases=cases,
        is_diagnostic=kind[0],
        is_tumour=kind[1],
        site=site,
        order=order,
    )


def _case_facts(hit: Mapping[str, Any], field: str) -> CaseFacts:
    try:
        name, demographic = str(hit["submitter_id"]), hit.get("demographic") or {}
        diagnoses = _primary(hit.get("diagnoses") or ())
        facts = {**hit, "diagnoses": diagnoses}
        spellings = dict.fromkeys(
            str(value).strip() for value in _values(facts, field) if not is_missing(str(value))
        )
        time, event = _outcome(demographic, facts)
        return CaseFacts(
            name=name,
            spelling=next(iter(spellings)) if len(spellings) == 1 else "",
            site=str((hit.get("tissue_source_site") or {}).get("code") or ""),
            sex=_sex(demographic),
            age=_age(demographic, facts),
            time=time,
            event=event,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unexpected(CASE_LIST, error) from error


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


def _numbers(facts: object, field: str) -> list[float]:
    return [
        float(value)
        for value in _values(facts, field)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    ]


def _sex(demographic: Mapping[str, Any]) -> str:
    """Sex at birth, which older entries call gender."""
    for key in ("sex_at_birth", "gender"):
        value = str(demographic.get(key) or "").strip().casefold()
        if value in ("female", "male"):
            return value
    return ""


def _age(demographic: Mapping[str, Any], facts: object) -> str:
    """Years, with a decimal where the service states days."""
    if days := _numbers(facts, "diagnoses.age_at_diagnosis"):
        return f"{min(days) / DAYS_PER_YEAR:.1f}"
    years = _numbers(demographic, "age_at_index")
    return f"{years[0]:g}" if years else ""


def _outcome(demographic: Mapping[str, Any], facts: object) -> tuple[str, str]:
    """Days and event; both empty where either is not known, as of a death without a date."""
    status = str(demographic.get("vital_status") or "").strip().casefold()
    if status == "dead":
        days = _numbers(demographic, "days_to_death")[:1]
    elif status == "alive":
        days = _numbers(facts, "diagnoses.days_to_last_follow_up")
        days += _numbers(facts, "follow_ups.days_to_follow_up")
    else:
        days = []
    if not days or max(days) < 0:
        return "", ""
    return f"{max(days):g}", str(int(status == "dead"))


def _no_slides(service: Service, project: str) -> str:
    """Why a project has no slides, with the name that may be meant."""
    question = {"fields": "project_id", "format": "JSON", "size": 1000}
    source = f"{service.address}/projects"
    answer = parse_answer(source, service.ask(source, question))
    try:
        names = sorted(str(hit["project_id"]) for hit in answer["data"]["hits"])
    except (KeyError, TypeError) as error:
        raise _unexpected(source, error) from error
    if project in names:
        return f"{project} has no open slide image."
    return (
        f"There is no project {project!r}.{suggest(project, names)} The service has {len(names)}."
    )
