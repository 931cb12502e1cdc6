"""Networks built from their recipes, and what makes a feature vector of their last tokens or maps."""

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from features.backbones.network_recipe import HIDDEN, NetworkRecipe, Pooling
from features.errors import BackboneError


class PooledFeatures(nn.Module):
    """A timm network cut before its classifier: the mean of its last feature map, or pooled tokens.

    The mean of the convolutional map is taken also where the architecture has fully connected layers
    behind it, so VGG19 gives its 512 channels and not the 4,096 of its last hidden layer, which it gives with
    pooling ``hidden``.

    Args:
        network: with ``forward_features`` and ``forward_head``.
        pooling: ``network`` takes what timm pools for the architecture; ``cls`` the class token; ``cls+mean``
            that and the mean of the patch tokens, without registers; ``mean`` only the latter;
            ``projection`` what the network's last linear layer makes of its own pooling; ``hidden`` the last
            of the hidden layers between the map and the classifier.

    Raises:
        BackboneError: pooling is ``hidden`` and the network has no such layers.
    """

    def __init__(self, network: nn.Module, pooling: Pooling = "network") -> None:
        super().__init__()
        has_hidden = hasattr(network, "pre_logits") and hasattr(network, "features")
        if pooling == "hidden" and not has_hidden:
            raise BackboneError(
                f"{type(network).__name__} has no hidden layers between its last map and its classifier. Use "
                f"the backbone's name without {HIDDEN}."
            )
        if has_hidden and pooling != "hidden":
            network.pre_logits = nn.Identity()  # VGG's hidden layers: 120 million unused weights
        self.network = network
        self.pooling = pooling
        self.channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised -> (B, D)."""
        return self.pool(self.forward_features(images))

    def pool(self, features: Tensor) -> Tensor:
        """The last feature map, or a transformer's tokens -> (B, D)."""
        if features.ndim == 4 and self.pooling != "hidden":
            return features.mean(dim=(1, 2) if self.channels_last else (2, 3))
        if self.pooling in ("network", "hidden", "projection"):
            pooled: Tensor = self.network.forward_head(  # type: ignore[operator]
                features, pre_logits=self.pooling != "projection"
            )
            return pooled
        first: int = self.network.num_prefix_tokens  # type: ignore[assignment]
        parts = {"cls": features[:, 0], "mean": features[:, first:].mean(dim=1)}
        return torch.cat([parts[name] for name in self.pooling.split("+")], dim=1)

    def forward_features(self, images: Tensor) -> Tensor:
        """The last feature map, or a transformer's tokens."""
        features: Tensor = self.network.forward_features(images)  # type: ignore[operator]
        return features


class ConvStem(nn.Module):
    """The patches of CTransPath: two strided convolutions instead of one of 4 x 4 (Wang 2022, section 3.1).

    (B, 3, H, W) -> (B, H / 4, W / 4, embed_dim).
    """

    def __init__(
        self,
        img_size: Any,
        patch_size: int,
        in_chans: int,
        embed_dim: int,
        norm_layer: Any,
        **_: Any,
    ) -> None:
        super().__init__()
        narrow, wide = embed_dim // 8, embed_dim // 4
        self.proj = nn.Sequential(
            nn.Conv2d(in_chans, narrow, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(narrow),
            nn.ReLU(),
            nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Conv2d(wide, embed_dim, 1),
        )
        self.norm = norm_layer(embed_dim) if norm_layer else nn.Identity()
        self.patch_size = (patch_size, patch_size)
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.grid_size = (height // patch_size, width // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, h, w, C)."""
        tokens: Tensor = self.norm(self.proj(images).permute(0, 2, 3, 1))
        return tokens


class AttentionPool(nn.Module):
    """One query attends to all tokens, as in CONCH (Lu 2024): (B, T, C) -> (B, width).

    Args:
        width: of the query and of the result.
        context: C, width of the tokens.
        fused: keys and values in one layer, without biases, as in CONCH v1.5; else torch's own attention.
    """

    def __init__(self, width: int, context: int, *, fused: bool) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, width))
        self.ln_q, self.ln_k = nn.LayerNorm(width), nn.LayerNorm(context)
        self.fused = fused
        if fused:
            self.to_q = nn.Linear(width, width, bias=False)
            self.to_kv = nn.Linear(context, 2 * width, bias=False)
            self.to_out = nn.Linear(width, width, bias=False)
        else:
            self.attn = nn.MultiheadAttention(
                width, 8, kdim=context, vdim=context, batch_first=True
            )

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, C) -> (B, width)."""
        tokens = self.ln_k(tokens)
        query = self.ln_q(self.query).expand(len(tokens), 1, -1)  # (B, 1, width)
        if not self.fused:
            pooled: Tensor = self.attn(query, tokens, tokens, need_weights=False)[0][:, 0]
            return pooled
        parts = [self.to_q(query), *self.to_kv(tokens).chunk(2, dim=-1)]
        heads = [
            part.unflatten(-1, (8, -1)).transpose(1, 2) for part in parts
        ]  # (B, 8, T, width / 8)
        mixed = nn.functional.scaled_dot_product_attention(*heads)  # (B, 8, 1, width / 8)
        pooled = self.to_out(mixed.transpose(1, 2).flatten(2))[:, 0]
        return pooled


class Conch(nn.Module):
    """The image tower of CONCH: a vision transformer whose tokens one query pools, before the projection.

    Args:
        trunk: timm's name of the transformer.
        width: of a feature vector.
        fused: see ``AttentionPool``.
        arguments: of the transformer.
    """

    def __init__(self, trunk: str, width: int, *, fused: bool, **arguments: Any) -> None:
        super().__init__()
        import timm  # takes seconds, which bags alone need not wait for

        tower: Any = timm.create_model(trunk, num_classes=0, **arguments)
        self.trunk = tower
        self.attn_pool_contrast = AttentionPool(width, tower.num_features, fused=fused)
        self.ln_contrast = nn.LayerNorm(width)
        self.num_prefix_tokens = 1

    @property
    def blocks(self) -> nn.Module:
        """Of the transformer, for maps of where it looks."""
        blocks: nn.Module = self.trunk.blocks
        return blocks

    def forward_features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, T, C)."""
        tokens: Tensor = self.trunk.forward_features(images)
        return tokens

    def forward_head(self, tokens: Tensor, pre_logits: bool = True) -> Tensor:  # noqa: ARG002, FBT001, FBT002
        """(B, T, C) -> (B, width); named and called as timm's."""
        pooled: Tensor = self.ln_contrast(self.attn_pool_contrast(tokens))
        return pooled

    def group_matcher(self, *, coarse: bool = False) -> Mapping[str, Any]:  # noqa: ARG002
        """The parameters by block, for learning rates."""
        return {
            "stem": r"^trunk\.(cls_token|pos_embed|patch_embed)",
            "blocks": [(r"^trunk\.blocks\.(\d+)", None), (r"^(trunk\.norm|attn|ln)", (99999,))],
        }


