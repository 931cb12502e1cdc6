"""Bags of new slides for a run that fine-tuned a backbone in each fold: each fit reads those of its own.

<folder>/r<repeat>-f<fold>/<slide>.h5
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from features.bags.bag import Bag, read_bag
from features.errors import SarcomilError
from features.extraction.jobs import SlideJob
from features.progress import NamedProgress, Progress, Silent
from mil.answers.predictor import Fit, FitKey
from mil.runs.inputs import extract_slides

ONE_FIT_ONLY = (
    "The run fine-tuned a backbone in each fold, so that no bag suits more than one fit. "
    "Give the slide itself."
)


def embed_by_folds(
    fits: Sequence[Fit],
    jobs: Sequence[SlideJob],
    recipe: Mapping[str, Any],
    folder: Path,
    progress: Progress | None = None,
) -> dict[str, SarcomilError]:
    """Embed slides by the backbone of each fit, into a folder for each; why some could not be.

    Args:
        fits: each with the file of its backbone.
        jobs: the slides, and where their tiles are.
        recipe: how tiles are chosen; the backbone is that of each fit.
        folder: of the folders.
        progress: shows slides and tiles.
    """
    unusable: dict[str, SarcomilError] = {}
    for number, fit in enumerate(fits, start=1):
        unusable |= extract_slides(
            [job for job in jobs if job.slide not in unusable],
            {**recipe, "weights": fit.model.recipe["weights"]},
            folder / fit.name,
            weights=str(fit.weights),
            progress=NamedProgress(progress or Silent(), f"backbone {number}/{len(fits)}: "),
        )
    return unusable


def bags_of_folds(
    fits: Sequence[Fit], slides: Sequence[str], folder: Path
) -> dict[str, dict[FitKey, Bag]]:
    """By slide, the bag that each fit reads.

    Raises:
        BagError: one cannot be read.
    """
    return {
        slide: {fit.key: read_bag(folder / fit.name / f"{slide}.h5") for fit in fits}
        for slide in slides
    }
