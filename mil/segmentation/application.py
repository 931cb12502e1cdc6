"""Apply a segmenter to slides: regions for QuPath, probabilities, pictures, and a table."""

import csv
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from features.errors import FeaturesError
from features.extraction.identity import slide_fingerprints
from features.extraction.jobs import SlideJob
from features.files.atomic import atomic_path
from features.lowpower.segmenter import Segmenter, SegmenterCard
from features.lowpower.tumour_map import TumourMap, draw_overlay, write_geojson, write_probability
from features.progress import Progress, Silent
from features.slides.slide import OVERVIEW_PX, Slide

TABLE = "segments.csv"


@dataclass(frozen=True, kw_only=True)
class AppliedSlide:
    """What a segmenter makes of one slide.

    Attributes:
        slide: its name.
        status: ``done`` or ``failed``.
        tumour_mm2: area that is called tumour.
        tumour_of_tissue: fraction of the tissue that is called tumour.
        trained_on_it: whether the segmenter has learnt from this slide.
        ratio: how far what is called tumour lies from what was learnt, as ``TumourMap.ratio``; None where
            that is not known.
        unlike: why the outline cannot be relied on, as ``TumourMap.unlike``; else empty.
        note: a remark on an unusual or unlike outline, which is written all the same; or on one that is left.
        outline_sha256: of the outline as it was written.
        reason: why it failed.
    """

    slide: str
    status: str
    tumour_mm2: float | None = None
    tumour_of_tissue: float | None = None
    trained_on_it: bool = False
    ratio: float | None = None
    unlike: str = ""
    note: str = ""
    outline_sha256: str = ""
    reason: str = ""


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def class_name_of(card: SegmenterCard) -> str:
    """The class of the annotations, without wildcards."""
    name = card.classes[0].strip("* ")
    return name if name and not set(name) & set("*?") else "Tumor"


def apply_segmenter(
    segmenter: Segmenter,
    jobs: Sequence[SlideJob],
    out: Path,
    progress: Progress | None = None,
    find: Callable[[Slide], TumourMap] | None = None,
) -> list[AppliedSlide]:
    """Write the tumour of every slide; one that fails does not stop the others.

    Each slide becomes ``<slide>.geojson`` for QuPath, ``<slide>-overlay.png`` to look at, and
    ``<slide>-probability.png``; ``segments.csv`` has a row for each, and keeps those of earlier calls. An
    outline that was changed since it was written is left as it is, which is noted.

    Args:
        segmenter: to apply.
        jobs: the slides.
        out: the folder to write.
        progress: is advanced by each slide.
        find: what the segmenter makes of a slide, where that may be known already.
    """
    done, before = [], _read_rows(out / TABLE)
    with (progress or Silent()).task("slides", len(jobs), "slides") as advance:
        for applied in _apply_each(segmenter.card, jobs, out, find or segmenter.tumour_map, before):
            done.append(applied)
            advance(1)
    with (
        atomic_path(out / TABLE) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        names = [one.name for one in fields(AppliedSlide) if one.name != "unlike"]
        writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        rows = before | {applied.slide: asdict(applied) for applied in done}
        writer.writerows(rows[slide] for slide in sorted(rows))
    return done


def _read_rows(table: Path) -> dict[str, dict[str, Any]]:
    """The rows of earlier calls, by slide."""
    if not table.is_file():
        return {}
    with table.open(newline="", encoding="utf-8") as file:
        return {row["slide"]: dict(row) for row in csv.DictReader(file) if row.get("slide")}


def _apply_each(
    card: SegmenterCard,
    jobs: Sequence[SlideJob],
    out: Path,
    find: Callable[[Slide], TumourMap],
    before: Mapping[str, Mapping[str, Any]],
) -> Iterator[AppliedSlide]:
    for job in jobs:
        try:
            written = before.get(job.slide, {}).get("outline_sha256", "")
            yield _apply(card, job, out, find, written)
        except FeaturesError as error:
            yield AppliedSlide(slide=job.slide, status="failed", reason=str(error))


def _apply(
    card: SegmenterCard,
    job: SlideJob,
    out: Path,
    find: Callable[[Slide], TumourMap],
    written: str,
) -> AppliedSlide:
    """The files of one slide, whose outline had a fingerprint when it was last written."""
    with job.open() as slide:
        tumour = find(slide)
        overview = slide.thumbnail(OVERVIEW_PX)
        sources = slide_fingerprints(job, slide)
    outline = out / f"{job.slide}.geojson"
    is_changed = bool(written) and outline.is_file() and _sha256(outline) != written
    if not is_changed:
        write_geojson(outline, tumour, class_name_of(card))
    remark = f"{outline} was changed since it was written, and is left as it is. Remove it for a new one."
    write_probability(out / f"{job.slide}-probability.png", tumour)
    with atomic_path(out / f"{job.slide}-overlay.png") as temporary:
        draw_overlay(overview, tumour).save(temporary, "PNG")
    return AppliedSlide(
        slide=job.slide,
        status="done",
        tumour_mm2=round(tumour.tumour_mm2, 4),
        tumour_of_tissue=round(tumour.tumour_of_tissue, 4),
        trained_on_it=not sources.isdisjoint(card.trained_on_slides),
        ratio=None if math.isnan(tumour.ratio) else round(tumour.ratio, 2),
        unlike=tumour.unlike,
        note=" ".join(filter(None, [tumour.note, remark * is_changed])),
        outline_sha256=written if is_changed else _sha256(outline),
    )
