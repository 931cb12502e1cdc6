"""Where in a tile the score comes from: class activation maps of backbone and head as one network."""

import copy
import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from features.backbones.registry import Backbone
from features.extraction.embed import preprocess
from features.extraction.resizing import spread_maps
from mil.errors import FitError
from mil.explanation.target import ExplanationTarget

SAME_FEATURE = 1e-4  # relative to the largest: less is rounding
SAME_SCORE = 0.1  # relative: a larger change between stored and recomputed features is not rounding
NO_ZERO = (
    "{} does not average over positions, so its maps have no true zero: compare bright positions with dim "
    "ones."
)


class TileScorer(nn.Module):
    """From the pixels of tiles to the score of each as a slide of its own.

    ``layer`` is an identity through which the examined map passes, as (B, C, h, w) for any architecture.
    If features are the mean of the backbone's last map, as in every convolutional network and in
    transformers that average their tokens, it is that map, centred as the head centres features. Where hidden
    layers read that map, it is the map as it is. In other
    transformers it is the tokens at their positions on entering the last block (after that block, a network
    that reads its class token reads no other token); the head's zero is then unknown. No list of layer
    names is needed.

    Args:
        backbone: the network that made the bag.
        target: supplies the head and the quantity.
        images: (B, 3, H, W) from ``preprocess``, to test whether features are the mean of the map.

    Attributes:
        centred: whether features are the mean of the map.
        sign: (B,) factor of the scores, or a number.

    Raises:
        FitError: the backbone has no map.
    """

    def __init__(self, backbone: Backbone, target: ExplanationTarget, images: Tensor) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(backbone.module).eval()
        self.head = copy.deepcopy(target.fitted.head).eval()
        self.centre = target.baseline
        self.layer = nn.Identity()
        self.quantity = target.quantity
        self.sign: Tensor | float = 1.0
        self.centred = self._averages(images)
        self.follows_hidden = getattr(self.backbone, "pooling", "") == "hidden"
        if not self.centred and not self.follows_hidden:
            self._hook_last_block()
        for module in self.modules():
            if getattr(module, "inplace", False):
                module.inplace = False  # type: ignore[assignment]  # captum keeps inputs that this would overwrite

    @property
    def n_rectifiers(self) -> int:
        """ReLUs that guided backpropagation can modify; networks of SiLU or GELU have none."""
        return sum(isinstance(module, nn.ReLU) for module in self.backbone.modules())

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) from ``preprocess`` -> (B,)."""
        if self.centred:
            last = self._spatial(self.backbone.forward_features(images))  # type: ignore[operator]
            features = self.layer(last - self.centre.view(-1, 1, 1)).mean(dim=(2, 3)) + self.centre
        elif self.follows_hidden:
            last = self.backbone.forward_features(images)  # type: ignore[operator]
            features = self.backbone.pool(self.layer(last))  # type: ignore[operator]
        else:
            features = self.backbone(images)
        mask = torch.ones(len(features), 1, dtype=torch.bool)
        scores = self.quantity.score(self.head(features.unsqueeze(1), mask).logits)
        return self.sign * scores

    @torch.inference_mode()
    def _averages(self, images: Tensor) -> bool:
        """Whether the backbone's feature vectors are the mean of its last map."""
        features = self.backbone.forward_features(images)  # type: ignore[operator]
        if features.ndim < 3:
            return False
        mean, vectors = self._spatial(features).mean(dim=(2, 3)), self.backbone(images)
        return mean.shape == vectors.shape and torch.allclose(
            mean, vectors, rtol=0, atol=SAME_FEATURE * float(vectors.abs().max())
        )

    def _spatial(self, features: Tensor) -> Tensor:
        """The backbone's last map, or the last tokens of (B, T, C) that fill a square, as (B, C, h, w)."""
        if features.ndim == 3:
            return arrange_square(features)
        return features.permute(0, 3, 1, 2) if self.backbone.channels_last else features

    def _hook_last_block(self) -> None:
        network = self.backbone.network
        block = getattr(network, "blocks", [None])[-1]
        if not hasattr(block, "norm1"):
            raise FitError(
                f"{type(network).__name__} has no feature map or token block, so Grad-CAM is not "
                "possible. Use "
                "method evidence or single-tile."
            )
        prefix = int(getattr(network, "num_prefix_tokens", 0))
        block.norm1 = nn.Sequential(block.norm1, SpatialTokens(self.layer, prefix))


