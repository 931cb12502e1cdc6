"""Extract the CT and MRI series of a study's table: films, bags, and the table of their cases."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

from features.columns.names import CASE, SLIDE
from features.columns.spelling import plain_header
from features.extraction.films import FilmOutcome, film_jobs, lay_out_films
from features.extraction.run import Extraction, ExtractionOptions, extract_jobs
from features.files.atomic import atomic_path
from features.recipe import Recipe
from features.slides.names import file_name
from features.volumes.facts import format_ml
from features.volumes.jobs import SeriesFiles, VolumeJob
from features.volumes.recipe import VolumeRecipe
from mil.data.case import Row
from mil.data.headers import SERIES, match_columns, unique_columns
from mil.data.names import normalised
from mil.data.sheet import Sheet, read_sheet
from mil.data.values import is_missing
from mil.errors import CohortError

NEEDED = ("case", "modality", "path")
NAMED = 5  # in an error
OWN_COLUMNS = (*SLIDE, "tumour_ml")  # which the table of the extraction has
ROW_COLUMNS = ("label", "site", "split")
LISTED_ONLY = (
    "number",
    "details",
    "slices",
    "spacing_mm",
    "problems",
)  # what a list of series adds for the reader


@dataclass(frozen=True)
class VolumeTable:
    """A table of series.

    Attributes:
        jobs: one per case and time point.
        cells: its other columns, by name of the volume.
    """

    jobs: tuple[VolumeJob, ...]
    cells: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class VolumeExtraction:
    """The result of an extraction of volumes.

    Attributes:
        films: what became of every volume.
        bags: what became of every film; None where there is none.
        cohort: the table of cases and volumes, to learn from.
    """

    films: tuple[FilmOutcome, ...]
    bags: Extraction | None
    cohort: Path

    @property
    def failed(self) -> tuple[str, ...]:
        """Why volumes failed."""
        bags = self.bags.failed if self.bags else ()
        films = tuple(film.reason for film in self.films if film.status == "failed")
        return films + tuple(bag.reason for bag in bags)


def read_volume_table(path: Path, roi: str = "", cases: Path | None = None) -> VolumeTable:
    """Read a table with a row for every modality of every case.

    Columns are case, modality and path; timepoint, series, mask and roi may follow. Paths are relative to the
    table. Further columns, as label or age, belong to the case.

    Args:
        path: of the table.
        roi: the region, where the table names none.
        cases: a table with one row per case, whose columns are added.

    Raises:
        CohortError: a column is missing, a cell is empty, a modality comes twice, or a case has two values of
            a further column.
    """
    sheet = read_sheet(path)
    columns = _match(sheet)
    groups: dict[tuple[str, str], list[tuple[int, dict[str, str]]]] = {}
    for line, cells in sheet.lines:
        own = {key: cells[column] for key, column in columns.items()}
        for key in NEEDED:
            if is_missing(own[key]):
                raise CohortError(f"{path}, line {line}: {key} is empty. Fill it in.")
        blank = {key: "" if is_missing(value) else value for key, value in own.items()}
        groups.setdefault((blank["case"], blank.get("timepoint", "")), []).append((line, blank))
    names = {key: f"{key[0]}-{key[1]}" if key[1] else key[0] for key in groups}
    jobs = [_job(path, names[key], rows, roi) for key, rows in groups.items()]
    if not jobs:
        raise CohortError(f"{path}: has no row. List the series of patients first.")
    other = [c for c in sheet.header if c not in columns.values() and c not in LISTED_ONLY]
    _check_further(path, other)
    by_case = _cells_by_case(sheet, columns["case"], other)
    if cases:
        by_case = _with_cases(by_case, cases)
    return VolumeTable(tuple(jobs), {job.name: by_case[job.case] for job in jobs})


def rows_of(table: VolumeTable) -> tuple[Row, ...]:
    """The rows of a cohort's table: one per volume, with the columns of its case."""
    rows = []
    for line, job in enumerate(table.jobs, start=1):
        cells = table.cells[job.name]
        own = {plain_header(name): value for name, value in cells.items()}
        label, site, split = (
            "" if is_missing(own.get(name, "")) else own[name] for name in ROW_COLUMNS
        )
        other = {n: value for n, value in cells.items() if plain_header(n) not in ROW_COLUMNS}
        rows.append(
            Row(
                line=line, case=job.case, slide=job.name, label=label, site=site, split=split, other=other
            )
        )  # fmt: skip
    return tuple(rows)


