"""Tiles of which a network is shown the centre, and maps that come back over the whole tile."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from features.backbones.network_recipe import NetworkRecipe
from features.backbones.registry import Backbone
from features.extraction.embed import preprocess
from features.extraction.outputs import StoreSpec, resolved_recipe
from features.extraction.resizing import resize_tiles, spread_maps
from features.recipe import Recipe
from tests.features.making import MeanColour, fake_backbone

PLAIN = NetworkRecipe(name="n", mean=(0.0,) * 3, std=(1.0,) * 3, input_px=20)
CENTRE = replace(PLAIN, resize_px=30, interpolation="bicubic")


def tiles(side, n=2):
    return np.random.default_rng(side).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("side", [30, 47, 19, 20])
def test_the_centre_of_a_resized_tile_is_shown(side):
    given = tiles(side)
    shown = resize_tiles(given, CENTRE)
    for tile, got in zip(given, shown, strict=True):
        whole = np.asarray(Image.fromarray(tile).resize((30, 30), Image.Resampling.BICUBIC))
        assert np.array_equal(got, whole[5:25, 5:25])
    assert resize_tiles(given, PLAIN) is given


def test_in_floating_point_the_centre_is_shown_too():
    floating = replace(CENTRE, interpolation="float")
    given = torch.from_numpy(tiles(30))
    images = preprocess(given, Backbone(floating, MeanColour(), "", ""))
    assert torch.equal(images, given[:, 5:25, 5:25].permute(0, 3, 1, 2).float() / 255)


def test_maps_of_the_centre_lie_in_the_centre():
    maps = torch.ones(1, 1, 4, 4)
    spread = spread_maps(maps, 60, CENTRE)
    assert spread.shape == (1, 1, 60, 60)
    torch.testing.assert_close(spread[0, 0, 10:50, 10:50], torch.ones(40, 40))
    assert int((spread > 0).sum()) == 40 * 40
    assert spread_maps(maps, 60, PLAIN).min() > 0.999


def test_how_tiles_were_resized_is_part_of_the_recipe_of_bags(tmp_path):
    def recorded(recipe):
        backbone = replace(fake_backbone(), recipe=recipe)
        return resolved_recipe(StoreSpec(Recipe(), tmp_path), backbone, [], "cpu")

    plain, centre = recorded(PLAIN), recorded(CENTRE)
    assert {"interpolation", "resize_px"}.isdisjoint(plain)
    added = {"interpolation": "bicubic", "resize_px": 30}
    assert centre == plain | added
