"""Bags of a run, or slides made into bags the way the run's own were."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cli.options import UsageError
from features.bags import Bag, read_bag
from features.errors import BackboneError
from features.extract import SlideJob, extract
from features.recipe import Recipe
from features.slides import slide_name
from mil.errors import FitError, RunError
from mil.runs import Run
from mil.training import Fitted, load_fitted


def only_model(run: Run) -> Fitted:
    """The model of a `mil train` run.

    Raises:
        RunError: the run is a cross-validation, or was not finished.
    """
    if run.info["command"] != "train":
        raise RunError(
            f"{run.path} is a cross-validation: its models exist to be judged. Fit one on all cases "
            "with `mil train`, then predict with that."
        )
    return load_fitted(run.model_path(run.settings["model"]))


def bags_for(
    inputs: Sequence[Path],
    recipe: Mapping[str, Any],
    store: Path,
    *,
    annotations: Path | None,
    weights: str | None,
    slide_mpp: float | None,
) -> list[Bag]:
    """The bag of each input; slides are extracted into ``store`` with the given recipe.

    Raises:
        UsageError: a slide needs an annotation that was not given.
        FitError: a slide could not be extracted.
    """
    if len(set(inputs)) < len(inputs):
        raise UsageError("An input is given twice. Name each bag or slide once.")
    slides = [path for path in inputs if path.suffix != ".h5"]
    if slides:
        _extract(slides, recipe, store, annotations, weights, slide_mpp)
    return [
        read_bag(path if path.suffix == ".h5" else store / f"{slide_name(path.name)}.h5")
        for path in inputs
    ]


def _extract(
    slides: Sequence[Path],
    recipe: Mapping[str, Any],
    store: Path,
    annotations: Path | None,
    weights: str | None,
    slide_mpp: float | None,
) -> None:
    from cli.console import Bars

    if recipe["region"] == "tiles":
        raise UsageError(
            "The model learnt from folders of tiles: extract the new tiles with `mil extract`, then give "
            "their bags."
        )
    if recipe["region"] == "annotations" and annotations is None:
        raise UsageError(
            f"The model learnt from tiles inside {' or '.join(recipe['classes'])}. Pass --annotations, the "
            "folder with the slide's GeoJSON."
        )
    jobs = [
        SlideJob(
            slide=slide_name(path.name),
            files=(path,),
            annotations=annotations if recipe["region"] == "annotations" else None,
            mpp=slide_mpp,
        )
        for path in slides
    ]
    outcomes = extract(jobs, recipe_from(recipe, weights), store, progress=Bars())
    for outcome in outcomes:
        if outcome.status == "failed":
            raise FitError(outcome.reason)


def recipe_from(recipe: Mapping[str, Any], weights: str | None) -> Recipe:
    """The settings that make bags like those of a resolved recipe.

    Raises:
        BackboneError: the weights were a file that is not given.
    """
    told = str(recipe["weights"])
    if told.startswith("random"):
        source = "random"
    elif told == "pretrained":
        source = "pretrained"
    elif weights is None:
        raise BackboneError(
            f"The bags were made with the weights file {told}. Pass it with --weights."
        )
    else:
        source = weights
    return Recipe(
        backbone=recipe["backbone"],
        weights=source,
        mpp=recipe["mpp"],
        tile=recipe["tile"],
        min_coverage=recipe["min_coverage"],
        classes=tuple(recipe["classes"]) or ("Tumor",),
        exclude=tuple(recipe["exclude"]),
        max_tiles=recipe["max_tiles"],
        seed=recipe["seed"],
        precision=recipe["precision"],
    )
