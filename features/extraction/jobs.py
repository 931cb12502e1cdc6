"""The slides of an extraction: found in folders or by the rows of a table, ordered and divided."""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from features.choices import suggest
from features.errors import InputError, ScaleError, SlideError
from features.progress import Progress
from features.recipe import NO_PLACES, SEGMENTED, VOLUME
from features.regions.annotations import find_annotation
from features.slides.dicom import note_unnamed, series_files
from features.slides.find import name_of, slide_files, slides_in
from features.slides.names import is_film_name
from features.slides.rehearsal import open_slide
from features.slides.slide import Slide

if TYPE_CHECKING:
    from features.tiles.folders import FolderTiles
    from features.volumes.film import FilmTiles

IDENTITY_BYTES = 1 << 20  # of both ends of a file


@dataclass(frozen=True, kw_only=True)
class SlideJob:
    """One slide to extract.

    Attributes:
        slide: the bag's name.
        files: the slide file, or the tile images of one slide.
        annotations: folder with the slide's annotation; None uses the tissue.
        mpp: micrometres per level-0 pixel, overriding the file; needed for tile images.
        mpp_source: where ``mpp`` comes from: ``table``, ``option`` or ``given``.
        fallback_mpp: micrometres per level-0 pixel, where the file gives none.
        case: if known.
        from_tiles: the files are tiles already: tile images, or, by its name, the film of a volume.
        coordinates: a bag whose tiles are read again, instead of laying a grid.
        segmenter: the file of a segmenter, whose tumour is used.
        fixed: the recipe is that of a trained model, so that no message asks to change it.
        near: where there is no such file, a sentence with the names closest to its own.
    """

    slide: str
    files: tuple[Path, ...]
    annotations: Path | None = None
    mpp: float | None = None
    mpp_source: str = "given"
    fallback_mpp: float | None = None
    case: str = ""
    from_tiles: bool = False
    coordinates: Path | None = None
    segmenter: Path | None = None
    fixed: bool = False
    near: str = ""

    def __post_init__(self) -> None:
        if self.is_film:
            object.__setattr__(self, "from_tiles", True)

    @property
    def is_film(self) -> bool:
        """Whether the file is the film of a volume of CT or MRI."""
        return any(is_film_name(path.name) for path in self.files[:1])

    @property
    def region(self) -> str:
        """The kind of region that its tiles are laid over."""
        if self.is_film:
            return VOLUME
        if self.from_tiles:
            from features.tiles.folders import has_places

            return "tiles" if has_places(self.files) else NO_PLACES
        if self.coordinates:
            return "coordinates"
        if self.segmenter:
            return SEGMENTED
        return "annotations" if self.annotations else "tissue"

    def open(self, progress: Progress | None = None) -> Slide:
        """Open the slide, which a child process has read before.

        Raises:
            SlideError: it cannot be read, or ends or stalls the process that reads it.
            ScaleError: its scale is unknown or implausible.
        """
        return open_slide(
            self.files[0],
            mpp=self.mpp,
            mpp_source=self.mpp_source,
            fallback_mpp=self.fallback_mpp,
            progress=progress,
        )

    def open_tiles(self, tile_px: int, mpp: float) -> "FolderTiles | FilmTiles":
        """Open files that are tiles already.

        Args:
            tile_px: side to which tiles are resized; films have their own.
            mpp: micrometres per pixel of a tile; films have their own.

        Raises:
            SlideError: they cannot be read.
            ScaleError: tile images without a scale.
        """
        from features.tiles.folders import open_folder
        from features.volumes.film import open_film

        if self.is_film:
            return open_film(self.files[0])
        if self.mpp is None:
            raise ScaleError(
                f"{self.slide}: tile images carry no micrometres per pixel. Set slide_mpp, e.g. to 0.5 for "
                "20x."
            )
        return open_folder(self.files, mpp=self.mpp, tile_px=tile_px, target_mpp=mpp)

    def annotation(self) -> Path | None:
        """The slide's annotation file; None if tissue is used.

        Raises:
            AnnotationError: there is none, or more than one.
        """
        if self.annotations is None:
            return None
        return find_annotation(self.annotations, self.files[0].name, self.slide)


class SlideRow(Protocol):
    """One slide of a table; ``mil.data.case.Row`` is one."""

    @property
    def slide(self) -> str:
        """Its name, or its path in the folder of slides."""

    @property
    def case(self) -> str:
        """The patient."""

    @property
    def mpp(self) -> float | None:
        """Micrometres per level-0 pixel; None leaves it to the file."""


