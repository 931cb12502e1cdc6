"""From a name and a source of weights to a network that turns tiles into features."""

import hashlib
import json
import logging
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

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
        features: Tensor = self.network.forward_features(images)  # type: ignore[operator]
        if features.ndim == 4:
            return features.mean(dim=(1, 2) if self.channels_last else (2, 3))
        pooled: Tensor = self.network.forward_head(features, pre_logits=True)  # type: ignore[operator]
        return pooled


def timm_name(name: str) -> str:
    """The timm model behind an alias or a timm name.

    Raises:
        BackboneError: neither; the message names the nearest.
    """
    if name in ALIASES:
        return ALIASES[name]
    if timm.is_model(name):
        return name
    known = [*ALIASES, *timm.list_models()]
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
        network, told = _random(full_name, seed), f"random (seed {seed})"
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
        trained_on=_trained_on(Path(weights)) if weights.endswith(".safetensors") else (),
    )


def _random(full_name: str, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _create(full_name, pretrained=False)


def _pretrained(full_name: str) -> nn.Module:
    try:
        return _create(full_name, pretrained=True)
    except Exception as error:
        raise BackboneError(
            f"No pretrained weights for {full_name}: {_first_line(error)}. Without a network, pass "
            f"--weights FILE (a .safetensors or .pth of timm's {full_name}), or --weights random to try "
            "the pipeline without learnt features."
        ) from error


def _from_file(full_name: str, path: Path) -> nn.Module:
    if not path.is_file():
        raise BackboneError(
            f"--weights {path}: no such file. Pass a .safetensors or .pth file, pretrained or random."
        )
    overlay = {"file": str(path)}
    networks = []
    # What the file does not hold keeps its random start, silently. Two starts show what that is.
    for seed in (0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                networks.append(_create(full_name, pretrained=True, pretrained_cfg_overlay=overlay))
            except Exception as error:
                raise BackboneError(
                    f"{path.name} does not fit {full_name}: {_first_line(error)}. "
                    "Name the architecture the file was saved from with --backbone."
                ) from error
    first, second = (PooledFeatures(network).state_dict() for network in networks)
    missing = [key for key in first if not torch.equal(first[key], second[key])]
    if missing:
        raise BackboneError(
            f"{path.name} lacks {len(missing)} weights of {full_name}, e.g. "
            f"{missing[0].removeprefix('network.')}. "
            "Name the architecture the file was saved from with --backbone."
        )
    return networks[0]


def _create(full_name: str, **kwargs: Any) -> nn.Module:
    logging.getLogger("timm").setLevel(logging.ERROR)
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


def _trained_on(path: Path) -> tuple[str, ...]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        card = json.loads((file.metadata() or {}).get("card", "{}"))
    return tuple(card.get("trained_on", ()))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
