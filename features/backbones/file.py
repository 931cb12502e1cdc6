"""Weights files: what they hold, which network they are of, and how they are prepared for it.

A file is loaded only where its recipe is known: by the name of the backbone, by the card or the recipe in the
file, or because it is stated. The architecture alone says nothing about mean, deviation, side and pooling.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from features.backbones.card import read_card
from features.backbones.network_recipe import NetworkRecipe
from features.backbones.networks import build_network
from features.backbones.pathology import ENCODERS
from features.backbones.transformers_keys import State, fit_positions, to_timm_names, unwrap
from features.errors import BackboneError
from features.files.atomic import write_atomic

EXTRA = ("head.", "fc.", "classifier.")  # of training: not part of what embeds
RECIPE = "network"  # where a safetensors file keeps the recipe of its network


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
        raise BackboneError(
            f"{path.name} does not fit any network: {first_line(error)}. Set weights to a .safetensors or "
            ".pth file of weights."
        ) from error


def check_file(name: str, path: Path) -> None:
    """Refuse a weights file that is missing, or whose card or recipe names another network."""
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


def read_recipe(path: Path) -> NetworkRecipe | None:
    """The recipe inside a file that ``write_weights`` wrote; None for other files."""
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(RECIPE)
        return NetworkRecipe.from_json(text) if text else None
    except (OSError, SafetensorError, ValueError, TypeError):
        return None  # loading the weights reports what is wrong


def write_weights(path: Path, module: nn.Module, recipe: NetworkRecipe) -> None:
    """Write one file of weights, under the network's own names, with its recipe inside."""
    state = {key: value.contiguous() for key, value in module.state_dict().items()}
    write_atomic(path, safetensors.torch.save(state, metadata={RECIPE: recipe.to_json()}))


def load_network(recipe: NetworkRecipe, path: Path) -> nn.Module:
    """The network of a recipe with the weights of a file, whatever library's names they have.

    Raises:
        BackboneError: the file is of another network; the message names the encoders whose it could be.
    """
    state = read_state(path)
    with torch.device("meta"):
        network = build_network(recipe)
    fitted, misfit = _fit(state, network)
    if misfit:
        raise BackboneError(
            f"{path.name} {misfit} of {recipe.name}. {suggest_encoders(state)}".rstrip()
        )
    return _assign(network, recipe, fitted)


def suggest_encoders(state: Mapping[str, Tensor]) -> str:
    """Which encoders the weights could be of, as a remedy; by names and shapes alone, so several may fit."""
    names, width = [], _width(state)
    for recipe in ENCODERS.values():
        if recipe.width != width:
            continue
        with torch.device("meta"):
            network = build_network(recipe)
        if not _fit(state, network)[1]:
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
        "set mean, std, input_px and pooling to what the weights were trained with",
        "use a file that this library has fine-tuned or fetched, which says so itself",
    ]
    if tagged:
        ways.insert(0, f"set backbone to {tagged} if the file holds these published weights")
    hint = suggest_encoders(read_state(path))
    return BackboneError(
        f"{path.name}: how images are prepared for these weights does not follow from the architecture "
        f"{name}. Either {'; or '.join(ways)}. {hint if 'shapes of' in hint else ''}".rstrip()
    )


def _fit(state: State | Mapping[str, Tensor], network: nn.Module) -> tuple[State, str]:
    """The weights by the network's names, and what they lack or have too much; empty if they fit."""
    own = network.state_dict()
    try:
        renamed = fit_positions(to_timm_names(state), network)
    except (KeyError, RuntimeError) as error:
        return {}, f"has weights ({first_line(error)}) that are none"
    for key in own.keys() - renamed.keys():
        if key.endswith("num_batches_tracked"):
            renamed[key] = torch.zeros((), dtype=torch.long)
    missing = sorted(own.keys() - renamed.keys())
    if missing:
        return {}, f"lacks {len(missing)} weights ({missing[0]} ...)"
    unused = sorted(k for k in renamed.keys() - own.keys() if not k.startswith(EXTRA))
    if unused:
        return {}, f"holds {len(unused)} weights ({unused[0]} ...) that are none"
    other = sorted(key for key in own if own[key].shape != renamed[key].shape)
    if other:
        sizes = " instead of ".join(str(tuple(s[other[0]].shape)) for s in (renamed, own))
        return {}, f"holds {len(other)} weights of another size ({other[0]}: {sizes}) than those"
    return {key: renamed[key] for key in own}, ""


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