@dataclass(frozen=True, kw_only=True)
class JobSettings:
    """What applies to all slides of an extraction.

    Attributes:
        annotations: folder with the annotations; None uses the tissue.
        slide_mpp: micrometres per level-0 pixel, where files give none; needed for tile images.
        slide_mpp_force: micrometres per level-0 pixel, whatever the files say.
        mpp_source: where ``slide_mpp_force`` comes from.
        coordinates: folder of bags whose tiles are read again, instead of laying a grid.
        segmenter: the file of a segmenter, whose tumour is used instead of annotations.
    """

    annotations: Path | None = None
    slide_mpp: float | None = None
    slide_mpp_force: float | None = None
    mpp_source: str = "option"
    coordinates: Path | None = None
    segmenter: Path | None = None

    @property
    def image_mpp(self) -> float | None:
        """Micrometres per pixel of tile images, which carry none."""
        return self.slide_mpp_force or self.slide_mpp


ALL_DEFAULTS = JobSettings()


def jobs_of_paths(
    paths: Sequence[Path], settings: JobSettings = ALL_DEFAULTS
) -> tuple[SlideJob, ...]:
    """The jobs of slide files, folders of slides and folders of tile images.

    Slides with equal names get the name of their folder too: ``site-1/a`` and ``site-2/a``.

    Raises:
        InputError: a folder has no slides, or the settings do not apply to the files.
    """
    jobs = _without_repeats([job for path in paths for job in _path_jobs(path, settings)])
    times = Counter(job.slide for job in jobs)
    named = [
        replace(job, slide=f"{job.files[0].absolute().parent.name}/{job.slide}")
        if times[job.slide] > 1 and not job.from_tiles
        else job
        for job in jobs
    ]
    return _apply_settings(named, settings)


def jobs_of_rows(
    rows: Sequence[SlideRow], slides: Path, settings: JobSettings = ALL_DEFAULTS
) -> tuple[SlideJob, ...]:
    """The jobs of the rows of a table, found by name in a folder of slides or of tile images.

    Raises:
        InputError: there is no such folder, or the settings do not apply to its files.
        SlideError: the folder has none of the slides, or two files for one of them.
    """
    if not slides.is_dir():
        raise InputError(f"slides is {slides}: no such folder.")
    names = {row.slide for row in rows}
    files = slides_in(slides)
    _check_unique(slides, names, files)
    tiles = {} if names & set(files) else find_tile_images(slides)
    from_tiles = bool(names & set(tiles))
    if from_tiles:
        files = tiles
    elif not names & set(files):
        hint = suggest(rows[0].slide, files)
        raise SlideError(
            f"None of the table's {len(names)} slides is in {slides}, which holds {len(files)} slides, "
            f"e.g. {next(iter(files), 'none')}.{hint} Check slides and the slide column."
            f"{'' if files else _why_no_tiles(slides)}"
        )
    jobs = [
        SlideJob(
            slide=row.slide,
            files=_files_of(row.slide, files, slides, from_tiles=from_tiles),
            annotations=settings.annotations,
            mpp=row.mpp or (settings.image_mpp if from_tiles else settings.slide_mpp_force),
            mpp_source="table" if row.mpp else settings.mpp_source,
            fallback_mpp=settings.slide_mpp,
            case=row.case,
            from_tiles=from_tiles,
            near="" if row.slide in files else suggest(row.slide, files, 2),
        )
        for row in rows
    ]
    return _apply_settings(jobs, settings)


