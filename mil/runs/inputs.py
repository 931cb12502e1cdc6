"""Bags for a model: read as they are, or extracted from slides the way its own bags were."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from features.bags.bag import Bag, read_bag
from features.bags.store import Outcome
from features.errors import (
    AnnotationError,
    BackboneError,
    BagError,
    NoTiles,
    NoTissue,
    SarcomilError,
)
from features.extraction.jobs import SlideJob
from features.files.checksum import fingerprint
from features.progress import Progress, Silent
from features.recipe import NO_PLACES, SEGMENTED, VOLUME, Recipe
from features.slides.names import is_film_name, slide_name
from features.stored import as_tuples
from features.tiles.stain import Stain, StainReference, save_reference
from mil.errors import FitError, RunError

ANNOTATIONS, TISSUE = "annotations", "all tissue"  # where tiles of new slides come from
FOREIGN_REGIONS = {
    "tiles": "folders of tiles",
    "coordinates": "tiles at given places",
    "converted": "features of another tool that were converted",
    NO_PLACES: "tile images or features without places",
    "joined": "joined bags",
    "vector": "vectors of whole slides or cases",
}


def usable_bags(
    inputs: Sequence[Path],
    recipe: Mapping[str, Any],
    store: Path,
    *,
    annotations: Path | None = None,
    classes: Sequence[str] = (),
    weights: str | None = None,
    slide_mpp: float | None = None,
    progress: Progress | None = None,
) -> tuple[list[Bag], dict[str, SarcomilError]]:
    """The bags of the inputs that can be used, and why the other slides cannot.

    Slides are extracted by the recipe of a model.

    Args:
        inputs: bags (.h5) or slides.
        recipe: how the model's own bags were made.
        store: where bags of slides are written; see ``bag_folder``.
        annotations: folder with the slides' annotations.
        classes: annotation classes to read as those the model learnt from; its own if not given.
        weights: the backbone's weights file, if the recipe names one.
        slide_mpp: micrometres per level-0 pixel, where the slides do not say.
        progress: shows slides and tiles.

    Raises:
        RunError, AnnotationError: as ``check_inputs``.
        BackboneError: the weights file is not given.
    """
    check_inputs(inputs, recipe, annotations)
    region = recipe.get("region")
    drawn = region == "annotations"
    jobs = [
        SlideJob(
            slide=slide_name(path.name),
            files=(path,),
            annotations=annotations if drawn else None,
            fallback_mpp=slide_mpp,
        )
        for path in inputs
        if path.suffix != ".h5"
    ]
    chosen = {**recipe, "classes": classes} if drawn and classes else recipe
    mask = {"annotations": ANNOTATIONS, VOLUME: VOLUME}.get(str(region), TISSUE)
    store = bag_folder(store, mask, chosen, recipe)
    unusable = extract_slides(jobs, chosen, store, weights=weights, progress=progress)
    bags = []
    for path in inputs:
        name = slide_name(path.name)
        try:
            if name not in unusable:
                bag = read_bag(path if path.suffix == ".h5" else store / f"{name}.h5")
                bags.append(as_learnt(bag, recipe, classes))
        except BagError as error:
            unusable[path.stem] = error
    return bags, unusable


def bag_folder(
    store: Path, mask: str, chosen: Mapping[str, Any], learnt: Mapping[str, Any]
) -> Path:
    """The folder for bags of new slides, so that those of two recipes never meet.

    Args:
        store: folder of the folders.
        mask: how their tiles are chosen, in words.
        chosen: their recipe; its classes may be others than those of the model.
        learnt: the recipe of the model.
    """
    name, classes = mask.replace(" ", "-"), sorted(chosen.get("classes") or ())
    if classes != sorted(learnt.get("classes") or ()):
        name += f"-{fingerprint({'classes': classes})[:8]}"
    return store / name


def as_learnt(bag: Bag, learnt: Mapping[str, Any], classes: Sequence[str]) -> Bag:
    """The bag, with a model's name of the tissue that it calls otherwise.

    Args:
        bag: of a new slide.
        learnt: the recipe of the model.
        classes: annotation classes to read as those the model learnt from; none if not given.
    """
    own = bag.recipe
    if not classes or not learnt.get("region") == own.get("region") == "annotations":
        return bag
    if {*own["classes"]} != {*classes} or {*own["classes"]} == {*learnt["classes"]}:
        return bag
    return replace(bag, recipe={**own, "classes": learnt["classes"]})


def extract_slides(
    slides: Sequence[SlideJob],
    recipe: Mapping[str, Any],
    store: Path,
    *,
    weights: str | None,
    progress: Progress | None,
) -> dict[str, SarcomilError]:
    """Extract slides by the recipe of a model: inside annotations, what a segmenter finds, or all tissue.

    Returns:
        Why some could not be extracted, by slide; ``NoTiles`` where none of a slide's tissue suits, and
        ``NoTissue`` where it has none.

    Raises:
        BackboneError: the weights file is not given.
    """
    if not slides:
        return {}
    from features.extraction.extract import extract  # imports every backbone

    jobs = [replace(job, fixed=True) for job in slides]
    settings = recipe_from(recipe, weights, store)
    return {
        outcome.slide: _error_of(outcome)(outcome.reason)
        for outcome in extract(jobs, settings, store, progress=progress or Silent())
        if outcome.status in ("failed", "excluded")
    }


def _error_of(outcome: Outcome) -> type[SarcomilError]:
    return NoTissue if outcome.blank else NoTiles if outcome.empty else FitError


def check_inputs(
    inputs: Sequence[Path], recipe: Mapping[str, Any], annotations: Path | None
) -> None:
    """Refuse, before any work, inputs that cannot become bags of a model.

    Raises:
        RunError: an input is given twice, or bags like the model's cannot be extracted from slides.
        AnnotationError: the model needs annotated slides, and no annotations are given.
    """
    if len(set(inputs)) < len(inputs):
        raise RunError("An input is given twice. Name each bag or slide once.")
    if all(path.suffix == ".h5" for path in inputs):
        return
    check_region(recipe)
    for path in inputs:
        if reason := misfit(path, recipe):
            raise RunError(reason)
    if recipe["region"] == "annotations" and annotations is None:
        raise AnnotationError(
            f"The model was trained on tiles inside {' or '.join(recipe['classes'])}. Set annotations to the "
            "folder with the slide's GeoJSON."
        )


def misfit(path: Path, recipe: Mapping[str, Any]) -> str:
    """Why a file cannot become a bag like the model's: a slide for volumes, or the reverse; or empty."""
    is_film = is_film_name(path.name)
    if path.suffix == ".h5" or is_film == (recipe["region"] == VOLUME):
        return ""
    if is_film:
        return (
            f"{path.name} is a film of CT or MRI, and the model was trained on slides. Give slides."
        )
    modalities = " and ".join(dict.fromkeys(recipe["volume"]["channels"]))
    return (
        f"The model was trained on slices of {modalities}, and {path.name} is none of a series laid out. "
        "Extract the new volumes with the settings of the model's, and give their films or bags."
    )


