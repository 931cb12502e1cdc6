"""Apply a segmenter to slides: regions for QuPath, probabilities, pictures, and a table."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from features.errors import FeaturesError
from features.extraction.identity import slide_fingerprints
from features.extraction.jobs import SlideJob
from features.files.atomic import atomic_path
from features.lowpower.segmenter import Segmenter
from features.lowpower.tumour_map import draw_overlay, write_geojson, write_probability
from features.progress import Progress, Silent
from features.slides.slide import OVERVIEW_PX

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
        reason: why it failed.
    """

    slide: str
    status: str
    tumour_mm2: float | None = None
    tumour_of_tissue: float | None = None
    trained_on_it: bool = False
    reason: str = ""


def class_name_of(segmenter: Segmenter) -> str:
    """The class of the annotations, without wildcards."""
    name = segmenter.card.classes[0].strip("* ")
    return name if name and not set(name) & set("*?") else "Tumor"


def apply_segmenter(
    segmenter: Segmenter,
    jobs: Sequence[SlideJob],
    out: Path,
    progress: Progress | None = None,
) -> list[AppliedSlide]:
    """Write the tumour of every slide; one that fails does not stop the others.

    Each slide becomes ``<slide>.geojson`` for QuPath, ``<slide>-overlay.png`` to look at, and
    ``<slide>-probability.png``; ``segments.csv`` has a row for each.

    Args:
        segmenter: to apply.
        jobs: the slides.
        out: the folder to write.
        progress: is advanced by each slide.
    """
    done = []
    with (progress or Silent()).task("slides", len(jobs), "slides") as advance:
        for applied in _apply_each(segmenter, jobs, out):
            done.append(applied)
            advance(1)
    with (
        atomic_path(out / TABLE) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, [f.name for f in fields(AppliedSlide)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(applied) for applied in done)
    return done


def _apply_each(
    segmenter: Segmenter, jobs: Sequence[SlideJob], out: Path
) -> Iterator[AppliedSlide]:
    for job in jobs:
        try:
            yield _apply(segmenter, job, out)
        except FeaturesError as error:
            yield AppliedSlide(slide=job.slide, status="failed", reason=str(error))


def _apply(segmenter: Segmenter, job: SlideJob, out: Path) -> AppliedSlide:
    """The files of one slide."""
    with job.open() as slide:
        tumour = segmenter.tumour_map(slide)
        overview = slide.thumbnail(OVERVIEW_PX)
        sources = slide_fingerprints(job, slide)
    write_geojson(out / f"{job.slide}.geojson", tumour, class_name_of(segmenter))
    write_probability(out / f"{job.slide}-probability.png", tumour)
    with atomic_path(out / f"{job.slide}-overlay.png") as temporary:
        draw_overlay(overview, tumour).save(temporary, "PNG")
    return AppliedSlide(
        slide=job.slide,
        status="done",
        tumour_mm2=round(tumour.tumour_mm2, 4),
        tumour_of_tissue=round(tumour.tumour_of_tissue, 4),
        trained_on_it=not sources.isdisjoint(segmenter.card.trained_on_slides),
    )
