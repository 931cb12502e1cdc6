"""The feature map at 4x: windows equal the whole, glass is not read, and a slide has one descriptor."""

import numpy as np
import pytest
import torch
from making import STAIN, write_tiff
from scipy import ndimage

from features.backbones.registry import load_backbone
from features.errors import BackboneError
from features.lowpower import feature_map
from features.lowpower.descriptor import Descriptor
from features.lowpower.feature_map import FeatureMap, default_backbone, lay_cells
from features.slides.slide import Slide, open_slide


@pytest.fixture(scope="module")
def maps():
    return FeatureMap(load_backbone("efficientnet-lite0", "pretrained"))


@pytest.fixture
def speckled(tmp_path):
    """1000 x 700 px at 2.5 micrometres: structured tissue, with glass in the right third."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(60, 200, (700 // 10, 1000 // 10, 3)).repeat(10, 0).repeat(10, 1)
    picture = (0.7 * coarse + 0.3 * rng.integers(0, 200, (700, 1000, 3))).astype(np.uint8)
    picture[..., 1] //= 2
    picture[:, 660:] = 255
    return write_tiff(tmp_path / "speckled.tiff", [picture], mpp=2.5)


def whole_map(maps, slide, grid):
    """All windows in one array; NaN where none was read."""
    joined = np.full((*grid.shape, maps.channels), np.nan, np.float32)
    for window in maps.windows(slide, grid):
        joined[window.cells] = window.features
    return joined


def test_windows_with_a_margin_equal_the_whole(maps, speckled, monkeypatch):
    with open_slide(speckled) as slide:
        grid = lay_cells(slide)
        assert grid.shape == (88, 125)  # 20 micrometres, the last row half over the edge
        monkeypatch.setattr(feature_map, "WINDOW_PX", 1024)
        whole = whole_map(maps, slide, grid)
        differences = {}
        for margin in (0, 128):
            monkeypatch.setattr(feature_map, "WINDOW_PX", 256)
            monkeypatch.setattr(maps, "margin_px", margin)
            parts = whole_map(maps, slide, grid)
            spread = whole[grid.tissue].std(axis=0)
            differences[margin] = np.abs(parts - whole)[grid.tissue] / np.maximum(spread, 1e-6)
    assert np.quantile(differences[128], 0.999) < 0.02
    assert differences[128].max() < 0.1
    assert np.quantile(differences[0], 0.999) > 0.2


def test_glass_is_not_read(maps, tmp_path, monkeypatch):
    picture = np.full((600, 1800, 3), 255, np.uint8)
    picture[100:500, 1200:1700] = STAIN
    path, read = write_tiff(tmp_path / "far.tiff", [picture], mpp=2.5), []
    original = Slide.read_rectangle
    monkeypatch.setattr(
        Slide, "read_rectangle", lambda self, *a: read.append(a[:3]) or original(self, *a)
    )
    with open_slide(path) as slide:
        grid = lay_cells(slide)
        joined = whole_map(maps, slide, grid)
    # Columns 0 and 1 of windows are glass; 512 and 88 px of two rows are left of columns 2 and 3.
    assert [(x, y) for x, y, _ in read] == [(896, 0), (1408, 0)]
    assert np.isnan(joined[:, :128]).all()
    assert not np.isnan(joined[:64, 128:]).any()
    assert not grid.tissue[:, :150].any()
    assert grid.tissue[14:62, 151:212].all()


def test_the_joined_levels_are_means_and_interpolations_of_the_networks_own(maps):
    rgb = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    network, image = maps.backbone.module.network, torch.from_numpy(rgb).permute(2, 0, 1)[None]
    image = (image.float() / 255 - 0.5) / 0.5
    with torch.inference_mode():
        fine, same, coarse = network.forward_intermediates(
            image, indices=[1, 2, 3], intermediates_only=True
        )
    features = maps(rgb)
    assert features.shape == (8, 12, 24 + 40 + 112)
    blocks = fine[0].reshape(24, 8, 2, 12, 2).mean(dim=(2, 4)).permute(1, 2, 0)
    np.testing.assert_allclose(features[..., :24], blocks, atol=1e-5)
    np.testing.assert_allclose(features[..., 24:64], same[0].permute(1, 2, 0), atol=1e-5)
    np.testing.assert_allclose(features[0, 0, 64:], coarse[0, :, 0, 0], atol=1e-5)


def describe(slide, maps):
    """Mean and deviation over tissue, gathered window by window."""
    grid, descriptor = lay_cells(slide), Descriptor(maps.channels)
    for window in maps.windows(slide, grid):
        descriptor.add(window.features[grid.tissue[window.cells]])
    return descriptor.values()


def test_a_descriptor_is_mean_and_deviation_over_tissue_whatever_the_windows(
    maps, speckled, monkeypatch
):
    with open_slide(speckled) as slide:
        grid = lay_cells(slide)
        tissue = whole_map(maps, slide, grid)[grid.tissue].astype(np.float64)
        descriptor = describe(slide, maps)
    expected = np.concatenate([tissue.mean(axis=0), tissue.std(axis=0)])
    np.testing.assert_allclose(descriptor, expected, rtol=1e-4, atol=1e-5)
    assert descriptor.shape == (352,)
    assert descriptor.dtype == np.float32
    monkeypatch.setattr(feature_map, "WINDOW_PX", 256)
    with open_slide(speckled) as slide:
        smaller = describe(slide, maps)
    assert np.abs(smaller - descriptor).max() < 0.01 * np.abs(descriptor).max()


def test_the_scale_of_the_file_does_not_matter(maps, tmp_path):
    """One smooth picture at 2.5 and, twice as large, at 1.25 micrometres."""
    fine = np.random.default_rng(1).normal(size=(800, 800, 3))
    fine = 130 + 600 * ndimage.gaussian_filter(fine, (16, 16, 0)) - [0, 60, 0]
    fine = fine.clip(0, 255).astype(np.uint8)
    at_8x = write_tiff(tmp_path / "a.tiff", [fine], mpp=1.25)
    at_4x = write_tiff(tmp_path / "b.tiff", [fine[::2, ::2].copy()], mpp=2.5)
    with open_slide(at_4x) as once, open_slide(at_8x) as twice, open_slide(at_4x, mpp=5.0) as wrong:
        first, second, enlarged = (describe(slide, maps) for slide in (once, twice, wrong))
    assert np.abs(first - second).max() < 0.25 * np.abs(first - enlarged).max()


def test_networks_without_such_maps_are_refused():
    transformer = load_backbone("vit_tiny_patch16_224", "random")
    with pytest.raises(BackboneError, match="has no maps of 4, 8 and 16 pixels"):
        FeatureMap(transformer)


def test_another_network_has_other_channels_and_another_fingerprint(maps):
    other = FeatureMap(load_backbone("resnet18", "random"))
    assert other.channels == 64 + 128 + 256
    assert other.sha256 != maps.sha256


def test_without_the_package_the_default_weights_are_random_and_called_so(monkeypatch):
    assert default_backbone().weights == "pretrained"
    monkeypatch.setattr(feature_map, "packaged_file", lambda _name: None)
    assert default_backbone().weights == "random (seed 0)"