def modalities_of(path: Path) -> tuple[str, ...]:
    """The modalities of a table, in their order there.

    Raises:
        CohortError: it has no such column.
    """
    sheet = read_sheet(path)
    column = _match(sheet)["modality"]
    return tuple(dict.fromkeys(cells[column] for _, cells in sheet.lines))


def extract_volumes(
    table: Path | str,
    out: Path | str,
    *,
    volumes: VolumeRecipe,
    recipe: Recipe,
    roi: str = "",
    cases: Path | str | None = None,
    **options: Unpack[ExtractionOptions],
) -> VolumeExtraction:
    """Lay out and embed the slices of CT and MRI series: one bag per examination.

    The films, which are slides to all that looks at bags, stand in ``out/films``; ``out/cohort.csv`` is the
    table to learn from. A second call goes on where the first stopped, and a volume that fails does not stop
    the others.

    Args:
        table: with case, modality and path; see ``read_volume_table``.
        out: the store, one ``<case>.h5`` per examination.
        volumes: which slices, what they show, and at what scale.
        recipe: backbone, weights and seed; what it says of slides is not used.
        roi: the region, where the table names none.
        cases: a table with one row per case, whose columns are added to the cohort.
        **options: see ``features.extraction.run.ExtractionOptions``.

    Raises:
        CohortError: the table cannot be read.
        InputError: a setting does not apply to volumes.
        BackboneError: the backbone cannot be loaded.

    Example:
        volumes = mil.VolumeRecipe(channels=("CT", "T1", "PET"), windows=("CT=-160:240",))
        recipe = mil.Recipe(backbone="resnet18", weights="random")
        mil.extract_volumes("volumes.csv", "volume-store", volumes=volumes, recipe=recipe)
    """
    rows, out = read_volume_table(Path(table), roi, Path(cases) if cases else None), Path(out)
    films = lay_out_films(
        rows.jobs,
        volumes,
        out / "films",
        options.get("progress"),
        overwrite=options.get("overwrite", False),
    )
    _remove_outdated(out, films)
    jobs, bags = film_jobs(films), None
    if jobs:
        bags = extract_jobs(jobs, replace(recipe, tile=volumes.tile), out, **options)
    cohort = out / "cohort.csv"
    _write_cohort(cohort, films, rows.cells)
    return VolumeExtraction(films, bags, cohort)


def _remove_outdated(store: Path, films: Sequence[FilmOutcome]) -> None:
    """Remove the bags of volumes whose files have changed and cannot be laid out any more."""
    for film in films:
        if film.status == "failed" and film.outdated:
            (store / f"{file_name(film.name)}.h5").unlink(missing_ok=True)


def _match(sheet: Sheet) -> dict[str, str]:
    """Our column names to those of the file."""
    columns = match_columns(sheet.path, sheet.header, SERIES)
    missing = [key for key in NEEDED if key not in columns]
    if missing:
        raise CohortError(
            f"{sheet.path}: no column {missing[0]}; it has {', '.join(sheet.header)}. Each row is one "
            "modality of one case: name case, modality and path."
        )
    return columns


def _job(
    table: Path, name: str, rows: Sequence[tuple[int, Mapping[str, str]]], roi: str
) -> VolumeJob:
    """One examination, from its rows."""
    modalities: dict[str, SeriesFiles] = {}
    for line, cells in rows:
        modality = cells["modality"]
        if modality in modalities:
            raise CohortError(
                f"{table}, line {line}: {name} has two series named {modality}. Remove one, or give each a "
                "name or a timepoint of its own."
            )
        modalities[modality] = SeriesFiles(
            path=table.parent / cells["path"],
            series=cells.get("series", ""),
            mask=table.parent / cells["mask"] if cells.get("mask") else None,
            roi=cells.get("roi", "") or roi,
        )
    return VolumeJob(name=name, case=rows[0][1]["case"], modalities=modalities)


