"""The stores of an extraction, and the settings that their bags must share."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from features.backbones.network_recipe import NetworkRecipe
from features.backbones.registry import Backbone
from features.bags import bag as bags
from features.bags.store import Store, recipe_differences
from features.device import resolve_device
from features.errors import BagError, SlideError
from features.extraction.jobs import SlideJob
from features.extraction.normalisation import reference_to_json
from features.lowpower.segmenter import read_segmenter_card
from features.precision import DTYPES, resolve_precision
from features.recipe import NO_PLACES, VOLUME, Recipe
from features.tiles.stain import StainReference
from features.volumes.film import check_alike, read_facts

HOLD_OUT_SUFFIX = "-HOLD-OUT-SHARES-CASES"


@dataclass(frozen=True)
class StoreSpec:
    """One store to fill, with its recipe and its choice of tiles.

    Attributes:
        recipe: as requested.
        store: the folder of bags.
        hold_out: 0 for the tiles drawn by the recipe; else the number of other tiles to take.
    """

    recipe: Recipe
    store: Store
    hold_out: int = 0


def store_specs(
    recipes: Sequence[Recipe], out: Path, *, hold_out_tiles: int = 0
) -> tuple[StoreSpec, ...]:
    """The stores of an extraction: ``out`` or one folder in it per scale, and their hold-outs."""
    specs = []
    for recipe in recipes:
        path = out if len(recipes) == 1 else out / f"mpp-{recipe.mpp:g}"
        specs.append(StoreSpec(recipe, Store(path)))
        if hold_out_tiles:
            beside = path.absolute().with_name(path.absolute().name + HOLD_OUT_SUFFIX)
            specs.append(StoreSpec(recipe, Store(beside), hold_out_tiles))
    return tuple(specs)


def resolved_recipe(
    target: StoreSpec,
    backbone: Backbone,
    jobs: Sequence[SlideJob],
    device: str,
    reference: StainReference | None = None,
) -> dict[str, Any]:
    """The recipe with every automatic choice resolved; bags are used together if it is equal."""
    recipe = target.recipe
    dtype = resolve_precision(recipe.precision, resolve_device(device))
    precision = next(name for name, known in DTYPES.items() if known is dtype)
    regions = {job.region for job in jobs}
    if len(regions) > 1:
        raise BagError(
            f"A store has one kind of region; got {' and '.join(sorted(regions))}. Extract them "
            "into two stores."
        )
    region = regions.pop() if regions else "tissue"
    settings = {key: value for key, value in asdict(recipe).items() if key != "pooling"} | {
        "backbone": backbone.name,
        "weights": backbone.weights,
        "weights_sha256": backbone.weights_sha256,
        "input_px": backbone.input_px,
        "mean": backbone.mean,
        "std": backbone.std,
        **_network_settings(backbone.recipe),
        "precision": precision,
        "region": region,
        "held_out": target.hold_out,
        "stain_reference": reference_to_json(reference) if reference else None,
    }
    if region != "annotations":
        unused = {
            "classes": (),
            "exclude": (),
            "annotation_origin": None,
            "min_tumour_of_tissue": None,
        }
        settings |= unused
    if region in ("tiles", NO_PLACES, "coordinates", VOLUME):
        settings |= {"min_coverage": None}
    if region == VOLUME:
        settings |= _volume_settings(jobs)
    if jobs and jobs[0].segmenter:
        settings |= {"segmenter_sha256": read_segmenter_card(jobs[0].segmenter)[1]}
    return {
        key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()
    }


def _volume_settings(jobs: Sequence[SlideJob]) -> dict[str, Any]:
    """How the films were laid out, which must be the same for all; films that cannot be read are left out.

    Raises:
        SlideError: two films were prepared in different ways.
    """
    facts = []
    for job in jobs:
        with contextlib.suppress(SlideError):  # its own extraction will report it
            facts.append((job.slide, read_facts(job.files[0])))
    if not facts:
        return {}
    check_alike(facts)
    first = facts[0][1]
    volume = {**first.recipe, "channels": list(first.channels)}
    return {"tile": first.tile_px, "mpp": None, "volume": volume}


def _network_settings(recipe: NetworkRecipe) -> dict[str, Any]:
    """What else shapes features; nothing for networks of timm as they are, whose bags never recorded it."""
    settings: dict[str, Any] = {}
    if recipe.pooling != "network":
        settings["pooling"] = recipe.pooling
    if recipe.interpolation != "float":
        settings["interpolation"] = recipe.interpolation
    if recipe.resize_px:
        settings["resize_px"] = recipe.resize_px
    if recipe.arguments:
        settings["network"] = {"architecture": recipe.architecture, **recipe.arguments}
    return settings


def check_names(jobs: Sequence[SlideJob]) -> None:
    """Refuse two slides of one name, also if they differ in letter case only."""
    first: dict[str, SlideJob] = {}
    for job in jobs:
        twin = first.setdefault(job.slide.casefold(), job)
        if twin is not job:
            raise BagError(
                f"Two slides are named {job.slide!r}: {twin.files[0]} and {job.files[0]}. "
                "Rename one, or extract them into two stores."
            )


def check_store(store: Store, resolved: Mapping[str, Any]) -> None:
    """Refuse to mix bags of two recipes.

    Raises:
        BagError: the store holds bags of another recipe.
    """
    for path in store.bags():
        try:
            stored = bags.read_bag(path).recipe
        except BagError:
            continue  # a broken bag is extracted again
        changes = recipe_differences(stored, resolved)
        if changes:
            raise BagError(
                f"{store.path} has bags of another recipe ({path.name}: {changes}). Set out to another "
                "folder, or set overwrite to extract them again."
            )
