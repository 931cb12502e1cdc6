"""`mil fetch`: public cohorts, as slides, series and the table that other verbs read."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import typer

from cli.app import Group, app
from cli.options import verb, writable
from mil.fetch.settings import Transfer
from mil.fetch.subtypes import SARCOMA_SPELLINGS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mil.fetch.result import FetchedCohort

fetch = typer.Typer(
    name="fetch",
    cls=Group,
    help="Public cohorts: slides of the Genomic Data Commons, slides and series of the Imaging Data Commons.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(fetch)


@dataclass(frozen=True, kw_only=True)
class Fetching(Transfer):
    """What all of `mil fetch` take."""

    PANEL: ClassVar[str] = ""

    out: Path = field(
        metadata={"help": "The folder to fill with files, cohort.csv and manifest.csv."}
    )
    dry_run: bool = field(
        default=False,
        metadata={"help": "Show cases and bytes, and fetch nothing.", "once": True},
    )


@dataclass(frozen=True, kw_only=True)
class SlideChoice:
    """Which slides of a project are fetched."""

    subtypes: tuple[str, ...] = field(
        default=(),
        metadata={"help": "Labels, as LMS,DDLPS; all if left out.", "split": ","},
    )
    max_per_subtype: int | None = field(
        default=None,
        metadata={
            "help": "Cases of each label, drawn by --seed; the cases of a smaller number are among those of "
            "a larger one."
        },
    )
    slides_per_case: int = field(
        default=1, metadata={"help": "The first diagnostic slides of a case: DX1, DX2, ..."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of the draw of cases."})


@dataclass(frozen=True, kw_only=True)
class SarcomaOptions(Fetching, SlideChoice):
    """Settings of `mil fetch tcga-sarc`."""

    subtypes: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": f"Subtypes, as LMS,DDLPS; all if left out. There are {', '.join(SARCOMA_SPELLINGS)}.",
            "split": ",",
            "complete": lambda: tuple(SARCOMA_SPELLINGS),
        },
    )


@dataclass(frozen=True, kw_only=True)
class GdcOptions(Fetching, SlideChoice):
    """Settings of `mil fetch gdc`."""

    project: str = field(metadata={"help": "A project of the GDC, as TCGA-LUAD."})
    label_field: str = field(
        default="diagnoses.primary_diagnosis",
        metadata={
            "help": "Field of the GDC's cases that is the label, as disease_type or diagnoses.tumor_grade."
        },
    )
    subtypes: tuple[str, ...] = field(
        default=(),
        metadata={"help": "A label, as the GDC spells it; repeatable. All if left out."},
    )


@dataclass(frozen=True, kw_only=True)
class IdcOptions(Fetching):
    """Settings of `mil fetch idc`."""

    collection: str = field(
        metadata={
            "argument": "COLLECTION",
            "help": "A collection of the IDC, as soft_tissue_sarcoma or rms_mutation_prediction.",
        }
    )
    modality: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "CT, MR, PT, SM (slides), RTSTRUCT (outlines of regions) or RTDOSE; all of these if left "
            "out.",
            "split": ",",
        },
    )
    max_cases: int | None = field(
        default=None, metadata={"help": "Cases, drawn by --seed; all if left out."}
    )
    slides_per_case: int | None = field(
        default=None,
        metadata={"help": "The first slides of a case: DX1, DX2, ...; all if left out."},
    )
    seed: int = field(default=0, metadata={"help": "Seed of the draw of cases."})
    index: Path | None = field(
        default=None,
        metadata={
            "help": "Index of all series, Parquet or CSV, instead of that of the package idc-index-data."
        },
    )


@verb(
    fetch,
    SarcomaOptions,
    examples=[
        "mil fetch tcga-sarc --subtypes DDLPS,LMS,SS,MPNST --max-per-subtype 5 --out tcga-sarc --dry-run",
    ],
)
def tcga_sarc(options: SarcomaOptions) -> None:
    """Fetch soft tissue sarcomas of TCGA: one diagnostic slide per case, and the table of their subtypes.

    The spellings of histology that become each subtype are shown. Of a case the slide DX1 is taken. Normal
    tissue and frozen sections are left out. The table has case, slide, label, site, age, sex, time in days,
    event and mpp. An interrupted call continues from the last byte, and nothing is fetched twice.
    """
    from mil.fetch.gdc_cohort import SARCOMA, fetch_gdc

    _refuse_unwritable(options)
    show_fetched(
        fetch_gdc(SARCOMA, options.out, **_values(options, SlideChoice), **_transfer(options)),
        dry_run=options.dry_run,
    )


@verb(
    fetch,
    GdcOptions,
    examples=[
        "mil fetch gdc --project TCGA-SARC --label-field disease_type --max-per-subtype 2 --out gdc --dry-run"
    ],
)
def gdc(options: GdcOptions) -> None:
    """Fetch any project of the Genomic Data Commons: one diagnostic slide per case, and the table.

    The label is what the GDC has in --label-field; of TCGA-SARC it is the subtype. Normal tissue and frozen
    sections are left out; which is which is read from the positions of the barcode or, where there is none,
    from the type of the sample. The same call continues where an earlier one stopped.
    """
    from mil.fetch.gdc_cohort import fetch_gdc

    _refuse_unwritable(options)
    show_fetched(
        fetch_gdc(
            options.project,
            options.out,
            label_field=options.label_field,
            **_values(options, SlideChoice),
            **_transfer(options),
        ),
        dry_run=options.dry_run,
    )


@verb(
    fetch,
    IdcOptions,
    examples=[
        "mil fetch idc soft_tissue_sarcoma --modality CT,RTSTRUCT --max-cases 3 --out sts --dry-run"
    ],
)
def idc(options: IdcOptions) -> None:
    """Fetch a collection of the Imaging Data Commons: DICOM slides, and series of CT, MRI and PET.

    Slides go to OUT/slides, for `mil extract`; series go to OUT/volumes, a folder per patient, for `mil
    volumes table`. With --dry-run no network is needed: the index is a package. Slides of normal tissue,
    frozen sections, and what others have computed from the images are left out.
    """
    from mil.fetch.idc_cohort import fetch_idc

    _refuse_unwritable(options)
    cohort = fetch_idc(
        options.collection,
        options.out,
        modality=options.modality,
        max_cases=options.max_cases,
        slides_per_case=options.slides_per_case,
        seed=options.seed,
        index=options.index,
        **_transfer(options),
    )
    show_fetched(cohort, dry_run=options.dry_run)


def _refuse_unwritable(options: Fetching) -> None:
    if not options.dry_run:
        writable(options.out)


def _values(options: Any, kind: type) -> dict[str, Any]:
    return {one.name: getattr(options, one.name) for one in fields(kind)}


def _transfer(options: Fetching) -> dict[str, Any]:
    from cli.console import Bars, warn

    shared = {"dry_run": options.dry_run, "progress": Bars(), "notify": warn}
    return {**_values(options, Transfer), **shared}


def show_fetched(cohort: "FetchedCohort", *, dry_run: bool) -> None:
    """Print what was fetched; ends with status 1 if a file could not be."""
    from cli.console import complain, say, show_table

    say(f"{cohort.source}:")
    show_table(HEADER, _part_rows(cohort))
    for line in (*_spelling_lines(cohort), *_left_out_lines(cohort)):
        say(line)
    if cohort.licence:
        say(f"Terms: {cohort.licence}")
    if dry_run:
        _show_plan(cohort)
        return
    for reason in cohort.failed:
        complain(reason)
    _show_downloads(cohort)
    if cohort.failed:
        raise SystemExit(1)


HEADER = ("", "cases", "chosen", "files", "bytes")


def _show_plan(cohort: "FetchedCohort") -> None:
    """Print what would be fetched, and whether the disk has room for it."""
    from cli.console import complain, say
    from features.summary import format_bytes
    from mil.fetch.space import free_bytes, space_problem

    free, missing = free_bytes(cohort.out), cohort.n_bytes - cohort.bytes_there
    there = f", of which {format_bytes(cohort.bytes_there)} are there" if cohort.bytes_there else ""
    say(
        f"Dry run, nothing is written: {format_bytes(cohort.n_bytes)}{there}; {format_bytes(free)} free at "
        f"{cohort.out}."
    )
    if problem := space_problem(cohort.out, missing):
        complain(problem)


def _part_rows(cohort: "FetchedCohort") -> "list[Sequence[str]]":
    from features.summary import format_bytes

    rows: list[Sequence[str]] = [
        (
            part.name,
            str(part.n_available),
            str(part.n_cases),
            str(part.n_files),
            format_bytes(part.n_bytes),
        )
        for part in cohort.parts
    ]
    n_files = sum(part.n_files for part in cohort.parts)
    return [*rows, ("all", "", "", str(n_files), format_bytes(cohort.n_bytes))]


def _spelling_lines(cohort: "FetchedCohort") -> list[str]:
    """What the service calls each label that is fetched, where any is another word; and what has no label."""
    names: dict[str, list[str]] = {name: [] for name in (*(p.name for p in cohort.parts), "")}
    for spelling, (label, n_cases) in cohort.spellings.items():
        if label in names:
            names[label].append(f"{spelling} ({n_cases})")
    if all(label == spelling for spelling, (label, _) in cohort.spellings.items()):
        return []
    return [
        "Labels, and what the service calls them (cases):",
        *(f"  {label or 'no label'}: {', '.join(own)}" for label, own in names.items() if own),
    ]


def _left_out_lines(cohort: "FetchedCohort") -> list[str]:
    from features.summary import tally

    return [f"Left out: {tally(cohort.left_out)}."] if cohort.left_out else []


def _show_downloads(cohort: "FetchedCohort") -> None:
    """Print how many files were fetched, and what to do with them."""
    from cli.console import complain, counted, say
    from features.summary import format_bytes

    result = cohort.downloads
    assert result is not None
    before = f"; {len(result.present)} were there already" if result.present else ""
    say(
        f"{counted(len(result.new), 'file')} fetched, {format_bytes(result.n_bytes)}{before}. Where each "
        f"came from: {cohort.out / 'manifest.csv'}"
    )
    if result.failed:
        n_files = len(result.failed) + len(result.new) + len(result.present)
        complain(
            f"{len(result.failed)} of {counted(n_files, 'file')} failed; the same command tries them again."
        )
    if (cohort.out / "volumes").is_dir():
        say(f"Next: mil volumes table {cohort.out / 'volumes'} --out volumes.csv")
    if cohort.table:
        if not cohort.spellings:
            say(f"The service states no diagnosis: add a column label to {cohort.table}.")
        say(f"Next: mil check {cohort.table} --slides {cohort.out / 'slides'} --out checked")
