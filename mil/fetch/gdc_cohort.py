"""A cohort of the Genomic Data Commons: one slide per case, with its label, in one call."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from features.errors import SlideError
from features.progress import Silent
from features.slides.names import slide_name
from mil.fetch.choice import Choice, ChosenCase, choose
from mil.fetch.download import RemoteFile, download, refuse_twins
from mil.fetch.entries import CaseFacts, SlideFile
from mil.fetch.folder import COHORT, CohortFolder, refuse_foreign
from mil.fetch.gdc import (
    ADDRESS,
    LABEL_FIELD,
    VARIABLE,
    data_url,
    list_cases,
    list_slides,
)
from mil.fetch.result import FetchedCohort, FetchOptions, Part, bytes_there
from mil.fetch.service import Service
from mil.fetch.settings import Selection, transfer_of
from mil.fetch.subtypes import SARCOMA_SPELLINGS, SUBTYPE_OF, plain_spelling

SARCOMA = "TCGA-SARC"
COLUMNS = ("case", "slide", "label", "site", "age", "sex", "time", "event", "mpp")
LICENCE = "Open access, see https://gdc.cancer.gov/access-data; cite the study of the project"


def fetch_gdc(
    project: str,
    out: Path | str,
    *,
    subtypes: Sequence[str] = (),
    label_field: str = LABEL_FIELD,
    max_per_subtype: int | None = None,
    slides_per_case: int = 1,
    seed: int = 0,
    **options: Unpack[FetchOptions],
) -> FetchedCohort:
    """Fetch diagnostic slides of a project of the Genomic Data Commons, and write their table.

    ``out/slides`` has the files, ``out/cohort.csv`` the table (case, slide, label, site, age in years, sex,
    time in days to death or the last follow-up, event, and mpp where a file states it), ``out/manifest.csv``
    where each file came from. Normal tissue and frozen sections are left out. A second call fetches what is
    missing, and continues a file that was cut.

    Args:
        project: as ``TCGA-SARC``.
        out: the folder to fill.
        subtypes: labels; all if empty. TCGA-SARC has LMS, DDLPS, UPS, MFS, MPNST, SS, DF, PLPS and WDLPS.
        label_field: the field of the service's cases that is the label.
        max_per_subtype: cases of each label, drawn by the seed; those of fewer are among those of more.
        slides_per_case: the first diagnostic slides of a case, by their number (DX1, DX2, ...).
        seed: of the draw.
        **options: see ``FetchOptions``.

    Returns:
        What was fetched, or would be.

    Raises:
        FetchError: the service does not answer, has no such project, or the disk would be full.

    Example:
        cohort = mil.fetch_gdc(
            "TCGA-SARC", "tcga-sarc", subtypes=["LMS", "DDLPS"], max_per_subtype=2, dry_run=True
        )
        print(cohort.n_bytes, [(part.name, part.n_cases) for part in cohort.parts])
    """
    out, transfer = Path(out), transfer_of(options)
    refuse_foreign(out)
    selection = Selection(
        subtypes=(subtypes,) if isinstance(subtypes, str) else tuple(subtypes),
        max_per_subtype=max_per_subtype,
        slides_per_case=slides_per_case,
        seed=seed,
    )
    address = transfer.server or os.environ.get(VARIABLE, "") or ADDRESS
    with Service(address, transfer, options.get("notify")) as service:
        slides = list_slides(service, project)
        cases = list_cases(service, project, label_field)
        choice = choose(slides, cases, selection, *_labels(project, label_field, cases))
        files = _files(service, choice)
        refuse_twins(files)
        for note in choice.notes:
            service.notify(note)
        plan = _plan(project, out, choice, files)
        if options.get("dry_run"):
            return plan
        settings = {
            **vars(selection),
            "subtypes": [*selection.subtypes],
            "label_field": label_field,
        }
        folder = CohortFolder(out, project, address, settings)
        return _fill(service, folder, choice, plan, options)


def _fill(
    service: Service,
    folder: CohortFolder,
    choice: Choice,
    plan: FetchedCohort,
    options: FetchOptions,
) -> FetchedCohort:
    """Fetch the files and write the table of those that are there."""
    notify = options.get("notify")
    with folder.claimed():
        folder.begin(plan.files)
        folder.report(notify)
        progress = options.get("progress") or Silent()
        result = download(service, plan.files, folder.path, progress, folder.versions)
        there = {*result.new, *result.present}
        rows = [
            _row(case, slide, folder.path)
            for group in choice.groups
            for case in group.chosen
            for slide in case.slides
            if _place(slide) in there
        ]
        table = folder.write_table(COHORT, COLUMNS, rows)
        folder.finish(plan.files, result)
        folder.notes += result.notes
        folder.report(notify)
    return replace(plan, downloads=result, table=table)


def _labels(
    project: str, label_field: str, cases: Mapping[str, CaseFacts]
) -> tuple[Callable[[str], str], tuple[str, ...]]:
    """The label of a spelling: of the table of TCGA-SARC, or its commonest form whatever the capitals.

    Returns:
        The function of a spelling, and the labels that there are, whether or not a case has them.
    """
    if project == SARCOMA and label_field.removeprefix("cases.") == LABEL_FIELD:
        return lambda spelling: SUBTYPE_OF.get(plain_spelling(spelling), ""), (*SARCOMA_SPELLINGS,)
    counts = Counter(spelling for case in cases.values() for spelling in case.spellings)
    commonest: dict[str, str] = {}
    for spelling, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
        commonest.setdefault(plain_spelling(spelling), spelling)
    return lambda spelling: commonest.get(plain_spelling(spelling), ""), (*commonest.values(),)


def _place(slide: SlideFile) -> str:
    return f"slides/{slide.name}"


def _files(service: Service, choice: Choice) -> tuple[RemoteFile, ...]:
    return tuple(
        RemoteFile(
            url=data_url(service, slide.id),
            place=_place(slide),
            size=slide.size,
            md5=slide.md5,
            version=slide.md5,
            id=slide.id,
            case=case.facts.name,
            slide=slide_name(slide.name),
        )
        for group in choice.groups
        for case in group.chosen
        for slide in case.slides
    )


def _plan(project: str, out: Path, choice: Choice, files: tuple[RemoteFile, ...]) -> FetchedCohort:
    parts = tuple(
        Part(
            name=group.label,
            n_available=group.n_cases,
            n_cases=len(group.chosen),
            n_files=sum(len(case.slides) for case in group.chosen),
            n_bytes=group.n_bytes,
        )
        for group in choice.groups
    )
    return FetchedCohort(
        source=project,
        out=out,
        parts=parts,
        spellings=choice.spellings,
        left_out={reason: n for reason, n in choice.left_out.items() if n},
        files=files,
        n_bytes=sum(file.size for file in files),
        bytes_there=bytes_there(files, out),
        licence=LICENCE,
    )


def _row(case: ChosenCase, slide: SlideFile, folder: Path) -> tuple[str, ...]:
    facts = case.facts
    site = slide.site or facts.site
    mpp = _stated_mpp(folder / _place(slide))
    return (
        facts.name, slide_name(slide.name), case.label, site, facts.age, facts.sex, facts.time,
        facts.event, mpp,
    )  # fmt: skip


def _stated_mpp(path: Path) -> str:
    """Micrometres per pixel as the file states them; empty where it does not, or cannot be opened."""
    from features.slides.slide import open_slide

    try:
        with open_slide(path) as slide:
            return f"{slide.mpp[0]:.6g}"
    except SlideError:
        return ""
