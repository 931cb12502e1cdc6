"""Small slides, annotations, tiles and backbones made in the test."""

import json
from dataclasses import dataclass

import numpy as np
import tifffile
from torch import nn

from features.backbones.network_recipe import NetworkRecipe
from features.backbones.registry import Backbone
from features.tiles.grid import TileGrid

STAIN, GLASS = (200, 60, 120), (255, 255, 255)


def write_tiff(path, levels, *, mpp=0.25, mpp_y=None, compression="deflate", tile=(256, 256)):
    """A tiled pyramid; levels are (H, W, 3) arrays, finest first; mpp None leaves the scale out."""
    options = {"compressionargs": {"level": 95}} if compression == "jpeg" else {}
    with tifffile.TiffWriter(path) as tiff:
        for index, level in enumerate(levels):
            scale = levels[0].shape[1] / level.shape[1]
            if mpp is not None:
                across = 1e4 / (mpp * scale)
                options |= {
                    "resolution": (across, 1e4 / ((mpp_y or mpp) * scale)),
                    "resolutionunit": "CENTIMETER",
                }
            tiff.write(
                level,
                subfiletype=int(index > 0),
                tile=tile,
                photometric="rgb",
                compression=compression,
                metadata=None,
                maxworkers=1,
                **options,
            )
    return path


def stained(height=512, width=512):
    """Left half tissue, right half glass."""
    picture = np.full((height, width, 3), GLASS, np.uint8)
    picture[:, : width // 2] = STAIN
    return picture


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def box_ring(left, top, right, bottom):
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def feature(*rings, classification="Tumor", geometry=None, **properties):
    """One QuPath feature; classification None leaves it unclassified."""
    if classification is not None:
        properties["classification"] = (
            {"name": classification} if isinstance(classification, str) else classification
        )
    return {
        "type": "Feature",
        "id": "PathAnnotationObject",
        "geometry": geometry or {"type": "Polygon", "coordinates": list(rings)},
        "properties": {"objectType": "annotation", **properties},
    }


def write_geojson(path, *features):
    document = {"type": "FeatureCollection", "features": list(features)}
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


class MeanColour(nn.Module):
    """(B, 3, H, W) -> (B, 3): features that can be checked by eye."""

    def forward(self, images):
        return images.mean(dim=(2, 3))


def fake_backbone(module=None, *, dim=3, input_px=32, mean=(0.0,) * 3, std=(1.0,) * 3):
    recipe = NetworkRecipe(
        name="mean-colour", dim=dim, input_px=input_px, mean=mean, std=std, licence="MIT"
    )
    module = (module or MeanColour()).eval()
    return Backbone(recipe=recipe, module=module, weights="none", weights_sha256="0")


@dataclass
class ArrayTiles:
    """Tiles from memory."""

    tiles: np.ndarray

    @property
    def grid(self):
        n, side = self.tiles.shape[:2]
        return TileGrid(
            np.zeros((n, 2), np.int64),
            np.ones(n, np.float32),
            side,
            0.5,
            (float(side), float(side)),
        )

    def read(self, index):
        return self.tiles[index]
