"""The stores of a run, and what their bags must have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from features.backbones.registry import Backbone
from features.bags import bag as bags
from features.bags.store import Store, recipe_differences
from features.errors import (
    BagError,
)
from features.extraction.embed import resolve_device
from features.extraction.survey import SlideJob
from features.precision import DTYPES, resolve_precision
from features.recipe import Recipe
from features.tiles.normalisation import reference_to_json
from features.tiles.stain import (
    StainReference,
)

HOLD_OUT_SUFFIX = "-HOLD-OUT-SHARES-CASES"


@dataclass(frozen=True)
class StoreSpec:
    """One store to fill: a recipe, and which of a slide's tiles it takes.

    Attributes:
        recipe: what was asked.
        store: where.
        held_out: 0 for the tiles drawn by the recipe; else this many of those it leaves.
    """

    recipe: Recipe
    store: Store
    held_out: int = 0


def store_specs(
    recipes: Sequence[Recipe], out: Path, *, hold_out_tiles: int = 0
) -> tuple[StoreSpec, ...]:
    """The stores of a run: ``out`` itself, or one folder in it per scale, and their hold-outs beside them."""
    found = []
    for recipe in recipes:
        path = out if len(recipes) == 1 else out / f"mpp-{recipe.mpp:g}"
        found.append(StoreSpec(recipe, Store(path)))
        if hold_out_tiles:
            held = path.absolute().with_name(path.absolute().name + HOLD_OUT_SUFFIX)
            found.append(StoreSpec(recipe, Store(held), hold_out_tiles))
    return tuple(found)


def resolved_recipe(
    target: StoreSpec,
    backbone: Backbone,
    jobs: Sequence[SlideJob],
    device: str,
    reference: StainReference | None = None,
) -> dict[str, Any]:
    """The recipe with every choice made: what two bags must share to be used together."""
    recipe = target.recipe
    dtype = resolve_precision(recipe.precision, resolve_device(device))
    precision = next(name for name, meant in DTYPES.items() if meant is dtype)
    regions = {job.region for job in jobs}
    if len(regions) > 1:
        raise BagError(
            f"One store takes one kind of region; got {' and '.join(sorted(regions))}. Extract them "
            "into two stores."
        )
    region = regions.pop() if regions else "tissue"
    settings = asdict(recipe) | {
        "backbone": backbone.name,
        "weights": backbone.weights,
        "weights_sha256": backbone.weights_sha256,
        "input_px": backbone.input_px,
        "mean": backbone.mean,
        "std": backbone.std,
        "precision": precision,
        "region": region,
        "held_out": target.held_out,
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
    if region in ("tiles", "coordinates"):
        settings |= {"min_coverage": None}
    if region == "tiles":  # their scale and extent are those of the image files
        settings |= {"mpp": None}
    return {
        key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()
    }


def check_names(jobs: Sequence[SlideJob]) -> None:
    """Refuse two slides of one name, also where the file system knows no letter case."""
    seen: dict[str, SlideJob] = {}
    for job in jobs:
        other = seen.setdefault(job.slide.casefold(), job)
        if other is not job:
            raise BagError(
                f"Two slides are named {job.slide!r}: {other.files[0]} and {job.files[0]}. "
                "Rename one, or extract them into two stores."
            )


def check_store(store: Store, resolved: Mapping[str, Any]) -> None:
    """Refuse to mix bags.

    Raises:
        BagError: the store holds bags of another recipe.
    """
    for path in store.bags():
        try:
            held = bags.read_bag(path).recipe
        except BagError:
            continue  # broken: it will be made again
        changes = recipe_differences(held, resolved)
        if changes:
            raise BagError(
                f"{store.path} holds bags of another recipe ({path.name}: {changes}). Use another --out, "
                "or --overwrite to make them again."
            )