def _check_further(path: Path, columns: Sequence[str]) -> None:
    """Refuse further columns that the table of the extraction could not hold beside its own.

    Raises:
        CohortError: one has the name of a column that is written, or two have one name but for its spelling.
    """
    own = {plain_header(name) for name in OWN_COLUMNS}
    if reserved := [name for name in columns if plain_header(name) in own]:
        raise CohortError(
            f"{path}: column {reserved[0]} is written by the extraction itself. Rename or remove it."
        )
    unique_columns(path, [(plain_header(name), name) for name in columns])


def _cells_by_case(sheet: Sheet, case: str, columns: Sequence[str]) -> dict[str, dict[str, str]]:
    """What further columns say of every case; what one row says holds for the blank cells of others.

    Raises:
        CohortError: a case has two values in one column.
    """
    of_case: dict[str, dict[str, str]] = {}
    for line, cells in sheet.lines:
        known = of_case.setdefault(cells[case], dict.fromkeys(columns, ""))
        for column in columns:
            value = cells[column]
            if known[column] and value and value != known[column]:
                raise CohortError(
                    f"{sheet.path}, line {line}: {column} of {cells[case]} is {value!r}, and "
                    f"{known[column]!r} in a row above. A case has one value."
                )
            known[column] = known[column] or value
    return of_case


def _with_cases(by_case: Mapping[str, Mapping[str, str]], path: Path) -> dict[str, dict[str, str]]:
    """The columns of every case, and those of a table of cases.

    Raises:
        CohortError: no row is of a case, or both tables have a value that differs.
    """
    known_as = {plain_header(name): name for cells in by_case.values() for name in cells}
    added = {
        case: {known_as.get(plain_header(name), name): cell for name, cell in cells.items()}
        for case, cells in _case_table(path).items()
    }
    absent = [case for case in by_case if normalised(case) not in added]
    if absent:
        known = ", ".join(list(added)[:NAMED])
        raise CohortError(
            f"{path}: no row of {len(absent)} of {len(by_case)} cases, {', '.join(absent[:NAMED])}; it names "
            f"{known or 'none'}. Add their rows, or write cases alike in both tables."
        )
    joined = {}
    for case, cells in by_case.items():
        more = added[normalised(case)]
        for name in set(cells) & set(more):
            if cells[name] and more[name] and cells[name] != more[name]:
                raise CohortError(
                    f"{path}: {name} of {case} is {more[name]!r}, and {cells[name]!r} in the table of "
                    "series. A case has one value."
                )
        joined[case] = {**cells, **{k: v or cells.get(k, "") for k, v in more.items()}}
    return joined


def _case_table(path: Path) -> dict[str, dict[str, str]]:
    """The columns of a table with one row per case, by the case's name however it is spelt."""
    sheet = read_sheet(path)
    own = match_columns(path, sheet.header, {"case": CASE}).get("case")
    if own is None:
        raise CohortError(
            f"{path}: no column case; it has {', '.join(sheet.header)}. Name one of them case."
        )
    _check_further(path, [name for name in sheet.header if name != own])
    rows: dict[str, dict[str, str]] = {}
    for line, cells in sheet.lines:
        case = normalised(cells[own])
        if case in rows:
            raise CohortError(f"{path}, line {line}: case {cells[own]!r} comes twice.")
        rows[case] = {name: value for name, value in cells.items() if name != own}
    return rows


def _write_cohort(
    path: Path, films: Sequence[FilmOutcome], cells: Mapping[str, Mapping[str, str]]
) -> None:
    """The table to learn from: a row per volume, with the columns of its case and the tumour's volume.

    Rows of volumes that another table has brought into the store stay.
    """
    rows = {line["slide"]: line for _, line in read_sheet(path).lines} if path.is_file() else {}
    for film in films:
        rows.pop(film.name, None)
        if film.facts:
            own = {"case": film.case, "slide": film.name, **cells[film.name]}
            rows[film.name] = own | {"tumour_ml": format_ml(film.facts.tumour_ml)}
    columns = dict.fromkeys(["case", "slide", *(c for row in rows.values() for c in row)])
    names = [c for c in columns if c != "tumour_ml"] + ["tumour_ml"]
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows[name] for name in sorted(rows))
