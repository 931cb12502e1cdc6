"""`mil extract`: slides to bags."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from cli.app import app
from cli.options import UsageError, part_of, verb, writable, wrong_use
from features.errors import FeaturesError
from features.recipe import BaseRecipe, Recipe

if TYPE_CHECKING:
    from features.bags.store import Outcome
    from features.extraction.survey import SlideJob
    from mil.data.case import Row

TABLE_SUFFIXES = (".csv", ".tsv")
ENGINES = ("local", "ray")
STAGES = {
    "open": "opening slides", "read": "decoding tiles", "prepare": "resizing and colour",
    "forward": "the network", "write": "writing bags",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SlideOptions(BaseRecipe):
    """What `mil extract` and `mil check` need to know of slides and tiles."""

    inputs: tuple[Path, ...] = field(
        metadata={
            "argument": "COHORT.csv | SLIDE... | FOLDER",
            "help": "A table with case and slide, slide files, or a folder of slides or tile images.",
        }
    )
    mpp: tuple[float, ...] = field(
        default=(0.25,),
        metadata={
            "help": "Micrometres per pixel of a tile: 0.25 is 40x, 0.625 16x. Several, as in "
            "0.25,0.625, are read together, one store each.",
            "split": ",",
        },
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
        metadata={
            "help": "Micrometres per level-0 pixel of all slides, whatever their files say; a table's mpp "
            "column goes first."
        },
    )
    coordinates: Path | None = field(
        default=None,
        metadata={"help": "Folder of bags whose tiles are read again, instead of laying a grid."},
    )


@dataclass(frozen=True, kw_only=True)
class ExtractOptions(SlideOptions):
    """Settings of `mil extract`."""

    hold_out_tiles: int = field(
        default=0,
        metadata={
            "help": "Embed this many of each slide's other tiles into a store of their own, which shares "
            "its cases: no test set for a diagnosis."
        },
    )
    device: str = field(default="auto", metadata={"help": "`auto`, `cpu`, `cuda` or `cuda:1`."})
    workers: int = field(
        default=0, metadata={"help": "Threads that read and embed tiles; 0 is one per core."}
    )
    shard: str = field(
        default="1/1",
        metadata={
            "help": "Do part i of n, as in 2/4: the same command with each i does all.",
            "once": True,
        },
    )
    engine: str = field(
        default="local",
        metadata={"help": "`local`, or `ray`: one worker per GPU or CPU share of a Ray cluster."},
    )
    overwrite: bool = field(
        default=False,
        metadata={"help": "Make bags of another recipe again instead of refusing.", "once": True},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.engine not in ENGINES:
            raise FeaturesError(f"engine is {' or '.join(ENGINES)}; got {self.engine!r}.")
        if self.hold_out_tiles < 0:
            raise FeaturesError(f"hold_out_tiles is 0 or more; got {self.hold_out_tiles}.")
        part_of_run(self.shard)


def part_of_run(text: str) -> tuple[int, int]:
    """``2/4`` as (2, 4).

    Raises:
        FeaturesError: not a part of a whole.
    """
    number, slash, of = text.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise FeaturesError(f"shard is i/n with i from 1 to n; got {text!r}. Write 2/4.")
    return int(number), int(of)


@verb(
    app,
    ExtractOptions,
    examples=[
        "mil extract cohort.csv --slides slides --annotations annotations --out store "
        "--backbone resnet18 --weights random",
        "mil extract cohort.csv --slides slides --annotations annotations --out two-scales "
        "--backbone resnet18 --weights random --mpp 0.5,1 --max-tiles 50 --shard 1/10",
        "mil extract slides/case-01-s1.tiff --out tissue --backbone resnet18 --weights random --mpp 0.5",
    ],
)
def extract(options: ExtractOptions) -> None:
    """Embed every tumour tile of each slide: one bag per slide.

    Tiles are laid where the annotation covers at least --min-coverage of them. A second run goes on
    where the first stopped, several processes may fill one store, and a slide that fails does not stop
    the others: extract.csv says what became of each. `mil check` looks at everything beforehand.
    """
    if run_extract(options):
        raise SystemExit(1)


def run_extract(options: ExtractOptions) -> int:
    """Extract and print what became of the slides; the number that failed."""
    jobs = jobs_of(options)
    writable(options.out)
    from cli.console import Bars, complain, counted, say, warn
    from features.backbones.registry import resolve_name
    from features.extraction.extract import extract as extract_here

    with wrong_use():
        resolve_name(options.backbone)
    recipes = recipes_of(options)
    warn_of_weights(options)
    if len(recipes) > 1 and jobs[0].from_tiles:
        raise UsageError("A folder of tile images has the scale of its files: give one --mpp.")
    if jobs[0].region == "tissue":
        say("No --annotations: every tile of tissue is used, tumour or not.")
    extract_slides = extract_here
    if options.engine == "ray":
        from features.extraction.cluster import extract_on_ray

        extract_slides = extract_on_ray
    began = time.perf_counter()
    outcomes = extract_slides(
        jobs,
        recipes,
        options.out,
        device=options.device,
        workers=options.workers,
        overwrite=options.overwrite,
        hold_out_tiles=options.hold_out_tiles,
        part=part_of_run(options.shard),
        progress=Bars(),
    )
    _tell(outcomes, time.perf_counter() - began, options.out)
    for outcome in outcomes:
        if outcome.status == "excluded":
            warn(outcome.reason)
        if outcome.notes and outcome.status == "done":
            warn(f"{outcome.slide}: {outcome.notes}")
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    for outcome in failed:
        complain(outcome.reason)
    if failed:
        table = Path(failed[0].store) / "failures.csv"
        complain(f"{len(failed)} of {counted(len(outcomes), 'slide')} failed: {table}")
    return len(failed)


def recipes_of(options: SlideOptions) -> "list[Recipe]":
    """One recipe per scale."""
    common = asdict(part_of(options, BaseRecipe))
    with wrong_use():
        recipes = [Recipe(**common, mpp=mpp) for mpp in options.mpp]
    if len(set(options.mpp)) < len(options.mpp):
        raise UsageError(f"--mpp {','.join(map(str, options.mpp))}: a scale is given twice.")
    return recipes


def warn_of_weights(options: SlideOptions) -> None:
    """Say at which scales the weights were not trained, and where their file does not know their cases."""
    from cli.console import warn
    from features.backbones.card import read_card

    if card := read_card(Path(options.weights)):
        for mpp in options.mpp:
            if remark := card.scale_mismatch(mpp, options):
                warn(remark)
    elif options.weights not in ("pretrained", "random") and Path(options.weights).is_file():
        warn(
            f"{options.weights} does not say which cases it has seen. If it was trained on any of yours, no "
            "test on them can be believed; weights of `mil finetune` carry a card that says so."
        )


def _tell(outcomes: "Sequence[Outcome]", seconds: float, out: Path) -> None:
    """What was done, and where the time went."""
    from cli.console import counted, say, show_table

    count = Counter(outcome.status for outcome in outcomes)
    done = [outcome for outcome in outcomes if outcome.status == "done"]
    tiles = sum(outcome.n_tiles for outcome in done)
    parts = [f"{counted(count['done'], 'slide')} embedded"]
    if done:
        parts[0] += f", {tiles} tiles in {seconds:.0f} s ({tiles / seconds:.1f} tiles/s)"
    if count["skipped"]:
        parts.append(f"{count['skipped']} were there already")
    if count["excluded"]:
        parts.append(f"{count['excluded']} excluded by rule")
    unreadable = sum(outcome.n_unreadable for outcome in done)
    if unreadable:
        parts.append(f"{counted(unreadable, 'tile')} could not be decoded and left out")
    say("; ".join(parts) + f". Bags: {out}")
    spent = {stage: sum(o.stages.get(stage, 0.0) for o in done) for stage in STAGES}
    if total := sum(spent.values()):
        rows = [[stage, f"{spent[stage]:.1f} s", f"{spent[stage] / total:.0%}"] for stage in STAGES]
        show_table(["stage", "time of all threads", "share"], rows)
        slowest = max(STAGES, key=lambda stage: spent[stage])
        say(f"Bottleneck: {STAGES[slowest]}.")


def jobs_of(options: SlideOptions) -> "Sequence[SlideJob]":
    """The slides meant by the command line.

    Raises:
        UsageError: inputs of different kinds, or options that do not apply to them.
    """
    from mil.data.table import read_table

    tables = [path for path in options.inputs if path.suffix.lower() in TABLE_SUFFIXES]
    if tables:
        if len(options.inputs) > 1:
            raise UsageError("Give one table, or slides, not both.")
        if options.slides is None:
            raise UsageError("A table needs --slides, the folder that holds its slides.")
        jobs = _table_jobs(options, read_table(tables[0]), options.slides)
    else:
        if options.slides is not None:
            raise UsageError("--slides goes with a table; slide files are given as they are.")
        jobs = _apart([job for path in options.inputs for job in _path_jobs(options, path)])
    if options.annotations and not options.annotations.is_dir():
        raise UsageError(f"--annotations {options.annotations}: no such folder.")
    if options.coordinates is None:
        return jobs
    if options.annotations or jobs[0].from_tiles:
        raise UsageError(
            "--coordinates says which tiles to read: leave out --annotations and tile images."
        )
    return [replace(job, coordinates=options.coordinates / f"{job.slide}.h5") for job in jobs]


def _path_jobs(options: SlideOptions, path: Path) -> "list[SlideJob]":
    """A slide file, the slides of a folder, or the slides whose tile images it holds."""
    from features.extraction.survey import SlideJob
    from features.slides.find import slides_in

    if not path.is_dir():
        return [_slide_job(options, path)]
    tiles = _tiles_in(path)
    if not tiles:
        found = sorted({file for files in slides_in(path).values() for file in files})
        if not found:
            raise UsageError(f"{path}: holds neither slides nor tile images <slide>-<x>-<y>.png.")
        return [_slide_job(options, file) for file in found]
    if options.annotations:
        raise UsageError("--annotations go with slides; a folder of tiles has no use for them.")
    if options.slide_mpp is None:
        raise UsageError(
            "Tile images carry no micrometres per pixel. Pass --slide-mpp, e.g. 0.5 for 20x."
        )
    return [
        SlideJob(
            slide=name,
            files=files,
            mpp=options.slide_mpp,
            mpp_source="option",
            from_tiles=True,
        )
        for name, files in tiles.items()
    ]


def _slide_job(options: SlideOptions, path: Path) -> "SlideJob":
    from features.extraction.survey import SlideJob
    from features.slides.slide import slide_name

    return SlideJob(
        slide=slide_name(path.name),
        files=(path,),
        annotations=options.annotations,
        mpp=options.slide_mpp,
        mpp_source="option",
    )


def _apart(jobs: "Sequence[SlideJob]") -> "list[SlideJob]":
    """Slides that are called alike take the name of their folder too: site-1/a and site-2/a."""
    times = Counter(job.slide for job in jobs)
    return [
        replace(job, slide=f"{job.files[0].absolute().parent.name}/{job.slide}")
        if times[job.slide] > 1 and not job.from_tiles
        else job
        for job in jobs
    ]


def _table_jobs(options: SlideOptions, rows: "Sequence[Row]", folder: Path) -> "list[SlideJob]":
    """The slides of a table, found by name in a folder of slides or of tile images."""
    from features.errors import SlideError
    from features.extraction.survey import SlideJob
    from features.slides.find import slides_in

    if not folder.is_dir():
        raise UsageError(f"--slides {folder}: no such folder.")
    wanted = {row.slide for row in rows}
    found = slides_in(folder)
    for name in sorted(wanted & set(found)):
        if len(found[name]) > 1:
            first, second = (path.relative_to(folder) for path in found[name][:2])
            raise SlideError(
                f"Two files are one slide's: {first} and {second} in {folder}. Name the folder in the "
                f"slide column, {first.with_suffix('')}, or keep one."
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
            mpp_source="table" if row.mpp else "option",
            case=row.case,
            from_tiles=from_tiles,
        )
        for row in rows
    ]


def _tiles_in(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The tile images of a folder by slide; none where it is not a folder of tiles."""
    import openslide

    from features.errors import SlideError
    from features.tiles.folders import group_tiles

    try:
        tiles = group_tiles(folder)
    except SlideError:
        return {}
    # A slide may be called S21-4711-3.tiff: what OpenSlide knows is a slide, whatever its name.
    first = next(iter(tiles.values()))[0]
    return {} if openslide.OpenSlide.detect_format(first) else tiles
