"""Summarise the checks of many slides: duplicates, scanners, and the work that extraction would be."""

import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.backbones.table import feature_dim
from features.extraction.jobs import SlideJob
from features.extraction.preflight import UNKNOWN_DIM, bag_bytes
from features.extraction.slide_check import ScaleCheck, SlideCheck
from features.recipe import Recipe
from features.regions.drawing import note_excluded
from features.regions.placement import note_reach
from features.slides.find import leftovers, slide_files
from features.slides.second_scans import SecondScan, find_second_scans, is_comparable
from features.summary import SPARE_BYTES, Summary, format_bytes, listed, tally

SAME_MPP = 1.1  # ratio of micrometres per pixel above which slides count as scanned differently
COLUMNS = (
    "slide", "case", "tile_mpp", "status", "tiles", "tiles_drawn", "bytes", "seconds", "level", "shrink",
    "reader", "width", "height", "mpp", "mpp_source", "file_format", "tissue_mm2", "area_mm2",
    "tumour_of_tissue", "drawn_glass", "drawn_outside", "annotation_origin", "classes", "reason", "notes",
    "picture",
)  # fmt: skip


@dataclass(frozen=True)
class Workload:
    """What the expected time and size of an extraction are computed from.

    Attributes:
        recipe: its backbone and the tiles it drops.
        out: the folder whose disk the bags would be written to.
        tiles_per_second: the expected rate.
    """

    recipe: Recipe
    out: Path
    tiles_per_second: float


def summarise_checks(
    jobs: Sequence[SlideJob], checks: Sequence[SlideCheck], workload: Workload
) -> Summary:
    """The facts, problems and warnings of all slides together."""
    summary = Summary()
    _summarise_slides(summary, jobs, checks)
    classes = sum((check.classes for check in checks), Counter[str]())
    summary.warnings.extend(note_excluded(workload.recipe.exclude, classes))
    summary.warnings.extend(note_reach({check.slide: check.drawn_reach for check in checks}))
    _summarise_second_scans(summary, checks)
    _summarise_scanners(summary, checks)
    _summarise_work(summary, checks, workload)
    return summary


def warn_of_unnamed(summary: Summary, folder: Path, jobs: Sequence[SlideJob]) -> None:
    """Add a warning of the slide files in a folder that no job names."""
    if jobs[0].from_tiles:
        return
    named = {path for job in jobs for path in job.files}
    unnamed = sorted(set(slide_files(folder)) - named)
    if unnamed:
        names = [path.relative_to(folder).as_posix() for path in unnamed]
        summary.warnings.append(
            f"No row of the table names {listed(names)} in {folder}: they will not be used."
        )


def account_for_files(summary: Summary, folders: Iterable[Path]) -> None:
    """Add what lies in folders of slides and is no slide; slides that cannot be read are warned of."""
    for folder in folders:
        rest = leftovers(folder)
        if str(rest):
            summary.facts[f"not slides in {folder}"] = str(rest)
        for paths, what in (
            (rest.unread, "of a kind that OpenSlide does not read: convert them to pyramidal TIFF"),
            (
                rest.broken_links,
                "a link to a file that is not there: restore it, or remove the link",
            ),
            (rest.partial, "a download that was not finished: fetch it again"),
        ):
            if paths:
                names = [path.relative_to(folder).as_posix() for path in paths]
                summary.warnings.append(f"Left out of {folder}, {what}: {listed(names)}.")


