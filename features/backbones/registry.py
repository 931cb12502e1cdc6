"""Load a backbone by its name and the source of its weights."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from features.backbones.card import BackboneCard, read_card
from features.backbones.file import (
    check_file,
    check_recipe,
    describe_misfit,
    first_line,
    load_network,
    read_recipe,
    read_state,
)
from features.backbones.hub import hub_network, hub_recipe, is_hub_name, published_file
from features.backbones.imagenet import load_file, load_published, timm_recipe
from features.backbones.network_recipe import HIDDEN, NetworkRecipe
from features.backbones.networks import (
    PooledFeatures,
    build_network,
    create,
    create_seeded,
    measure_dim,
    names_and_shapes,
    weights_fingerprint,
)
from features.backbones.pathology import find_encoder
from features.backbones.table import BackboneEntry, find_backbone, list_backbones
from features.choices import suggest
from features.errors import BackboneError
from features.recipe import Stated


@dataclass(frozen=True)
class Backbone:
    """A network ready to embed, with the preprocessing its weights expect.

    Attributes:
        recipe: how it is built, what it is shown and how its features are pooled.
        module: (B, 3, input_px, input_px) normalised -> (B, dim), in evaluation mode.
        weights: what the weights are, in words: ``pretrained``, ``random (seed 0)`` or a file name.
        weights_sha256: fingerprint of all parameters and buffers.
        trained_on: cases the weights have seen, if the file says so.
        trained_on_slides: fingerprints of their slides.
    """

    recipe: NetworkRecipe
    module: nn.Module
    weights: str
    weights_sha256: str
    trained_on: tuple[str, ...] = ()
    trained_on_slides: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What bags record, and what finds the recipe again."""
        return self.recipe.name

    @property
    def dim(self) -> int:
        """Length of a feature vector."""
        assert self.recipe.dim is not None
        return self.recipe.dim

    @property
    def input_px(self) -> int:
        """Side of the image the network is shown; tiles are resized to it."""
        return self.recipe.input_px

    @property
    def mean(self) -> tuple[float, ...]:
        """Per channel, of RGB in [0, 1]."""
        return self.recipe.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Per channel, of RGB in [0, 1]."""
        return self.recipe.std

    @property
    def licence(self) -> str:
        """Of the published weights."""
        return self.recipe.licence


def resolve_name(name: str) -> str:
    """The full name of a backbone: an encoder's, timm's, a hub's, or that of an installed package.

    Raises:
        BackboneError: there is no such backbone; the message names the nearest.
    """
    if encoder := find_encoder(name):
        return encoder.name
    return name if is_hub_name(name) else _resolve(name).full_name


def _resolve(name: str) -> BackboneEntry:
    if entry := find_backbone(name):
        return entry
    import timm  # takes seconds, which bags alone need not wait for

    plain = name.removesuffix(HIDDEN)
    if timm.is_model(plain):
        _check_tag(plain)
        if plain != name:  # refused before any work where there are no such layers
            with names_and_shapes():
                PooledFeatures(create(plain), "hidden")
        return BackboneEntry(name, plain, keeps_hidden=plain != name)
    names = list(dict.fromkeys([*list_backbones(), *timm.list_models()]))
    short = ", ".join(list_backbones())
    raise BackboneError(
        f"No backbone {name!r}.{suggest(name, names, 3)} Short names: {short}; any timm name works too, and "
        "hf-hub:ORG/NAME or local-dir:FOLDER."
    )


def _check_tag(name: str) -> None:
    """Refuse a name of timm with a tag of weights that its network does not have."""
    import timm

    architecture, _, tag = name.partition(".")
    tagged = timm.list_models(architecture, include_tags=True)
    if name != architecture and name not in tagged:
        known = [full for full in tagged if "." in full]
        raise BackboneError(
            f"No backbone {name!r}: timm has no weights {tag!r} for {architecture}."
            f"{suggest(name, known, 3)} Its names are {', '.join(known) or architecture}."
        )


def load_backbone(
    name: str, weights: str, *, seed: int = 0, stated: Stated | None = None
) -> Backbone:
    """Build a backbone and load its weights.

    Args:
        name: one of ``features.list_backbones()``, any timm model name,
            ``hf-hub:ORG/NAME`` or ``local-dir:FOLDER``.
        weights: ``pretrained`` (of an installed package, or from timm's cache or hub), ``random``, or the
            path of a ``.safetensors`` or ``.pth`` file.
        seed: of the random weights.
        stated: how images are prepared for the weights of a file that does not say so itself.

    Raises:
        BackboneError: the name is unknown, the weights are not available offline, the file does not fit, or
            how images are prepared for it is not known.

    Example:
        backbone = features.load_backbone("resnet18", "random")
        print(backbone.dim, backbone.input_px)
    """
    path = None if weights in ("random", "pretrained") else Path(weights)
    if (encoder := find_encoder(name)) or is_hub_name(name):
        recipe = encoder or hub_recipe(name)
        load = _load_encoder if encoder else _load_hub
        recipe = _with_stated(recipe, stated, known=bool(encoder))
        network = load(recipe, weights, path, seed)
        module: nn.Module = PooledFeatures(network, recipe.pooling)
    else:
        entry = _resolve(name)
        recipe, module = _load_entry(entry, name, weights, path, seed, stated)
    module = module.eval().requires_grad_(requires_grad=False)
    recipe = replace(recipe, dim=measure_dim(module, recipe))
    return Backbone(
        recipe=recipe,
        module=module,
        weights=_describe_weights(weights, seed),
        weights_sha256=weights_fingerprint(module),
        **_seen(read_card(path) if path else None),
    )


def _seen(card: BackboneCard | None) -> dict[str, tuple[str, ...]]:
    """What the weights have seen, as the fields of a ``Backbone``."""
    if card is None:
        return {}
    return {"trained_on": card.trained_on, "trained_on_slides": card.trained_on_slides}


def _describe_weights(weights: str, seed: int) -> str:
    if weights == "random":
        return f"random (seed {seed})"
    return weights if weights == "pretrained" else Path(weights).name


def _with_stated(recipe: NetworkRecipe, stated: Stated | None, *, known: bool) -> NetworkRecipe:
    """The recipe with what is stated; what is known is not to be overridden.

    Raises:
        BackboneError: a known recipe says otherwise.
    """
    values = stated.given() if stated else {}
    if known:
        for key, value in values.items():
            if getattr(recipe, key) != value:
                raise BackboneError(
                    f"{recipe.name} takes {key} {getattr(recipe, key)}; got {value}. Leave out {key}."
                )
        return recipe
    return replace(recipe, **values)


def _load_encoder(recipe: NetworkRecipe, weights: str, path: Path | None, seed: int) -> nn.Module:
    if weights == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_network(recipe)
    written_here = bool(path and check_file(recipe.name, path))
    return load_network(recipe, path or published_file(recipe), written_here=written_here)


def _load_hub(recipe: NetworkRecipe, weights: str, path: Path | None, seed: int) -> nn.Module:
    if path is None:
        return hub_network(recipe, pretrained=weights == "pretrained", seed=seed)
    check_file(recipe.name, path)
    network, state = hub_network(recipe, pretrained=False, seed=seed), read_state(path)
    own = network.state_dict()
    if misfit := describe_misfit(state, own):
        raise BackboneError(
            f"{path.name} {misfit} of {recipe.name}. Set weights to a file of that network."
        )
    network.load_state_dict({key: state[key] for key in own})
    return network


def _load_entry(
    entry: BackboneEntry,
    name: str,
    weights: str,
    path: Path | None,
    seed: int,
    stated: Stated | None,
) -> tuple[NetworkRecipe, nn.Module]:
    """The network of a row of the table, of an installed package, or of timm."""
    if entry.build:
        return _load_installed(entry, weights, path, seed, stated)
    full_name = entry.full_name
    card = read_card(path) if path else None
    inside = (card.network if card else read_recipe(path)) if path else None
    whole = bool(stated and stated.is_whole() and path and not inside)
    recipe = timm_recipe(full_name, **(stated.given() if stated and whole else {}))
    if inside and inside.name == full_name:
        if path and not card:
            check_recipe(inside, recipe, path)
        recipe = inside
    if stated and not whole:
        recipe = _with_stated(recipe, stated, known=True)
    recipe = replace(recipe, dim=None if whole else entry.dim)
    if path:
        known = bool(inside or whole or "." in name or card)
        network = load_file(recipe, path, known=known)
    elif weights == "random":
        network = create_seeded(entry.timm_name, seed, pretrained=False)
    else:
        network = load_published(entry.timm_name)
    return recipe, PooledFeatures(network, recipe.pooling)


def _load_installed(
    entry: BackboneEntry, weights: str, path: Path | None, seed: int, stated: Stated | None
) -> tuple[NetworkRecipe, nn.Module]:
    """The backbone of an installed package, see ``features.backbones.table``."""
    assert entry.build
    recipe = NetworkRecipe(
        name=entry.name,
        input_px=entry.input_px,
        mean=entry.mean,
        std=entry.std,
        licence=entry.licence,
    )
    if entry.assumed and stated:
        recipe = _with_stated(recipe, replace(stated, pooling=None), known=False)
    recipe = _with_stated(recipe, stated, known=True)
    if path:
        check_file(entry.name, path)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = entry.build(pretrained=weights == "pretrained")
        if path:
            module.load_state_dict(read_state(path))
        module = module.eval().requires_grad_(requires_grad=False)
        measure_dim(module, recipe)
    except Exception as error:
        source = path.name if path else f"its {weights} weights"
        raise BackboneError(
            f"Backbone {entry.name!r} of an installed package cannot be loaded with {source}: "
            f"{first_line(error)}. Update the package, or choose another backbone or other weights."
        ) from error
    return replace(recipe, dim=entry.dim), module
