import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from making import ArrayTiles, MeanColour, fake_backbone, noise
from torch import nn

from features.backbones.registry import load_backbone
from features.device import move_array, resolve_device
from features.errors import FeaturesError, SlideError
from features.extraction.embed import BATCH_TILES, embed, preprocess
from features.precision import resolve_precision

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture(scope="module")
def resnet():
    backbone = load_backbone("resnet18", "random")
    return replace(backbone, recipe=replace(backbone.recipe, input_px=96))


@pytest.fixture(scope="module")
def pictures():
    """Eighteen tiles of colours and textures that differ."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 200, (18, 1, 1, 3))
    return ArrayTiles((base + rng.integers(0, 56, (18, 64, 64, 3))).astype(np.uint8))


def shades(n, side=32):
    """Tile i is of one colour that only i has."""
    tiles = np.zeros((n, side, side, 3), np.uint8)
    tiles[..., 0] = (np.arange(n) % 256)[:, None, None]
    tiles[..., 1] = (np.arange(n) // 256)[:, None, None]
    return ArrayTiles(tiles)


@pytest.mark.parametrize("n", [1, BATCH_TILES, BATCH_TILES + 1, 5 * BATCH_TILES + 3])
def test_rows_are_in_the_order_of_the_source(n):
    features = embed(shades(n), fake_backbone(), precision="fp32")
    assert np.rint(features[:, 0] * 255).tolist() == [i % 256 for i in range(n)]


def test_order_holds_where_early_tiles_read_slowly():
    class Slow(ArrayTiles):
        def read(self, index):
            time.sleep(0.002 * (index % 7 == 0) + 0.001 * (index % 3))
            return super().read(index)

    source = Slow(shades(70).tiles)
    features = embed(source, fake_backbone(), precision="fp32", workers=8)
    assert np.rint(features[:, 0] * 255).tolist() == list(range(70))


def test_no_tile_gives_no_row():
    assert embed(shades(0), fake_backbone()).shape == (0, 3)


def resampling(size, out):
    """(out, size) weights of a triangle filter as wide as the reduction: antialiased bilinear."""
    scale = size / out
    support = max(scale, 1.0)
    weights = np.zeros((out, size))
    for i in range(out):
        centre = (i + 0.5) * scale
        for j in range(size):
            weights[i, j] = max(0.0, 1 - abs(j + 0.5 - centre) / support)
        weights[i] /= weights[i].sum()
    return weights


@pytest.mark.parametrize("side", [32, 64, 45, 20])
def test_preprocess_equals_the_formula(side):
    tiles = np.stack([noise(side, side, seed) for seed in (0, 1)])
    backbone = fake_backbone(input_px=32, mean=IMAGENET[0], std=IMAGENET[1])
    w = resampling(side, 32)
    resized = np.einsum("ih,bhwc,jw->bcij", w, tiles / 255.0, w)
    expected = (resized - np.reshape(IMAGENET[0], (3, 1, 1))) / np.reshape(IMAGENET[1], (3, 1, 1))
    got = preprocess(torch.from_numpy(tiles), backbone)
    assert got.dtype is torch.float32
    assert np.abs(got.numpy() - expected).max() < 2e-5


def test_preprocess_lays_channels_last():
    got = preprocess(torch.zeros(2, 40, 40, 3, dtype=torch.uint8), fake_backbone())
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_features_equal_a_plain_loop(resnet, pictures):
    plain = []
    with torch.inference_mode():
        for tile in pictures.tiles:
            image = torch.from_numpy(tile).permute(2, 0, 1)[None].float() / 255
            image = nn.functional.interpolate(
                image, (96, 96), mode="bilinear", antialias=True, align_corners=False
            )
            image = (image - torch.tensor(IMAGENET[0]).view(3, 1, 1)) / torch.tensor(
                IMAGENET[1]
            ).view(3, 1, 1)
            plain.append(resnet.module.network(image)[0].numpy())
    features = embed(pictures, resnet, precision="fp32", device="cpu")
    assert features == pytest.approx(np.stack(plain), rel=1e-4, abs=1e-5)


def test_number_of_workers_changes_nothing(resnet, pictures):
    one, many = (embed(pictures, resnet, precision="fp32", device="cpu", workers=r) for r in (1, 7))
    assert np.array_equal(one, many)


def test_batch_size_changes_only_rounding(resnet, pictures, monkeypatch):
    usual = embed(pictures, resnet, precision="fp32", device="cpu")
    monkeypatch.setattr("features.extraction.embed.BATCH_TILES", 3)
    assert embed(pictures, resnet, precision="fp32", device="cpu") == pytest.approx(
        usual, rel=1e-4, abs=1e-5
    )


def test_bf16_points_where_fp32_points(resnet, pictures):
    full = embed(pictures, resnet, precision="fp32", device="cpu")
    half = embed(pictures, resnet, precision="bf16", device="cpu")
    assert not np.array_equal(full, half)
    cosine = (full * half).sum(1) / np.linalg.norm(full, axis=1) / np.linalg.norm(half, axis=1)
    assert cosine.min() > 0.999


def test_advance_counts_every_tile():
    seen = []
    embed(shades(BATCH_TILES + 5), fake_backbone(), advance=seen.append)
    assert sorted(seen) == [5, BATCH_TILES]


def test_unreadable_tile_ends_the_work_at_once():
    reads = []

    class Broken(ArrayTiles):
        def read(self, index):
            reads.append(index)
            if index == 2:
                raise SlideError("tile 2 is broken")
            return super().read(index)

    with pytest.raises(SlideError, match="tile 2 is broken"):
        embed(Broken(shades(1000).tiles), fake_backbone(), precision="fp32")
    assert len(reads) <= 3 * BATCH_TILES


def test_broken_network_leaves_no_reader_behind():
    class Broken(nn.Module):
        def forward(self, images):
            raise RuntimeError("no memory")

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="no memory"):
        embed(shades(200), fake_backbone(Broken()), precision="fp32")
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_features_that_are_not_finite_are_refused(value):
    class Sick(MeanColour):
        def forward(self, images):
            features = super().forward(images)
            features[-1, 1] = value
            return features

    with pytest.raises(FeaturesError, match=r"not finite in float32.*precision to fp32"):
        embed(shades(3), fake_backbone(Sick()), precision="fp32")


def test_each_worker_holds_one_batch_of_tiles_and_no_more():
    held, most, lock = [0], [0], threading.Lock()

    def add(count):
        with lock:
            held[0] += count
            most[0] = max(most[0], held[0])

    class Counting(ArrayTiles):
        def read(self, index):
            add(1)
            return super().read(index)

    class Slow(MeanColour):
        def forward(self, images):
            time.sleep(0.005)
            add(-len(images))
            return super().forward(images)

    embed(Counting(shades(300).tiles), fake_backbone(Slow()), workers=3)
    assert BATCH_TILES < most[0] <= 3 * BATCH_TILES
    assert held[0] == 0


def test_unknown_device_is_refused():
    with pytest.raises(FeaturesError, match="Set device to auto, cpu or cuda"):
        resolve_device("gpu0")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_absent_gpu_is_refused_with_the_remedy():
    with pytest.raises(FeaturesError, match=r"torch sees no GPU\. Set device to cpu"):
        resolve_device("cuda")


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({}, torch.float32),
        ({"avx512_bf16": False, "avx2": True}, torch.float32),
    ],
)
def test_auto_precision_is_bf16_only_where_native(monkeypatch, capabilities, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert resolve_precision("auto", torch.device("cpu")) is dtype


def test_unknown_precision_is_refused_and_not_taken_for_auto():
    with pytest.raises(FeaturesError, match="got 'fp8'"):
        resolve_precision("fp8", torch.device("cpu"))


def test_constants_of_a_backbone_are_moved_once_and_serve_training_too(monkeypatch):
    backbone = load_backbone("resnet18", "random")
    tiles = torch.zeros(1, 224, 224, 3, dtype=torch.uint8)
    with torch.inference_mode():
        first = preprocess(tiles, backbone)
    monkeypatch.setattr(torch, "tensor", None)
    weight = torch.ones(1, requires_grad=True)
    (preprocess(tiles, backbone) * weight).sum().backward()
    assert torch.equal(preprocess(tiles, backbone), first)
    assert weight.grad is not None


def test_a_read_only_array_is_moved_without_being_shared():
    values = np.arange(4)
    values.setflags(write=False)
    moved = move_array(values, torch.device("cpu"))
    moved += 1
    assert values.tolist() == [0, 1, 2, 3]
