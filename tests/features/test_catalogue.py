"""The list of backbones, and weights brought from a machine with a network to one without."""

import json
from dataclasses import replace

import huggingface_hub.constants
import pytest
import torch
from huggingface_hub.errors import GatedRepoError
from safetensors import safe_open
from safetensors.torch import save_file

from features.backbones import hub
from features.backbones.catalogue import fetch_weights, list_catalogue
from features.backbones.file import read_recipe, write_weights
from features.backbones.networks import build_network
from features.backbones.packaged import PACKAGED
from features.backbones.pathology import ENCODERS
from features.backbones.registry import load_backbone
from features.backbones.table import BACKBONES
from features.errors import BackboneError
from features.recipe import Stated


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


def timm_folder(folder, *, arguments=None, top=None, **config):
    """A folder as timm writes it, of a small transformer; what is stated of it may contradict it."""
    from timm import create_model
    from timm.models import save_for_hf

    torch.manual_seed(4)
    model = create_model("test_vit", num_classes=0, **(arguments or {}))
    model.pretrained_cfg = model.pretrained_cfg | {"mean": (0.7,) * 3, "std": (0.2,) * 3} | config
    save_for_hf(model, folder, model_args=arguments)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | (top or {})))
    return f"local-dir:{folder}"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"mean": (103.5, 116.3, 123.7)}, r"mean is \[103.5, 116.3, 123.7\]: .* from 0 to 1"),
        ({"std": (0.2, 0.0, 0.2)}, r"std is \[0.2, 0.0, 0.2\]: .* above 0"),
        ({"std": (58.4, 57.1, 57.4)}, "std is"),
        ({"arguments": {"in_chans": 1}}, "three channels: red, green and blue"),
        ({"input_size": (3, 160, 320)}, "tiles are square"),
        ({"input_size": (3, 224, 224)}, r"and the network's own img_size \[160, 160\]"),
        ({"interpolation": "lanczos"}, "resized bilinear or bicubic"),
        ({"crop_mode": "border", "crop_pct": 0.9}, "not with a border"),
    ],
)
def test_a_configuration_that_no_image_can_follow_is_refused(config, reason, tmp_path):
    name = timm_folder(tmp_path / "d", **config)
    with pytest.raises(BackboneError, match=rf"config\.json cannot be used \(.*{reason}"):
        load_backbone(name, "random")


def test_a_folder_whose_weights_contradict_its_configuration_is_refused(tmp_path):
    name = timm_folder(tmp_path / "d", top={"model_args": {}})
    with pytest.raises(
        BackboneError, match=r"positions 101 instead of 197\) than that of test_vit"
    ):
        load_backbone(name, "pretrained")
    for n, (architecture, pooling, reason) in enumerate([
        ("test_resnet", "avg", r"lacks \d+ weights \(.*of test_resnet, the network of config\.json"),
        ("vit_tiny_patch16_224", "token", r"lacks \d+ weights \(blocks\."),
    ]):  # fmt: skip
        name = timm_folder(
            tmp_path / str(n),
            top={"architecture": architecture, "global_pool": pooling, "model_args": {}},
        )
        with pytest.raises(BackboneError, match=rf"pytorch_model\.bin {reason}") as caught:
            load_backbone(name, "pretrained")
        assert "needs model.safetensors" not in str(caught.value)
    name = timm_folder(tmp_path / "less", arguments={"init_values": 1e-3}, top={"model_args": {}})
    with pytest.raises(
        BackboneError, match=r"holds \d+ weights \(blocks\.0\.ls1\.gamma \.\.\.\) that are none"
    ):
        load_backbone(name, "pretrained")
    (tmp_path / "less" / "pytorch_model.bin").unlink()
    with pytest.raises(BackboneError, match=r"The folder needs model\.safetensors"):
        load_backbone(name, "pretrained")


def test_a_folder_is_pooled_and_cropped_as_it_states(tmp_path):
    less = {"model_args": {"img_size": [160, 160]}}  # as earlier versions of timm write it
    name = timm_folder(tmp_path / "d", arguments={"global_pool": "avg"}, top=less)
    backbone = load_backbone(name, "pretrained")
    network = backbone.module.network
    assert network.global_pool == "avg"
    images = torch.randn(2, 3, 160, 160)
    with torch.inference_mode():
        tokens = network.forward_features(images)
        expected = network.fc_norm(tokens[:, network.num_prefix_tokens :].mean(1))
        torch.testing.assert_close(backbone.module(images), expected)
    recipe = load_backbone(
        timm_folder(tmp_path / "c", interpolation="bicubic", crop_pct=0.9), "random"
    ).recipe
    assert (recipe.interpolation, recipe.resize_px, recipe.input_px) == ("bicubic", 177, 160)
    plain = load_backbone(timm_folder(tmp_path / "p", crop_pct=1.0), "random").recipe
    assert (plain.resize_px, plain.resized_px) == (0, 160)
    with pytest.raises(BackboneError, match="global_pool is max, and the map of test_resnet"):
        load_backbone(
            timm_folder(
                tmp_path / "m",
                top={"architecture": "test_resnet", "global_pool": "max", "model_args": {}},
            ),
            "random",
        )


def test_a_folder_that_states_two_poolings_is_refused(tmp_path):
    with pytest.raises(BackboneError, match="global_pool is avg, and in model_args token"):
        load_backbone(timm_folder(tmp_path / "t", top={"global_pool": "avg"}), "random")


def edited(path, out, change):
    """A copy of a weights file with other metadata or weights."""
    with safe_open(path, framework="pt") as file:
        facts = dict(file.metadata())
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(facts, state)
    save_file(state, out, facts)
    return str(out)


def test_a_fetched_file_that_was_changed_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    fetch_weights("efficientnet-lite0", path)

    def other_mean(facts, _):
        facts["network"] = facts["network"].replace(
            '"mean": [0.5, 0.5, 0.5]', '"mean": [0.9, 0.1, 0.4]'
        )

    def other_weights(_, state):
        state["conv_stem.weight"] *= 1.01

    def no_checksum(facts, _):
        del facts["sha256"]

    for n, change in enumerate((other_mean, other_weights, no_checksum)):
        wrong = edited(path, tmp_path / f"{n}.safetensors", change)
        with pytest.raises(BackboneError, match=r"were changed .* Fetch the weights again"):
            load_backbone("efficientnet-lite0", wrong)
    load_backbone(
        "efficientnet-lite0", edited(path, tmp_path / "same.safetensors", lambda *_: None)
    )


def test_the_recipe_in_a_file_does_not_override_what_is_known(tmp_path):
    backbone = load_backbone("test_resnet", "random")
    path = tmp_path / "w.safetensors"
    write_weights(path, backbone.module.network, replace(backbone.recipe, input_px=96))
    with pytest.raises(BackboneError, match=r"states input_px 96, and test_resnet takes 160"):
        load_backbone("test_resnet", str(path))
    write_weights(path, backbone.module.network, backbone.recipe)
    assert load_backbone("test_resnet", str(path)).recipe == backbone.recipe
    stated = Stated(mean=(0.1,) * 3, std=(0.2,) * 3, input_px=96, pooling="network")
    with pytest.raises(BackboneError, match=r"test_resnet takes mean .*Leave out mean"):
        load_backbone("test_resnet", str(path), stated=stated)


def test_a_repository_of_the_table_is_the_encoder(empty_cache):
    backbone = load_backbone("hf-hub:1aurent/vit_small_patch16_224.lunit_dino", "random")
    assert backbone.name == "lunit-dino-s16"
    assert set(PACKAGED) == {"tf_efficientnet_lite0.in1k"}
