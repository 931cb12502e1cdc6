"""Slide files of a folder, by name, and what else lies there."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from features.errors import SlideError
from features.slides.dicom import series_files
from features.slides.names import SLIDE_SUFFIXES, short_name, slide_name
from features.summary import tally

# What systems put beside files: folders of previews, bins and archives of macOS, Synology, QNAP and Windows.
SYSTEM_FOLDERS = {
    "__macosx",
    "@eadir",
    "#recycle",
    "@recycle",
    "$recycle.bin",
    "lost+found",
    "system volume information",
}
SYSTEM_FILES = {"thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r"}
PARTIAL = (".part", ".partial", ".crdownload", ".download", ".tmp", ".filepart", ".aria2", ".!ut")
# Files of scanners that OpenSlide does not read.
UNREAD_SLIDES = (
    ".qptiff", ".isyntax", ".i2syntax", ".vsi", ".lif", ".ims", ".btf", ".tf8", ".jp2", ".sdpc", ".kfb",
    ".mds", ".tmap", ".zarr", ".oir", ".nd2", ".zvi", ".afi", ".dcx", ".svslide.gz",
)  # fmt: skip


@dataclass(frozen=True)
class Leftovers:
    """Files of a folder that are no slides.

    Attributes:
        unread: slides of kinds that OpenSlide does not read.
        broken_links: links to nothing, with the name of a slide.
        partial: downloads that were not finished.
        other: the number of other files by suffix.
        hidden: the number of files that systems keep there.
    """

    unread: tuple[Path, ...]
    broken_links: tuple[Path, ...]
    partial: tuple[Path, ...]
    other: Counter[str]
    hidden: int

    def __str__(self) -> str:
        """``3 .csv, 1 .pdf; 12 hidden or of the system``; empty if there are none."""
        parts = [tally(dict(self.other.most_common()))] if self.other else []
        if self.hidden:
            parts.append(f"{self.hidden} hidden or of the system")
        return "; ".join(parts)


def slides_in(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The slides of a folder and those below it, by bare name and by name with their folders.

    Files that systems put beside slides are left out. A DICOM series is one slide, given by its first file:
    it has the name of its folder where it is alone there. A slide is also found by its name without a second
    ending (``a`` for ``a.ome.tif``), and a series by the name of each of its files, where no other slide
    has that name.
    """
    files: dict[str, tuple[Path, ...]] = {}
    also: dict[str, tuple[Path, ...]] = {}
    for path in slide_files(folder):
        names = names_of(path, folder)
        for name in names:
            files[name] = (*files.get(name, ()), path)
        members = [slide_name(_inside(member, folder)) for member in series_files(path)[1:]]
        for name in dict.fromkeys(map(short_name, (*names, *members, *_bare(members)))):
            if name not in names:
                also[name] = (*also.get(name, ()), path)
    return also | files


def slide_files(folder: Path) -> Iterator[Path]:
    """The first file of every slide in a folder and those below it, in order."""
    for path in sorted(folder.rglob("*")):
        if (
            path.suffix.lower() in SLIDE_SUFFIXES
            and not is_of_system(path.relative_to(folder))
            and path.is_file()
            and series_files(path)[0] == path
        ):
            yield path


def name_of(path: Path) -> str:
    """The name of the slide whose first file is given."""
    files = series_files(path)
    if len(files) == 1:
        return slide_name(path.name)
    beside = (p for p in path.parent.iterdir() if p.suffix.lower() in SLIDE_SUFFIXES)
    alone = not any(_counts(other) for other in beside if other not in files)
    return path.absolute().parent.name if alone else slide_name(path.name)


def names_of(path: Path, folder: Path) -> tuple[str, ...]:
    """The bare name of a slide in a folder, and its name with the folders above it."""
    name = name_of(path)
    above = path.relative_to(folder).parent
    if name == path.absolute().parent.name and len(series_files(path)) > 1:
        above = above.parent
    return tuple(dict.fromkeys([name, slide_name((above / name).as_posix() + ".dcm")]))


def is_of_system(inside: Path) -> bool:
    """Whether a path in a folder is hidden, or is one that a system or a share puts beside files."""
    return inside.name.lower() in SYSTEM_FILES or any(
        part.startswith((".", "~$")) or part.lower() in SYSTEM_FOLDERS for part in inside.parts
    )


def leftovers(folder: Path) -> Leftovers:
    """What lies in a folder of slides and is no slide."""
    unread, links, partial, other, hidden = [], [], [], Counter[str](), 0
    companions = {p.with_suffix("") for p in folder.rglob("*.mrxs")}  # folders of MIRAX data
    for path in sorted(folder.rglob("*")):
        suffix = path.suffix.lower()
        if path.is_dir() and suffix not in UNREAD_SLIDES:
            continue
        if is_of_system(path.relative_to(folder)):
            hidden += 1
        elif suffix in PARTIAL:
            partial.append(path)
        elif suffix in UNREAD_SLIDES:
            unread.append(path)
        elif suffix in SLIDE_SUFFIXES and not path.is_file():
            links.append(path)
        elif suffix not in SLIDE_SUFFIXES and not companions & {*path.parents}:
            other[suffix or "without suffix"] += 1
    return Leftovers(tuple(unread), tuple(links), tuple(partial), other, hidden)


def find_slides(folder: Path) -> dict[str, Path]:
    """The slide file of each name in a folder; names that several files share are left out.

    Raises:
        SlideError: there is no such folder, or no slide in it.
    """
    if not folder.is_dir():
        raise SlideError(f"{folder}: no such folder. Name the folder with the slides (slides=...).")
    files = {name: paths[0] for name, paths in slides_in(folder).items() if len(paths) == 1}
    if not files:
        raise SlideError(f"{folder}: holds no slides. Name the folder that does (slides=...).")
    return files


def _counts(path: Path) -> bool:
    return not is_of_system(Path(path.name)) and path.is_file()


def _inside(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _bare(names: list[str]) -> list[str]:
    return [name.rsplit("/", 1)[-1] for name in names]