def arrange_square(tokens: Tensor) -> Tensor:
    """The last tokens of (B, T, C), as many as fill a square, at their positions: (B, C, h, w)."""
    side = math.isqrt(tokens.shape[1])
    return torch.unflatten(tokens[:, -(side**2) :].transpose(1, 2), 2, (side, side))


class SpatialTokens(nn.Module):
    """Passes tokens (B, T, C) through a layer as the square map (B, C, h, w) that they form.

    Args:
        layer: keeps the shape.
        prefix: number of leading tokens without a position, at most.
    """

    def __init__(self, layer: nn.Module, prefix: int) -> None:
        super().__init__()
        self.layer, self.prefix = layer, prefix

    def forward(self, tokens: Tensor) -> Tensor:
        """The same shape."""
        first = tokens.shape[1] - math.isqrt(tokens.shape[1]) ** 2
        if first not in (0, self.prefix):
            raise FitError(
                f"The backbone's {tokens.shape[1]} tokens do not form a square grid: their positions "
                "are unknown."
            )
        through = self.layer(arrange_square(tokens)).flatten(2).transpose(1, 2)
        return torch.cat([tokens[:, :first], through], dim=1)


@dataclass(frozen=True, kw_only=True)
class TileMaps:
    """Where in tiles their score comes from: what raises it, or in a tile with a negative score, lowers it.

    Attributes:
        maps: (K, H, W) nonnegative, of the size of the tiles; all zero if no position agrees with the score.
        scores: (K,) the score of each tile alone, from its pixels.
        warnings: sentences to print.
    """

    maps: NDArray[np.float64]
    scores: NDArray[np.float64]
    warnings: tuple[str, ...]


def tile_maps(
    target: ExplanationTarget,
    backbone: Backbone,
    tiles: NDArray[np.uint8],
    *,
    guided: bool = False,
) -> TileMaps:
    """Grad-CAM of single tiles (R. Selvaraju et al., ICCV 2017, equations 1 and 2), on centred activations.

    The head reads features less the mean training tile. The same offset is subtracted at every position, so
    that the map's zero is the head's, and its sign that of the position's contribution. With raw
    activations, as in the paper, whose classifier subtracts nothing, the offset would light up all
    positions or none.

    Args:
        target: supplies the head and the quantity.
        backbone: the network that made the bag.
        tiles: (K, H, W, 3) RGB.
        guided: multiply by guided backpropagation (section 3.2), which is close to an edge detector.
    """
    from captum.attr import GuidedGradCam, LayerGradCam

    images = preprocess(torch.from_numpy(tiles), backbone).contiguous()
    model = TileScorer(backbone, target, images)
    with torch.inference_mode():
        scores = model(images).double().numpy()
    model.sign = torch.from_numpy(np.where(scores < 0, -1.0, 1.0)).float()
    remarks = [] if model.centred else [NO_ZERO.format(backbone.name)]
    if guided:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Setting backward hooks on ReLU")
            attributions: Tensor = GuidedGradCam(model, model.layer).attribute(
                images.requires_grad_()
            )
        maps = attributions.detach().clamp_min(0).sum(dim=1, keepdim=True)
        remarks.append(
            "Guided backpropagation shows edges and the network's own grid, whatever was learnt."
            if model.n_rectifiers
            else f"{backbone.name} has no ReLU: guided backpropagation is plain backpropagation here."
        )
    else:
        maps = LayerGradCam(model, model.layer).attribute(
            images.requires_grad_(), relu_attributions=True
        )
    shown = spread_maps(maps.detach(), tiles.shape[1], backbone.recipe)
    return TileMaps(maps=shown[:, 0].double().numpy(), scores=scores, warnings=tuple(remarks))


def guided_tile_maps(
    target: ExplanationTarget, backbone: Backbone, tiles: NDArray[np.uint8]
) -> TileMaps:
    """``tile_maps`` with guided backpropagation."""
    return tile_maps(target, backbone, tiles, guided=True)


def recomputed_warning(
    stored: NDArray[np.float64], recomputed: NDArray[np.float64]
) -> tuple[str, ...]:
    """A sentence if scores (K,) of single tiles from pixels differ from those of the bag."""
    worst = float(np.abs(stored - recomputed).max())
    if worst <= SAME_SCORE * (1 + float(np.abs(stored).max())):
        return ()
    return (
        f"Tiles read again score differently from the bag's (by up to {worst:.2g}): was it made from this "
        "slide, with these weights?",
    )
