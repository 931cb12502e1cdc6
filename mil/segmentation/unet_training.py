"""Train a U-Net on crops of annotated slides: masked cross-entropy and Dice, jittered shape and stain."""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import affine_grid, binary_cross_entropy, grid_sample

from features.backbones.networks import build_network
from features.backbones.registry import Backbone
from features.lowpower.feature_map import MAP_MPP, STRIDE
from features.lowpower.unet import UNet, UNetMap, normalise
from features.slides.slide import Slide
from mil.segmentation.settings import SegmentSettings
from mil.segmentation.slides import ReadSlide
from mil.segmentation.targets import Target

CROP_PX = 192
READ_PX = 256  # a crop is turned, sheared and enlarged within it
CROP_CELLS, READ_CELLS = CROP_PX // STRIDE, READ_PX // STRIDE
SCALES, SHEAR = (0.8, 1.25), 0.1
DENSITIES = (0.8, 1.25)  # factors of a channel's optical density
ENCODER_RATE = 1 / 3  # of the decoder's learning rate
WEIGHT_DECAY = 1e-4
WARM_UP = 0.1  # of the steps
SURE = 0.999  # of a turned cell, below which some of it is not known
EPSILON = 1e-6


def masked_loss(probability: Tensor, tumour: Tensor, known: Tensor) -> Tensor:
    """Cross-entropy plus one minus soft Dice (Milletari 2016, arXiv:1606.04797), over known cells only.

    Unknown cells enter neither sum: whatever is predicted or drawn there, the loss and its gradient are
    the same.

    Args:
        probability: (B, h, w) in [0, 1].
        tumour: (B, h, w) fraction of each cell.
        known: (B, h, w) bool.
    """
    p, t = probability[known], tumour[known]
    if not len(p):
        return 0 * probability.sum()
    entropy = binary_cross_entropy(p.clamp(EPSILON, 1 - EPSILON), t)
    overlap = 2 * (p * t).sum() + 1
    return entropy + 1 - overlap / (p.sum() + t.sum() + 1)


@dataclass(frozen=True)
class _Crop:
    """A square of a slide with its target."""

    rgb: NDArray[np.uint8]  # (READ_PX, READ_PX, 3)
    tumour: NDArray[np.float32]  # (READ_CELLS, READ_CELLS)
    known: NDArray[np.bool_]


def train_unet(
    slides: Sequence[ReadSlide],
    backbone: Backbone,
    settings: SegmentSettings,
    advance: Callable[[int], None] = lambda _steps: None,
) -> UNetMap:
    """Train the backbone with a decoder for a fixed number of steps: no case is set aside to stop by.

    Args:
        slides: of the training cases.
        backbone: whose weights the encoder starts from; it is not changed.
        settings: steps, crops and learning rate.
        advance: called with 1 after each step.

    Returns:
        The network in evaluation mode.
    """
    rng = np.random.default_rng([settings.seed, len(slides)])
    with torch.random.fork_rng(devices=[]), ExitStack() as opened:
        torch.manual_seed(settings.seed)
        network = _start(backbone)
        optimizer, schedule = _optimizer(network, settings)
        files = [opened.enter_context(slide.opened()) for slide in slides]
        for _ in range(settings.steps):
            numbers = rng.integers(len(slides), size=settings.crops)
            crops = [_read_crop(files[i], slides[i], rng) for i in numbers]
            images, tumour, known = _jitter(crops, rng)
            probability = network(normalise(images, backbone.recipe))
            loss = masked_loss(probability, tumour, known)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            advance(1)
    return UNetMap(network.requires_grad_(requires_grad=False), backbone.recipe)


def _start(backbone: Backbone) -> UNet:
    """A U-Net with the backbone's weights and a decoder of random ones."""
    encoder = build_network(backbone.recipe)
    own = getattr(backbone.module, "network", backbone.module)
    encoder.load_state_dict(own.state_dict())
    network: UNet = UNet(encoder, backbone.name).to(memory_format=torch.channels_last)
    return network.train()


