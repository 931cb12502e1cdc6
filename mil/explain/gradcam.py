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

    ``layer`` is where the backbone's last feature map passes, as (B, C, h, w) whatever the architecture:
    for a convolutional network the map that ``PooledFeatures`` takes the mean of, for a transformer its
    tokens in their places. No list of layer names is needed.
    """

    def __init__(self, backbone: Backbone, question: Question) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(backbone.module)
        self.head = copy.deepcopy(question.fitted.head)
        self.layer = nn.Identity()
        self.margin_of = question.margin_of
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
        return margin

    def pooled(self, features: Tensor) -> Tensor:
        """The backbone's feature vectors (B, D), by way of ``layer``."""
        if features.ndim == 4:
            last = self.backbone.channels_last
            channels_first = features.permute(0, 3, 1, 2) if last else features
            mean: Tensor = self.layer(channels_first).mean(dim=(2, 3))
            return mean
        network = self.backbone.network
        prefix = int(getattr(network, "num_prefix_tokens", 0))
        first, tokens = features[:, :prefix], features[:, prefix:]
        side = math.isqrt(tokens.shape[1])
        if side**2 != tokens.shape[1]:
            raise FitError(
                f"The backbone's {tokens.shape[1]} tokens fill no square, so none has a place in the tile."
            )
        square = self.layer(torch.unflatten(tokens.transpose(1, 2), 2, (side, side)))
        joined = torch.cat([first, square.flatten(2).transpose(1, 2)], dim=1)
        pooled: Tensor = network.forward_head(joined, pre_logits=True)  # type: ignore[operator, union-attr]
        return pooled


@dataclass(frozen=True, kw_only=True)
class TileMaps:
    """What in some tiles speaks for the class.

    Attributes:
        maps: (K, H, W) nonnegative, of the size of the tiles.
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
    remarks = []
    if guided:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Setting backward hooks on ReLU")
            told: Tensor = GuidedGradCam(model, model.layer).attribute(images.requires_grad_())
        maps = told.detach().clamp_min(0).sum(dim=1, keepdim=True)
        if model.n_rectifiers == 0:
            remarks.append(
                f"{backbone.name} has no ReLU: guided backpropagation is plain backpropagation here."
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
        "slide, with these weights and without stain normalisation?",
    )
