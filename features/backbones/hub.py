"""Networks and files of the Hugging Face hub, or of a folder laid out like one of its repositories.

``hf-hub:ORG/NAME`` and ``local-dir:DIR`` have timm's ``config.json``, which states architecture, mean,
standard deviation and side.
"""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import huggingface_hub
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError
from torch import nn

from features.backbones.file import first_line
from features.backbones.network_recipe import NetworkRecipe
from features.backbones.networks import create_seeded
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
        return NetworkRecipe(
            name=name,
            architecture=architecture,
            arguments=arguments or {},
            input_px=int(config["input_size"][-1]),
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
            licence=str(config.get("license") or "not stated"),
            repository="" if source == "local-dir" else place,
        )
    except Exception as error:
        raise BackboneError(
            f"{name}: its config.json cannot be used ({first_line(error)}). It is the one that timm writes, "
            "with architecture and pretrained_cfg: mean, std and input_size."
        ) from error


def hub_network(recipe: NetworkRecipe, *, pretrained: bool, seed: int) -> nn.Module:
    """The network of a repository or folder, with its weights or random ones.

    Raises:
        BackboneError: the weights are not there, or do not fit the configuration.
    """
    try:
        if pretrained and recipe.repository and not cached_file(recipe.repository, *recipe.files):
            check_hub_reachable()
        return create_seeded(recipe.name, seed, pretrained=pretrained)
    except Exception as error:
        if recipe.repository:
            raise BackboneError(no_weights(recipe, error)) from error
        raise BackboneError(
            f"{recipe.name}: its weights cannot be loaded ({first_line(error)}). The folder needs "
            "model.safetensors or pytorch_model.bin beside config.json."
        ) from error
