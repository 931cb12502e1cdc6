"""The slides of a segmenter: found by the table, opened, with their cells and what is drawn on them."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from features.errors import AnnotationMissing, InputError
from features.extraction.identity import slide_fingerprints, source_sha256
from features.extraction.jobs import JobSettings, SlideJob, jobs_of_rows
from features.extraction.survey import place_drawing
from features.files.checksum import fingerprint
from features.lowpower.cached_cells import SlideCells, read_cells
from features.lowpower.feature_map import CellGrid, CellMap, lay_cells
from features.progress import Notify
from features.regions.annotations import annotation_sha256, read_annotations
from features.regions.drawing import note_excluded
from features.regions.placement import note_reach
from features.slides.slide import Slide
from features.summary import note_lines
from mil.data.case import Row
from mil.errors import CohortError
from mil.segmentation.settings import SegmentSettings
from mil.segmentation.targets import Target, make_target, unknown_target

COLUMN = "annotated"
FULL, PARTIAL = "full", "partial"


@dataclass(frozen=True, kw_only=True)
class DrawnSlide:
    """A slide whose tumour is drawn, or one that is only to be segmented.

    Attributes:
        job: where its files are; without annotations, nothing is drawn on it.
        full: whether all of its tumour is drawn; else only what is drawn is known.
    """

    job: SlideJob
    full: bool

    @property
    def case(self) -> str:
        """The patient."""
        return self.job.case


@dataclass(frozen=True, kw_only=True)
class ReadSlide:
    """A slide with its cells and what is to be learnt of them.

    Attributes:
        drawn: the slide.
        grid: its cells.
        target: what is drawn.
        cells: the cells' vectors by the name of the map.
        sources: all that identifies the slide, as ``Bag.sources``.
        classes: how many annotations each class has.
        misplaced: a remark on a drawing that seems to lie in another frame; empty if none does.
        reach: how far the drawing reaches, as ``Survey.drawn_reach``.
    """

    drawn: DrawnSlide
    grid: CellGrid
    target: Target
    cells: dict[str, SlideCells]
    sources: frozenset[str]
    classes: Mapping[str, int] = field(default_factory=dict)
    misplaced: str = ""
    reach: float = math.nan

    @property
    def case(self) -> str:
        """The patient."""
        return self.drawn.case

    @property
    def name(self) -> str:
        """The slide's."""
        return self.drawn.job.slide

    @contextmanager
    def opened(self) -> Iterator[Slide]:
        """Open the slide again."""
        with self.drawn.job.open() as slide:
            yield slide


def drawn_slides(
    rows: Sequence[Row], slides: Path, settings: JobSettings, notify: Notify
) -> list[DrawnSlide]:
    """The slides of a table, with what its column ``annotated`` says of each.

    Args:
        rows: of the table.
        slides: folder with the slides.
        settings: with the folder of annotations.
        notify: called where the table has no such column.

    Raises:
        CohortError: the column says something else than full or partial.
        AnnotationMissing: a slide has no annotation.
        InputError, SlideError: as ``jobs_of_rows``.
    """
    if settings.annotations is None:
        raise InputError("A segmenter learns from annotations. Set annotations to their folder.")
    jobs = jobs_of_rows(rows, slides, settings)
    words = {row.slide: row.other.get(COLUMN, "").strip().casefold() for row in rows}
    for row in rows:
        if words[row.slide] not in (FULL, PARTIAL, ""):
            raise CohortError(
                f"Line {row.line}: {COLUMN} is {row.other[COLUMN]!r}, for slide {row.slide}. Write {FULL} "
                f"where all tumour of the slide is drawn, and {PARTIAL}, or nothing, where some may not be."
            )
    missing = [job.slide for job in jobs if not _has_annotation(job)]
    if missing:
        raise AnnotationMissing(
            f"{len(missing)} of {len(jobs)} slides have no annotation in {settings.annotations}, e.g. "
            f"{', '.join(missing[:3])}. Draw them, or take their rows out of the table. A slide without "
            f"tumour is drawn with the class Normal."
        )
    count = Counter(words.values())
    if not count[FULL]:
        notify(
            f"No slide has {FULL} in the column {COLUMN}, so tissue outside the drawn tumour is not "
            "taken for free of tumour: only glass, holes and the negative classes are."
        )
    return [DrawnSlide(job=job, full=words[job.slide] == FULL) for job in jobs]


def read_slide(
    drawn: DrawnSlide, maps: dict[str, CellMap], folder: Path, settings: SegmentSettings
) -> ReadSlide:
    """Open a slide, and read its annotation and its cells.

    Args:
        drawn: the slide.
        maps: what is computed of its cells, by name.
        folder: that keeps the cells' vectors for the next call.
        settings: names of the classes.

    Raises:
        SlideError, AnnotationError: one of them cannot be read.
    """
    file = drawn.job.annotation()
    with drawn.job.open() as slide:
        grid = lay_cells(slide)
        target, classes, placed = unknown_target(grid), Counter[str](), ("", math.nan)
        if file:
            drawing = read_annotations(file, slide.path)
            target = make_target(slide, grid, drawing, settings, full=drawn.full)
            classes = drawing.histogram()
            placed = place_drawing(slide, target.region, target.everything)
        identity = {"slide": source_sha256(drawn.job), "mpp": list(slide.mpp)}
        cells = {
            name: read_cells(
                slide,
                grid,
                cell_map,
                folder / f"{fingerprint({**identity, 'map': cell_map.sha256})}.npy",
            )
            for name, cell_map in maps.items()
        }
        sources = slide_fingerprints(drawn.job, slide)
    return ReadSlide(
        drawn=drawn,
        grid=grid,
        target=target,
        cells=cells,
        sources=sources,
        classes=classes,
        misplaced=placed[0],
        reach=placed[1],
    )


def note_drawings(slides: Sequence[ReadSlide], exclude: Sequence[str]) -> list[str]:
    """Remarks on drawings in another frame, and on classes to exclude that no drawing has.

    Args:
        slides: with what is drawn on them.
        exclude: the names of the classes.
    """
    classes = sum((Counter(slide.classes) for slide in slides), Counter[str]())
    return [
        *note_lines((slide.name, [slide.misplaced]) for slide in slides if slide.misplaced),
        *note_reach({slide.name: slide.reach for slide in slides}),
        *note_excluded(exclude, classes),
    ]


def annotations_sha256(slides: Sequence[DrawnSlide]) -> str:
    """Fingerprint of all annotations and of what is said of them."""
    files = {slide.job.slide: slide.job.annotation() for slide in slides}
    return fingerprint(
        {
            slide.job.slide: [annotation_sha256(file) if file else "", slide.full]
            for slide in slides
            for file in [files[slide.job.slide]]
        }
    )


def check_negatives(slides: Sequence[ReadSlide]) -> None:
    """Refuse a cohort in which nothing says what tissue without tumour looks like, or what tumour does.

    Raises:
        CohortError: with the remedy.
    """
    if not any(slide.target.positive.any() for slide in slides):
        raise CohortError("No slide has drawn tumour, so there is nothing to learn.")
    if not any((slide.target.negative & slide.target.tissue).any() for slide in slides):
        raise CohortError(
            "Nothing says which tissue is no tumour: every slide is annotated in part, and none has a region "
            "of a negative class. Draw three patches of 150 micrometres of class Normal on each slide, or "
            f"write {FULL} in the column {COLUMN} of slides whose tumour is drawn altogether."
        )


def _has_annotation(job: SlideJob) -> bool:
    try:
        return job.annotation() is not None
    except AnnotationMissing:
        return False
