"""What can embed tiles: every backbone with a name, and where its weights are."""

from dataclasses import dataclass, replace
from pathlib import Path

from features.backbones.file import write_weights
from features.backbones.hub import cached_file, is_hub_name
from features.backbones.imagenet import timm_recipe
from features.backbones.network_recipe import NetworkRecipe
from features.backbones.packaged import PACKAGED, packaged_file
from features.backbones.pathology import ENCODERS
from features.backbones.registry import load_backbone
from features.backbones.table import BACKBONES, list_backbones
from features.errors import BackboneError


@dataclass(frozen=True)
class Listed:
    """A backbone and its weights.

    Attributes:
        name: to write on the command line.
        recipe: None for the backbone of an installed package, which is not loaded here.
        at_hand: whether its published weights need no network.
        place: where they are or come from.
    """

    name: str
    recipe: NetworkRecipe | None
    at_hand: bool
    place: str


def list_catalogue() -> list[Listed]:
    """Every backbone with a short name: those of ImageNet, of pathology and of installed packages.

    Example:
        for row in mil.list_catalogue():
            print(row.name, row.at_hand, row.place)
    """
    named = {name: timm_recipe(entry.full_name) for name, entry in BACKBONES.items()}
    dims = {name: entry.dim for name, entry in BACKBONES.items()}
    rows = [
        _listed(name, recipe, dims.get(name)) for name, recipe in (named | dict(ENCODERS)).items()
    ]
    installed = [name for name in list_backbones() if name not in named and name not in ENCODERS]
    return rows + [
        Listed(name, None, at_hand=True, place="an installed package") for name in installed
    ]


def published_recipe(name: str) -> NetworkRecipe | None:
    """The recipe of a backbone by the name that bags record, without its weights; None if not listed."""
    recipes = (row.recipe for row in list_catalogue())
    return next((recipe for recipe in recipes if recipe and recipe.name == name), None)


def fetch_weights(name: str, out: Path | str, *, overwrite: bool = False) -> NetworkRecipe:
    """Write the published weights of a backbone as one file, with its recipe inside.

    Args:
        name: of the backbone.
        out: a .safetensors file.
        overwrite: replace a file that is there.

    Raises:
        BackboneError: the weights are not there, may not be fetched, or the file exists, or ends otherwise.

    Example:
        recipe = mil.fetch_weights("efficientnet-lite0", "encoder.safetensors")
        print(recipe.dim, recipe.licence)
    """
    out = Path(out)
    if out.suffix != ".safetensors":
        raise BackboneError(
            f"out is a .safetensors file; got {out}. Name it {out.stem}.safetensors."
        )
    if out.exists() and not overwrite:
        raise BackboneError(f"out is {out}, which exists. Name another file, or set overwrite.")
    if is_hub_name(name) and name.startswith("local-dir:"):
        raise BackboneError(f"{name} is on this machine already. Copy the folder.")
    backbone = load_backbone(name, "pretrained")
    network = getattr(backbone.module, "network", backbone.module)
    write_weights(out, network, backbone.recipe)
    return backbone.recipe


def _listed(name: str, recipe: NetworkRecipe, dim: int | None) -> Listed:

    recipe = replace(recipe, dim=recipe.dim or dim)
    if recipe.name in PACKAGED:
        package = PACKAGED[recipe.name].package
        try:
            installed = packaged_file(recipe.name) is not None
        except BackboneError:
            installed = False
        return Listed(name, recipe, at_hand=installed, place=package.partition("==")[0])
    cached = bool(recipe.repository) and cached_file(recipe.repository, *recipe.files) is not None
    place = f"huggingface.co/{recipe.repository}" if recipe.repository else "releases of timm"
    return Listed(name, recipe, at_hand=cached, place=place)
