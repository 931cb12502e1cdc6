"""Networks and files of the Hugging Face hub, or of a folder laid out like one of its repositories.

``hf-hub:ORG/NAME`` and ``local-dir:DIR`` have timm's ``config.json``, which states architecture, mean,
standard deviation, side, interpolation and crop.
"""

import json
import math
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import huggingface_hub
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError
from torch import nn

from features.backbones.file import (
    describe_misfit,
    describe_resized,
    describe_values,
    first_line,
    read_state,
)
from features.backbones.network_recipe import Interpolation, NetworkRecipe
from features.backbones.networks import create, create_seeded, names_and_shapes
from features.errors import BackboneError

SOURCES = ("hf-hub:", "hf_hub:", "local-dir:")


def is_hub_name(name: str) -> bool:
    """Whether a name is that of a repository or of a folder."""
    return name.startswith(SOURCES)


def check_hub_reachable() -> None:
    """Fail at once without a network; the hub's own client would retry for a minute."""
    host = urlsplit(huggingface_hub.constants.ENDPOINT).hostname
    if not getproxies() and not huggingface_hub.constants.HF_HUB_OFFLINE:
        socket.getaddrinfo(host, 443)


def cached_file(repository: str, *names: str) -> Path | None:
    """The file of an earlier download; None if there was none."""
    for name in names:
        file = huggingface_hub.try_to_load_from_cache(repository, name)
        if isinstance(file, str):
            return Path(file)
    return None


def published_file(recipe: NetworkRecipe) -> Path:
    """The weights file of an encoder: of an earlier download, or from the hub.

    Raises:
        BackboneError: without a network or access; names repository and file, and how to bring it.
    """
    if cached := cached_file(recipe.repository, *recipe.files):
        return cached
    try:
        check_hub_reachable()
        for name in recipe.files[:-1]:
            try:
                return Path(huggingface_hub.hf_hub_download(recipe.repository, name))
            except EntryNotFoundError:
                continue
        return Path(huggingface_hub.hf_hub_download(recipe.repository, recipe.files[-1]))
    except Exception as error:
        raise BackboneError(no_weights(recipe, error)) from error


def no_weights(recipe: NetworkRecipe, error: Exception) -> str:
    """What is missing, where it is, who may have it, and how to bring it."""
    reason = (
        "access has not been granted" if isinstance(error, GatedRepoError) else first_line(error)
    )
    gate = (
        " Access must be requested on that page; afterwards set HF_TOKEN to a token of your account."
        if recipe.gated
        else ""
    )
    return (
        f"No pretrained weights for {recipe.name}: {reason}. They are {' or '.join(recipe.files)} of "
        f"https://huggingface.co/{recipe.repository}.{gate} Without a network, bring that file from a "
        "machine that has one and set weights to it, or to random to try the pipeline without learnt "
        "features."
    )


def hub_recipe(name: str) -> NetworkRecipe:
    """The recipe in the config.json of a repository or folder.

    Raises:
        BackboneError: there is none, it cannot be fetched, or it does not state how images are prepared.
    """
    from timm.models._hub import load_model_config_from_hf, load_model_config_from_path

    source, _, place = name.partition(":")
    try:
        load: Callable[[str], tuple[dict[str, Any], str, dict[str, Any]]] = (
            load_model_config_from_path
        )
        if source != "local-dir":
            if not cached_file(place, "config.json"):
                check_hub_reachable()
            load = load_model_config_from_hf
        config, architecture, arguments = load(place)
        local = source == "local-dir"
        file = Path(place) / "config.json" if local else cached_file(place, "config.json")
        pooling = json.loads(file.read_text(encoding="utf-8")).get("global_pool") if file else None
        return NetworkRecipe(
            name=name,
            architecture=architecture,
            arguments=(arguments or {}) | _other_pooling(architecture, arguments or {}, pooling),
            **_preparation(config, arguments or {}),
            licence=str(config.get("license") or "not stated"),
            repository="" if local else place,
        )
    except Exception as error:
        raise BackboneError(
            f"{name}: its config.json cannot be used ({first_line(error)}). It is the one that timm writes, "
            "with architecture and pretrained_cfg: mean, std and input_size."
        ) from error


