"""Convert files of features: those of other tools into a store of bags, and bags into theirs."""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.bags.bag import (
    Bag,
    read_bag,
    read_request,
    recipe_differences,
    validate_bag,
    write_bag,
)
from features.bags.bare import is_bare, read_bare
from features.bags.foreign_readers import SourceFacts
from features.bags.interchange import conversion_notes, read_foreign, write_foreign
from features.bags.layouts import LAYOUTS, NATIVE, WRITABLE, detect_layout
from features.columns.features import (
    ENOUGH_ROWS,
    SAME_IN_BAG,
    is_of_bags,
    refusal_of_columns,
)
from features.errors import BagError, FeaturesError, InputError
from features.progress import Progress, Silent
from features.recipe import is_vector
from features.slides.find import slides_in
from features.slides.names import slide_name
from features.slides.slide import open_slide

SUFFIXES = (".h5", ".hdf5", ".pt", ".pth", ".npz", ".csv")
TABLES = ("extract.csv", "failures.csv")  # the tables that extraction writes beside its bags


@dataclass
class Conversion(os.PathLike[str]):
    """The result of a conversion; it may be passed wherever the path of its folder is taken.

    Attributes:
        out: the folder of bags, or of files of another tool.
        n_files: of the inputs.
        n_done: files that were converted.
        n_existing: files whose result existed already.
        n_tiles: of the converted files.
        n_vectors: files that are the vector of a whole slide.
        dims: lengths of their feature vectors.
        columns: of tables, the columns that were read as features.
        notes: remarks, each with the slides it is about.
        failures: why files were not converted.
        doubts: why the bags should not be learnt from as they are.
    """

    out: Path
    n_files: int
    n_done: int = 0
    n_existing: int = 0
    n_tiles: int = 0
    n_vectors: int = 0
    dims: set[int] = field(default_factory=set)
    columns: str = ""
    notes: dict[str, list[str]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    def __fspath__(self) -> str:
        return str(self.out)


def convert(
    inputs: Path | str | Sequence[Path | str],
    out: Path | str,
    *,
    layout: str = "auto",
    facts: SourceFacts | None = None,
    slides: Path | str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Convert features that another tool extracted into a store of bags.

    Coverage is unknown and set to 1. What a file does not say is an error, never a guess.

    Args:
        inputs: files with the features of one slide each, or folders of such files.
        out: the store.
        layout: ``trident``, ``clam``, ``stamp``, ``slideflow``, ``npz``, ``csv`` or ``vector``; ``auto``
            detects it from the content.
        facts: what the files do not say.
        slides: the folder with the slides, for the scale and the size of each.
        overwrite: replace other bags of the store.
        progress: shows files.

    Returns:
        Counts, remarks and failures; a file that cannot be converted raises nothing.

    Raises:
        InputError: the layout is unknown, there are no files, or two of one slide.

    Example:
        result = features.convert("clam/h5_files", "converted", slides="slides")
        print(result.n_done, result.failures)
    """
    if layout not in ("auto", *LAYOUTS):
        raise InputError(f"layout is auto or one of {', '.join(LAYOUTS)}; got {layout!r}.")
    facts = facts or SourceFacts()
    for name, folder in (("slides", slides), ("patches", facts.patches)):
        if folder is not None and not Path(folder).exists():
            raise InputError(f"{name} is {folder}: no such folder.")
    importer = _Importer(
        Path(out),
        layout,
        facts,
        slides_in(Path(slides)) if slides is not None else None,
        overwrite,
    )
    files = importer.expand(_find_files(inputs, Path(out)))
    result = _convert_files(files, Path(out), importer.convert, progress)
    result.doubts += importer.facts_of_bags()
    return result


def export(
    inputs: Path | str | Sequence[Path | str],
    out: Path | str,
    layout: str,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Write bags as the files of another tool.

    Args:
        inputs: bags, or folders of bags.
        out: the folder for the tool's files.
        layout: ``clam`` or ``stamp``.
        overwrite: replace existing files.
        progress: shows files.

    Returns:
        Counts and failures; a bag that cannot be written raises nothing.

    Raises:
        InputError: bags cannot be written in this layout, there are no files, or two of one slide.

    Example:
        result = features.export("store", "clam-files", "clam")
        print(result.n_done, result.failures)
    """
    if layout not in WRITABLE:
        raise InputError(f"Bags are written as {' or '.join(WRITABLE)}; got {layout!r}.")
    out = Path(out)

    def write(slide: str, path: Path) -> "_Converted | None":
        del slide  # the bag knows its own name
        stored = detect_layout(path)
        if stored != NATIVE:
            raise BagError(f"{path}: a {stored} file, not a bag. Convert it to a bag first.")
        bag = read_bag(path)
        if not overwrite and LAYOUTS[layout].path(out, bag.slide).exists():
            return None
        validate_bag(path)
        write_foreign(out, bag, layout)
        return bag, ()

    return _convert_files(_find_files(inputs, out), out, write, progress)


_Converted = tuple[Bag, tuple[str, ...]]  # the bag, and remarks on it


@dataclass
class _Importer:
    """Turns foreign files into the bags of one store."""

    out: Path
    layout: str
    facts: SourceFacts
    slides: Mapping[str, Sequence[Path]] | None
    overwrite: bool
    first: Bag | None = field(init=False)
    bare: dict[str, Bag | BagError] = field(default_factory=dict)
    extremes: list[NDArray[np.float64]] = field(default_factory=list)

    def expand(self, files: Mapping[str, Path]) -> Mapping[str, Path]:
        """The files by slide, those with the features of many bags once for each of these.

        Raises:
            InputError: two files have a bag of one name.
        """
        expanded: dict[str, Path] = {}
        for slide, path in files.items():
            bags: Mapping[str, Bag | BagError | None] = {slide: None}
            try:
                if self.layout == "auto" and path.is_file() and is_bare(path):
                    bags = read_bare(path, self.facts)
            except BagError as error:
                bags = {slide: error}
            for name, bag in bags.items():
                if expanded.setdefault(name, path) is not path:
                    raise InputError(
                        f"{expanded[name]} and {path} both have {name}. Give one of them."
                    )
                if bag is not None:
                    self.bare[name] = bag
        return expanded

    def __post_init__(self) -> None:
        self.first = None if self.overwrite else _first_bag(self.out)

    def convert(self, slide: str, path: Path) -> _Converted | None:
        """Write a foreign file as a bag; None if the same bag exists already."""
        layout, bag = self._read(slide, path)
        self.first = self.first or bag
        _check_alike(path, bag, self.first)
        if len(bag) >= ENOUGH_ROWS:
            rows = np.asarray(bag.features, np.float64)
            self.extremes.append(np.stack([rows.min(axis=0), rows.max(axis=0)]))
        target = self.out / f"{slide}.h5"
        if target.exists() and not self.overwrite:
            same = read_request(target) == bag.request_sha256
            if same and read_bag(target).data_sha256 == bag.data_sha256:
                return None
            raise BagError(
                f"{path}: {target} has other content. Set overwrite to replace it, or set out to another "
                "folder."
            )
        write_bag(target, bag)
        if layout == NATIVE:
            return bag, ("A bag already, copied unchanged.",)
        if layout == "bare":
            return bag, ("Features without places: maps show their rows side by side.",)
        return bag, conversion_notes(bag)

    def facts_of_bags(self) -> list[str]:
        """Why features that have one value in every bag are none: they are learnt as a label would be."""
        if not self.extremes:
            return []
        low, high = np.stack(self.extremes, axis=1)  # each (bags, D)
        same = [
            n
            for n in np.flatnonzero((low == high).all(axis=0))
            if is_of_bags(low[:, n], high[:, n])
        ]
        names = {f"feature {n + 1}": SAME_IN_BAG for n in same}
        trusted = self.facts.feature_columns
        names = {n: why for n, why in names.items() if not any(fnmatchcase(n, t) for t in trusted)}
        if not names:
            return []
        return [
            f"{self.out}: {refusal_of_columns(names)} Its bags are not to be learnt from as they are."
        ]

    def _read(self, slide: str, path: Path) -> tuple[str, Bag]:
        """The layout and the content of a file, or of one bag of a file with many."""
        bare = self.bare.get(slide)
        if isinstance(bare, BagError):
            raise bare
        if bare is not None:
            return "bare", bare
        layout = detect_layout(path) if self.layout == "auto" else self.layout
        return layout, read_foreign(path, layout=layout, facts=self._facts(slide), slide=slide)

    def _facts(self, slide: str) -> SourceFacts:
        """The user's facts, with the scale and the size of the slide if its file is known."""
        if self.slides is None:
            return self.facts
        if slide not in self.slides:
            raise BagError(f"{slide}: no such slide in the folder of slides.")
        file, *twins = self.slides[slide]
        if twins:
            raise BagError(
                f"{slide}: {file} and {twins[0]} have this name, and the features do not say which one they "
                "are of. Set slides to the folder of one."
            )
        mpp = self.facts.slide_mpp
        with open_slide(file, mpp=mpp[0] if mpp else None) as opened:
            return replace(
                self.facts,
                slide_mpp=opened.mpp,
                mpp_source=opened.mpp_source,
                slide_size=opened.size_l0,
            )


def _convert_files(
    files: Mapping[str, Path],
    out: Path,
    convert_file: Callable[[str, Path], _Converted | None],
    progress: Progress | None,
) -> Conversion:
    """Convert every file; one that fails does not stop the others."""
    result = Conversion(out, len(files))
    with (progress or Silent()).task("files converted", len(files), "files") as advance:
        for slide, path in files.items():
            try:
                converted = convert_file(slide, path)
            except FeaturesError as error:
                result.failures.append(str(error))
            except Exception as error:  # noqa: BLE001 - the one guard: a bad file must not stop the others
                result.failures.append(f"{path}: {type(error).__name__}: {error}")
            else:
                _record(result, slide, converted)
            advance(1)
    return result


def _record(result: Conversion, slide: str, converted: _Converted | None) -> None:
    if converted is None:
        result.n_existing += 1
        return
    bag, notes = converted
    result.n_done += 1
    if is_vector(bag.recipe):
        result.n_vectors += 1
    else:
        result.n_tiles += len(bag)
    result.dims.add(bag.dim)
    result.columns = bag.recipe.get("columns", result.columns)
    for note in notes:
        result.notes.setdefault(note, []).append(slide)


def _find_files(inputs: Path | str | Sequence[Path | str], out: Path) -> Mapping[str, Path]:
    """The files of features by slide.

    Raises:
        InputError: a folder has none, two are of one slide, or ``out`` is their folder.
    """
    paths = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    files: dict[str, Path] = {}
    for path in (file for root in paths for file in _files_in(Path(root))):
        slide = slide_name(path.stem)
        twin = files.setdefault(slide, path)
        if twin is not path:
            raise InputError(f"{twin} and {path} are both slide {slide}. Give one of them.")
    # Unlike Path.resolve, realpath takes links that lead in a circle.
    target = Path(os.path.realpath(out))
    if any(Path(os.path.realpath(path)).parent == target for path in files.values()):
        raise InputError(f"out is {out}, which holds the files to convert. Name another folder.")
    return files


def _files_in(path: Path) -> Sequence[Path]:
    if not path.is_dir():
        return [path]
    files = [
        file
        for file in sorted(path.rglob("*"))
        if file.suffix.lower() in SUFFIXES
        and not file.name.startswith(".")
        and not file.name.endswith(".index.npz")  # slideflow's coordinates, read with the .pt
        and file.name not in TABLES
    ]
    if not files:
        raise InputError(f"{path}: holds no {', '.join(SUFFIXES)} file.")
    return files


def _first_bag(store: Path) -> Bag | None:
    """One bag of the store, whose recipe all others must have."""
    for path in sorted(store.glob("*.h5")):
        with contextlib.suppress(BagError):  # a broken one is reported with its slide
            return read_bag(path)
    return None


def _check_alike(path: Path, bag: Bag, first: Bag) -> None:
    """Refuse a bag of another recipe, which could not be used together with the others."""
    differing = recipe_differences(first.recipe, bag.recipe)
    if bag.dim != first.dim:
        differing.append("number of features")
    if differing:
        raise BagError(
            f"{path}: its recipe differs from bag {first.slide} of the store ({', '.join(differing)}). Set "
            "out to another folder; if only mpp differs, by a scanner's tolerance, set target_mpp."
        )
