"""Files of new slides: bags, slides, or folders of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from features.extraction.jobs import SlideJob
from features.slides.find import slide_files
from features.slides.names import slide_name
from mil.errors import RunError

BAG = ".h5"


@dataclass(frozen=True, kw_only=True)
class NewInputs:
    """Files of new slides, and how they become bags.

    Attributes:
        inputs: bags (.h5) or slides.
        annotations: folder with the slides' annotations.
        classes: annotation classes that are to be read as those the model learnt from, on slides and in bags
            of the same tissue by another name; its own if not given.
        segmenter: the file of a segmenter, for slides without annotations; a package's own if not given.
        weights: the backbone's weights file, if the model's bags were made with one.
        slide_mpp: micrometres per level-0 pixel, where the slides do not say.
        slide_mpp_force: micrometres per level-0 pixel, whatever the slides say; a table's mpp column takes
            precedence.
    """

    inputs: tuple[Path, ...]
    annotations: Path | None = None
    classes: tuple[str, ...] = ()
    segmenter: Path | None = None
    weights: str | None = None
    slide_mpp: float | None = None
    slide_mpp_force: float | None = None

    def job(self, name: str, path: Path, table_mpp: float | None) -> SlideJob:
        """A slide with its scale; where its tiles come from is chosen later."""
        return SlideJob(
            slide=name,
            files=(path,),
            mpp=table_mpp or self.slide_mpp_force,
            mpp_source="table" if table_mpp else "option",
            fallback_mpp=self.slide_mpp,
        )


def by_name(inputs: Sequence[Path]) -> dict[str, Path]:
    """The inputs by the name of their slide, those of folders one by one, and each file once."""
    by_name: dict[str, Path] = {}
    for path in (file for one in inputs for file in _files_of(one)):
        name = path.stem if path.suffix == BAG else slide_name(path.name)
        other = by_name.setdefault(name, path)
        if other != path and other.resolve() != path.resolve():
            raise RunError(
                f"{other} and {path} are both called {name}. Name each bag or slide once; rename one of two "
                "slides that share a name."
            )
    return by_name


def _files_of(path: Path) -> list[Path]:
    """The bags or the slides of a folder; a folder with neither, or a file, is itself."""
    if not path.is_dir():
        return [path]
    return sorted(path.glob(f"*{BAG}")) or [*slide_files(path)] or [path]


def no_input(path: Path) -> str:
    """Why there is neither a bag nor a slide at a path; empty if there may be one."""
    if not path.exists():
        return f"{path}: there is no such file."
    return f"{path}: a folder with neither bags ({BAG}) nor slides." if path.is_dir() else ""
