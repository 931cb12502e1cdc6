"""How tiles vary at random while a network learns from them: drawn with numpy, applied to whole batches."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from features.device import move_array
from features.extraction.embed import Tiles
from mil.finetune.settings import FinetuneSettings

Floats = NDArray[np.float64]
COARSE = 3  # points of a deformation along each side
FLIPS, TURNS = 6, 3  # bits of a turn: half turns and mirror images; quarter turns


@dataclass(frozen=True, kw_only=True, eq=False)
class Variations:
    """How each of n tiles is shown.

    Attributes:
        turns: (n,) 0 to 7, see ``turn_tile``.
        factors: (n, 3) of brightness, contrast and saturation; 1 for no change.
        affine: (n, 2, 3) from a place in the result to the place in the tile that it is read from, both
            (x, y) with the tile from -1 to 1; None where no tile is rotated, scaled or cropped.
        bends: (n, 2, COARSE, COARSE) displacements in x and y, in the same units, which are interpolated
            between; None where no tile is deformed.
    """

    turns: NDArray[np.int64]
    factors: Floats
    affine: Floats | None = None
    bends: Floats | None = None

    @classmethod
    def none(cls, n: int) -> Self:
        """Tiles as they are."""
        return cls(turns=np.zeros(n, np.int64), factors=np.ones((n, 3)))

    def of(self, rows: NDArray[np.int64]) -> "Variations":
        """Those of some of the tiles."""
        return Variations(
            turns=self.turns[rows],
            factors=self.factors[rows],
            affine=None if self.affine is None else self.affine[rows],
            bends=None if self.bends is None else self.bends[rows],
        )


def draw_variations(n: int, settings: FinetuneSettings, rng: np.random.Generator) -> Variations:
    """Draw how each of n tiles is shown.

    Rotation, zoom and crop are one affine map each; the deformation is that of Ronneberger et al. 2015
    (arXiv:1505.04597, section 3.1): normal displacements on a grid of 3 x 3 points, bicubic interpolation
    between them.
    """
    parts = settings.augment
    mask = FLIPS * ("flips" in parts) | TURNS * ("turns" in parts)
    turns = rng.integers(8, size=n) & mask
    jitter = settings.jitter if "colour" in parts else 0.0
    factors = 1 + jitter * rng.uniform(-1, 1, size=(n, 3))
    affine = None
    if {"rotation", "zoom", "crop"} & set(parts):
        affine = np.tile(np.eye(2, 3), (n, 1, 1))
        if "rotation" in parts:
            affine = _after(affine, _rotations(n, settings.rotation_degrees, rng))
        if "zoom" in parts:
            limit = math.log1p(settings.zoom_by)
            affine = _after(affine, _scales(np.exp(rng.uniform(-limit, limit, size=n))))
        if "crop" in parts:
            affine = _after(affine, _crops(n, settings.crop_to, rng))
    bends = None
    if "elastic" in parts:  # 2: a tile is two units wide
        bends = 2 * settings.elastic_by * rng.standard_normal((n, 2, COARSE, COARSE))
    return Variations(turns=turns, factors=factors, affine=affine, bends=bends)


def turn_tile(tile: Tiles, turn: int) -> Tiles:
    """One of the eight ways a square can lie: 0 to 3 quarter turns, and from 4 on the mirror image."""
    lying = np.rot90(tile, turn % 4)
    return lying[:, ::-1] if turn >= 4 else lying


def vary_tiles(tiles: Tensor, variations: Variations) -> Tensor:
    """Deform, rotate, scale and crop, then vary the colours; tiles have been turned already.

    Args:
        tiles: (B, H, W, 3) uint8.
        variations: of these tiles.

    Returns:
        (B, H, W, 3) uint8.
    """
    if variations.affine is not None or variations.bends is not None:
        tiles = _warp(tiles, variations)
    return jitter_colours(tiles, move_array(variations.factors, tiles.device))


def jitter_colours(tiles: Tensor, factors: Tensor) -> Tensor:
    """Vary brightness, contrast and saturation, in this order.

    Args:
        tiles: (B, H, W, 3) uint8.
        factors: (B, 3), 1 for no change.

    Returns:
        (B, H, W, 3) uint8.
    """
    brightness, contrast, saturation = factors.float().T[:, :, None, None, None]  # (B, 1, 1, 1)
    image = tiles.float() * brightness
    image = (image - (mean := image.mean(dim=(1, 2, 3), keepdim=True))) * contrast + mean
    image = (image - (grey := image.mean(dim=3, keepdim=True))) * saturation + grey
    varied: Tensor = image.round().clamp(0, 255).to(torch.uint8)
    return varied


def _warp(tiles: Tensor, variations: Variations) -> Tensor:
    """Read each tile at displaced places, once; beyond its border it is mirrored."""
    n, height, width, _ = tiles.shape
    affine = np.tile(np.eye(2, 3), (n, 1, 1)) if variations.affine is None else variations.affine
    shape = [n, 3, height, width]
    matrices = move_array(affine, tiles.device).float()
    places = nn.functional.affine_grid(matrices, shape, align_corners=False)  # (B, H, W, 2)
    if variations.bends is not None:
        bends = move_array(variations.bends, tiles.device).float()
        smooth = nn.functional.interpolate(
            bends, size=(height, width), mode="bicubic", align_corners=True
        )
        places = places + smooth.permute(0, 2, 3, 1)
    image = nn.functional.grid_sample(
        tiles.permute(0, 3, 1, 2).float(), places, padding_mode="reflection", align_corners=False
    )
    return image.permute(0, 2, 3, 1).round().clamp(0, 255).to(torch.uint8)


def _after(outer: Floats, inner: Floats) -> Floats:
    """(n, 2, 3) the map that applies ``inner`` first: places pass from the result towards the tile."""
    linear = outer[:, :, :2] @ inner[:, :, :2]
    shift = outer[:, :, :2] @ inner[:, :, 2:] + outer[:, :, 2:]
    return np.concatenate([linear, shift], axis=2)


def _rotations(n: int, degrees: float, rng: np.random.Generator) -> Floats:
    angle = np.deg2rad(rng.uniform(-degrees, degrees, size=n))
    zero, cos, sin = np.zeros(n), np.cos(angle), np.sin(angle)
    return np.stack([np.stack([cos, -sin, zero], 1), np.stack([sin, cos, zero], 1)], axis=1)


def _scales(scale: Floats) -> Floats:
    """Read at places nearer to the centre, for a scale above 1: what is shown is larger."""
    return np.eye(2, 3) / scale[:, None, None]


def _crops(n: int, smallest: float, rng: np.random.Generator) -> Floats:
    side = rng.uniform(smallest, 1, size=n)
    maps = np.eye(2, 3) * side[:, None, None]
    maps[:, :, 2] = (1 - side[:, None]) * rng.uniform(-1, 1, size=(n, 2))
    return maps
