"""A U-Net over a backbone's maps at 4x (Ronneberger, Fischer and Brox 2015, arXiv:1505.04597)."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from features.backbones.network_recipe import NetworkRecipe
from features.lowpower.feature_map import MAP_MPP, STRIDE, CellMap, find_levels

SKIPS = (2, 4, 8, 16)  # pixels per value of the encoder's maps
WIDTHS = (48, 32, 24)  # of the decoder's steps from 16 to 8, 4 and 2 pixels


class UNet(nn.Module):
    """(B, 3, H, W) normalised, sides multiples of 32 -> (B, H / 8, W / 8) probability of tumour.

    The last step has 2 pixels per value; a cell's probability is the mean of its 16.

    Args:
        encoder: a convolutional network of timm.
        name: of the encoder, for messages.

    Raises:
        BackboneError: the encoder lacks one of the maps.
    """

    def __init__(self, encoder: nn.Module, name: str) -> None:
        super().__init__()
        self.encoder = encoder
        self._indices, (*skips, deepest) = find_levels(encoder, name, SKIPS)
        steps, below = [], deepest
        for width, skip in zip(WIDTHS, reversed(skips), strict=True):
            steps.append(_step(below + skip, width))
            below = width
        self.steps = nn.ModuleList(steps)
        self.head = nn.Conv2d(below, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, H / 8, W / 8)."""
        *skips, deepest = self.encoder.forward_intermediates(  # type: ignore[operator]
            images, indices=self._indices, stop_early=True, intermediates_only=True
        )
        x: Tensor = deepest
        for step, skip in zip(self.steps, reversed(skips), strict=True):
            x = step(torch.cat([interpolate(x, skip.shape[2:], mode="nearest"), skip], dim=1))
        pixels = interpolate(
            torch.sigmoid(self.head(x)), [side // SKIPS[0] for side in images.shape[2:]]
        )
        return avg_pool2d(pixels, STRIDE // SKIPS[0])[:, 0]

    def train(self, mode: bool = True) -> "UNet":  # noqa: FBT001, FBT002 - as torch names it
        """Train all but the encoder's batch norms: a few crops are too few to measure means on."""
        super().train(mode)
        self.encoder.eval()
        return self


class UNetMap(CellMap):
    """The probabilities of a U-Net as the map of a slide with one channel.

    Args:
        network: in evaluation mode.
        recipe: of the encoder: how images are prepared.
        device: torch device.
    """

    channels = 1

    def __init__(self, network: UNet, recipe: NetworkRecipe, device: str = "cpu") -> None:
        self.network = network.eval().to(device)
        self.encoder = recipe
        self.device = torch.device(device)

    @property
    def recipe(self) -> dict[str, Any]:
        """What shapes the map, but for the weights."""
        return {"unet": self.encoder.name, "mpp": MAP_MPP, "stride": STRIDE}

    def __call__(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(H, W, 3) -> (H / 8, W / 8, 1)."""
        with torch.inference_mode():
            images = normalise(torch.from_numpy(rgb.copy())[None].to(self.device), self.encoder)
            probability: NDArray[np.float32] = self.network(images)[0].float().cpu().numpy()
        return probability[..., None]


def normalise(pixels: Tensor, recipe: NetworkRecipe) -> Tensor:
    """(B, H, W, 3), uint8 or out of 255 -> (B, 3, H, W) as the encoder's weights expect."""
    mean, std = (
        torch.tensor(values, device=pixels.device).view(1, 3, 1, 1)
        for values in (recipe.mean, recipe.std)
    )
    images: Tensor = (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std
    return images.contiguous(memory_format=torch.channels_last)


def _step(width_in: int, width: int) -> nn.Module:
    """Two convolutions of 3 x 3."""
    layers: list[nn.Module] = []
    for channels in (width_in, width):
        layers += [
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
