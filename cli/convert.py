"""`mil convert`: features of other tools to bags, and bags to theirs."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cli.app import app
from cli.options import UsageError, verb, writable, wrong_use

if TYPE_CHECKING:
    from features.bags.bag import Bag
    from features.bags.layouts import SourceFacts

SUFFIXES = (".h5", ".hdf5", ".pt", ".pth", ".npz", ".csv")
TARGETS = ("stamp", "clam")
TABLES = ("extract.csv", "failures.csv")  # what `mil extract` leaves beside its bags


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """Settings of `mil convert`."""

    inputs: tuple[Path, ...] = field(
        metadata={
            "argument": "FILE... | FOLDER",
            "help": "Files with one slide's features each, or folders that hold them.",
        }
    )
    out: Path = field(metadata={"help": "The bag store, or with --to the folder to export to."})
    to: str | None = field(
        default=None,
        metadata={"help": "Write bags of ours as `stamp` (.h5) or `clam` (.pt and .h5)."},
    )
    layout: str = field(
        default="auto",
        metadata={
            "flag": "--from",
            "help": "`trident`, `clam`, `stamp`, `slideflow`, `npz` or `csv`; auto looks into the file.",
        },
    )
    slide_mpp: float | None = field(
        default=None, metadata={"help": "Micrometres per level-0 pixel, of all slides given."}
    )
    slides: Path | None = field(
        default=None, metadata={"help": "Folder with the slides: each one's own scale and size."}
    )
    tile: int | None = field(
        default=None,
        metadata={"help": "Side of a tile in pixels as read, if the file does not say."},
    )
    mpp: float | None = field(
        default=None,
        metadata={"help": "Micrometres per pixel of a tile, if the file does not say."},
    )
    tile_l0: float | None = field(
        default=None, metadata={"help": "Side of a tile in level-0 pixels, instead of --mpp."}
    )
    unit: str | None = field(
        default=None,
        metadata={"help": "Of coordinates: `px` of level 0, `um`, or `tile`, pixels at --mpp."},
    )
    encoder: str | None = field(
        default=None, metadata={"help": "What made the features, if the file does not say."}
    )
    patches: Path | None = field(
        default=None, metadata={"help": "CLAM's or TRIDENT's folder of coordinates, for CLAM."}
    )
    overwrite: bool = field(
        default=False,
        metadata={"help": "Replace what --out holds instead of keeping it.", "once": True},
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
    """Turn features that another tool extracted into bags, or bags into STAMP's or CLAM's files.

    Pixels of level 0, micrometres, corners and centres all become the bag's own frame. What a file does
    not say is asked for, never guessed. Coverage is unknown and set to 1.
    """
    if run_convert(options):
        raise SystemExit(1)


def run_convert(options: ConvertOptions) -> int:
    """Convert and print what became of each file; the number that failed."""
    given = _given(options)
    writable(options.out)
    files = _files(options)
    from cli.console import Bars, complain, counted, say
    from features.errors import FeaturesError

    work = _Work(options, given)
    failed = []
    with Bars().task("files converted", len(files), "files") as advance:
        for slide, path in files.items():
            try:
                work.convert(slide, path)
            except FeaturesError as error:
                failed.append(str(error))
            except Exception as error:  # noqa: BLE001 - the one guard: a bad file must not cost the others
                failed.append(f"{path}: {type(error).__name__}: {error}")
            advance(1)
    found = f", {work.tiles} tiles, {', '.join(map(str, sorted(work.dims)))} features each"
    kept = f"; {work.kept} were there already" if work.kept else ""
    where = "Files" if options.to else "Bags, their coverage unknown and set to 1"
    say(
        f"{counted(work.done, 'slide')} converted{found if work.done else ''}{kept}. {where}: {options.out}"
    )
    for text, slides in work.remarks.items():
        more = f" and {len(slides) - 1} more" if len(slides) > 1 else ""
        say(f"  {slides[0]}{more}: {text}")
    for reason in failed:
        complain(reason)
    if failed:
        complain(f"{len(failed)} of {counted(len(files), 'file')} failed.")
    return len(failed)


class _Work:
    """One run over files: what is asked of each, and what became of them."""

    def __init__(self, options: ConvertOptions, given: "SourceFacts") -> None:
        from features.slides.find import slides_in

        self.done = self.kept = self.tiles = 0
        self.dims: set[int] = set()
        self.remarks: dict[str, list[str]] = {}
        self._options = options
        self._given = given
        self._slides = slides_in(options.slides) if options.slides else {}
        fresh = options.to or options.overwrite
        self._first = None if fresh else _first_bag(options.out)

    def convert(self, slide: str, path: Path) -> None:
        """Convert one file, unless that was done before.

        Raises:
            BagError: the file cannot be converted, or its place is taken by something else.
        """
        bag = self._export(path) if self._options.to else self._take_in(slide, path)
        if bag is None:
            self.kept += 1
            return
        self.done += 1
        self.tiles += len(bag)
        self.dims.add(bag.dim)

    def _export(self, path: Path) -> "Bag | None":
        """Write a bag in the other tool's layout; None where its file is there already."""
        from features.bags.bag import read_bag, validate_bag
        from features.bags.interchange import write_clam, write_stamp
        from features.bags.layouts import NATIVE, detect_layout
        from features.errors import BagError

        layout, out = detect_layout(path), self._options.out
        if layout != NATIVE:
            raise BagError(
                f"{path}: a {layout} file, not a bag. Convert it to a bag first, without --to."
            )
        bag = read_bag(path)
        stamp = self._options.to == "stamp"
        # Of CLAM's two files, the one that is written last.
        target = (out if stamp else out / "h5_files") / f"{bag.slide}.h5"
        if target.exists() and not self._options.overwrite:
            return None
        validate_bag(path)
        if stamp:
            write_stamp(target, bag)
        else:
            write_clam(out, bag)
        return bag

    def _take_in(self, slide: str, path: Path) -> "Bag | None":
        """Write a foreign file as a bag; None where the same bag is there already."""
        from features.bags.bag import read_bag, read_request, write_bag
        from features.bags.interchange import conversion_notes, read_foreign
        from features.bags.layouts import NATIVE, detect_layout
        from features.errors import BagError

        layout = detect_layout(path) if self._options.layout == "auto" else self._options.layout
        bag = read_foreign(path, layout=layout, given=self._given_for(slide), slide=slide)
        self._first = self._first or bag
        _check_alike(path, bag, self._first)
        target = self._options.out / f"{slide}.h5"
        if target.exists() and not self._options.overwrite:
            same = read_request(target) == bag.request_sha256
            if same and read_bag(target).data_sha256 == bag.data_sha256:
                return None
            raise BagError(
                f"{path}: {target} holds something else. Pass --overwrite to replace it, or another --out."
            )
        write_bag(target, bag)
        for text in (
            ["A bag already, copied as it is."] if layout == NATIVE else conversion_notes(bag)
        ):
            self.remarks.setdefault(text, []).append(slide)
        return bag

    def _given_for(self, slide: str) -> "SourceFacts":
        """What was given, with the scale and size of the slide itself where --slides has it."""
        from dataclasses import replace

        from features.errors import BagError
        from features.slides.slide import open_slide

        if not self._options.slides:
            return self._given
        if slide not in self._slides:
            raise BagError(f"{slide}: no such slide in --slides {self._options.slides}.")
        file, *others = self._slides[slide]
        if others:
            raise BagError(
                f"{slide}: {file} and {others[0]} are both called so, and the features do not say whose "
                "they are. Pass --slides with the folder of one."
            )
        with open_slide(file, mpp=self._options.slide_mpp) as opened:
            return replace(
                self._given,
                slide_mpp=opened.mpp,
                mpp_source=opened.mpp_source,
                slide_size=opened.size_l0,
            )


