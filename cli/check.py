"""`mil check`: what a night's extraction would do, told in the evening."""

import csv
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cli.app import app
from cli.extract import TABLE_SUFFIXES, SlideOptions, jobs_of, recipes_of
from cli.options import UsageError, verb, writable
from features.errors import FeaturesError
from mil.data.summary import Summary, listed, tally
from mil.settings import SplitSettings

if TYPE_CHECKING:
    from features.extraction.preflight import ScaleCheck, SlideCheck
    from features.extraction.survey import SlideJob
    from mil.data.case import Row

COLUMNS = (
    "slide", "case", "label", "tile_mpp", "status", "tiles", "tiles_drawn", "bytes", "seconds", "level",
    "shrink", "reader", "width", "height", "mpp", "mpp_source", "file_format", "tissue_mm2", "area_mm2",
    "tumour_of_tissue", "annotation_origin", "classes", "reason", "notes", "picture",
)  # fmt: skip
HEADER = (
    "slide", "tiles at", "status", "qualify", "drawn", "tissue", "tumour", "scanned at", "read",
)  # fmt: skip
SAME_MPP = 1.1  # slides scanned further apart than this are told of


@dataclass(frozen=True, kw_only=True)
class CheckOptions(SlideOptions):
    """Settings of `mil check`."""

    out: Path = field(
        metadata={"help": "Folder for check.csv, index.html and a picture of each slide."}
    )
    folds: str = field(
        default=SplitSettings.folds,
        metadata={"help": "The folds you mean to cross-validate by: a number, `loo` or `site`."},
    )
    null: int | None = field(
        default=None,
        metadata={
            "help": "Give the RUN of a `mil crossval` as input: repeat it on this many shuffles of the "
            "cases' labels, and say whether it finds signal where there is none."
        },
    )
    tiles_per_second: float = field(
        default=13.0,
        metadata={
            "help": "For the time expected: the rate `mil extract` printed on your machine. 13 was "
            "measured with resnetv2_50 on 2 CPU cores; a GPU is many times faster."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        SplitSettings(folds=self.folds)
        if self.null is not None and self.null < 2:
            raise FeaturesError(f"null is a number of shuffles from 2; got {self.null}. Use 20.")
        if not self.tiles_per_second > 0:
            raise FeaturesError(
                f"tiles_per_second is above 0; got {self.tiles_per_second:g}. Use 13."
            )


@verb(
    app,
    CheckOptions,
    examples=[
        "mil check cohort.csv --slides slides --annotations annotations --out checked",
        "mil check cohort.csv --slides slides --annotations annotations --out checked-twice "
        "--mpp 0.5,1 --tiles-per-second 300",
        "mil check slides/case-01-s1.tiff --out checked-tissue --mpp 0.5",
        "mil check developed --null 20 --out checked-null",
    ],
)
def check(options: CheckOptions) -> None:
    """Open every slide and annotation and say what `mil extract` would do, before any model is loaded.

    Takes the options of `mil extract`. Leaves a page, index.html, with a picture of each slide and the
    tiles it would give, and check.csv. Ends with 1 if a slide would fail.
    """
    if options.null:
        from cli.permute import run_permutations

        if len(options.inputs) != 1:
            raise UsageError("--null takes one run of `mil crossval` as its input.")
        problems = run_permutations(options.inputs[0], options.out, options.null)
    else:
        problems = run_check(options)
    if problems:
        raise SystemExit(1)


def run_check(options: CheckOptions) -> int:
    """Check, print and write; the number of problems."""
    jobs = jobs_of(options)
    writable(options.out)
    recipes = recipes_of(options)
    if len(recipes) > 1 and jobs[0].from_tiles:
        raise UsageError("A folder of tile images has the scale of its files: give one --mpp.")
    rows = _rows(options)
    from cli.console import Bars, complain, say, show_table, warn
    from features.extraction.preflight import check_slides
    from features.files.atomic import write_atomic

    options.out.mkdir(parents=True, exist_ok=True)
    label_of = {row.slide: row.label for row in rows}
    checks = []
    with (options.out / "check.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for found in check_slides(jobs, recipes, options.out, progress=Bars()):
            table.writerows(_csv_rows(found, label_of.get(found.slide, ""), options))
            file.flush()  # whoever stops the check keeps these
            checks.append(found)
    summary = summarise(options, jobs, rows, checks)
    show_table(
        HEADER,
        [_shown(found, scale) for found in checks for scale in found.scales],
    )
    say("")
    for name, text in summary.facts.items():
        say(f"{name}: {text}")
    for text in summary.warnings:
        warn(text)
    for text in summary.problems:
        complain(text)
    page = options.out / "index.html"
    write_atomic(page, _page(options, summary, checks, label_of))
    say(f"Page: {page}")
    return len(summary.problems)


def summarise(
    options: CheckOptions,
    jobs: "Sequence[SlideJob]",
    rows: "Sequence[Row]",
    checks: "Sequence[SlideCheck]",
) -> Summary:
    """Everything that is not about one slide alone, and what is wrong with single slides."""
    said = Summary()
    _of_slides(said, jobs, checks)
    _of_scanners(said, checks)
    _of_work(said, options, checks)
    if rows:
        from mil.data.feasibility import of_cases

        _of_files(said, options, jobs)
        ready = {found.slide for found in checks if found.status == "ready"}
        of_cases(said, rows, ready, options.folds)
    return said


def _of_slides(said: Summary, jobs: "Sequence[SlideJob]", checks: "Sequence[SlideCheck]") -> None:
    count = Counter(found.status for found in checks)
    said.facts["slides"] = ", ".join(
        f"{count[status]} {word}"
        for status, word in (("ready", "ready"), ("excluded", "excluded by rule"), ("failed", "would fail"))
        if count[status]
    )  # fmt: skip
    for found in checks:
        for scale in found.scales:
            if scale.status == "failed" and scale.reason not in said.problems:
                said.problems.append(scale.reason)
            if scale.status == "excluded" and scale.reason not in said.warnings:
                said.warnings.append(scale.reason)
        if found.notes:
            said.warnings.append(f"{found.slide}: {' '.join(found.notes)}")
    for same in _grouped((found.identity, found.slide) for found in checks if found.identity):
        said.problems.append(
            f"{listed(same)} are one and the same slide under several names. Keep one of them in the table."
        )
    for same in _grouped((job.slide.casefold(), job.slide) for job in jobs):
        said.problems.append(
            f"{listed(same)}: one name, or but for letter case; their bags would be one file. Rename one."
        )


def _of_scanners(said: Summary, checks: "Sequence[SlideCheck]") -> None:
    """How alike the slides were made."""
    formats = Counter(found.file_format for found in checks if found.file_format)
    scales = Counter(f"{found.mpp:.3g}" for found in checks if found.mpp)
    facts = {"file formats": tally(formats), "micrometres per pixel": tally(scales)}
    said.facts.update({name: text for name, text in facts.items() if text})
    if len(formats) > 1:
        said.warnings.append(
            f"Slides come in several scanners' formats, {tally(formats)}, which a model can tell apart: see "
            "that no class comes from one of them alone."
        )
    known = [found.mpp for found in checks if found.mpp]
    if known and max(known) > SAME_MPP * min(known):
        said.warnings.append(
            f"Slides were scanned at several micrometres per pixel, {tally(scales)}: the coarser ones are "
            "less sharp at the same --mpp, which a model can tell."
        )


def _of_work(said: Summary, options: CheckOptions, checks: "Sequence[SlideCheck]") -> None:
    from features.backbones.table import feature_dim
    from features.extraction.preflight import UNKNOWN_DIM, bag_bytes

    scales = [scale for found in checks for scale in found.scales if scale.status == "ready"]
    if not scales:
        return
    drawn = sorted(scale.n_drawn for scale in scales)
    said.facts["tiles"] = (
        f"{sum(scale.n_tiles for scale in scales):,} qualify, {sum(drawn):,} would be embedded; {drawn[0]:,} "
        f"to {drawn[-1]:,} per bag, median {drawn[len(drawn) // 2]:,}"
    )
    if options.drop:
        said.facts["tiles"] += f"; --drop {','.join(options.drop)} will leave out some of these"
    said.facts["time"] = (
        f"{_duration(sum(drawn) / options.tiles_per_second)} at {options.tiles_per_second:g} tiles/s, a rate "
        "that was assumed: --tiles-per-second"
    )
    needed = sum(bag_bytes(n, options.backbone) for n in drawn)
    above = next(p for p in (options.out.absolute(), *options.out.absolute().parents) if p.exists())
    free = shutil.disk_usage(above).free
    dim = (
        f"{feature_dim(options.backbone)} features of {options.backbone}"
        if feature_dim(options.backbone)
        else f"{UNKNOWN_DIM} features, as those of {options.backbone} are not known without the model"
    )
    said.facts["disk"] = (
        f"{_size(needed)} of bags expected ({dim}, 16 bits); {_size(free)} free at --out"
    )
    if needed > free:
        said.problems.append(
            f"The bags need {_size(needed)}, and {_size(free)} are free at {above}. Free some, lower "
            "--max-tiles, or write them elsewhere."
        )


def _of_files(said: Summary, options: CheckOptions, jobs: "Sequence[SlideJob]") -> None:
    """Files that the table does not name."""
    from features.slides.find import slides_in

    if options.slides is None or jobs[0].from_tiles:
        return
    named = {path for job in jobs for path in job.files}
    unnamed = sorted({p for files in slides_in(options.slides).values() for p in files} - named)
    if unnamed:
        names = [path.relative_to(options.slides).as_posix() for path in unnamed]
        said.warnings.append(
            f"No row of the table names {listed(names)} in {options.slides}: they will not be used."
        )


def _rows(options: CheckOptions) -> "Sequence[Row]":
    from mil.data.table import read_table

    path = options.inputs[0]
    return read_table(path) if path.suffix.lower() in TABLE_SUFFIXES else ()


def _grouped(pairs: Iterable[tuple[Any, str]]) -> Iterator[list[str]]:
    """The names that share a key."""
    groups: defaultdict[Any, list[str]] = defaultdict(list)
    for key, name in pairs:
        groups[key].append(name)
    return (names for names in groups.values() if len(names) > 1)


def _shown(found: "SlideCheck", scale: "ScaleCheck") -> list[str]:
    """A slide at one scale as the row of a table."""
    level = "" if scale.level is None else f"level {scale.level}"
    shrunk = f" at 1/{scale.shrink}" if scale.shrink > 1 else ""
    return [
        found.slide,
        f"{scale.mpp:g}",
        scale.status,
        f"{scale.n_tiles:,}",
        f"{scale.n_drawn:,}",
        "" if found.tissue_mm2 is None else f"{found.tissue_mm2:.1f} mm²",
        "" if found.tumour_of_tissue is None else f"{found.tumour_of_tissue:.0%}",
        "" if found.mpp is None else f"{found.mpp:.4g} ({found.mpp_source})",
        f"{level}{shrunk} by {found.reader}" if level else "",
    ]


def _csv_rows(found: "SlideCheck", label: str, options: CheckOptions) -> Iterator[dict[str, Any]]:
    from features.extraction.preflight import bag_bytes

    width, height = found.size_l0 or ("", "")
    for scale in found.scales:
        yield {
            "slide": found.slide,
            "case": found.case,
            "label": label,
            "tile_mpp": scale.mpp,
            "status": scale.status,
            "tiles": scale.n_tiles,
            "tiles_drawn": scale.n_drawn,
            "bytes": bag_bytes(scale.n_drawn, options.backbone) if scale.n_drawn else 0,
            "seconds": f"{scale.n_drawn / options.tiles_per_second:.1f}",
            "level": scale.level,
            "shrink": scale.shrink,
            "reader": found.reader,
            "width": width,
            "height": height,
            "mpp": found.mpp,
            "mpp_source": found.mpp_source,
            "file_format": found.file_format,
            "tissue_mm2": _rounded(found.tissue_mm2),
            "area_mm2": _rounded(found.area_mm2),
            "tumour_of_tissue": _rounded(found.tumour_of_tissue),
            "annotation_origin": found.origin,
            "classes": _classes(found),
            "reason": scale.reason,
            "notes": " ".join(found.notes),
            "picture": found.picture.name if found.picture else "",
        }


def _page(
    options: CheckOptions,
    summary: Summary,
    checks: "Sequence[SlideCheck]",
    label_of: Mapping[str, str],
) -> str:
    """One page, problems first; its pictures lie beside it."""
    from mil.report.template import render_template

    urgency = ("failed", "excluded", "ready")
    return render_template(
        "report/check.html",
        classes=_classes,
        quote=quote,
        row=_shown,
        title=f"Check of {options.inputs[0].name}",
        summary=summary,
        count=Counter(found.status for found in checks),
        checks=sorted(checks, key=lambda found: (urgency.index(found.status), not found.notes)),
        label_of=label_of,
    )


def _classes(found: "SlideCheck") -> str:
    return "; ".join(f"{name} {n}" for name, n in found.classes.most_common())


def _rounded(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return (
        f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else "under a minute"
    )


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:,.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:,.1f} MB"
