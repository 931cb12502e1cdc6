"""Slide files of a folder, by name."""

from pathlib import Path

from features.errors import SlideError
from features.slides.slide import SLIDE_SUFFIXES, slide_name


def slides_in(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The slide files of a folder and those below it, by bare name and by name with its folders."""
    files: dict[str, tuple[Path, ...]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SLIDE_SUFFIXES and path.is_file():
            inside = path.relative_to(folder).as_posix()
            for name in dict.fromkeys([slide_name(path.name), slide_name(inside)]):
                files[name] = (*files.get(name, ()), path)
    return files


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
