"""Bags of a run, or slides made into bags the way the run's own were."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from cli.extract import slides_in
from cli.options import UsageError
from features.bags.bag import Bag, read_bag
from features.errors import BackboneError
from features.extraction.survey import SlideJob
from features.recipe import Recipe
from features.slides.slide import slide_name
from features.tiles.stain import Stain, StainReference, save_reference
from mil.errors import FitError

LEARNT_FROM = {
    "tiles": "folders of tiles",
    "coordinates": "tiles at given places",
    "converted": "features of another tool, made bags with `mil convert`",
}


def slide_files(folder: Path) -> dict[str, Path]:
    """The slide files of a folder by name, also by name with folders where two are called alike.

    Raises:
        UsageError: there is no such folder, or no slide in it.
    """
    if not folder.is_dir():
        raise UsageError(f"--slides {folder}: no such folder.")
    found = {name: paths[0] for name, paths in slides_in(folder).items() if len(paths) == 1}
    if not found:
        raise UsageError(f"--slides {folder}: holds no slides. Name the folder that does.")
    return found


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
    from features.extraction.extract import (
        extract,  # brings every backbone along, which bags do not need
    )

    if recipe["region"] not in ("annotations", "tissue"):
        raise UsageError(
            f"The model learnt from {LEARNT_FROM.get(recipe['region'], 'foreign bags')}: make bags of the "
            "new slides in the same way, then give those."
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
    outcomes = extract(jobs, recipe_from(recipe, weights, store), store, progress=Bars())
    for outcome in outcomes:
        if outcome.status in ("failed", "excluded"):
            raise FitError(outcome.reason)


def _weights(told: str, file: str | None) -> str:
    if told.startswith("random"):
        return "random"
    return told if told == "pretrained" else str(file)


def recipe_from(recipe: Mapping[str, Any], weights: str | None, store: Path) -> Recipe:
    """The settings that make bags like those of a resolved recipe.

    A stain to normalise to is written into ``store``, where extraction takes it from.

    Raises:
        BackboneError: the weights were a file that is not given.
    """
    told = str(recipe["weights"])
    if told != "pretrained" and not told.startswith("random") and weights is None:
        raise BackboneError(
            f"The bags were made with the weights file {told}. Pass it with --weights."
        )
    settings: dict[str, Any] = {
        field.name: tuple(value) if isinstance(value, list) else value
        for field in fields(Recipe)
        if (value := recipe.get(field.name)) not in (None, [])  # not used by such bags: any will do
    }
    settings["weights"] = _weights(told, weights)
    if target := recipe.get("stain_reference"):
        path = store / "stain-reference.json"
        store.mkdir(parents=True, exist_ok=True)
        stain = Stain.from_json(target["target"])
        save_reference(path, StainReference(stain, tuple(target["slides"]), tuple(target["cases"])))
        settings["stain_reference"] = (str(path),)
    return Recipe(**settings)
