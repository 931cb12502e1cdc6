"""`mil extract`: slides to bags."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from cli.main import app
from cli.options import UsageError, part_of, verb, writable, wrong_use
from features.recipe import Recipe

if TYPE_CHECKING:
    from features.extract import SlideJob
    from mil.cohort import Row

TABLE_SUFFIXES = (".csv", ".tsv")


@dataclass(frozen=True, kw_only=True)
class ExtractOptions(Recipe):
    """Settings of `mil extract`."""

    inputs: tuple[Path, ...] = field(
        metadata={
            "argument": "COHORT.csv | SLIDE... | TILES",
            "help": "A table with case and slide, slide files, or a folder of tile images.",
        }
    )
    out: Path = field(metadata={"help": "The bag store: one <slide>.h5 per slide."})
    slides: Path | None = field(
        default=None, metadata={"help": "Folder with the table's slides (or folders of tiles)."}
    )
    annotations: Path | None = field(
        default=None,
        metadata={"help": "Folder with <slide>.geojson from QuPath; without it, tissue."},
    )
    slide_mpp: float | None = field(
        default=None,
        metadata={"help": "Micrometres per level-0 pixel, where the slides do not say."},
    )
    device: str = field(default="auto", metadata={"help": "`auto`, `cpu`, `cuda` or `cuda:1`."})
    workers: int = field(
        default=0, metadata={"help": "Threads that read and embed tiles; 0 is one per core."}
    )
    overwrite: bool = field(
        default=False,
        metadata={"help": "Make bags of another recipe again instead of refusing.", "once": True},
    )


@verb(
    app,
    ExtractOptions,
    examples=[
        "mil extract cohort.csv --slides slides --annotations annotations --out store "
        "--backbone resnet18 --weights random",
        "mil extract slides/case-01-s1.tiff --out tissue --backbone resnet18 --weights random --mpp 0.5",
    ],
)
def extract(options: ExtractOptions) -> None:
    """Embed every tumour tile of each slide: one bag per slide.

    Tiles are laid where the annotation covers at least --min-coverage of them. A second run goes on
    where the first stopped; a slide that fails is listed in failures.csv and does not stop the others.
    """
    if run_extract(options):
        raise SystemExit(1)


def run_extract(options: ExtractOptions) -> int:
    """Extract and print what became of the slides; the number that failed."""
    jobs = jobs_of(options)
    writable(options.out)
    from cli.console import Bars, complain, counted, say
    from features.backbones.registry import timm_name
    from features.extract import extract as extract_slides

    with wrong_use():
        timm_name(options.backbone)

    if not options.annotations and not jobs[0].from_tiles:
        say("No --annotations: every tile of tissue is used, tumour or not.")
    outcomes = extract_slides(
        jobs,
        part_of(options, Recipe),
        options.out,
        device=options.device,
        workers=options.workers,
        overwrite=options.overwrite,
        progress=Bars(),
    )
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    done = [outcome for outcome in outcomes if outcome.status == "done"]
    tiles, seconds = sum(o.n_tiles for o in done), sum(o.seconds for o in done)
    rate = f", {tiles} tiles in {seconds:.0f} s" if done else ""
    kept = sum(outcome.status == "resumed" for outcome in outcomes)
    say(
        f"{counted(len(done), 'slide')} embedded{rate}"
        + (f"; {kept} were there already" if kept else "")
        + f". Bags: {options.out}"
    )
    for outcome in failed:
        complain(outcome.reason)
    if failed:
        complain(
            f"{len(failed)} of {counted(len(outcomes), 'slide')} failed: {options.out / 'failures.csv'}"
        )
    return len(failed)


def jobs_of(options: ExtractOptions) -> "Sequence[SlideJob]":
    """The slides meant by the command line.

    Raises:
        UsageError: inputs of different kinds, or options that do not apply to them.
    """
    from mil.cohort import read_table

    tables = [path for path in options.inputs if path.suffix.lower() in TABLE_SUFFIXES]
    if tables:
        if len(options.inputs) > 1:
            raise UsageError("Give one table, or slides, not both.")
        if options.slides is None:
            raise UsageError("A table needs --slides, the folder that holds its slides.")
        return _table_jobs(options, read_table(tables[0]), options.slides)
    if options.slides is not None:
        raise UsageError("--slides goes with a table; slide files are given as they are.")
    return [job for path in options.inputs for job in _path_jobs(options, path)]


def _path_jobs(options: ExtractOptions, path: Path) -> "list[SlideJob]":
    """A slide file, or the slides of a folder of tile images."""
    from features.extract import SlideJob
    from features.folders import group_tiles
    from features.slides import slide_name

    if path.is_dir():
        if options.annotations:
            raise UsageError("--annotations go with slides; a folder of tiles has no use for them.")
        if options.slide_mpp is None:
            raise UsageError(
                "Tile images carry no micrometres per pixel. Pass --slide-mpp, e.g. 0.5 for 20x."
            )
        return [
            SlideJob(slide=name, files=files, mpp=options.slide_mpp, from_tiles=True)
            for name, files in group_tiles(path).items()
        ]
    return [
        SlideJob(
            slide=slide_name(path.name),
            files=(path,),
            annotations=options.annotations,
            mpp=options.slide_mpp,
        )
    ]


def _table_jobs(options: ExtractOptions, rows: "Sequence[Row]", folder: Path) -> "list[SlideJob]":
    """The slides of a table, found by name in a folder of slides or of tile images."""
    from features.errors import SlideError
    from features.extract import SlideJob

    if not folder.is_dir():
        raise UsageError(f"--slides {folder}: no such folder.")
    wanted = {row.slide for row in rows}
    found = _slides_in(folder)
    for files in (found[name] for name in sorted(wanted & set(found)) if len(found[name]) > 1):
        raise SlideError(
            f"Two files are one slide's: {files[0]} and {files[1]}. Keep one, or rename."
        )
    tiles = {} if wanted & set(found) else _tiles_in(folder)
    from_tiles = bool(wanted & set(tiles))
    if from_tiles and options.annotations:
        raise UsageError("--annotations go with slides; a folder of tiles has no use for them.")
    if not from_tiles and not wanted & set(found):
        near = get_close_matches(rows[0].slide, found, 1)
        hint = f" Is {rows[0].slide} meant to be {near[0]}?" if near else ""
        raise SlideError(
            f"None of the table's {len(wanted)} slides is in {folder}, which holds {len(found)} slides, "
            f"e.g. {next(iter(found), 'none')}.{hint} Check --slides and the slide column."
        )
    return [
        SlideJob(
            slide=row.slide,
            files=(tiles if from_tiles else found).get(row.slide, (folder / row.slide,)),
            annotations=options.annotations,
            mpp=row.mpp or options.slide_mpp,
            case=row.case,
            from_tiles=from_tiles,
        )
        for row in rows
    ]


def _slides_in(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The slide files of a folder and those below it, by name."""
    from features.slides import SLIDE_SUFFIXES, slide_name

    found: dict[str, tuple[Path, ...]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SLIDE_SUFFIXES and path.is_file():
            name = slide_name(path.name)
            found[name] = (*found.get(name, ()), path)
    return found


def _tiles_in(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The tile images of a folder by slide; none where it is not a folder of tiles."""
    from features.errors import SlideError
    from features.folders import group_tiles

    try:
        return group_tiles(folder)
    except SlideError:
        return {}
