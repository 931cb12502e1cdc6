"""Weights files: what they hold, which network they are of, and how they are prepared for it.

A file is loaded only where its recipe is known: by the name of the backbone, by the card or the recipe in the
file, or because it is stated. The architecture alone says nothing about mean, deviation, side and pooling.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError  # only the error: weights are read as tensors alone
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from features.backbones.card import read_card
from features.backbones.network_recipe import NetworkRecipe
from features.backbones.networks import build_network, names_and_shapes
from features.backbones.pathology import ENCODERS
from features.backbones.transformers_keys import (
    STYLES,
    State,
    fit_positions,
    name_style,
    to_timm_names,
    unwrap,
)
from features.errors import BackboneError
from features.files.atomic import write_atomic
from features.files.checksum import card_checksum, verify_checksum

EXTRA = ("head.", "fc.", "classifier.")  # of training: not part of what embeds
CLASSIFIER = re.compile(r"(head|fc|classifier|head\.fc|head\.l)\.weight")  # of one linear layer
RESIZED = re.compile(
    r"(^|\.|_)pos(_embed)?($|_|\.)|relative_position_bias|patch_embed\.proj\.weight"
)
RECIPE, SHA256 = "network", "sha256"  # what a safetensors file says of its network


def read_state(path: Path) -> State:
    """The weights of a file, without the wrappers of training libraries.

    Raises:
        BackboneError: it holds none, or would run code.
    """
    try:
        if path.suffix == ".safetensors":
            return unwrap(safetensors.torch.load_file(path))
        return unwrap(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        reason = first_line(error)
        if isinstance(error, UnpicklingError):
            reason = "it is damaged, or of another format"
            if "Unsupported global" in str(error):
                reason = "it holds Python objects, which would run code, as whole networks do"
        raise BackboneError(
            f"{path.name} does not fit any network: {reason}. Set weights to a .safetensors or .pth file of "
            "weights alone, as state_dict() gives them."
        ) from error


def check_file(name: str, path: Path) -> bool:
    """Refuse a weights file that is missing, or whose card or recipe names another network.

    Returns:
        Whether this library has written the file, under the network's own names.
    """
    if not path.is_file():
        raise BackboneError(
            f"{path}: no such weights file. Set weights to a .safetensors or .pth file, to pretrained or "
            "to random."
        )
    card, inside = read_card(path), read_recipe(path)
    trained_as = card.backbone if card else inside.name if inside else name
    if trained_as != name:
        raise BackboneError(
            f"{path.name} was {'trained' if card else 'saved'} as {trained_as}, not {name}. Set backbone to "
            f"{trained_as}."
        )
    return bool(card or inside)


def read_recipe(path: Path) -> NetworkRecipe | None:
    """The recipe inside a file that ``write_weights`` wrote; None for other files.

    Raises:
        BackboneError: the recipe or the weights were changed after they were written.
    """
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    facts = path.stat()
    return _read_recipe(path, facts.st_mtime_ns, facts.st_size)


@lru_cache(maxsize=8)
def _read_recipe(path: Path, changed_ns: int, size: int) -> NetworkRecipe | None:
    """The same, once for each state of a file: its checksum takes a second for each gigabyte."""
    del changed_ns, size
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            if RECIPE not in facts:
                return None
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None  # loading the weights reports what is wrong
    try:
        verify_checksum(state, facts)
        return NetworkRecipe.from_json(facts[RECIPE])
    except (ValueError, TypeError, KeyError) as error:
        raise BackboneError(
            f"{path.name}: its weights or the recipe inside were changed after they were fetched, or an "
            "earlier version wrote the file. Fetch the weights again."
        ) from error


def check_recipe(inside: NetworkRecipe, known: NetworkRecipe, path: Path) -> None:
    """Refuse a file whose recipe prepares images in another way than its network is known to need.

    Raises:
        BackboneError: they differ.
    """
    for name in ("mean", "std", "input_px", "resize_px", "interpolation", "pooling", "arguments"):
        other, own = getattr(inside, name), getattr(known, name)
        if other != own:
            raise BackboneError(
                f"{path.name} states {name} {other}, and {known.name} takes {own}. Fetch the weights again."
            )


def write_weights(path: Path, module: nn.Module, recipe: NetworkRecipe) -> None:
    """Write one file of weights, under the network's own names, with its recipe inside."""
    state = {key: value.contiguous() for key, value in module.state_dict().items()}
    facts = {RECIPE: recipe.to_json()}
    facts[SHA256] = card_checksum(state, facts)
    write_atomic(path, safetensors.torch.save(state, metadata=facts))


def load_network(recipe: NetworkRecipe, path: Path, *, written_here: bool = False) -> nn.Module:
    """The network of a recipe with the weights of a file, under the names of its published file.

    Args:
        recipe: of the network.
        path: of the file.
        written_here: whether this library has written the file, with the network's own names.

    Raises:
        BackboneError: the file is of another network; the message names the encoders whose it could be.
    """
    state = read_state(path)
    with names_and_shapes():
        network = build_network(recipe)
    fitted, misfit = _fit(state, network, recipe, written_here=written_here)
    if misfit:
        raise BackboneError(
            f"{path.name} {misfit} of {recipe.name}. {suggest_encoders(state)}".rstrip()
        )
    return _assign(network, recipe, fitted)


