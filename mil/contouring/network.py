"""A U-Net of neighbouring slices (2.5D): three in, the confidence that the middle one shows the region out.

Source: Ronneberger, Fischer and Brox, MICCAI 2015 (arXiv:1505.04597), with batch normalisation and padding.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample, interpolate, max_pool2d

from mil.contouring.cases import ContourCase
from mil.contouring.settings import ContourSettings
from mil.segmentation.unet_training import masked_loss

LEVELS = 4
NEIGHBOURS = 3
SCALES, TURN = (0.8, 1.25), 0.3  # factors; radians to either side
GREY_GAIN, GREY_SHIFT = 0.1, 0.1
WEIGHT_DECAY, WARM_UP = 1e-4, 0.2
SLICES_AT_ONCE = 16


class SliceUNet(nn.Module):
    """Four levels; (B, 3, H, W) from -1 to 1 to (B, H, W) in [0, 1]; sides are multiples of 8."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(LEVELS)]
        self.down = nn.ModuleList(
            _block(before, after)
            for before, after in zip([NEIGHBOURS, *widths[:-1]], widths, strict=True)
        )
        self.up = nn.ModuleList(
            _block(fine + coarse, fine)
            for fine, coarse in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.last = nn.Conv2d(width, 1, 1)

    def forward(self, slices: Tensor) -> Tensor:
        """(B, H, W) confidence of (B, 3, H, W)."""
        levels = [self.down[0](slices)]
        for block in self.down[1:]:
            levels.append(block(max_pool2d(levels[-1], 2)))
        x = levels.pop()
        for block in self.up:
            fine = levels.pop()
            x = block(torch.cat([fine, interpolate(x, scale_factor=2.0)], dim=1))
        confidence: Tensor = torch.sigmoid(self.last(x))[:, 0]
        return confidence


def _block(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n_in in (before, after):
        layers += [
            nn.Conv2d(n_in, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


def train_network(
    cases: Sequence[ContourCase],
    settings: ContourSettings,
    advance: Callable[[int], None] = lambda _steps: None,
) -> SliceUNet:
    """Train for a fixed number of steps: no case is set aside to stop by.

    Half of every batch are slices with the region, which are few; the loss is cross-entropy plus one minus
    soft Dice, which no share of background outweighs.

    Args:
        cases: with regions.
        settings: of the network and its training.
        advance: called with 1 after each step.

    Returns:
        The network, to be used as it is.
    """
    rng = np.random.default_rng([settings.seed, len(cases)])
    slices = [(case, z) for case in cases for z in range(len(case.pixels))]
    shown = [place for place in slices if _region(place[0])[place[1]].any()]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = SliceUNet(settings.width).to(memory_format=torch.channels_last).train()
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=settings.rate, weight_decay=WEIGHT_DECAY
        )
        total = settings.steps + 1
        warm_up = max(WARM_UP, 2 / total)  # a rise of no step would divide by 0
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, settings.rate, total_steps=total, pct_start=warm_up
        )
        for _ in range(settings.steps):
            images, regions = _batch(slices, shown, settings.batch, rng)
            loss = masked_loss(network(images), regions, torch.ones_like(regions, dtype=torch.bool))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            advance(1)
    return network.eval().requires_grad_(requires_grad=False)


def confidence_of(network: SliceUNet, case: ContourCase) -> NDArray[np.float32]:
    """(z, side, side) in [0, 1]; 0 beyond the image."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(case.pixels), SLICES_AT_ONCE):
            stop = min(start + SLICES_AT_ONCE, len(case.pixels))
            slices = np.stack([neighbours(case.pixels, z) for z in range(start, stop)])
            images = torch.from_numpy(slices).to(memory_format=torch.channels_last)
            parts.append(network(images).numpy())
    confidence: NDArray[np.float32] = np.where(case.inside, np.concatenate(parts), np.float32(0))
    return confidence


def neighbours(pixels: NDArray[np.float32], z: int) -> NDArray[np.float32]:
    """(3, side, side) a slice between the one below and the one above; the ends stand for themselves."""
    places = np.clip([z - 1, z, z + 1], 0, len(pixels) - 1)
    shown: NDArray[np.float32] = pixels[places]
    return shown


def _region(case: ContourCase) -> NDArray[np.bool_]:
    assert case.region is not None, "a case to learn from has a region"
    return case.region


def _batch(
    slices: Sequence[tuple[ContourCase, int]],
    shown: Sequence[tuple[ContourCase, int]],
    size: int,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """(B, 3, H, W) slices and (B, H, W) regions, mirrored, turned and scaled, of other brightness."""
    half = (size + 1) // 2
    places = [shown[i] for i in rng.integers(len(shown), size=half)]
    places += [slices[i] for i in rng.integers(len(slices), size=size - half)]
    images = torch.from_numpy(np.stack([neighbours(case.pixels, z) for case, z in places]))
    regions = torch.from_numpy(np.stack([_region(case)[z] for case, z in places])).float()
    turns = torch.stack([_random_affine(rng) for _ in places])
    grid = affine_grid(turns, [size, NEIGHBOURS, *images.shape[2:]], align_corners=False)
    images = (
        grid_sample(images + 1, grid, align_corners=False) - 1
    )  # beyond the field: the lowest value
    regions = grid_sample(regions[:, None], grid, align_corners=False)[:, 0].clamp(0, 1)
    gain = 1 + torch.from_numpy(rng.uniform(-GREY_GAIN, GREY_GAIN, (size, 1, 1, 1)).astype("f4"))
    shift = torch.from_numpy(rng.uniform(-GREY_SHIFT, GREY_SHIFT, (size, 1, 1, 1)).astype("f4"))
    return (images * gain + shift).contiguous(memory_format=torch.channels_last), regions


def _random_affine(rng: np.random.Generator) -> Tensor:
    """(2, 3) from places of the turned slice to places of the slice, both from -1 to 1."""
    angle = rng.uniform(-TURN, TURN)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turn = turn @ np.diag([rng.choice([-1.0, 1.0]), 1.0]) / np.exp(rng.uniform(*np.log(SCALES)))
    return torch.from_numpy(np.hstack([turn, np.zeros((2, 1))]).astype(np.float32))
