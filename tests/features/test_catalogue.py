"""The list of backbones, and weights brought from a machine with a network to one without."""

import huggingface_hub.constants
import pytest
import torch
from huggingface_hub.errors import GatedRepoError
from safetensors.torch import save_file

from features.backbones import hub
from features.backbones.catalogue import fetch_weights, list_catalogue
from features.backbones.file import read_recipe
from features.backbones.networks import build_network
from features.backbones.packaged import PACKAGED
from features.backbones.pathology import ENCODERS
from features.backbones.registry import load_backbone
from features.backbones.table import BACKBONES
from features.errors import BackboneError


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def cache(folder, repository, name, state):
    """What a download leaves in the hub's cache."""
    base = folder / ("models--" + repository.replace("/", "--"))
    (base / "snapshots" / "abc").mkdir(parents=True)
    (base / "refs").mkdir()
    (base / "refs" / "main").write_text("abc")
    if name.endswith(".safetensors"):
        save_file(state, base / "snapshots" / "abc" / name)
    else:
        torch.save(state, base / "snapshots" / "abc" / name)


def test_every_row_says_where_its_weights_are(empty_cache):
    rows = {row.name: row for row in list_catalogue()}
    assert rows.keys() >= {*BACKBONES, *ENCODERS}
    assert rows["efficientnet-lite0"].at_hand
    assert not rows["uni"].at_hand
    assert rows["uni"].place == "huggingface.co/MahmoodLab/UNI"
    assert rows["resnet18"].place == "huggingface.co/timm/resnet18.tv_in1k"
    assert rows["resnet18"].recipe.dim == 512


def test_a_download_is_found_and_written_as_a_file_that_says_what_it_is(empty_cache, tmp_path):
    recipe = ENCODERS["lunit-dino-s16"]
    torch.manual_seed(0)
    cache(empty_cache, recipe.repository, "model.safetensors", build_network(recipe).state_dict())
    assert next(row for row in list_catalogue() if row.name == recipe.name).at_hand
    fetch_weights(recipe.name, tmp_path / "w.safetensors")
    assert read_recipe(tmp_path / "w.safetensors").mean == recipe.mean
    there, here = (
        load_backbone(recipe.name, w) for w in ("pretrained", str(tmp_path / "w.safetensors"))
    )
    assert there.weights_sha256 == here.weights_sha256
    assert here.weights == "w.safetensors"
    with pytest.raises(
        BackboneError, match=r"saved as lunit-dino-s16, not kaiko-vits16\. Set backbone"
    ):
        load_backbone("kaiko-vits16", str(tmp_path / "w.safetensors"))


def test_a_fetched_file_needs_no_tag(tmp_path):
    path = tmp_path / "lite.safetensors"
    fetch_weights("efficientnet-lite0", path)
    backbone = load_backbone("efficientnet-lite0", str(path))
    assert (
        backbone.weights_sha256 == load_backbone("efficientnet-lite0", "pretrained").weights_sha256
    )
    assert backbone.mean == (0.5, 0.5, 0.5)


def test_without_a_network_repository_file_and_gate_are_named(empty_cache, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BackboneError) as caught:
        load_backbone("uni2-h", "pretrained")
    message = str(caught.value)
    assert "pytorch_model.bin of https://huggingface.co/MahmoodLab/UNI2-h" in message
    assert "Access must be requested on that page" in message
    assert "bring that file from a machine that has one and set weights to it" in message
    assert "--" not in message
    with pytest.raises(BackboneError) as caught:
        load_backbone("phikon", "pretrained")
    assert "Access" not in str(caught.value)


def test_a_closed_gate_is_named(empty_cache, monkeypatch):
    def closed(*_args, **_options):
        raise GatedRepoError.__new__(GatedRepoError)

    monkeypatch.setattr(hub, "check_hub_reachable", lambda: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", closed)
    with pytest.raises(BackboneError, match=r"conch: access has not been granted.*HF_TOKEN"):
        load_backbone("conch", "pretrained")


def test_weights_are_written_as_safetensors_only(tmp_path):
    with pytest.raises(BackboneError, match=r"Name it w\.safetensors"):
        fetch_weights("efficientnet-lite0", tmp_path / "w.pth")


def test_a_folder_with_timms_configuration_states_its_preparation(tmp_path):
    from timm import create_model
    from timm.models import save_for_hf

    model = create_model("test_vit", num_classes=0, init_values=1e-5)
    config = {"mean": (0.7, 0.6, 0.7), "std": (0.2, 0.2, 0.1)}
    model.pretrained_cfg = model.pretrained_cfg | config
    save_for_hf(model, tmp_path / "d", model_args={"init_values": 1e-5})
    backbone = load_backbone(f"local-dir:{tmp_path / 'd'}", "pretrained")
    assert (backbone.mean, backbone.std) == (config["mean"], config["std"])
    state = backbone.module.network.state_dict()
    torch.testing.assert_close(
        state["blocks.0.ls1.gamma"], model.state_dict()["blocks.0.ls1.gamma"]
    )
    with pytest.raises(BackboneError, match=r"config\.json cannot be used"):
        load_backbone(f"local-dir:{tmp_path / 'none'}", "pretrained")


def test_a_repository_of_the_table_is_the_encoder(empty_cache):
    backbone = load_backbone("hf-hub:1aurent/vit_small_patch16_224.lunit_dino", "random")
    assert backbone.name == "lunit-dino-s16"
    assert set(PACKAGED) == {"tf_efficientnet_lite0.in1k"}
