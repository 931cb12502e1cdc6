"""`mil extract`: slides to bags."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cli.app import app
from cli.options import UsageError, part_of, verb, writable, wrong_use
from features.errors import FeaturesError, InputError
from features.recipe import BaseRecipe, Recipe
from mil.data.reading import TableReading

if TYPE_CHECKING:
    from features.extraction.jobs import JobSettings, SlideJob
    from features.extraction.run import Extraction

STAGES = {
    "open": "opening slides", "read": "decoding tiles", "prepare": "resizing and colour",
    "forward": "the network", "write": "writing bags",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SlideOptions(BaseRecipe, TableReading):
    """The options of slides and tiles, common to `mil extract`, `mil check` and `mil finetune`."""

    inputs: tuple[Path, ...] = field(
        metadata={
            "argument": "COHORT.csv | SLIDE... | FOLDER",
            "help": "A table with case and slide, slide files, or a folder of slides or tile images.",
        }
    )
    mpp: tuple[float, ...] = field(
        default=(0.25,),
        metadata={
            "help": "Micrometres per pixel of a tile: 0.25 is 40x, 0.625 is 16x. Several, as in "
            "0.25,0.625, are read together and make one store each.",
            "split": ",",
        },
    )
    out: Path = field(metadata={"help": "The bag store: one <slide>.h5 per slide."})
    slides: Path | None = field(
        default=None, metadata={"help": "Folder with the table's slides (or folders of tiles)."}
    )
    annotations: Path | None = field(
        default=None,
        metadata={
            "help": "Folder with <slide>.geojson from QuPath; without it, all tissue is used.",
            "panel": "Annotations",
        },
    )
    slide_mpp: float | None = field(
        default=None,
        metadata={
            "help": "Micrometres per level-0 pixel of slides whose files do not say, and of tile images. An "
            "mpp column of the table takes precedence."
        },
    )
    slide_mpp_force: float | None = field(
        default=None,
        metadata={
            "help": "Micrometres per level-0 pixel of all slides, whatever their files say; each slide that "
            "says otherwise is listed. An mpp column of the table takes precedence."
        },
    )
    coordinates: Path | None = field(
        default=None,
        metadata={"help": "Folder of bags: reuse their tile positions instead of a new grid."},
    )


@dataclass(frozen=True, kw_only=True)
class ExtractOptions(SlideOptions):
    """Settings of `mil extract`."""

    segmenter: Path | None = field(
        default=None,
        metadata={
            "help": "A segmenter.safetensors of `mil segment`: tiles are taken from what it marks as tumour.",
            "panel": "Annotations",
        },
    )
    hold_out_tiles: int = field(
        default=0,
        metadata={
            "help": "Also embed this many other tiles of each slide into a second store. It shares the cases "
            "of the first, so it is no test set for a diagnosis."
        },
    )
    device: str = field(
        default="auto",
        metadata={"help": "`auto`, `cpu`, `cuda` or `cuda:1`.", "panel": "Computing"},
    )
    workers: int = field(
        default=0,
        metadata={
            "help": "Threads that read and embed tiles; 0 is one per core.",
            "panel": "Computing",
        },
    )
    shard: str = field(
        default="1/1",
        metadata={
            "help": "Extract part i of n, as in 2/4. Run the command once for every i.",
            "panel": "Computing",
            "once": True,
        },
    )
    engine: Literal["local", "ray"] = field(
        default="local",
        metadata={
            "help": "`ray` runs one worker per GPU or CPU share of a Ray cluster.",
            "panel": "Computing",
        },
    )
    overwrite: bool = field(
        default=False,
        metadata={"help": "Replace bags of another recipe instead of refusing them.", "once": True},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hold_out_tiles < 0:
            raise FeaturesError(f"hold_out_tiles must be 0 or more; got {self.hold_out_tiles}.")
        parse_shard(self.shard)


def parse_shard(text: str) -> tuple[int, int]:
    """``2/4`` as (2, 4).

    Raises:
        FeaturesError: it is no part of a whole.
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
        "--backbone efficientnet-lite0",
        "mil extract cohort.csv --slides slides --annotations annotations --out two-scales "
        "--backbone efficientnet-lite0 --mpp 0.25,0.5 --max-tiles 50 --shard 1/10",
        "mil extract cohort.csv --slides slides --segmenter segmenter/segmenter.safetensors "
        "--out segmented-store --backbone efficientnet-lite0 --mpp 0.5",
        "mil extract slides/case-01-s1.tiff --out tissue --backbone efficientnet-lite0 --mpp 0.5",
    ],
)
def extract(options: ExtractOptions) -> None:
    """Embed every tumour tile of each slide: one bag per slide.

    Tiles are laid where the annotation covers at least --min-coverage of them. A second run continues
    where the first stopped, several processes may fill one store, and a slide that fails does not stop
    the others: extract.csv lists the outcome of each. `mil check` tests the input beforehand.
    """
    if run_extract(options):
        raise SystemExit(1)


