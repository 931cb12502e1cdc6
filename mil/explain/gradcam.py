"""Where in a tile the answer comes from: class activation maps of backbone and head as one network."""

import copy
import math
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from features.backbones.registry import Backbone
from features.embed import preprocess
from mil.errors import FitError
from mil.explain.question import Question

SAME_ANSWER = 0.1  # of a margin: more between stored and recomputed features is not rounding


class TileAnswer(nn.Module):
    """From the pixels of tiles to the margin of each as a slide of its own.

    ``layer`` is where the backbone's last map passes, as (B, C, h, w) whatever the architecture: for a
    convolutional network the map that ``PooledFeatures`` takes the mean of, for a transformer its tokens in
    their places as they enter the last block. (Behind it, a network that reads its class token reads no
    other.) No list of layer names is needed.

    Attributes:
        sign: (B,) by which the margins are multiplied, or a number.
    """

    def __init__(self, backbone: Backbone, question: Question) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(backbone.module)
        self.head = copy.deepcopy(question.fitted.head)
        self.layer = nn.Identity()
        self.margin_of = question.margin_of
        self.sign: Tensor | float = 1.0
        self.block = getattr(self.backbone.network, "blocks", [None])[-1]
        if hasattr(self.block, "norm1"):
            prefix = int(getattr(self.backbone.network, "num_prefix_tokens", 0))
            self.block.norm1 = nn.Sequential(self.block.norm1, InPlaces(self.layer, prefix))
        for module in self.modules():
            if getattr(module, "inplace", False):
                module.inplace = False  # type: ignore[assignment]  # captum keeps what such a step would overwrite

    @property
    def n_rectifiers(self) -> int:
        """Rectifiers that guided backpropagation can guide; none in networks of SiLU or GELU."""
        return sum(isinstance(module, nn.ReLU) for module in self.backbone.modules())

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) as ``preprocess`` makes them -> (B,)."""
        features = self.pooled(self.backbone.forward_features(images))  # type: ignore[operator]
        mask = torch.ones(len(features), 1, dtype=torch.bool)
        margin: Tensor = self.margin_of(self.head(features.unsqueeze(1), mask).logits)
        return self.sign * margin

    def pooled(self, features: Tensor) -> Tensor:
        """The backbone's feature vectors (B, D)."""
        if features.ndim == 4:
            last = self.backbone.channels_last
            channels_first = features.permute(0, 3, 1, 2) if last else features
            mean: Tensor = self.layer(channels_first).mean(dim=(2, 3))
            return mean
        network = self.backbone.network
        if not hasattr(self.block, "norm1"):
            raise FitError(
                f"{type(network).__name__} has neither a map nor a last block of tokens to look into. Use "
                "--method evidence or single-tile."
            )
        pooled: Tensor = network.forward_head(features, pre_logits=True)  # type: ignore[operator, union-attr]
        return pooled


class InPlaces(nn.Module):
    """Passes tokens (B, T, C) through a layer as the square of places (B, C, h, w) that they stand for.

    Args:
        layer: leaves the shape.
        prefix: tokens at the start, at most, that stand for no place.
    """

    def __init__(self, layer: nn.Module, prefix: int) -> None:
        super().__init__()
        self.layer, self.prefix = layer, prefix

    def forward(self, tokens: Tensor) -> Tensor:
        """The same shape."""
        side = math.isqrt(tokens.shape[1])
        first = tokens.shape[1] - side**2
        if first not in (0, self.prefix):
            raise FitError(
                f"The backbone's {tokens.shape[1]} tokens fill no square, so none has a place in the tile."
            )
        places = torch.unflatten(tokens[:, first:].transpose(1, 2), 2, (side, side))
        through = self.layer(places).flatten(2).transpose(1, 2)
        return torch.cat([tokens[:, :first], through], dim=1)


@dataclass(frozen=True, kw_only=True)
class TileMaps:
    """What in some tiles speaks as they do: for the class, or in a tile that speaks against it, against.

    Attributes:
        maps: (K, H, W) nonnegative, of the size of the tiles; zero throughout where no place does.
        margins: (K,) the answer to each tile alone, from its pixels.
        warnings: sentences to print.
    """

    maps: NDArray[np.float64]
    margins: NDArray[np.float64]
    warnings: tuple[str, ...]


def tile_maps(
    question: Question, backbone: Backbone, tiles: NDArray[np.uint8], *, guided: bool = False
) -> TileMaps:
    """Grad-CAM of single tiles (R. Selvaraju et al., ICCV 2017, equations 1 and 2).

    Args:
        question: gives head and class.
        backbone: that made the bag.
        tiles: (K, H, W, 3) RGB.
        guided: multiply by guided backpropagation (section 3.2), which is close to a detector of edges.
    """
    from captum.attr import GuidedGradCam, LayerGradCam

    model = TileAnswer(backbone, question).eval()
    images = preprocess(torch.from_numpy(tiles), backbone).contiguous()
    with torch.inference_mode():
        margins = model(images).double().numpy()
    model.sign = torch.from_numpy(np.where(margins < 0, -1.0, 1.0)).float()
    remarks = []
    if guided:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Setting backward hooks on ReLU")
            told: Tensor = GuidedGradCam(model, model.layer).attribute(images.requires_grad_())
        maps = told.detach().clamp_min(0).sum(dim=1, keepdim=True)
        remarks.append(
            "Guided backpropagation shows edges and the network's own grid, whatever was learnt."
            if model.n_rectifiers
            else f"{backbone.name} has no ReLU: guided backpropagation is plain backpropagation here."
        )
    else:
        maps = LayerGradCam(model, model.layer).attribute(
            images.requires_grad_(), relu_attributions=True
        )
    shown = nn.functional.interpolate(
        maps.detach(), tuple(tiles.shape[1:3]), mode="bilinear", align_corners=False
    )
    return TileMaps(maps=shown[:, 0].double().numpy(), margins=margins, warnings=tuple(remarks))


def recomputed_warning(stored: NDArray[np.float64], found: NDArray[np.float64]) -> tuple[str, ...]:
    """A sentence where pixels do not give the answers the bag gives, (K,) margins of single tiles."""
    worst = float(np.abs(stored - found).max())
    if worst <= SAME_ANSWER * (1 + float(np.abs(stored).max())):
        return ()
    return (
        f"Tiles read again answer otherwise than the bag's (by up to {worst:.2g}): was it made from this "
        "slide, with these weights?",
    )