def check_region(recipe: Mapping[str, Any]) -> None:
    """Refuse slides for a model whose bags were not extracted from slides.

    Raises:
        RunError: saying what it was trained on.
    """
    if recipe["region"] in ("annotations", "tissue", SEGMENTED, VOLUME):
        return
    source = FOREIGN_REGIONS.get(recipe["region"], "foreign bags")
    raise RunError(
        f"The model was trained on {source}: make bags of the new slides in the same way, and give those."
    )


def recipe_from(recipe: Mapping[str, Any], weights: str | None, store: Path) -> Recipe:
    """The settings that make bags like those of a resolved recipe.

    A stain to normalise to is written into ``store``, where extraction takes it from.

    Args:
        recipe: as bags hold it.
        weights: the backbone's weights file, if the recipe names one.
        store: where the new bags will be.

    Raises:
        BackboneError: the weights were a file that is not given.
    """
    trained_weights = str(recipe["weights"])
    random = trained_weights.startswith("random")
    if trained_weights != "pretrained" and not random and weights is None:
        raise BackboneError(
            f"The bags were made with the weights file {trained_weights}. Set weights to that file."
        )
    values: dict[str, Any] = {
        entry.name: as_tuples(value)
        for entry in fields(Recipe)
        if (value := recipe.get(entry.name)) not in (None, [])  # not used by such bags: any will do
    }
    if "mean" in values:
        values.setdefault("pooling", "network")  # recorded only where it is not the network's own
    if random:
        values["weights"] = "random"
    elif trained_weights != "pretrained":
        values["weights"] = str(weights)
    if reference := recipe.get("stain_reference"):
        path = store / "stain-reference.json"
        store.mkdir(parents=True, exist_ok=True)
        stain = Stain.from_json(reference["target"])
        slides, cases = tuple(reference["slides"]), tuple(reference["cases"])
        sources = tuple(reference.get("sources", ()))
        save_reference(path, StainReference(stain, slides, cases, sources))
        values["stain_reference"] = (str(path),)
    return Recipe(**values)
