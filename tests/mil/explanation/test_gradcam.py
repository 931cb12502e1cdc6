"""Maps of pixels: on every registered network, against the definition, and where they must point."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from features.backbones.network_recipe import NetworkRecipe
from features.backbones.networks import PooledFeatures
from features.backbones.registry import Backbone, load_backbone
from features.backbones.table import BACKBONES
from features.bags.store import Store
from features.extraction.embed import preprocess
from features.extraction.outputs import StoreSpec, resolved_recipe
from features.recipe import Recipe
from mil.errors import FitError
from mil.explanation.contact_sheet import (
    _figure,
    draw_contact_sheet,
    draw_tile_maps,
    extreme_tiles,
    spread_score,
)
from mil.explanation.gradcam import recomputed_warning, tile_maps
from mil.explanation.methods import METHODS
from mil.explanation.slides import load_bag_backbone
from mil.heads.ensemble import members_of
from tests.mil.explanation.made_targets import untrained
from tests.small_vgg import narrow_vgg

TILES = np.random.default_rng(0).integers(0, 255, (2, 96, 96, 3), dtype=np.uint8)


def small(name):
    """A registered network with random weights, on a smaller input than its own."""
    return smaller(load_backbone(name, "random"))


@pytest.mark.parametrize("name", [n for n, row in BACKBONES.items() if not row.keeps_hidden])
def test_every_registered_network_has_a_map(name):
    """Without biases an answer is the sum of what its places add, so some place speaks as it does."""
    backbone = small(name)
    target = untrained("abmil", dim=backbone.dim)
    for key, parameter in target.fitted.head.named_parameters():
        if key.endswith("bias"):
            nn.init.zeros_(parameter)
    inside_maps = tile_maps(target, backbone, TILES)
    assert inside_maps.maps.shape == (2, 96, 96)
    assert (inside_maps.maps >= 0).all()
    assert np.isfinite(inside_maps.maps).all()
    assert inside_maps.maps.any(axis=(1, 2)).all()
    assert inside_maps.warnings == ()


def test_a_map_that_hidden_layers_read_is_followed_through_them(monkeypatch):
    width = narrow_vgg(monkeypatch)
    backbone = small("vgg11-hidden")
    target = untrained("abmil", dim=width)
    inside_maps = tile_maps(target, backbone, TILES)
    images = preprocess(torch.from_numpy(TILES), backbone)
    with torch.inference_mode():
        expected = target.score(backbone.module(images).unsqueeze(1)).numpy()
    np.testing.assert_allclose(inside_maps.scores, expected, atol=1e-4)
    assert inside_maps.maps.any(axis=(1, 2)).all()
    [warning] = inside_maps.warnings
    assert "no true zero" in warning


@pytest.mark.parametrize(
    "name", ["test_vit", "deit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "mixer_s32_224"]
)
def test_transformers_have_their_tokens_in_their_places(name):
    backbone = load_backbone(name, "random")
    target = untrained("abmil", dim=backbone.dim)
    tiles = np.random.default_rng(0).integers(0, 255, (2, *[backbone.input_px] * 2, 3), np.uint8)
    inside_maps = tile_maps(target, backbone, tiles)
    assert inside_maps.maps.shape == tiles.shape[:3]
    assert inside_maps.maps.any()
    images = preprocess(torch.from_numpy(tiles), backbone)
    with torch.inference_mode():
        expected = target.score(backbone.module(images).unsqueeze(1)).numpy()
    np.testing.assert_allclose(inside_maps.scores, expected, atol=1e-4)
    reads_class_token = name in ("test_vit", "deit_tiny_patch16_224")
    assert ["no true zero" in warning for warning in inside_maps.warnings] == [
        True
    ] * reads_class_token


def test_tiles_of_a_bag_are_prepared_as_when_it_was_made(tmp_path):
    """Bags that do not say how their tiles were resized were made before encoders had their own filters."""
    made = load_backbone("gigapath-flash", "random")
    spec = StoreSpec(Recipe(backbone=made.name, weights="random", mpp=0.5), Store(tmp_path))
    now = resolved_recipe(spec, made, [], "cpu")
    before = {key: now[key] for key in now.keys() - {"interpolation", "resize_px"}}
    tiles = SimpleNamespace(slide=None)
    loaded = [load_bag_backbone(recipe, None, tmp_path, tiles)[0] for recipe in (now, before)]
    ways = [(one.recipe.interpolation, one.recipe.resize_px) for one in loaded]
    assert ways == [("bicubic", 256), ("float", 0)]
    assert {one.weights_sha256 for one in loaded} == {made.weights_sha256}


def smaller(backbone):
    return replace(backbone, recipe=replace(backbone.recipe, input_px=96))


def of_two_colours(module):
    """A backbone that reads pixels as they are and gives two features."""
    recipe = NetworkRecipe(name="two-colours", dim=2, input_px=96, mean=(0, 0, 0), std=(1, 1, 1))
    return Backbone(recipe, PooledFeatures(module).eval(), "none", "")


class Reader(nn.Module):
    """A transformer's ends: a class token that reads, in its only block, how red each place is."""

    num_prefix_tokens, output_fmt = 1, "NLC"

    def __init__(self):
        super().__init__()
        block = nn.Module()
        block.norm1 = nn.Identity()
        self.blocks = nn.ModuleList([block])

    def forward_features(self, images):
        places = nn.functional.avg_pool2d(images[:, [0, 2]], 24).flatten(2).transpose(1, 2)
        tokens = self.blocks[0].norm1(torch.cat([0 * places[:, :1], places], dim=1))
        read = tokens[:, 1:].mean(dim=1, keepdim=True)
        return torch.cat([read, tokens[:, 1:]], dim=1)

    def forward_head(self, tokens, pre_logits):
        assert pre_logits
        return tokens[:, 0]