def _optimizer(
    network: UNet, settings: SegmentSettings
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW whose rate rises and falls once (Smith and Topin 2017, arXiv:1708.07120)."""
    inside = {id(p) for p in network.encoder.parameters()}
    decoder = [p for p in network.parameters() if id(p) not in inside]
    rates = [settings.rate * ENCODER_RATE, settings.rate]
    groups = [{"params": list(network.encoder.parameters())}, {"params": decoder}]
    optimizer = torch.optim.AdamW(groups, lr=settings.rate, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rates, total_steps=settings.steps + 1, pct_start=WARM_UP
    )
    return optimizer, schedule


def _read_crop(slide: Slide, read: ReadSlide, rng: np.random.Generator) -> _Crop:
    """A square around a known cell of tissue: every second one around tumour, if the slide has any."""
    target = read.target
    choices = target.known & target.tissue
    tumour = choices & target.positive
    if rng.random() < 0.5 and tumour.any():
        choices = tumour
    if not choices.any():
        choices = target.tissue
    row, column = np.argwhere(choices)[rng.integers(int(choices.sum()))]
    top, left = (int(at) - READ_CELLS // 2 for at in (row, column))
    side = read.grid.side_l0
    rgb = slide.read_rectangle(left * side[0], top * side[1], (READ_PX, READ_PX), MAP_MPP)
    return _Crop(rgb, *_cut(target, top, left))


def _cut(target: Target, top: int, left: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A square of a target; what lies outside the slide is glass."""
    rows, columns = target.tumour.shape
    tumour = np.zeros((READ_CELLS, READ_CELLS), dtype=np.float32)
    known = np.ones((READ_CELLS, READ_CELLS), dtype=np.bool_)
    first = (max(0, top), max(0, left))
    last = (min(rows, top + READ_CELLS), min(columns, left + READ_CELLS))
    inside = np.s_[first[0] - top : last[0] - top, first[1] - left : last[1] - left]
    of_slide = np.s_[first[0] : last[0], first[1] : last[1]]
    tumour[inside], known[inside] = target.tumour[of_slide], target.known[of_slide]
    return tumour, known


def _jitter(crops: Sequence[_Crop], rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Crops of (CROP_PX, CROP_PX), mirrored, turned, scaled and sheared, in another stain.

    Returns:
        (B, CROP_PX, CROP_PX, 3) out of 255, (B, h, w) fractions of tumour, (B, h, w) whether known.
    """
    turns = torch.stack([_random_affine(rng) for _ in crops])
    pixels = torch.stack([torch.from_numpy(crop.rgb.copy()) for crop in crops]).float()
    images = _warp(255 - pixels.permute(0, 3, 1, 2), turns, CROP_PX)  # beyond the crop: white
    density = -torch.log(((255 - images).clamp(1, 255)) / 255)
    factors = rng.uniform(*DENSITIES, size=(len(crops), 3, 1, 1)).astype(np.float32)
    stained = 255 * torch.exp(-density * torch.from_numpy(factors))
    tumour, known = (
        _warp(torch.from_numpy(np.stack(values)).float()[:, None], turns, CROP_CELLS)[:, 0]
        for values in ([crop.tumour for crop in crops], [crop.known for crop in crops])
    )
    return stained.permute(0, 2, 3, 1), tumour.clamp(0, 1), known > SURE


def _warp(values: Tensor, turns: Tensor, side: int) -> Tensor:
    grid = affine_grid(turns, [len(values), values.shape[1], side, side], align_corners=False)
    warped: Tensor = grid_sample(values, grid, mode="bilinear", align_corners=False)
    return warped


def _random_affine(rng: np.random.Generator) -> Tensor:
    """(2, 3) from places of the crop to places of what was read, both from -1 to 1."""
    quarter = math.pi / 2 * int(rng.integers(4))
    turn = np.array(
        [[math.cos(quarter), -math.sin(quarter)], [math.sin(quarter), math.cos(quarter)]]
    )
    mirror = np.diag([rng.choice([-1.0, 1.0]), 1.0])
    shear = np.array([[1.0, rng.uniform(-SHEAR, SHEAR)], [0.0, 1.0]])
    scale = CROP_PX / READ_PX / math.exp(rng.uniform(*np.log(SCALES)))
    matrix = scale * turn @ mirror @ shear
    room = max(0.0, 1 - float(np.abs(matrix).sum(axis=1).max()))
    shift = rng.uniform(-room, room, size=(2, 1))
    return torch.from_numpy(np.hstack([matrix, shift]).astype(np.float32))