def find_tile_images(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The tile images of a folder by slide; empty if it is no folder of tile images.

    Images without places, as previews beside slides are, count only where there is no slide.
    """
    import openslide

    from features.tiles.folders import group_tiles, has_places

    try:
        tiles = group_tiles(folder)
        placed = all(map(has_places, tiles.values()))
    except SlideError:
        return {}
    if not placed and any(slide_files(folder)):
        return {}
    # A slide may be called S21-4711-3.tiff: a file that OpenSlide knows is a slide, whatever its name.
    first = next(iter(tiles.values()))[0]
    return {} if openslide.OpenSlide.detect_format(first) else tiles


def _why_no_tiles(folder: Path) -> str:
    """What keeps the files of a folder from being slides or tiles; empty if nothing does."""
    from features.tiles.folders import IMAGE_SUFFIXES, group_tiles

    if not any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.rglob("*")):
        return note_unnamed(folder)
    try:
        group_tiles(folder)
    except SlideError as error:
        return f" {error}"
    return ""


def largest_first(jobs: Sequence[SlideJob]) -> list[SlideJob]:
    """Jobs by the size of their files, so that the last one to finish is a short one."""

    def size(job: SlideJob) -> int:
        return sum(path.stat().st_size for path in job.files if path.is_file())

    return sorted(jobs, key=size, reverse=True)


def shard(jobs: Sequence[SlideJob], number: int, of: int) -> list[SlideJob]:
    """Part ``number`` (from 1) of ``of`` parts of about equal work; every slide is in exactly one."""
    return largest_first(sorted(jobs, key=lambda job: job.slide))[number - 1 :: of]


def identify_files(job: SlideJob) -> tuple[str, ...]:
    """Fingerprints of the slide's files.

    Raises:
        SlideError: a file is missing.
    """
    missing = [str(path) for path in job.files if not path.is_file()]
    if missing:
        raise SlideError(
            f"{job.slide}: no such file {missing[0]}.{job.near} Check the path, or slides and the slide "
            "column."
        )
    return tuple(identify_file(path) for path in job.files)


def _path_jobs(path: Path, settings: JobSettings) -> list[SlideJob]:
    """A slide file, the slides of a folder, or the slides whose tile images it holds."""
    tiles = find_tile_images(path) if path.is_dir() else {}
    if tiles:
        if settings.image_mpp is None:
            raise InputError(
                "Tile images carry no micrometres per pixel. Set slide_mpp, e.g. to 0.5 for 20x."
            )
        return [
            SlideJob(
                slide=name,
                files=files,
                annotations=settings.annotations,
                mpp=settings.image_mpp,
                mpp_source=settings.mpp_source,
                from_tiles=True,
            )
            for name, files in tiles.items()
        ]
    files = list(slide_files(path)) if path.is_dir() else [series_files(path)[0]]
    if not files:
        raise InputError(
            f"{path}: holds neither slides nor tile images, <slide>-<x>-<y>.png or a folder of images for "
            f"each slide.{_why_no_tiles(path)}"
        )
    return [
        SlideJob(
            slide=name_of(file),
            files=series_files(file),
            annotations=settings.annotations,
            mpp=settings.slide_mpp_force,
            mpp_source=settings.mpp_source,
            fallback_mpp=settings.slide_mpp,
        )
        for file in files
    ]


def _without_repeats(jobs: Sequence[SlideJob]) -> list[SlideJob]:
    """The jobs, each DICOM series once, also where several of its files are given."""
    once: dict[tuple[Path, ...] | int, SlideJob] = {}
    for number, job in enumerate(jobs):
        series = len(job.files) > 1 and not job.from_tiles
        once.setdefault(job.files if series else number, job)
    return list(once.values())


def _files_of(
    slide: str, files: Mapping[str, tuple[Path, ...]], folder: Path, *, from_tiles: bool
) -> tuple[Path, ...]:
    """The files of a row of a table; the path it names where the folder has none of that name."""
    paths = files.get(slide, (folder / slide,))
    return paths if from_tiles else series_files(paths[0])


def _apply_settings(jobs: Sequence[SlideJob], settings: JobSettings) -> tuple[SlideJob, ...]:
    """The jobs with their coordinates; settings that exclude each other are refused."""
    from_tiles = any(job.from_tiles for job in jobs)
    if settings.annotations and from_tiles:
        raise InputError("annotations go with slides; a folder of tiles has no use for them.")
    if settings.annotations and not settings.annotations.is_dir():
        raise InputError(f"annotations is {settings.annotations}: no such folder.")
    if settings.segmenter:
        if settings.annotations or settings.coordinates or from_tiles:
            raise InputError(
                "segmenter finds the tumour: leave out annotations and coordinates, and give no tile images."
            )
        return tuple(replace(job, segmenter=settings.segmenter) for job in jobs)
    if settings.coordinates is None:
        return tuple(jobs)
    if settings.annotations or from_tiles:
        raise InputError(
            "coordinates says which tiles to read: leave out annotations, and give slides, not tile images."
        )
    folder = settings.coordinates
    return tuple(replace(job, coordinates=folder / f"{job.slide}.h5") for job in jobs)


def _check_unique(folder: Path, names: "set[str]", files: "dict[str, tuple[Path, ...]]") -> None:
    for name in sorted(names & set(files)):
        if len(files[name]) > 1:
            first, second = (path.relative_to(folder) for path in files[name][:2])
            raise SlideError(
                f"Two files are one slide's: {first} and {second} in {folder}. Name the folder in the "
                f"slide column, {first.with_suffix('')}, or keep one."
            )


def identify_file(path: Path) -> str:
    """Fingerprint of a file's size and both ends, which is quick for a slide of gigabytes too."""
    with path.open("rb") as file:
        ends = file.read(IDENTITY_BYTES)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - IDENTITY_BYTES))
        ends += file.read(IDENTITY_BYTES)
    return f"{size}-{hashlib.sha256(ends).hexdigest()}"