def test_class_token_is_followed_to_the_places_it_has_read():
    backbone = of_two_colours(Reader())
    tile = np.zeros((1, 96, 96, 3), np.uint8)
    tile[0, :24, 72:, 0] = 255  # red in one corner
    [inside] = tile_maps(reddish_target(), backbone, tile).maps
    assert np.unravel_index(inside.argmax(), inside.shape) < (24, 96)
    assert inside[:24, 72:].mean() > 20 * inside[48:, :48].mean()


def test_network_without_map_or_tokens_is_refused():
    class Flat(nn.Module):
        output_fmt = "NLC"

        def forward_features(self, images):
            return images.flatten(2)

        def forward_head(self, tokens, pre_logits):
            assert pre_logits
            return tokens[:, 0]

    backbone = replace(small("resnet18"), module=PooledFeatures(Flat()))
    with pytest.raises(FitError, match="no feature map or token block"):
        tile_maps(untrained("abmil", dim=backbone.dim), backbone, TILES)


@pytest.mark.parametrize("members", [1, 2])
def test_answer_from_pixels_is_that_from_features(members):
    backbone = small("resnet18")
    target = untrained("gated-abmil", dim=backbone.dim, members=members)
    images = preprocess(torch.from_numpy(TILES), backbone)
    with torch.inference_mode():
        expected = target.score(backbone.module(images).unsqueeze(1)).numpy()
    np.testing.assert_allclose(tile_maps(target, backbone, TILES).scores, expected, atol=1e-5)


@pytest.mark.parametrize("members", [1, 2])
def test_map_is_the_rectified_sum_of_centred_channels_by_their_mean_gradient(members):
    backbone = small("resnet18")
    target = untrained("abmil", dim=backbone.dim, members=members)
    images = preprocess(torch.from_numpy(TILES), backbone)
    activation = backbone.module.forward_features(images).detach().requires_grad_()
    features = activation.mean(dim=(2, 3)).unsqueeze(1)
    margins = target.score(features)
    (gradient,) = torch.autograd.grad(margins.abs().sum(), activation)
    centre = torch.stack([head.shift for head in members_of(target.fitted.head)]).mean(dim=0)
    centred = activation - centre.view(-1, 1, 1)
    expected = torch.relu((gradient.mean(dim=(2, 3), keepdim=True) * centred).sum(dim=1))
    expected = nn.functional.interpolate(expected[:, None], (96, 96), mode="bilinear")[:, 0]
    inside_maps = tile_maps(target, backbone, TILES).maps
    np.testing.assert_allclose(
        inside_maps, expected.detach().double().numpy(), rtol=1e-3, atol=1e-9
    )


class Reddish(nn.Module):
    """A backbone whose features are how red and how blue each quarter of a tile is."""

    output_fmt = "NCHW"

    def __init__(self):
        super().__init__()
        self.act = nn.ReLU()

    def forward_features(self, images):
        return self.act(nn.functional.avg_pool2d(images[:, [0, 2]], 24))


