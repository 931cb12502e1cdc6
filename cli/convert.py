"""`mil convert`: features of other tools to bags, and bags to theirs."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cli.app import app
from cli.options import UsageError, verb, writable, wrong_use
from features.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from features.bags.convert import Conversion
    from features.bags.foreign_readers import SourceFacts


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """Settings of `mil convert`."""

    inputs: tuple[Path, ...] = field(
        metadata={
            "argument": "FILE... | FOLDER",
            "help": "Files, one per slide, or folders that contain them.",
        }
    )
    out: Path = field(
        metadata={"help": "The bag store to write; with --to, the folder to export to."}
    )
    to: Literal["stamp", "clam"] | None = field(
        default=None,
        metadata={"help": "Export bags as files of STAMP (.h5) or CLAM (.pt and .h5)."},
    )
    layout: Literal["auto", "trident", "clam", "stamp", "slideflow", "npz", "csv", "vector"] = (
        field(
            default="auto",
            metadata={
                "flag": "--from",
                "help": "The tool or format of the files; `vector` is one feature vector per slide, `auto` "
                "looks into each file.",
                "panel": "Files to import",
            },
        )
    )
    encoder: str | None = field(
        default=None,
        metadata={
            "help": "The network that made the features, if the file does not say.",
            "panel": "Files to import",
        },
    )
    patches: Path | None = field(
        default=None,
        metadata={
            "help": "For CLAM's features: the folder of coordinates that CLAM or TRIDENT wrote.",
            "panel": "Files to import",
        },
    )
    feature_columns: tuple[str, ...] = field(
        default=(),
        metadata={
            "help": "Of a table: columns that are features although they look like outcomes, names or "
            "numbers of rows; * stands for any letters.",
            "panel": "Files to import",
            "split": ",",
        },
    )
    slides: Path | None = field(
        default=None,
        metadata={
            "help": "Folder with the slides, for the scale and the size of each.",
            "panel": "Scale",
        },
    )
    slide_mpp: float | None = field(
        default=None,
        metadata={"help": "Micrometres per level-0 pixel, of all slides.", "panel": "Scale"},
    )
    tile: int | None = field(
        default=None,
        metadata={
            "help": "Side of a tile in pixels as read, if the file does not say.",
            "parameter": "tile_px",
            "panel": "Scale",
        },
    )
    mpp: float | None = field(
        default=None,
        metadata={
            "help": "Micrometres per pixel of a tile, if the file does not say.",
            "parameter": "target_mpp",
            "panel": "Scale",
        },
    )
    tile_l0: float | None = field(
        default=None,
        metadata={"help": "Side of a tile in level-0 pixels, instead of --mpp.", "panel": "Scale"},
    )
    unit: Literal["px", "um", "tile"] | None = field(
        default=None,
        metadata={
            "help": "Unit of the coordinates: `px` of level 0, `um`, or `tile`, pixels at --mpp.",
            "panel": "Scale",
        },
    )
    overwrite: bool = field(
        default=False,
        metadata={"help": "Replace other files in --out instead of refusing.", "once": True},
    )


@verb(
    app,
    ConvertOptions,
    examples=[
        "mil convert store/case-01-s1.h5 --to stamp --out stamp",
        "mil convert stamp --out from-stamp --slides slides",
        "mil convert store --to clam --out clam",
        "mil convert clam/h5_files --out from-clam --slide-mpp 0.25 --encoder resnet18",
    ],
)
def convert(options: ConvertOptions) -> None:
    """Convert features of other tools to bags, or bags to files of STAMP or CLAM.

    Positions in level-0 pixels or micrometres, of corners or centres, become the bag's coordinates. What a
    file does not say must be given as an option; it is never guessed. Tumour coverage is unknown and set to
    1.
    """
    if run_convert(options):
        raise SystemExit(1)


def run_convert(options: ConvertOptions) -> int:
    """Convert and print the result; the number of files that failed and of doubts on all."""
    from cli.console import Bars
    from features.bags.convert import convert as import_files
    from features.bags.convert import export

    facts = source_facts(options)
    writable(options.out)
    with wrong_use(InputError):
        if options.to:
            result = export(
                options.inputs,
                options.out,
                options.to,
                overwrite=options.overwrite,
                progress=Bars(),
            )
        else:
            result = import_files(
                options.inputs,
                options.out,
                layout=options.layout,
                facts=facts,
                slides=options.slides,
                overwrite=options.overwrite,
                progress=Bars(),
            )
    of_tiles = "Bags, their coverage unknown and set to 1" if result.n_tiles else "Bags"
    show_conversion(result, "Files" if options.to else of_tiles)
    return len(result.failures) + len(result.doubts)


def show_conversion(result: "Conversion", kind: str) -> None:
    """Print counts, remarks and failures."""
    from cli.console import complain, counted, say

    dims = ", ".join(map(str, sorted(result.dims)))
    tiles = f", {result.n_tiles} tiles" if result.n_tiles else ""
    vectors = f", {counted(result.n_vectors, 'vector')}" if result.n_vectors else ""
    size = f"{tiles}{vectors}, {dims} features each" if result.n_done else ""
    existing = f"; {result.n_existing} were there already" if result.n_existing else ""
    say(f"{counted(result.n_done, 'slide')} converted{size}{existing}. {kind}: {result.out}")
    if result.columns:
        say(f"  Features are the columns {result.columns}.")
    for text, slides in result.notes.items():
        more = f" and {len(slides) - 1} more" if len(slides) > 1 else ""
        say(f"  {slides[0]}{more}: {text}")
    for reason in grouped(result.failures):
        complain(reason)
    if result.failures:
        complain(f"{len(result.failures)} of {counted(result.n_files, 'file')} failed.")
    for reason in result.doubts:
        complain(reason)


def grouped(reasons: "Sequence[str]") -> list[str]:
    """Reasons that differ in the file they begin with only are one, with the number of further files."""
    first: dict[str, str] = {}
    more: Counter[str] = Counter()
    for reason in reasons:
        _, _, rest = reason.partition(": ")
        if first.setdefault(rest, reason) is not reason:
            more[rest] += 1
    return [
        f"{reason} (and {more[rest]} more files)" if more[rest] > 1
        else f"{reason} (and one more file)" if more[rest] else reason
        for rest, reason in first.items()
    ]  # fmt: skip


def source_facts(options: ConvertOptions) -> "SourceFacts":
    """What the command line says of foreign files.

    Raises:
        UsageError: a value that cannot be, or one that has no use with --to.
    """
    from features.bags.foreign_readers import SourceFacts

    mpp = options.slide_mpp
    with wrong_use():
        facts = SourceFacts(
            slide_mpp=None if mpp is None else (mpp, mpp),
            tile_px=options.tile,
            target_mpp=options.mpp,
            tile_l0=options.tile_l0,
            unit=options.unit,
            encoder=options.encoder,
            patches=options.patches,
            feature_columns=options.feature_columns,
        )
    if options.to and (facts != SourceFacts() or options.slides or options.layout != "auto"):
        raise UsageError(
            "--to writes bags, which know their scale: leave out --from and the scales."
        )
    return facts