def build_network(recipe: NetworkRecipe) -> nn.Module:
    """The network of a recipe, with random weights, without its classifier."""
    from timm.layers.mlp import SwiGLUPacked

    layers = {"swiglu": SwiGLUPacked, "silu": nn.SiLU, "conv-stem": ConvStem}
    arguments: dict[str, Any] = {
        key: layers.get(str(value), value) for key, value in recipe.arguments.items()
    }
    if recipe.architecture.startswith("conch"):
        return Conch(**arguments, fused=recipe.architecture != "conch")
    if epsilon := arguments.pop("norm_eps", None):
        arguments["norm_layer"] = partial(nn.LayerNorm, eps=epsilon)
    return create(recipe.architecture, **arguments)


def create(name: str, **arguments: Any) -> nn.Module:
    """A network of timm without its classifier, and without the remarks that timm prints."""
    import timm

    for noisy in ("timm", "huggingface_hub"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    network: nn.Module = timm.create_model(name, **{"num_classes": 0} | arguments)
    return network


# What timm and torch.nn.init draw weights with.
DRAWING = {
    Tensor.uniform_, Tensor.normal_, Tensor.erfinv_, Tensor.mul_, Tensor.add_, Tensor.clamp_,
    Tensor.fill_, Tensor.zero_,
}  # fmt: skip


class _NothingDrawn(TorchFunctionMode):
    """Leaves out the drawing of weights: on torch's meta device, too, it takes a transformer's most time."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in DRAWING or getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def names_and_shapes() -> Iterator[None]:
    """Networks that are built here have parameters with names, shapes and types, and no values."""
    with torch.device("meta"), _NothingDrawn():
        yield


def create_seeded(name: str, seed: int, **arguments: Any) -> nn.Module:
    """A network of timm whose random weights follow the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return create(name, **arguments)


def measure_dim(module: nn.Module, recipe: NetworkRecipe) -> int:
    """Length of a feature vector, measured: timm's attribute differs from it for some networks.

    Raises:
        BackboneError: the network gives no vector, or one of another length than the recipe says.
    """
    with torch.inference_mode():
        shape = module(torch.zeros(1, 3, recipe.input_px, recipe.input_px)).shape
    if len(shape) != 2:
        raise BackboneError(
            f"{recipe.name} gives {tuple(shape[1:])} numbers per tile, not a vector: its settings do not say "
            "how they are pooled. Set pooling to cls, cls+mean or mean."
        )
    if recipe.dim not in (None, shape[1]):
        raise BackboneError(
            f"Backbone {recipe.name!r} gives {shape[1]} features per tile, and its entry says {recipe.dim}. "
            "Update the package of the entry, or choose another backbone."
        )
    return int(shape[1])


def weights_fingerprint(module: nn.Module) -> str:
    """SHA-256 of all parameters and buffers."""
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
