"""Backbones of installed packages: an entry point gives one a name."""

import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from importlib import metadata

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from features.backbones.card import weights_notes
from features.backbones.pathology import ENCODERS
from features.backbones.registry import load_backbone, resolve_name
from features.backbones.table import (
    BACKBONES,
    eclipsed_backbones,
    feature_dim,
    find_backbone,
    list_backbones,
)
from features.bags.bag import read_bag
from features.errors import BackboneError
from features.extraction.embed import Clock, Embedder
from features.recipe import Recipe, Stated

PACKAGE = """
    import torch
    from features.backbones.table import BackboneEntry

    class Tiny(torch.nn.Module):
        def __init__(self, dim=5):
            super().__init__()
            self.layer = torch.nn.Linear(3, dim)

        def forward(self, images):
            return self.layer(images.mean((2, 3)))

    def build(*, pretrained):
        network = Tiny()
        if pretrained:
            torch.nn.init.ones_(network.layer.weight)
        return network

    def no_network(*, pretrained):
        raise OSError("no weights today")

    entry = BackboneEntry(dim=5, build=build, input_px=64, mean=(0.5,) * 3, std=(0.5,) * 3, licence="MIT")
    alias = BackboneEntry(timm_name="test_resnet.r160_in1k", dim=96)
    wrong_dim = BackboneEntry(dim=6, build=build)
    wrong_alias = BackboneEntry(timm_name="test_resnet.r160_in1k", dim=95)
    empty = BackboneEntry(dim=6)
    number = 7
"""
POINTS = {
    "tiny": "build", "tiny-entry": "entry", "tiny-alias": "alias", "tiny-wrong-dim": "wrong_dim",
    "tiny-wrong-alias": "wrong_alias",
    "tiny-empty": "empty", "tiny-number": "number", "tiny-missing": "missing", "tiny-offline": "no_network",
    "resnet18": "build",
}  # fmt: skip


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A folder on the path with an installed package and its entry points."""
    (tmp_path / "tiny_backbones.py").write_text(textwrap.dedent(PACKAGE))
    info = tmp_path / "tiny_backbones-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-backbones\nVersion: 1.0\n")
    lines = [f"{name} = tiny_backbones:{target}" for name, target in POINTS.items()]
    (info / "entry_points.txt").write_text("\n".join(["[sarcomil.backbones]", *lines]) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("tiny_backbones", None)


def test_names_of_packages_come_after_those_of_the_table(package):
    assert list_backbones()[: len(BACKBONES)] == tuple(BACKBONES)
    assert set(list_backbones()) == {*BACKBONES, *ENCODERS, *POINTS}
    assert find_backbone("resnet18") is BACKBONES["resnet18"]


def test_packages_are_looked_through_once_and_again_after_an_installation(package, monkeypatch):
    assert feature_dim("tiny-entry") == 5  # to import it puts compiled modules beside it
    looks = []
    entry_points = metadata.entry_points

    def spy(**group):
        looks.append(group)
        return entry_points(**group)

    monkeypatch.setattr(metadata, "entry_points", spy)
    for _ in range(5):
        assert feature_dim("tiny-entry") == 5
        assert find_backbone("late") is None
    assert len(looks) <= 1
    info = package / "late-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: late\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sarcomil.backbones]\nlate = tiny_backbones:build\n")
    assert find_backbone("late") is not None
    (info / "entry_points.txt").unlink()
    info.rename(package / "gone")
    assert find_backbone("late") is None


def test_a_package_with_a_name_of_the_table_is_named(package):
    points = package / "tiny_backbones-1.0.dist-info" / "entry_points.txt"
    points.write_text(points.read_text() + "vgg19 = tiny_backbones:lost\n")
    assert find_backbone("vgg19") is BACKBONES["vgg19"]
    [note] = eclipsed_backbones(["vgg19", "resnet50"])
    assert note.startswith("The installed package tiny-backbones also has a backbone 'vgg19' (")
    assert eclipsed_backbones(["resnet50", next(iter(POINTS))]) == []


def test_a_function_is_built_seeded_and_ready_to_embed(package):
    backbone = load_backbone("tiny", "random", seed=3)
    assert (backbone.name, backbone.dim, backbone.input_px) == ("tiny", 5, 224)
    assert backbone.weights == "random (seed 3)"
    assert not any(p.requires_grad for p in backbone.module.parameters())
    again = [load_backbone("tiny", "random", seed=seed).weights_sha256 for seed in (3, 4)]
    assert backbone.weights_sha256 == again[0] != again[1]
    tiles = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)
    for precision in ("fp32", "bf16"):
        features = Embedder(backbone, precision=precision, device="cpu")(tiles, Clock())
        assert features.shape == (2, 5)


def test_published_weights_are_those_of_the_package(package):
    backbone = load_backbone("tiny", "pretrained")
    assert backbone.weights == "pretrained"
    assert torch.equal(backbone.module.layer.weight, torch.ones(5, 3))


def test_a_row_gives_its_scale_and_its_dimension_before_anything_is_built(package):
    assert feature_dim("tiny-entry") == 5
    assert feature_dim("tiny") is None
    backbone = load_backbone("tiny-entry", "random")
    assert (backbone.input_px, backbone.mean, backbone.licence) == (64, (0.5, 0.5, 0.5), "MIT")


def test_what_a_bare_function_does_not_state_is_said_and_can_be_stated(package, tmp_path):
    (note,) = weights_notes([Recipe(backbone="tiny", weights="random")])
    assert "tiny does not state" in note
    assert "taken as 224 px and ImageNet's mean and deviation" in note
    sides = {"mean": (0.7, 0.5, 0.6), "std": (0.1, 0.2, 0.3), "input_px": 96}
    recipe = Recipe(backbone="tiny", weights="random", **sides)
    assert weights_notes([recipe]) == weights_notes([replace(recipe, backbone="tiny-entry")]) == []
    backbone = load_backbone("tiny", "random", stated=recipe.stated)
    assert {key: getattr(backbone, key) for key in sides} == sides
    file = str(tmp_path / "w.safetensors")
    save_file({"layer.weight": torch.ones(5, 3), "layer.bias": torch.zeros(5)}, file)
    part = load_backbone("tiny", file, stated=Stated(mean=sides["mean"]))
    assert (part.mean, part.input_px) == (sides["mean"], 224)
    for name, stated in (("tiny-entry", recipe.stated), ("tiny", Stated(pooling="cls"))):
        with pytest.raises(BackboneError, match=r"Leave out (mean|pooling)"):
            load_backbone(name, "random", stated=stated)


def test_a_row_may_name_a_timm_model(package):
    assert resolve_name("tiny-alias") == "test_resnet.r160_in1k"
    assert load_backbone("tiny-alias", "random").dim == feature_dim("tiny-alias")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_weights_file_is_loaded_into_the_network(package, tmp_path, suffix):
    state = {"layer.weight": torch.full((5, 3), 2.0), "layer.bias": torch.zeros(5)}
    path = tmp_path / f"w{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    backbone = load_backbone("tiny", str(path))
    assert torch.equal(backbone.module.layer.weight, state["layer.weight"])
    assert backbone.weights == f"w{suffix}"


def test_a_weights_file_that_lacks_a_weight_is_refused(package, tmp_path):
    save_file({"layer.weight": torch.ones(5, 3)}, tmp_path / "w.safetensors")
    with pytest.raises(BackboneError, match=r"'tiny' .*cannot be loaded with w\.safetensors"):
        load_backbone("tiny", str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiny-wrong-dim", "gives 5 features per tile, and its entry says 6"),
        ("tiny-wrong-alias", "gives 96 features per tile, and its entry says 95"),
        ("tiny-empty", "either build or timm_name"),
        ("tiny-number", r"tiny_backbones:number is a int\. Make it a function"),
        ("tiny-missing", "cannot be imported from tiny_backbones:missing"),
        ("tiny-offline", "its random weights: no weights today"),
    ],
)
def test_a_package_that_breaks_the_contract_is_named(package, name, message):
    with pytest.raises(BackboneError, match=message):
        load_backbone(name, "random")


def test_an_unknown_name_is_answered_with_those_of_packages_too(package):
    with pytest.raises(BackboneError, match="Did you mean 'tiny-entry'"):
        resolve_name("tiny-entri")


def test_an_installed_backbone_has_a_name_on_the_command_line(package, tmp_path, slide_file):
    command = [
        sys.executable,
        "-m",
        "cli",
        "extract",
        str(slide_file),
        "--out",
        str(tmp_path / "store"),
    ]
    command += ["--backbone", "tiny", "--weights", "random", "--mpp", "0.5", "--max-tiles", "3"]
    paths = os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "store").glob("*.h5")
    assert (read_bag(path).dim, read_bag(path).recipe["backbone"]) == (5, "tiny")
    assert Recipe(backbone="tiny").backbone == "tiny"


def test_the_table_loads_no_torch():
    code = (
        "import sys\nfrom features.backbones.table import feature_dim, list_backbones\n"
        "assert feature_dim('resnet18') == 512 and list_backbones()\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'timm')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
