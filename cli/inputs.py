"""Bags, slides and slide folders on the command line."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cli.options import wrong_use
from features.bags.bag import Bag
from features.errors import SarcomilError
from features.slides.find import find_slides


def slide_files(folder: Path | None) -> dict[str, Path]:
    """The slide files of a folder by name; none without a folder.

    Raises:
        UsageError: there is no such folder, or no slide in it.
    """
    with wrong_use():
        return find_slides(folder) if folder else {}


def usable_bags(
    inputs: Sequence[Path],
    recipe: Mapping[str, Any],
    store: Path,
    *,
    annotations: Path | None,
    weights: str | None,
    slide_mpp: float | None,
) -> tuple[list[Bag], dict[str, SarcomilError]]:
    """The bags of the inputs that can be used, and why the other slides cannot.

    Raises:
        UsageError: the inputs cannot become bags of the model.
    """
    from cli.console import Bars
    from mil.runs import inputs as library

    with wrong_use():
        library.check_inputs(inputs, recipe, annotations)
    return library.usable_bags(
        inputs,
        recipe,
        store,
        annotations=annotations,
        weights=weights,
        slide_mpp=slide_mpp,
        progress=Bars(),
    )
