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
from features.extraction.embed import preprocess
from mil.errors import FitError
from mil.explain.target import ExplanationTarget

SAME_FEATURE = 1e-4  # of the largest: less is rounding
SAME_ANSWER = 0.1  # of a margin: more between stored and recomputed features is not rounding
NO_ZERO = "{} gives no mean over its places, so its maps have no true zero: compare bright places with dim."


class TileAnswer(nn.Module):
    """From the pixels of tiles to the margin of each as a slide of its own.

    ``layer`` is where the map passes that is looked into, as (B, C, h, w) whatever the architecture. Where
    features are the mean of the backbone's last map, as of every convolutional network and of transformers
    that average their tokens, it is that map, centred as the head centres features. Of other transformers it
    is their tokens in their places as they enter the last block (behind it, a network that reads its class
    token reads no other); where zero lies for the head is not known of those. No list of layer names is
    needed.

    Args:
        backbone: that made the bag.
        question: gives head and class.
        images: (B, 3, H, W) as ``preprocess`` makes them, on which it is seen what features are.

    Attributes:
        centred: whether features are the mean of the map.
        sign: (B,) by which the margins are multiplied, or a number.

    Raises:
        FitError: the backbone has no map.
    """

    def __init__(self, backbone: Backbone, question: ExplanationTarget, images: Tensor) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(backbone.module).eval()
        self.head = copy.deepcopy(question.fitted.head).eval()
        self.centre = question.baseline
        self.layer = nn.Identity()
        self.margin_of = question.margin_of
        self.sign: Tensor | float = 1.0
        self.centred = self._takes_mean(images)
        if not self.centred:
            self._look_into_last_block()
        for module in self.modules():
            if getattr(module, "inplace", False):
                module.inplace = False  # type: ignore[assignment]  # captum keeps what such a step would overwrite

    @property
    def n_rectifiers(self) -> int:
        """Rectifiers that guided backpropagation can guide; none in networks of SiLU or GELU."""
        return sum(isinstance(module, nn.ReLU) for module in self.backbone.modules())

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) as ``preprocess`` makes them -> (B,)."""
        if self.centred:
            last = self._in_places(self.backbone.forward_features(images))  # type: ignore[operator]
            features = self.layer(last - self.centre.view(-1, 1, 1)).mean(dim=(2, 3)) + self.centre
        else:
            features = self.backbone(images)
        mask = torch.ones(len(features), 1, dtype=torch.bool)
        margin: Tensor = self.margin_of(self.head(features.unsqueeze(1), mask).logits)
        return self.sign * margin

    @torch.inference_mode()
    def _takes_mean(self, images: Tensor) -> bool:
        """Whether the backbone's feature vectors are the mean of what it has in places."""
        features = self.backbone.forward_features(images)  # type: ignore[operator]
        if features.ndim < 3:
            return False
        mean, given = self._in_places(features).mean(dim=(2, 3)), self.backbone(images)
        return mean.shape == given.shape and torch.allclose(
            mean, given, rtol=0, atol=SAME_FEATURE * float(given.abs().max())
        )

    def _in_places(self, features: Tensor) -> Tensor:
        """The backbone's last map, or the last tokens of (B, T, C) that fill a square, as (B, C, h, w)."""
        if features.ndim == 3:
            return square_of(features)
        return features.permute(0, 3, 1, 2) if self.backbone.channels_last else features

    def _look_into_last_block(self) -> None:
        network = self.backbone.network
        block = getattr(network, "blocks", [None])[-1]
        if not hasattr(block, "norm1"):
            raise FitError(
                f"{type(network).__name__} has neither a map nor a last block of tokens to look into. Use "
                "--method evidence or single-tile."
            )
        prefix = int(getattr(network, "num_prefix_tokens", 0))
        block.norm1 = nn.Sequential(block.norm1, InPlaces(self.layer, prefix))


def square_of(tokens: Tensor) -> Tensor:
    """The last tokens of (B, T, C), as many as fill a square, in their places: (B, C, h, w)."""
    side = math.isqrt(tokens.shape[1])
    return torch.unflatten(tokens[:, -(side**2) :].transpose(1, 2), 2, (side, side))


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
        first = tokens.shape[1] - math.isqrt(tokens.shape[1]) ** 2
        if first not in (0, self.prefix):
            raise FitError(
                f"The backbone's {tokens.shape[1]} tokens fill no square, so none has a place in the tile."
            )
        through = self.layer(square_of(tokens)).flatten(2).transpose(1, 2)
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
    question: ExplanationTarget,
    backbone: Backbone,
    tiles: NDArray[np.uint8],
    *,
    guided: bool = False,
) -> TileMaps:
    """Grad-CAM of single tiles (R. Selvaraju et al., ICCV 2017, equations 1 and 2), on centred activations.

    The head reads features less the mean training tile. What it subtracts is taken from every place, so that
    zero is where the head's zero is and the map's sign is that of what a place adds. Of raw activations, as
    in the paper, whose classifier subtracts nothing, that offset would light all places or none.

    Args:
        question: gives head and class.
        backbone: that made the bag.
        tiles: (K, H, W, 3) RGB.
        guided: multiply by guided backpropagation (section 3.2), which is close to a detector of edges.
    """
    from captum.attr import GuidedGradCam, LayerGradCam

    images = preprocess(torch.from_numpy(tiles), backbone).contiguous()
    model = TileAnswer(backbone, question, images)
    with torch.inference_mode():
        margins = model(images).double().numpy()
    model.sign = torch.from_numpy(np.where(margins < 0, -1.0, 1.0)).float()
    remarks = [] if model.centred else [NO_ZERO.format(backbone.name)]
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