def _preparation(config: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """How images are prepared, as timm's own transform does it; what is not stated is not guessed.

    Raises:
        ValueError: no image can be prepared so.
    """
    mean, std, size = (tuple(config[key]) for key in ("mean", "std", "input_size"))
    if len(size) != 3 or size[0] != 3 or size[1] != size[2]:
        raise ValueError(
            f"input_size is {list(size)}, and tiles are square with three channels: red, green and blue"
        )
    if (built := arguments.get("img_size")) and built not in (size[-1], list(size[1:])):
        raise ValueError(f"input_size is {list(size)}, and the network's own img_size {built}")
    if len(mean) != 3 or not all(0 <= value <= 1 for value in mean):
        raise ValueError(
            f"mean is {list(mean)}: it has three numbers from 0 to 1, of colours in [0, 1]"
        )
    if len(std) != 3 or not all(0 < value <= 1 for value in std):
        raise ValueError(f"std is {list(std)}: it has three numbers above 0 and up to 1")
    interpolation: Interpolation = config.get("interpolation") or "float"
    if interpolation not in ("float", "bilinear", "bicubic"):
        raise ValueError(
            f"interpolation is {interpolation}, and tiles are resized bilinear or bicubic"
        )
    crop = float(config.get("crop_pct") or 1)
    if not 0 < crop <= 1 or config.get("crop_mode") == "border":
        raise ValueError("crop_pct is above 0 and up to 1, of the centre and not with a border")
    resize_px = math.floor(size[-1] / crop)
    return {
        "input_px": int(size[-1]), "resize_px": resize_px * (resize_px != size[-1]), "mean": mean, "std": std,
        "interpolation": interpolation,
    }  # fmt: skip


def _other_pooling(
    architecture: str, arguments: Mapping[str, Any], stated: str | None
) -> dict[str, str]:
    """The pooling that a configuration states, where the network would have another one by default.

    Raises:
        ValueError: it states two, or maps are not pooled by their mean.
    """
    if not stated or stated == arguments.get("global_pool"):
        return {}
    if "global_pool" in arguments:
        raise ValueError(f"global_pool is {stated}, and in model_args {arguments['global_pool']}")
    with names_and_shapes():
        own = getattr(create(architecture, **arguments), "global_pool", None)
    if isinstance(own, str):
        return {} if own == stated else {"global_pool": stated}
    if stated not in ("avg", "fast"):
        raise ValueError(
            f"global_pool is {stated}, and the map of {architecture} is pooled by its mean"
        )
    return {}


def hub_network(recipe: NetworkRecipe, *, pretrained: bool, seed: int) -> nn.Module:
    """The network of a repository or folder, with its weights or random ones.

    Raises:
        BackboneError: the weights are not there, or contradict the configuration.
    """
    own = {key: recipe.arguments[key] for key in ("global_pool",) if key in recipe.arguments}
    try:
        if pretrained and recipe.repository and not _weights_file(recipe):
            check_hub_reachable()
        network = create_seeded(recipe.name, seed, pretrained=pretrained, **own)
    except Exception as error:
        file = _weights_file(recipe)
        if pretrained and file:
            with names_and_shapes():
                bare = create(recipe.name, **own).state_dict()
            misfit = describe_misfit(read_state(file), bare)
            raise _contradiction(
                recipe, file, misfit or f"cannot be loaded ({first_line(error)}), unlike those"
            ) from error
        if recipe.repository:
            raise BackboneError(no_weights(recipe, error)) from error
        raise BackboneError(
            f"{recipe.name}: its weights cannot be loaded ({first_line(error)}). The folder needs "
            "model.safetensors or pytorch_model.bin beside config.json."
        ) from error
    if pretrained and (file := _weights_file(recipe)):
        state, loaded = read_state(file), network.state_dict()
        if misfit := describe_resized(state, loaded) or describe_values(state, loaded):
            raise _contradiction(recipe, file, misfit)
    return network


def _weights_file(recipe: NetworkRecipe) -> Path | None:
    """The weights of a folder, or of a download; None if there are none under their usual names."""
    if recipe.repository:
        return cached_file(recipe.repository, *recipe.files)
    files = (Path(recipe.name.partition(":")[2]) / name for name in recipe.files)
    return next((file for file in files if file.is_file()), None)


def _contradiction(recipe: NetworkRecipe, file: Path, misfit: str) -> BackboneError:
    return BackboneError(
        f"{recipe.name}: {file.name} {misfit} of {recipe.architecture}, the network of config.json. Use the "
        "config.json that was saved with the file."
    )