def suggest_encoders(state: Mapping[str, Tensor]) -> str:
    """Which encoders the weights could be of, as a remedy; by names and shapes, so several may fit."""
    names, width = [], _width(state)
    for recipe in ENCODERS.values():
        if recipe.width != width:
            continue
        with names_and_shapes():
            network = build_network(recipe)
        if not _fit(state, network, recipe)[1]:
            names.append(recipe.name)
    if not names:
        return "Set backbone to the architecture the file was saved from."
    return (
        f"Its weights have the names and shapes of {' and of '.join(names)}: set backbone to the one that "
        "it is."
    )


def _width(state: Mapping[str, Tensor]) -> int:
    """Length of a plain transformer's tokens; 0 for other networks."""
    tokens = state.get("cls_token", state.get("embeddings.cls_token"))
    return 0 if tokens is None else int(tokens.shape[-1])


def refuse_unknown(path: Path, name: str, tagged: str) -> BackboneError:
    """The error for a file whose recipe is not known, with the four ways to make it known.

    Args:
        path: of the file.
        name: of the architecture.
        tagged: its name with a tag of published weights; empty if timm has none.
    """
    ways = [
        "state what the weights were trained with (mean=..., std=..., input_px=..., pooling=...)",
        "use a file that this library has fine-tuned or fetched, which says so itself",
    ]
    if tagged:
        ways.insert(0, f"set backbone to {tagged} if the file holds these published weights")
    hint = suggest_encoders(read_state(path))
    return BackboneError(
        f"{path.name}: how images are prepared for these weights does not follow from the architecture "
        f"{name}. Either {'; or '.join(ways)}. {hint if 'shapes of' in hint else ''}".rstrip()
    )


def _fit(
    state: State | Mapping[str, Tensor],
    network: nn.Module,
    recipe: NetworkRecipe,
    *,
    written_here: bool = False,
) -> tuple[State, str]:
    """The weights by the network's names, and how they are not those of its published file, or empty."""
    own = network.state_dict()
    style = name_style(state)
    if style not in (*recipe.names, *(["timm"] if written_here else [])):
        return {}, f"has the weight names of {STYLES[style]}, which are not those"
    try:
        renamed = fit_positions(to_timm_names(state), network, recipe.table_side)
    except (KeyError, RuntimeError) as error:
        return {}, f"has weights ({first_line(error)}) that are none"
    heads = sorted(key for key in renamed.keys() - own.keys() if CLASSIFIER.fullmatch(key))
    if heads:
        shape = tuple(renamed[heads[0]].shape)
        return {}, f"has a classifier ({heads[0]}: {shape}), unlike the published weights"
    for key in own.keys() - renamed.keys():
        if key.endswith("num_batches_tracked"):
            renamed[key] = torch.zeros((), dtype=torch.long)
    misfit = describe_resized(renamed, own) or describe_misfit(renamed, own)
    return ({} if misfit else {key: renamed[key] for key in own}), misfit


def describe_misfit(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """What weights lack of a network's own, or have too much; empty if they fit."""
    missing = sorted(own.keys() - state.keys())
    if missing:
        return f"lacks {len(missing)} weights ({missing[0]} ...)"
    unused = sorted(k for k in state.keys() - own.keys() if not k.startswith(EXTRA))
    if unused:
        return f"holds {len(unused)} weights ({unused[0]} ...) that are none"
    other = sorted(key for key in own if own[key].shape != state[key].shape)
    if other:
        sizes = " instead of ".join(str(tuple(s[other[0]].shape)) for s in (state, own))
        return f"holds {len(other)} weights of another size ({other[0]}: {sizes}) than those"
    return describe_values(state, own)


def describe_values(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """How weights are quantised, or are no numbers; or empty."""
    whole = sorted(
        key
        for key in own.keys() & state.keys()
        if own[key].is_floating_point() and not state[key].is_floating_point()
    )
    if whole:
        kind = str(state[whole[0]].dtype).removeprefix("torch.")
        return f"holds {len(whole)} quantised weights ({whole[0]}: {kind}), unlike those"
    broken = sorted(
        key
        for key in own.keys() & state.keys()
        if not state[key].is_meta and not torch.isfinite(state[key]).all()
    )
    return (
        f"holds {len(broken)} weights that are not finite ({broken[0]}), unlike those"
        if broken
        else ""
    )


def describe_resized(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """How tables of positions or patches differ in size, which timm would resize in silence; or empty."""
    for key in sorted(own.keys() & state.keys()):
        old, new = state[key].shape, own[key].shape
        if not RESIZED.search(key) or old == new or len(old) != len(new):
            continue
        if key.endswith("pos_embed") and len(old) == 3 and old[-1] == new[-1]:
            sizes = f"positions {old[1]} instead of {new[1]}"
            return f"was saved at another side of the image ({sizes}) than that"
        sizes = f"{key}: {tuple(old)} instead of {tuple(new)}"
        return f"was saved with other patches or windows ({sizes}) than those"
    return ""


def _assign(network: nn.Module, recipe: NetworkRecipe, state: State) -> nn.Module:
    """The weights in the network, in fp32; no random weights are drawn if all of it is in the file."""
    plain: dict[str, Any] = {
        key: value.float() if value.is_floating_point() else value for key, value in state.items()
    }
    computed = {name for name, _ in network.named_buffers()} - network.state_dict().keys()
    if computed:
        network = build_network(recipe)
    network.load_state_dict(plain, assign=not computed)
    return network


def first_line(error: BaseException) -> str:
    """The first line of an error, without its full stop."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
