"""From a name and a source of weights to a network that turns tiles into features."""

import hashlib
import logging
import socket
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import huggingface_hub
import timm
import torch
from torch import Tensor, nn

from features.backbones.card import read_card
from features.backbones.imagenet import ALIASES
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


def timm_name(name: str) -> str:
    """The timm model behind an alias or a timm name.

    Raises:
        BackboneError: neither; the message names the nearest.
    """
    if name in ALIASES:
        return ALIASES[name]
    if timm.is_model(name):
        return name
    known = list(dict.fromkeys([*ALIASES, *timm.list_models()]))
    near = get_close_matches(name, known, 3)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise BackboneError(
        f"No backbone {name!r}.{hint} Short names: {', '.join(ALIASES)}; any timm name works too."
    )


def load_backbone(name: str, weights: str, *, seed: int = 0) -> Backbone:
    """Build a backbone and fill it with weights.

    Args:
        name: an alias of ``ALIASES`` or any timm model name.
        weights: ``pretrained`` (timm's hub, then its cache), ``random``, or the path of a
            ``.safetensors`` or ``.pth`` file.
        seed: of the random weights.

    Raises:
        BackboneError: unknown name, weights that cannot be had offline, or a file that does not fit.
    """
    full_name = timm_name(name)
    if weights == "random":
        network, told = _seeded(full_name, seed, pretrained=False), f"random (seed {seed})"
    elif weights == "pretrained":
        network, told = _pretrained(full_name), "pretrained"
    else:
        network, told = _from_file(full_name, Path(weights)), Path(weights).name
    config: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    module = PooledFeatures(network).eval().requires_grad_(requires_grad=False)
    return Backbone(
        name=full_name,
        module=module,
        dim=_dim(module, config["input_size"][-1]),
        input_px=config["input_size"][-1],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        weights=told,
        weights_sha256=_fingerprint(module),
        licence=str(config.get("license") or "not stated"),
        trained_on=card.trained_on if (card := read_card(Path(weights))) else (),
    )


def _seeded(full_name: str, seed: int, **kwargs: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _create(full_name, **kwargs)


def _pretrained(full_name: str) -> nn.Module:
    """Timm's weights: from the cache without asking the network, else from the network."""
    try:
        if cached := _cached_weights(full_name):
            return _create(full_name, pretrained=True, pretrained_cfg_overlay={"file": cached})
        _reach_hub()
        return _create(full_name, pretrained=True)
    except Exception as error:
        raise BackboneError(
            f"No pretrained weights for {full_name}: {_first_line(error)}. Without a network, pass "
            f"--weights FILE (a .safetensors or .pth of timm's {full_name}), or --weights random to try "
            "the pipeline without learnt features."
        ) from error


def _cached_weights(full_name: str) -> str | None:
    """Where an earlier download lies, if there was one."""
    config = timm.get_pretrained_cfg(full_name)
    if config is None or not config.hf_hub_id:
        return None
    found = huggingface_hub.try_to_load_from_cache(config.hf_hub_id, "model.safetensors")
    return found if isinstance(found, str) else None


def _reach_hub() -> None:
    """Fail at once where no name can be resolved; the hub's own client would retry for a minute."""
    host = urlsplit(huggingface_hub.constants.ENDPOINT).hostname
    if not getproxies() and not huggingface_hub.constants.HF_HUB_OFFLINE:
        socket.getaddrinfo(host, 443)


def _from_file(full_name: str, path: Path) -> nn.Module:
    if not path.is_file():
        raise BackboneError(
            f"--weights {path}: no such file. Pass a .safetensors or .pth file, pretrained or random."
        )
    card = read_card(path)
    if card and card.backbone != full_name:
        raise BackboneError(
            f"{path.name} was trained as {card.backbone}, not {full_name}. Pass --backbone {card.backbone}."
        )
    overlay = {"file": str(path)}
    try:
        network = _seeded(full_name, 0, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:
        raise BackboneError(
            f"{path.name} does not fit {full_name}: {_first_line(error)}. "
            "Name the architecture the file was saved from with --backbone."
        ) from error
    held = set(timm.models.load_state_dict(str(path)))
    misfit = _misfit(network, _seeded(full_name, 0, pretrained=False), held)
    if misfit:
        raise BackboneError(
            f"{path.name} {misfit} of {full_name}. "
            "Name the architecture the file was saved from with --backbone."
        )
    return network


def _misfit(network: nn.Module, start: nn.Module, held: set[str]) -> str:
    """How a file's weights differ from the architecture's; empty where they fit.

    timm takes what fits and leaves the rest as it was. What the file lacks is seen by its name and by
    its value, that of the same random start; what it holds in vain (resnet101 into resnet50, which fits
    cut short) is seen where all other names are the network's own.

    Args:
        network: loaded from the file.
        start: the same network before it was loaded.
        held: names of the weights in the file.
    """
    loaded = PooledFeatures(network).network.state_dict()
    before = PooledFeatures(start).network.state_dict()
    own = {key for key in loaded if not key.endswith("num_batches_tracked")}
    missing = sorted(key for key in own - held if torch.equal(loaded[key], before[key]))
    if missing:
        return f"lacks {len(missing)} weights ({missing[0]} ...)"
    config: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    classifier = config.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    parts = {key.split(".")[0] for key in own}
    unused = sorted(
        key
        for key in held - loaded.keys()
        if key.split(".")[0] in parts and not key.startswith(heads)
    )
    return (
        f"holds {len(unused)} weights ({unused[0]} ...) that are none"
        if unused and own <= held
        else ""
    )


def _create(full_name: str, **kwargs: Any) -> nn.Module:
    for noisy in ("timm", "huggingface_hub"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    network: nn.Module = timm.create_model(full_name, num_classes=0, **kwargs)
    return network


def _dim(module: nn.Module, input_px: int) -> int:
    """Length of a feature vector, measured: the attribute in timm means other things for some."""
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
