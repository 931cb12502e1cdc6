"""Bags, slides and slide folders on the command line."""

from pathlib import Path

from cli.options import wrong_use
from features.slides.find import find_slides


def slide_files(folder: Path | None) -> dict[str, Path]:
    """The slide files of a folder by name; none without a folder.

    Raises:
        UsageError: there is no such folder, or no slide in it.
    """
    with wrong_use():
        return find_slides(folder) if folder else {}
