"""Tiles brought to the side that a network is shown, as its published transform does it."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from features.backbones.network_recipe import NetworkRecipe

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def resize_tiles(tiles: NDArray[np.uint8], recipe: NetworkRecipe) -> NDArray[np.uint8]:
    """Tiles resized by Pillow and cropped to their centre, equal to torchvision's Resize and CenterCrop.

    PyTorch's own filters differ from it by up to two of 255 levels. Where the recipe resizes in floating
    point, the tiles are returned as they are.

    Args:
        tiles: (B, H, W, 3), H = W.
        recipe: of the network.

    Returns:
        (B, input_px, input_px, 3).
    """
    if recipe.interpolation == "float":
        return tiles
    side = recipe.resized_px
    if tiles.shape[1] != side:
        size, kind = (side, side), FILTERS[recipe.interpolation]
        tiles = np.stack([np.asarray(Image.fromarray(tile).resize(size, kind)) for tile in tiles])
    start = round((side - recipe.input_px) / 2)
    shown = slice(start, start + recipe.input_px)
    return tiles[:, shown, shown]


def resize_images(images: Tensor, recipe: NetworkRecipe) -> Tensor:
    """Images resized and cropped in floating point, where the recipe asks for that.

    Args:
        images: (B, 3, H, W) of colours in [0, 1], or as ``resize_tiles`` leaves them.
        recipe: of the network.

    Returns:
        (B, 3, input_px, input_px).
    """
    side = recipe.resized_px
    if recipe.interpolation != "float" or images.shape[-1] == recipe.input_px == side:
        return images
    if images.shape[-1] != side:
        images = nn.functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
    start = round((side - recipe.input_px) / 2)
    shown = slice(start, start + recipe.input_px)
    return images[:, :, shown, shown]


def spread_maps(maps: Tensor, tile_px: int, recipe: NetworkRecipe) -> Tensor:
    """Maps of what a network is shown, over the whole tile; 0 at borders that it is not shown.

    Args:
        maps: (B, 1, h, w).
        tile_px: side of the tiles.
        recipe: of the network.

    Returns:
        (B, 1, tile_px, tile_px).
    """
    inner = round(tile_px * recipe.input_px / recipe.resized_px)
    shown = nn.functional.interpolate(maps, (inner, inner), mode="bilinear", align_corners=False)
    if inner == tile_px:
        return shown
    start = (tile_px - inner) // 2
    whole = torch.zeros(*maps.shape[:2], tile_px, tile_px, dtype=maps.dtype, device=maps.device)
    whole[:, :, start : start + inner, start : start + inner] = shown
    return whole