def check_rows(check: SlideCheck, workload: Workload) -> Iterator[dict[str, Any]]:
    """The check of one slide as rows of a table with ``COLUMNS``, one per scale."""
    width, height = check.size_l0 or ("", "")
    for scale in check.scales:
        yield {
            "slide": check.slide,
            "case": check.case,
            "tile_mpp": scale.mpp,
            "status": scale.status,
            "tiles": scale.n_tiles,
            "tiles_drawn": scale.n_drawn,
            "bytes": bag_bytes(scale.n_drawn, workload.recipe.backbone) if scale.n_drawn else 0,
            "seconds": f"{scale.n_drawn / workload.tiles_per_second:.1f}",
            "level": scale.level,
            "shrink": scale.shrink,
            "reader": check.reader,
            "width": width,
            "height": height,
            "mpp": check.mpp,
            "mpp_source": check.mpp_source,
            "file_format": check.file_format,
            "tissue_mm2": _rounded(check.tissue_mm2),
            "area_mm2": _rounded(check.area_mm2),
            "tumour_of_tissue": _rounded(check.tumour_of_tissue),
            "drawn_glass": _rounded(check.drawn_glass),
            "drawn_outside": _rounded(check.drawn_outside),
            "annotation_origin": check.origin,
            "classes": format_classes(check),
            "reason": scale.reason,
            "notes": " ".join(check.notes),
            "picture": check.picture.name if check.picture else "",
        }


def display_row(check: SlideCheck, scale: ScaleCheck) -> list[str]:
    """A slide at one scale for people: name, scale, status, tiles, tissue, tumour, scan and reader."""
    level = "" if scale.level is None else f"level {scale.level}"
    shrunk = f" at 1/{scale.shrink}" if scale.shrink > 1 else ""
    return [
        check.slide,
        f"{scale.mpp:g}",
        scale.status,
        f"{scale.n_tiles:,}",
        f"{scale.n_drawn:,}",
        "" if check.tissue_mm2 is None else f"{check.tissue_mm2:.1f} mm²",
        "" if check.tumour_of_tissue is None else f"{check.tumour_of_tissue:.0%}",
        "" if check.mpp is None else f"{check.mpp:.4g} ({check.mpp_source})",
        f"{level}{shrunk} by {check.reader}" if level else "",
    ]


def format_classes(check: SlideCheck) -> str:
    """``Tumor 3; Necrosis 1``."""
    return "; ".join(f"{name} {n}" for name, n in check.classes.most_common())


def _summarise_slides(
    summary: Summary, jobs: Sequence[SlideJob], checks: Sequence[SlideCheck]
) -> None:
    count = Counter(check.status for check in checks)
    words = {"ready": "ready", "excluded": "excluded by rule", "failed": "would fail"}
    summary.facts["slides"] = ", ".join(
        f"{count[status]} {word}" for status, word in words.items() if count[status]
    )
    for check in checks:
        for scale in check.scales:
            if scale.status == "failed" and scale.reason not in summary.problems:
                summary.problems.append(scale.reason)
            if scale.status == "excluded" and scale.reason not in summary.warnings:
                summary.warnings.append(scale.reason)
        if check.notes:
            summary.warnings.append(f"{check.slide}: {' '.join(check.notes)}")
    for names in _groups((check.identity, check.slide) for check in checks if check.identity):
        summary.problems.append(
            f"{listed(names)} are one and the same slide under several names. Keep one of them in the table."
        )
    for names in _groups((job.slide.casefold(), job.slide) for job in jobs):
        summary.problems.append(
            f"{listed(names)} are equal names, or differ in letter case only; their bags would be one file. "
            "Rename one."
        )


def _summarise_second_scans(summary: Summary, checks: Sequence[SlideCheck]) -> None:
    """Slides of different cases that show one specimen; those that are one file are a problem already."""
    structures = [check.structure for check in checks]
    groups = [f"case {check.case}" if check.case else f"slide {check.slide}" for check in checks]
    scans = [
        scan
        for scan in find_second_scans(structures, groups)
        if checks[scan.first].identity != checks[scan.second].identity
    ]
    remedy = "give all the same case: else a model is tested on what it was trained on."
    for specimen in _specimens(scans):
        slides = sorted({number for scan in specimen for number in (scan.first, scan.second)})
        names = [_with_case(checks[number]) for number in slides]
        if len(slides) == 2:
            summary.warnings.append(
                f"{names[0]} and {names[1]} look like two scans of one specimen: {specimen[0]}. If it is one "
                "patient's, give both the same case: else a model is tested on what it was trained on."
            )
        else:
            summary.warnings.append(
                f"{len(slides)} slides look like scans of one specimen, in {len(specimen)} pairs: "
                f"{listed(names)}. If they are one patient's, {remedy}"
            )
    unknown = [check.slide for check in checks if not is_comparable(check.structure)]
    if unknown and len(checks) > 1:
        summary.facts["second scans"] = (
            f"not known for {len(unknown)} of {len(checks)} slides, which show too little tissue or could "
            f"not be read: {listed(unknown)}"
        )