def run_extract(options: ExtractOptions) -> int:
    """Extract and print the outcomes; the number of slides that failed."""
    from cli.console import Bars, warn
    from features.backbones.registry import resolve_name
    from features.extraction.run import extract_jobs

    writable(options.out)
    recipes = recipes_of(options)
    jobs = slide_jobs(options, recipes)
    with wrong_use():
        resolve_name(options.backbone)
    with wrong_use(InputError):
        result = extract_jobs(
            jobs,
            recipes,
            options.out,
            engine=options.engine,
            device=options.device,
            workers=options.workers,
            overwrite=options.overwrite,
            hold_out_tiles=options.hold_out_tiles,
            part=parse_shard(options.shard),
            progress=Bars(),
            notify=warn,
        )
    show_extraction(result)
    return len(result.failed)


def slide_jobs(options: SlideOptions, recipes: Sequence[Recipe] = ()) -> "tuple[SlideJob, ...]":
    """The slides that the command line names.

    Raises:
        UsageError: inputs of different kinds, or options that do not apply to them.
    """
    from cli.console import warn
    from mil.data.jobs import read_jobs

    with wrong_use(InputError):
        return read_jobs(
            options.inputs,
            options.slides,
            job_settings(options),
            part_of(options, TableReading),
            warn,
            recipes,
        )


def job_settings(options: SlideOptions) -> "JobSettings":
    """What applies to all slides."""
    from features.extraction.jobs import JobSettings

    return JobSettings(
        annotations=options.annotations,
        slide_mpp=options.slide_mpp,
        slide_mpp_force=options.slide_mpp_force,
        coordinates=options.coordinates,
        segmenter=options.segmenter if isinstance(options, ExtractOptions) else None,
    )


def recipes_of(options: SlideOptions) -> list[Recipe]:
    """One recipe per scale."""
    common = asdict(part_of(options, BaseRecipe))
    with wrong_use():
        recipes = [Recipe(**common, mpp=mpp) for mpp in options.mpp]
    if len(set(options.mpp)) < len(options.mpp):
        raise UsageError(f"--mpp {','.join(map(str, options.mpp))}: a scale is given twice.")
    return recipes


def show_extraction(result: "Extraction") -> None:
    """Print the outcomes, the time of the stages, and what failed."""
    from cli.console import complain, counted, say, show_table, warn

    say(_counts(result))
    spent = result.stage_seconds
    if total := sum(spent.values()):
        rows = [[stage, f"{spent[stage]:.1f} s", f"{spent[stage] / total:.0%}"] for stage in STAGES]
        show_table(["stage", "time of all threads", "share"], rows)
        slowest = max(STAGES, key=lambda stage: spent[stage])
        say(f"Bottleneck: {STAGES[slowest]}.")
    for outcome in result.outcomes:
        if outcome.status == "excluded":
            warn(outcome.reason)
        if outcome.notes and outcome.status == "done":
            warn(f"{outcome.slide}: {outcome.notes}")
    for outcome in result.failed:
        complain(outcome.reason)
    if result.failed:
        table = Path(result.failed[0].store) / "failures.csv"
        complain(
            f"{len(result.failed)} of {counted(len(result.outcomes), 'slide')} failed: {table}"
        )


def _counts(result: "Extraction") -> str:
    from cli.console import counted

    count = Counter(outcome.status for outcome in result.outcomes)
    done = result.with_status("done")
    tiles = sum(outcome.n_tiles for outcome in done)
    parts = [f"{counted(count['done'], 'slide')} embedded"]
    if done:
        parts[0] += (
            f", {tiles} tiles in {result.seconds:.0f} s ({tiles / result.seconds:.1f} tiles/s)"
        )
    if count["skipped"]:
        parts.append(f"{count['skipped']} were there already")
    if count["excluded"]:
        parts.append(f"{count['excluded']} excluded by rule")
    unreadable = sum(outcome.n_unreadable for outcome in done)
    if unreadable:
        parts.append(f"{counted(unreadable, 'tile')} could not be decoded and left out")
    return "; ".join(parts) + f". Bags: {result.store}"
