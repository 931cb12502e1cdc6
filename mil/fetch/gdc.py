"""What the Genomic Data Commons knows of a project: its slide images and its cases."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from features.choices import suggest
from mil.errors import FetchError
from mil.fetch.entries import CaseFacts, SlideFile, case_facts, merge_twins, slide_file
from mil.fetch.service import Service, parse_answer

ADDRESS = "https://api.gdc.cancer.gov"
VARIABLE = "SARCOMIL_GDC_SERVER"
PAGE = 500  # hits of one answer
LABEL_FIELD = "diagnoses.primary_diagnosis"
FILE_FIELDS = (
    "file_id", "file_name", "file_size", "md5sum", "access", "experimental_strategy",
    "cases.submitter_id", "cases.samples.sample_type", "cases.samples.tissue_type",
)  # fmt: skip
CASE_FIELDS = (
    "submitter_id", "tissue_source_site.code", "demographic.gender", "demographic.sex_at_birth",
    "demographic.vital_status", "demographic.days_to_death", "demographic.age_at_index",
    "diagnoses.age_at_diagnosis", "diagnoses.days_to_last_follow_up",
    "diagnoses.diagnosis_is_primary_disease", "follow_ups.days_to_follow_up",
)  # fmt: skip


def list_slides(service: Service, project: str) -> tuple[SlideFile, ...]:
    """All open slide images of a project, also those whose entry has a problem.

    Raises:
        FetchError: there are none, none can be used, or the service answers otherwise than expected.
    """
    conditions = [
        _condition("cases.project.project_id", project),
        _condition("data_type", "Slide Image"),
        _condition("access", "open"),
    ]
    hits = _hits(service, "files", conditions, FILE_FIELDS, "file_id:asc")
    files = merge_twins(map(slide_file, hits))
    if not files:
        raise FetchError(_no_slides(service, project))
    if all(file.problem for file in files):
        source, what = f"{service.address}/files", f"{files[0].name}: {files[0].problem}"
        raise _unexpected(source, ValueError(what))
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
    cases = merge_twins(case_facts(hit, field) for hit in hits)
    if cases and not any(case.spellings for case in cases):
        raise FetchError(
            f"No case of {project} has a value in {label_field!r}. Set label_field to a field of the "
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
