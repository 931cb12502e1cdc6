"""A cohort of the Imaging Data Commons: DICOM slides and series of CT, MRI and PET, laid out to be read."""

import os
import re
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack
from urllib.parse import quote

from features.choices import unknown_problem
from features.progress import Silent
from mil.errors import FetchError
from mil.fetch.choice import draw
from mil.fetch.download import RemoteFile, download
from mil.fetch.folder import COHORT, CohortFolder, refuse_foreign
from mil.fetch.idc import (
    BUCKET_ADDRESS,
    INDEX_VARIABLE,
    VARIABLE,
    IndexedSeries,
    bucket_address,
    find_series,
    list_files,
)
from mil.fetch.result import FetchedCohort, FetchOptions, Part
from mil.fetch.service import Service
from mil.fetch.settings import transfer_of
from mil.fetch.threads import in_threads

SLIDES = "SM"
READ = ("CT", "MR", "PT", "RTSTRUCT", "RTDOSE", SLIDES)
OTHER_NAMES = {"MRI": "MR", "PET": "PT", "WSI": SLIDES}
CASES = "cases.csv"
AGE = re.compile(r"(\d{1,3})([DWMY])")
PER_YEAR = {"D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0}
# Of TCGA "FFPE HE TP DX1" and "Frozen HE NT TSA", of CPTAC "HE normal".
NORMAL = re.compile(r"\bNT\b|(?i:\bnormal\b)")
FROZEN = re.compile(r"(?i:\bfrozen\b)")
SEX = {"F": "female", "M": "male"}


def fetch_idc(
    collection: str,
    out: Path | str,
    *,
    modality: Sequence[str] = (),
    max_cases: int | None = None,
    slides_per_case: int | None = None,
    seed: int = 0,
    index: Path | str | None = None,
    **options: Unpack[FetchOptions],
) -> FetchedCohort:
    """Fetch slides and series of a collection of the Imaging Data Commons.

    ``out/volumes`` has one folder per patient with one per series, ``out/slides`` one folder per slide.
    ``out/cases.csv`` has age and sex of each case, ``out/cohort.csv`` the slides, ``out/manifest.csv`` where
    each file came from. Slides of normal tissue, frozen sections, and what others have computed from the
    images are left out. A second call fetches what is missing. A dry run needs no network.

    Args:
        collection: as ``soft_tissue_sarcoma`` or ``rms_mutation_prediction``.
        out: the folder to fill.
        modality: CT, MR, PT, SM (slides), RTSTRUCT (outlines) or RTDOSE; all of these if empty.
        max_cases: cases, drawn by the seed; those of fewer are among those of more.
        slides_per_case: the first slides of a case, by number (DX1, DX2, ...); all if not given.
        seed: of the draw.
        index: of all series, as Parquet or CSV; that of the package idc-index-data if not given.
        **options: see ``FetchOptions``.

    Returns:
        What was fetched, or would be.

    Raises:
        FetchError: a package is missing, there is no such collection, the service does not answer, or the
            disk would be full.

    Example:
        cohort = mil.fetch_idc("soft_tissue_sarcoma", "sts", max_cases=2, dry_run=True)
        print(cohort.n_bytes, [(part.name, part.n_files) for part in cohort.parts])
    """
    out, transfer = Path(out), transfer_of(options)
    for parameter, value in (("max_cases", max_cases), ("slides_per_case", slides_per_case)):
        if value is not None and value < 1:
            raise FetchError(f"{parameter} must be at least 1; got {value}.")
    index = index or os.environ.get(INDEX_VARIABLE) or None
    name = re.sub(r"[\s-]+", "_", collection.strip()).lower()
    listed = find_series(name, Path(index) if index else None)
    refuse_foreign(out)
    modalities = _modalities(modality, listed)
    usable, left_out = _usable(listed, modalities)
    outlines = [one for one in modalities if modality and one.startswith("RT")]
    chosen = _first_slides(_draw_cases(usable, max_cases, seed, outlines), slides_per_case)
    if others := len({one.case for one in usable} - {one.case for one in chosen}):
        left_out["other cases"] = others
    plan = _plan(name, out, usable, chosen, left_out)
    if options.get("dry_run"):
        return plan
    server = transfer.server or os.environ.get(VARIABLE, "")
    settings = {
        "modality": [*modalities],
        "max_cases": max_cases,
        "slides_per_case": slides_per_case,
        "seed": seed,
    }
    with Service(server, transfer, options.get("notify")) as service:
        folder = CohortFolder(out, name, server or BUCKET_ADDRESS, settings)
        return _fill(service, folder, chosen, plan, options)


def _modalities(names: Sequence[str], listed: Sequence[IndexedSeries]) -> tuple[str, ...]:
    """The modalities to fetch, as DICOM calls them.

    Raises:
        FetchError: the collection has none of these.
    """
    there = list(dict.fromkeys(one.modality for one in listed if not one.is_analysis))
    if not names:
        readable = tuple(name for name in READ if name in there)
        if not readable:
            raise FetchError(
                f"The collection has {', '.join(there)}, none of which is read. Name modality to fetch them."
            )
        return readable
    names = (names,) if isinstance(names, str) else names
    upper = [OTHER_NAMES.get(name.strip().upper(), name.strip().upper()) for name in names]
    if problem := unknown_problem("modality", upper, sorted(there)):
        raise FetchError(problem)
    return tuple(dict.fromkeys(upper))


def _usable(
    listed: Sequence[IndexedSeries], modalities: Sequence[str]
) -> tuple[tuple[IndexedSeries, ...], dict[str, int]]:
    """The series of modalities, in the order of these, and those left out by reason."""
    left_out = Counter[str]()
    usable = []
    for one in listed:
        if one.is_analysis:
            left_out["series computed from the images by others"] += 1
        elif one.modality not in modalities:
            left_out[f"series of {one.modality}"] += 1
        elif one.modality == SLIDES and NORMAL.search(one.description):
            left_out["slides of normal tissue"] += 1
        elif one.modality == SLIDES and FROZEN.search(one.description):
            left_out["frozen sections"] += 1
        else:
            usable.append(one)
    return tuple(sorted(usable, key=lambda one: modalities.index(one.modality))), dict(left_out)


def _draw_cases(
    usable: Sequence[IndexedSeries], max_cases: int | None, seed: int, outlines: Sequence[str]
) -> tuple[IndexedSeries, ...]:
    """The series of cases that have an image; where not all are fetched, of those with the outlines too.

    Args:
        usable: series to choose from.
        max_cases: cases; all if not given.
        seed: of the draw.
        outlines: modalities that a case must have to be drawn, as RTSTRUCT.
    """
    images = {one.case for one in usable if not one.modality.startswith("RT")}
    cases = images or {one.case for one in usable}
    if max_cases is not None:
        for name in outlines:
            cases = cases & {one.case for one in usable if one.modality == name} or cases
    drawn = {*draw(cases, max_cases, seed)}
    return tuple(one for one in usable if one.case in drawn)


def _first_slides(series: Sequence[IndexedSeries], n: int | None) -> tuple[IndexedSeries, ...]:
    """The series without slides of a case after so many, by the numbers in their descriptions."""
    slides = sorted((one for one in series if one.modality == SLIDES), key=_slide_order)
    count = Counter[str]()
    left_out = set()
    for one in slides:
        count[one.case] += 1
        if n is not None and count[one.case] > n:
            left_out.add(one.uid)
    return tuple(one for one in series if one.uid not in left_out)


def _slide_order(slide: IndexedSeries) -> tuple[int, str, str]:
    numbers = re.findall(r"\d+$", slide.description)
    return int(numbers[0]) if numbers else 1_000, slide.description, slide.uid


def _plan(
    collection: str,
    out: Path,
    usable: Sequence[IndexedSeries],
    chosen: Sequence[IndexedSeries],
    left_out: Mapping[str, int],
) -> FetchedCohort:
    parts = []
    for name in dict.fromkeys(one.modality for one in usable):
        own = [one for one in chosen if one.modality == name]
        parts.append(
            Part(
                name=name,
                n_available=len({one.case for one in usable if one.modality == name}),
                n_cases=len({one.case for one in own}),
                n_files=len(own),
                n_bytes=sum(one.n_bytes for one in own),
            )
        )
    terms = sorted({f"{one.licence}, doi {one.doi}" for one in chosen if one.licence})
    return FetchedCohort(
        source=collection,
        out=out,
        parts=tuple(parts),
        left_out=left_out,
        n_bytes=sum(one.n_bytes for one in chosen),
        bytes_there=sum(_bytes_there(one, out) for one in chosen),
        licence="; ".join(terms),
    )


def _bytes_there(series: IndexedSeries, out: Path) -> int:
    """Bytes of a series that are there already, or of the beginnings of its files."""
    place = out / series_place(series)
    files = [path for path in place.rglob("*") if path.is_file()]
    if series.modality == SLIDES:  # a slide of one file is named so itself
        files += [path for path in place.parent.glob(f"{place.name}.*") if path.is_file()]
    return min(series.n_bytes, sum(path.stat().st_size for path in files))


def _fill(
    service: Service,
    folder: CohortFolder,
    chosen: Sequence[IndexedSeries],
    plan: FetchedCohort,
    options: FetchOptions,
) -> FetchedCohort:
    """Fetch the files of the series and write the tables."""
    progress = options.get("progress") or Silent()
    with folder.claimed():
        files_of: dict[str, tuple[RemoteFile, ...]] = {}
        lock = threading.Lock()
        with progress.task("series listed", len(chosen), "series") as advance:

            def ask(one: IndexedSeries) -> None:
                listed = _remote_files(service, one)
                with lock:
                    files_of[one.uuid] = listed
                    advance(1)

            in_threads(service, chosen, ask)
        files = tuple(file for one in chosen for file in files_of[one.uuid])
        folder.begin(files)
        folder.report(options.get("notify"))
        result = download(service, files, folder.path, progress, folder.versions, folder.md5s)
        there = {*result.new, *result.present}
        whole = [one for one in chosen if all(f.place in there for f in files_of[one.uuid])]
        table = _write_tables(folder, whole)
        folder.finish(files, result)
        folder.notes += result.notes
        folder.report(options.get("notify"))
    return replace(plan, files=files, downloads=result, table=table)


def _remote_files(service: Service, series: IndexedSeries) -> tuple[RemoteFile, ...]:
    place, address = series_place(series), bucket_address(service.address, series.bucket)
    return tuple(
        RemoteFile(
            url=file.url,
            place=place + _below(series, file.key.rpartition("/")[2]),
            size=file.size,
            md5=file.md5,
            version=file.etag,
            tag=file.etag,
            id=series.uid,
            case=series.case,
            slide=Path(place).name if series.modality == SLIDES else "",
        )
        for file in list_files(service, address, series)
    )


def _below(series: IndexedSeries, name: str) -> str:
    """What follows the place of a series; a slide of one file has the name of the slide itself."""
    is_slide_file = series.modality == SLIDES and series.n_files == 1
    return Path(name).suffix if is_slide_file else f"/{name}"


def series_place(series: IndexedSeries) -> str:
    """The folder of a series: of a slide its name, else below that of the patient."""
    case, tag = safe_name(series.case), series.uuid.replace("-", "")[:8]
    if series.modality == SLIDES:
        return f"slides/{case}-{tag}"
    return f"volumes/{case}/{safe_name(series.modality)}-{tag}"


def safe_name(text: str) -> str:
    """A text as the name of a folder; different texts stay different."""
    name = quote(text, safe=" ()+,=@")
    return f"%2E{name[1:]}" if name.startswith(".") else name


def _write_tables(folder: CohortFolder, series: Sequence[IndexedSeries]) -> Path | None:
    """Write the cases, and the slides where there are any; the path of the latter."""
    facts: dict[str, tuple[str, str]] = {}
    for one in series:
        age, sex = facts.get(safe_name(one.case), ("", ""))
        facts[safe_name(one.case)] = (age or years(one.age), sex or SEX.get(one.sex.upper(), ""))
    folder.write_table(
        CASES, ("case", "age", "sex"), [(case, *facts[case]) for case in sorted(facts)]
    )
    slides = [one for one in series if one.modality == SLIDES]
    if not slides:
        return None
    rows = [
        (
            safe_name(one.case),
            Path(series_place(one)).name,
            *facts[safe_name(one.case)],
            one.description,
        )
        for one in slides
    ]
    return folder.write_table(COHORT, ("case", "slide", "age", "sex", "specimen"), sorted(rows))


def years(age: str) -> str:
    """Years of an age as DICOM writes it (``046M``); empty where it is none."""
    match = AGE.fullmatch(age.strip().upper())
    return f"{int(match[1]) / PER_YEAR[match[2]]:.4g}" if match else ""