def reddish_target(dim=2):
    """A head that says class 1 by the first feature, as of the red."""
    target = untrained("mean", dim=dim)
    head = target.fitted.head
    head.shift.zero_(), head.scale.fill_(1)
    head.embed, head.classify = nn.Identity(), nn.Linear(dim, 3)
    nn.init.zeros_(head.classify.weight), nn.init.zeros_(head.classify.bias)
    head.classify.weight.data[1, 0] = 1
    return target


def tissue(corner):
    """A pink tile with dark nuclei in one quarter, or nowhere; whole numbers, equal on every machine."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:224, :224]
    tile = np.full((224, 224, 3), (228, 188, 212), np.uint8)
    tile -= rng.integers(0, 12, tile.shape).astype(np.uint8)
    if corner:
        for left, top in rng.integers(8, 104, (40, 2)) + 112 * np.array(corner)[::-1]:
            tile[(x - left) ** 2 + (y - top) ** 2 < 36] = (84, 48, 132)
    return tile


def test_with_real_weights_nuclei_are_found_where_they_lie():
    """ImageNet weights of the package ``weights``; nuclei elsewhere make the head."""
    backbone = load_backbone("efficientnet-lite0", "pretrained")
    places = [(row, column) for row in (0, 1) for column in (0, 1)]
    tiles = np.stack([tissue(place) for place in [(0, 0), (1, 1), None]])
    with torch.inference_mode():
        first, second, plain = backbone.module(preprocess(torch.from_numpy(tiles), backbone))
    target = reddish_target(backbone.dim)
    head = target.fitted.head
    head.shift.copy_(plain)
    head.classify.weight.data[1] = (first + second) / 2 - plain
    shown = np.stack([tissue(place) for place in places])
    found = tile_maps(target, backbone, shown)
    for (row, column), inside in zip(places, found.maps, strict=True):
        quarters = inside.reshape(2, 112, 2, 112).mean(axis=(1, 3))
        assert quarters[row, column] > 2 * np.sort(quarters.ravel())[-2]
    assert found.scores.min() > tile_maps(target, backbone, tiles[2:]).scores[0]


def test_the_border_that_a_network_is_not_shown_has_no_evidence():
    backbone = of_two_colours(Reddish())
    cropping = replace(backbone.recipe, resize_px=96, input_px=48, interpolation="bilinear")
    tile = np.zeros((1, 192, 192, 3), np.uint8)
    tile[..., 0] = 255
    [inside] = tile_maps(reddish_target(), replace(backbone, recipe=cropping), tile).maps
    assert (inside[48:144, 48:144] > 0).all()
    assert int((inside > 0).sum()) == 96 * 96


class InNHWC(Reddish):
    """The same, channels last."""

    output_fmt = "NHWC"

    def forward_features(self, images):
        return super().forward_features(images).permute(0, 2, 3, 1)


class InTokens(Reddish):
    """The same as tokens, behind a class token that the mean leaves out."""

    output_fmt, num_prefix_tokens = "NLC", 1

    def forward_features(self, images):
        tokens = super().forward_features(images).flatten(2).transpose(1, 2)
        return torch.cat([1 + tokens[:, :1], tokens], dim=1)

    def forward_head(self, tokens, pre_logits):
        assert pre_logits
        return tokens[:, 1:].mean(dim=1)


@pytest.mark.parametrize("shift", [(0.1, 0.8), (0.8, 0.1), (0.5, 0.5)])
@pytest.mark.parametrize("network", [Reddish, InNHWC, InTokens])
def test_places_lit_are_those_that_would_answer_alike_as_tiles_of_their_own(network, shift):
    target = reddish_target()
    head = target.fitted.head
    head.shift.copy_(torch.tensor(shift))
    head.classify.weight.data[1] = torch.tensor([1.0, -2.0])
    tiles = np.random.default_rng(0).integers(0, 255, (6, 4, 4, 3)).repeat(24, 1).repeat(24, 2)
    places = torch.from_numpy(tiles[:, ::24, ::24, ::2] / 255).float()  # (6, 4, 4, 2)
    alone = target.score(places.view(-1, 1, 2)).view(6, 4, 4)
    answers = alone.mean(dim=(1, 2))
    expected = torch.relu(alone * answers.sign().view(-1, 1, 1)) / 16
    expected = nn.functional.interpolate(expected[:, None], (96, 96), mode="bilinear")[:, 0]
    inside_maps = tile_maps(target, of_two_colours(network()), tiles.astype(np.uint8))
    np.testing.assert_allclose(inside_maps.scores, answers.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(inside_maps.maps, expected.detach().numpy(), atol=1e-6)
    assert inside_maps.warnings == ()


@pytest.mark.parametrize("guided", [False, True])
def test_tile_that_speaks_against_the_class_shows_where_it_does(guided):
    backbone = of_two_colours(Reddish())
    target = reddish_target()
    target.fitted.head.classify.weight.data[1] = torch.tensor([1.0, -2.0])
    tile = np.zeros((2, 96, 96, 3), np.uint8)
    tile[0, :48, :48, 0] = tile[0, 48:, 48:, 2] = 255  # red speaks for it, blue more against
    tile[1, :48, :48, 0] = 255
    against, for_it = tile_maps(target, backbone, tile, guided=guided).maps
    assert against[56:, 56:].mean() > 20 * against[:40, :40].mean()
    assert for_it[:40, :40].mean() > 20 * for_it[56:, 56:].mean()


@pytest.mark.parametrize("guided", [False, True])
def test_map_lies_where_the_class_is(guided):
    backbone = of_two_colours(Reddish())
    tile = np.zeros((1, 96, 96, 3), np.uint8)
    tile[0, :48, :48, 0] = 255  # red, which counts
    tile[0, 48:, 48:, 2] = 255  # blue, which does not
    inside_maps = tile_maps(reddish_target(), backbone, tile, guided=guided)
    [inside] = inside_maps.maps
    assert inside[:40, :40].mean() > 20 * inside[56:, 56:].mean()
    assert len(inside_maps.warnings) == guided  # that it shows edges


def test_guiding_a_network_without_relu_is_a_warning():
    backbone = small("efficientnetv2s")
    inside_maps = tile_maps(untrained("abmil", dim=backbone.dim), backbone, TILES, guided=True)
    [warning] = inside_maps.warnings
    assert "has no ReLU" in warning


def test_network_and_head_are_left_as_they_were():
    backbone = small("resnet18")
    target = untrained("abmil", dim=backbone.dim)
    before = backbone.module(torch.ones(1, 3, 96, 96))
    tile_maps(target, backbone, TILES, guided=True)
    torch.testing.assert_close(backbone.module(torch.ones(1, 3, 96, 96)), before)
    assert all(m.inplace for m in backbone.module.modules() if isinstance(m, nn.ReLU))


def test_features_of_other_pixels_are_noticed():
    assert recomputed_warning(np.array([3.0, -1]), np.array([3.01, -1.02])) == ()
    [warning] = recomputed_warning(np.array([3.0, -1]), np.array([3.0, 0.5]))
    assert "differently from the bag's (by up to 1.5)" in warning


def test_score_is_the_mean_of_what_is_spread():
    inside = np.random.default_rng(0).random((8, 8))
    assert spread_score(-3.0, inside).mean() == pytest.approx(-3)


@pytest.mark.parametrize("n_tiles", [1, 2, 7, 30])
def test_ends_are_the_highest_and_the_lowest_and_none_is_both(n_tiles):
    scores = METHODS["single-tile"](untrained("abmil", n_tiles=n_tiles))
    top, bottom = extreme_tiles(scores)
    assert not {*top} & {*bottom}
    assert len(top) + len(bottom) == min(n_tiles, 12)
    assert top[0] == scores.relative.argmax()
    assert n_tiles == 1 or bottom[0] == scores.relative.argmin()


@pytest.mark.parametrize("length", [40, 170, 400])
def test_the_caption_of_a_sheet_stays_within_the_picture(length):
    scores = METHODS["evidence"](untrained("abmil"))
    figure = _figure(2, scores, ("MORE FAITHFUL to the model " * 20)[:length])
    [title] = figure.texts
    assert title.get_window_extent().x1 <= figure.bbox.x1


@pytest.mark.parametrize("method", ["attention", "evidence"])
def test_sheets_are_pictures(method):
    target = untrained("abmil", n_tiles=15)
    scores = METHODS[method](target)
    assert draw_contact_sheet(scores, lambda index: TILES[index % 2]).startswith(b"\x89PNG")
    if method == "evidence":
        backbone = small("resnet18")
        inside_maps = tile_maps(untrained("abmil", dim=backbone.dim), backbone, TILES)
        png = draw_tile_maps(
            scores,
            [3, 4],
            lambda index: TILES[index % 2],
            inside_maps,
            method="grad-cam",
            caption="$x_",
        )
        assert png.startswith(b"\x89PNG")
        nothing = replace(inside_maps, maps=np.zeros_like(inside_maps.maps))
        assert (
            draw_tile_maps(scores, [3, 4], lambda _index: TILES[0], nothing, method="grad-cam")
            != png
        )