def _specimens(scans: Sequence[SecondScan]) -> list[list[SecondScan]]:
    """The pairs by specimen: those that share a slide, however long the chain."""
    specimens: list[list[SecondScan]] = []
    for scan in scans:
        ends = {scan.first, scan.second}
        joined = [s for s in specimens if any(ends & {pair.first, pair.second} for pair in s)]
        specimens = [s for s in specimens if s not in joined]
        specimens.append([*(pair for s in joined for pair in s), scan])
    return specimens


def _with_case(check: SlideCheck) -> str:
    return f"{check.slide} (case {check.case})" if check.case else check.slide


def _summarise_scanners(summary: Summary, checks: Sequence[SlideCheck]) -> None:
    """Whether the slides were scanned alike."""
    formats = Counter(check.file_format for check in checks if check.file_format)
    scales = Counter(f"{check.mpp:.3g}" for check in checks if check.mpp)
    facts: Mapping[str, str] = {
        "file formats": tally(formats),
        "micrometres per pixel": tally(scales),
    }
    summary.facts.update({name: text for name, text in facts.items() if text})
    if len(formats) > 1:
        summary.warnings.append(
            f"Slides come in several scanners' formats, {tally(formats)}, which a model can distinguish: "
            "check that no class comes from one of them alone."
        )
    mpps = [check.mpp for check in checks if check.mpp]
    if mpps and max(mpps) > SAME_MPP * min(mpps):
        summary.warnings.append(
            f"Slides were scanned at several micrometres per pixel, {tally(scales)}: the coarser ones are "
            "less sharp at the same mpp of tiles, which a model can distinguish."
        )


def _summarise_work(summary: Summary, checks: Sequence[SlideCheck], workload: Workload) -> None:
    scales = [scale for check in checks for scale in check.scales if scale.status == "ready"]
    if not scales:
        return
    recipe, rate = workload.recipe, workload.tiles_per_second
    drawn = sorted(scale.n_drawn for scale in scales)
    summary.facts["tiles"] = (
        f"{sum(scale.n_tiles for scale in scales):,} qualify, {sum(drawn):,} would be embedded; {drawn[0]:,} "
        f"to {drawn[-1]:,} per bag, median {drawn[len(drawn) // 2]:,}"
    )
    if recipe.drop:
        summary.facts["tiles"] += f"; drop ({','.join(recipe.drop)}) will leave out some of these"
    summary.facts["time"] = (
        f"{_duration(sum(drawn) / rate)} at {rate:g} tiles/s, the assumed rate (tiles_per_second)"
    )
    needed = sum(bag_bytes(n, recipe.backbone) for n in drawn)
    out = workload.out.absolute()
    above = next(path for path in (out, *out.parents) if path.exists())
    free = shutil.disk_usage(above).free
    dim = feature_dim(recipe.backbone)
    features = (
        f"{dim} features of {recipe.backbone}"
        if dim
        else f"{UNKNOWN_DIM} features, as those of {recipe.backbone} are not known without the model"
    )
    summary.facts["disk"] = (
        f"{format_bytes(needed)} of bags expected ({features}, 16 bits); {format_bytes(free)} free at {above}"
    )
    if needed and needed + SPARE_BYTES > free:
        summary.problems.append(
            f"The bags need {format_bytes(needed)}, and {format_bytes(free)} are free at {above}, of which "
            f"{format_bytes(SPARE_BYTES)} are kept free. Free some, set max_tiles lower, or write them "
            "elsewhere."
        )


def _groups(pairs: Iterable[tuple[Any, str]]) -> Iterator[list[str]]:
    """The names that share a key, where there are several."""
    groups: defaultdict[Any, list[str]] = defaultdict(list)
    for key, name in pairs:
        groups[key].append(name)
    return (names for names in groups.values() if len(names) > 1)


def _rounded(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return (
        f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else "under a minute"
    )