def _given(options: ConvertOptions) -> "SourceFacts":
    """What the command line says of foreign files.

    Raises:
        UsageError: a value that cannot be, or one that has no use with --to.
    """
    from features.bags.layouts import LAYOUTS, SourceFacts

    with wrong_use():
        given = SourceFacts(
            slide_mpp=(options.slide_mpp, options.slide_mpp)
            if options.slide_mpp is not None
            else None,
            tile_px=options.tile,
            target_mpp=options.mpp,
            tile_l0=options.tile_l0,
            unit=options.unit,
            encoder=options.encoder,
            patches=options.patches,
        )
    if options.to not in (None, *TARGETS):
        raise UsageError(f"--to is one of {', '.join(TARGETS)}; got {options.to!r}.")
    if options.layout not in ("auto", *LAYOUTS):
        raise UsageError(f"--from is auto or one of {', '.join(LAYOUTS)}; got {options.layout!r}.")
    if options.to and (given != SourceFacts() or options.slides or options.layout != "auto"):
        raise UsageError(
            "--to writes bags, which know their scale: leave out --from and the scales."
        )
    for name in ("slides", "patches"):
        path = getattr(options, name)
        if path and not path.exists():
            raise UsageError(f"--{name} {path}: no such folder.")
    return given


def _files(options: ConvertOptions) -> Mapping[str, Path]:
    """The files of features by slide.

    Raises:
        UsageError: a folder without any, a slide given twice, or files that would replace themselves.
    """
    from features.slides.slide import slide_name

    files: dict[str, Path] = {}
    for path in (file for given in options.inputs for file in _files_in(given)):
        slide = slide_name(path.stem)
        twin = files.setdefault(slide, path)
        if twin is not path:
            raise UsageError(f"{twin} and {path} are both slide {slide}. Give one of them.")
    if any(path.resolve().parent == options.out.resolve() for path in files.values()):
        raise UsageError(f"--out {options.out} holds the files to convert. Name another folder.")
    return files


def _files_in(given: Path) -> Sequence[Path]:
    if not given.is_dir():
        return [given]
    found = [
        path
        for path in sorted(given.rglob("*"))
        if path.suffix.lower() in SUFFIXES
        and not path.name.startswith(".")
        and not path.name.endswith(".index.npz")  # slideflow's coordinates, read with the .pt
        and path.name not in TABLES
    ]
    if not found:
        raise UsageError(f"{given}: holds no {', '.join(SUFFIXES)} file.")
    return found


def _first_bag(store: Path) -> "Bag | None":
    """One of the bags a store holds: all others must have its recipe."""
    from features.bags.bag import read_bag
    from features.errors import BagError

    for path in sorted(store.glob("*.h5")):
        with contextlib.suppress(BagError):  # a broken one is named where its slide is converted
            return read_bag(path)
    return None


def _check_alike(path: Path, bag: "Bag", first: "Bag") -> None:
    """One store holds bags of one recipe, or none of them could be used together."""
    from features.errors import BagError

    keys = sorted({*first.recipe, *bag.recipe})
    differing = [key for key in keys if first.recipe.get(key) != bag.recipe.get(key)]
    if bag.dim != first.dim:
        differing.append("number of features")
    if differing:
        raise BagError(
            f"{path}: made otherwise than bag {first.slide} of the store ({', '.join(differing)}). Convert "
            "it into another --out; if only mpp differs by a scanner's tolerance, pass --mpp."
        )
