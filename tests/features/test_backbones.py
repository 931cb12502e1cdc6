import os
import re
import subprocess
import sys

import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from features.backbones.imagenet import timm_recipe
from features.backbones.network_recipe import IMAGENET_MEAN
from features.backbones.networks import PooledFeatures, names_and_shapes
from features.backbones.registry import load_backbone, resolve_name
from features.backbones.table import BACKBONES, feature_dim
from features.errors import BackboneError
from tests.small_vgg import narrow_vgg

SMALL = "test_resnet"  # timm's own, 0.4 million weights
FILED = f"{SMALL}.r160_in1k"  # which weights a file holds is said by the tag
DIMS = {
    "resnet50v2": 2048,
    "vgg19": 512,
    "inceptionv3": 2048,
    "efficientnetv2s": 1280,
    "densenet121": 1024,
    "densenet161": 2208,
    "inception_resnet_v2": 1536,
    "resnet50": 2048,
    "xception": 2048,
    "resnet18": 512,
    "resnetv2_50": 2048,
    "vit_tiny_patch16_224": 192,
    "swin_tiny_patch4_window7_224": 768,
}
ALL_DIMS = {**{name: entry.dim for name, entry in BACKBONES.items()}, **DIMS}


@pytest.fixture(scope="module")
def resnet():
    """A network with a classifier, unlike the random one that ``seed=0`` gives."""
    torch.manual_seed(99)
    return timm.create_model(SMALL, num_classes=7).eval()


def images(n=2, side=64):
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(0))


def features_of(backbone):
    with torch.inference_mode():
        return backbone.module(images())


def pooled(network):
    """What timm itself pools before the classifier."""
    with torch.inference_mode():
        return network.forward_head(network.forward_features(images()), pre_logits=True)


def test_every_alias_is_a_timm_model_with_weights():
    for full_name in (entry.timm_name for entry in BACKBONES.values()):
        config = timm.get_pretrained_cfg(full_name)
        assert full_name == f"{config.architecture}.{config.tag}"
        assert config.has_weights


@pytest.mark.parametrize("name", ALL_DIMS)
def test_backbone_gives_the_length_of_its_last_layer(name):
    recipe = timm_recipe(resolve_name(name))
    with torch.device("meta"):
        network = timm.create_model(recipe.architecture, num_classes=0).eval()
        side = network.pretrained_cfg["input_size"][-1]
        features = PooledFeatures(network, recipe.pooling)(torch.zeros(2, 3, side, side))
    assert features.shape == (2, ALL_DIMS[name])
    assert feature_dim(resolve_name(name)) in (None, ALL_DIMS[name])
    assert feature_dim(name) in (None, ALL_DIMS[name])


@pytest.mark.parametrize(
    ("name", "side", "dim"),
    [("xception", 299, 2048), ("inceptionv3", 299, 2048), ("inception_resnet_v2", 299, 1536),
     ("vgg16", 224, 512), ("vgg19", 224, 512), ("resnet50", 224, 2048), ("densenet161", 224, 2208),
     ("mobilenet", 224, 1024), ("mobilenetv2", 224, 1280), ("vgg19-hidden", 224, 4096)],
)  # fmt: skip
def test_networks_of_published_studies_see_the_side_of_their_weights(name, side, dim):
    recipe = timm_recipe(resolve_name(name))
    assert (recipe.input_px, feature_dim(name)) == (side, dim)
    inception = name.startswith(("xception", "inception"))
    assert recipe.mean == ((0.5,) * 3 if inception or name == "mobilenet" else IMAGENET_MEAN)


def test_vgg_gives_its_last_hidden_layer_where_that_is_kept(small_vgg, tmp_path):
    """Features are what timm's own classifier reads; files of whole networks are read with these layers."""
    torch.manual_seed(1)
    network = timm.create_model("vgg11", num_classes=5).eval()
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    backbone = load_backbone("vgg11.tv_in1k-hidden", str(tmp_path / "w.safetensors"))
    assert (backbone.name, backbone.recipe.architecture) == (
        "vgg11.tv_in1k-hidden",
        "vgg11.tv_in1k",
    )
    assert (backbone.recipe.pooling, backbone.dim) == ("hidden", small_vgg)
    own = pooled(network)
    assert torch.allclose(features_of(backbone), own, rtol=1e-5, atol=1e-6)
    assert own.std() > 0
    without = load_backbone("vgg11.tv_in1k", str(tmp_path / "w.safetensors"))
    assert without.dim == 512
    hidden = {k: v for k, v in network.state_dict().items() if "pre_logits" not in k}
    save_file(hidden, tmp_path / "cut.safetensors")
    with pytest.raises(
        BackboneError, match=r"lacks 4 weights \(pre_logits.* of vgg11.tv_in1k-hidden"
    ):
        load_backbone("vgg11.tv_in1k-hidden", str(tmp_path / "cut.safetensors"))
    with pytest.raises(
        BackboneError, match=r"set backbone to vgg11.tv_in1k-hidden if the file holds"
    ):
        load_backbone("vgg11-hidden", str(tmp_path / "w.safetensors"))


@pytest.fixture
def small_vgg(monkeypatch):
    return narrow_vgg(monkeypatch)


def test_a_network_without_hidden_layers_keeps_none():
    with pytest.raises(BackboneError, match=r"ResNet has no hidden layers .* without -hidden"):
        load_backbone("test_resnet-hidden", "random")
    with pytest.raises(BackboneError, match=r"ResNet has no hidden layers"):
        resolve_name("resnet18.tv_in1k-hidden")
    with pytest.raises(BackboneError, match="No backbone 'vgg-hidden'"):
        resolve_name("vgg-hidden")


def test_vgg_leaves_its_hidden_layers_behind():
    with torch.device("meta"):
        cut = PooledFeatures(timm.create_model("vgg19", num_classes=0))
    assert sum(p.numel() for p in cut.parameters()) < 21e6


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "inception_v3"])
def test_features_are_what_timm_pools(name):
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=0).eval()
    with torch.inference_mode():
        own = network(images(side=96))
        assert torch.allclose(PooledFeatures(network)(images(side=96)), own, rtol=1e-5, atol=1e-6)
    assert own.std() > 0


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_resnet"])
def test_features_of_small_networks_are_what_timm_pools(name):
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=0).eval()
    with torch.inference_mode():
        expected = network.forward_features(images(side=160))
        expected = (
            expected.mean((2, 3))
            if expected.ndim == 4
            else network.forward_head(expected, pre_logits=True)
        )
        assert torch.allclose(PooledFeatures(network)(images(side=160)), expected, atol=1e-5)


def test_loaded_backbone_is_ready_to_embed():
    backbone = load_backbone("resnet18", "random")
    config = timm.get_pretrained_cfg("resnet18.tv_in1k")
    assert backbone.name == "resnet18.tv_in1k"
    assert (backbone.dim, backbone.input_px) == (512, 224)
    assert (backbone.mean, backbone.std) == (config.mean, config.std)
    assert backbone.weights == "random (seed 0)"
    assert not backbone.module.training
    assert not any(p.requires_grad for p in backbone.module.parameters())


@pytest.mark.parametrize(
    ("typo", "meant"),
    [("resnet5O", "'resnet50'"), ("vgg-19", "'vgg19'"), ("densnet121", "'densenet121'")],
)
def test_typo_is_answered_with_the_nearest_name(typo, meant):
    with pytest.raises(BackboneError, match=f"No backbone '{typo}'. Did you mean .*{meant}"):
        load_backbone(typo, "random")


def test_a_tag_that_timm_does_not_have_is_answered_with_those_it_has():
    with pytest.raises(
        BackboneError, match=r"no weights 'foo' for test_vit.* Its names are test_vit\.r160"
    ):
        resolve_name("test_vit.foo")
    with pytest.raises(BackboneError, match=r"Did you mean 'vit_small_patch8_224\.dino'"):
        load_backbone("vit_small_patch8_224.dinno", "random")


def test_nonsense_is_answered_with_the_short_names():
    with pytest.raises(BackboneError, match=r"Short names: .*resnet18"):
        resolve_name("@@@@")


def test_random_weights_follow_the_seed():
    prints = [load_backbone(SMALL, "random", seed=s).weights_sha256 for s in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]


def test_random_weights_leave_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    load_backbone(SMALL, "random")
    assert torch.equal(torch.rand(4), expected)


def save_network(resnet, path, *, classifier=True, wrap=None, prefix="", metadata=None):
    state = {
        prefix + key: value.clone()
        for key, value in resnet.state_dict().items()
        if classifier or not key.startswith("fc.")
    }
    if path.suffix == ".safetensors":
        save_file(state, path, metadata)
    else:
        torch.save({wrap: state} if wrap else state, path)
    return str(path)


@pytest.mark.parametrize("classifier", [True, False], ids=["with classifier", "without"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_file_gives_the_features_it_was_saved_with(resnet, tmp_path, suffix, classifier):
    path = save_network(resnet, tmp_path / f"w{suffix}", classifier=classifier)
    backbone = load_backbone(FILED, path)
    assert torch.allclose(features_of(backbone), pooled(resnet), rtol=1e-5, atol=1e-6)
    assert backbone.weights == f"w{suffix}"


def test_classifier_beside_a_norm_of_the_network_is_left_out(tmp_path):
    torch.manual_seed(1)
    network = timm.create_model("test_convnext", num_classes=7).eval()  # head.norm and head.fc
    assert {"head.norm.weight", "head.fc.weight"} <= network.state_dict().keys()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    expected = PooledFeatures(network)(images()).detach()
    backbone = load_backbone("test_convnext.r160_in1k", str(tmp_path / "w.pth"))
    assert torch.allclose(features_of(backbone), expected, rtol=1e-5, atol=1e-6)


def test_fingerprint_depends_on_the_weights_not_on_the_file(resnet, tmp_path):
    one = load_backbone(FILED, save_network(resnet, tmp_path / "a.pth"))
    two = load_backbone(FILED, save_network(resnet, tmp_path / "b.safetensors", classifier=False))
    assert one.weights_sha256 == two.weights_sha256
    assert one.weights_sha256 != load_backbone(SMALL, "random").weights_sha256


def test_checkpoint_of_a_training_run_is_read(resnet, tmp_path):
    path = save_network(resnet, tmp_path / "w.pth", wrap="state_dict", prefix="module.")
    assert torch.allclose(features_of(load_backbone(FILED, path)), pooled(resnet), rtol=1e-5)


def test_file_without_batch_counters_is_read(resnet, tmp_path):
    state = {k: v for k, v in resnet.state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "old.pth")
    backbone = load_backbone(FILED, str(tmp_path / "old.pth"))
    assert torch.allclose(features_of(backbone), pooled(resnet), rtol=1e-5)


@pytest.mark.parametrize("name", ["resnet34", "resnet26", "vgg11"])
def test_file_of_another_architecture_is_refused(tmp_path, name):
    # resnet34 fits resnet18 in every name and shape, and would be cut short without a word.
    with names_and_shapes():
        shapes = timm.create_model(name, num_classes=0).state_dict()
    state = {k: torch.zeros(v.shape) for k, v in shapes.items() if "pre_logits" not in k}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(BackboneError, match=r"^w\.pth .*resnet18.*Set backbone"):
        load_backbone("resnet18.tv_in1k", str(tmp_path / "w.pth"))


@pytest.mark.parametrize(
    "gone", ["layer4.0.bn2.running_var", "layer2.0.bn1.bias", "layer1.0.conv1.weight"]
)
def test_file_that_lacks_a_weight_is_refused(resnet, tmp_path, gone):
    state = {k: v for k, v in resnet.state_dict().items() if k != gone}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(BackboneError, match=rf"lacks 1 weights \({gone}"):
        load_backbone(FILED, str(tmp_path / "w.pth"))


def test_file_of_weights_without_statistics_is_refused(resnet, tmp_path):
    torch.save(dict(resnet.named_parameters()), tmp_path / "w.pth")
    with pytest.raises(BackboneError, match=r"lacks .*running_mean"):
        load_backbone(FILED, str(tmp_path / "w.pth"))


def test_file_of_another_librarys_names_is_read(tmp_path):
    # densenet files of 2017 name norm.1 what is norm1 today; timm translates them.
    torch.manual_seed(3)
    network = timm.create_model("densenet121", num_classes=0).eval()
    for value in network.state_dict().values():  # as if trained: no norm is still at its start
        if value.is_floating_point():
            value.mul_(1 + 0.1 * torch.rand(1)).add_(0.01)
    old = re.compile(r"(denselayer\d+)\.(norm|conv)([12])\.")
    state = {old.sub(r"\1.\2.\3.", k): v for k, v in network.state_dict().items()}
    assert state.keys() != network.state_dict().keys()
    torch.save(state, tmp_path / "w.pth")
    backbone = load_backbone("densenet121.tv_in1k", str(tmp_path / "w.pth"))
    assert torch.allclose(features_of(backbone), pooled(network), rtol=1e-5, atol=1e-6)


class Malice:
    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_file_that_would_run_code_is_refused(tmp_path):
    malice = Malice()
    malice.path = str(tmp_path / "ran")
    torch.save({"conv1.weight": malice}, tmp_path / "w.pth")
    with pytest.raises(BackboneError):
        load_backbone(FILED, str(tmp_path / "w.pth"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_garbage_is_refused(tmp_path, suffix):
    (tmp_path / f"w{suffix}").write_bytes(b"garbage" * 40)
    with pytest.raises(BackboneError, match="does not fit") as caught:
        load_backbone(FILED, str(tmp_path / f"w{suffix}"))
    assert "\n" not in str(caught.value)


def test_missing_file_is_refused():
    with pytest.raises(BackboneError, match=r"nowhere\.pth: no such weights file"):
        load_backbone(FILED, "nowhere.pth")


def test_pretrained_offline_names_both_ways_out(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BackboneError) as caught:
        load_backbone("resnet18", "pretrained")
    message = str(caught.value)
    assert "No pretrained weights for resnet18.tv_in1k" in message
    assert "set weights to a .safetensors or .pth file" in message
    assert "or to random" in message
    assert "--" not in message
    assert "\n" not in message


def test_random_weights_of_a_deep_network_stay_finite():
    features = features_of(load_backbone("resnet18", "random")).numpy()
    assert np.isfinite(features).all()
    assert features.std() > 0


def in_a_process(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=False,
        env={k: v for k, v in os.environ.items() if not k.startswith("HF_")} | environment,
    )  # fmt: skip


def test_weights_in_the_hubs_cache_are_used_without_a_network(tmp_path):
    timm_model = timm.create_model("resnet18", pretrained=False)
    snapshot = tmp_path / "hub" / "models--timm--resnet18.tv_in1k" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("abc")
    save_file(timm_model.state_dict(), snapshot / "model.safetensors")
    code = (
        "import socket\n"
        "def none(*_a, **_k): raise OSError('asked the network')\n"
        "socket.getaddrinfo = none\n"
        "from features.backbones.registry import load_backbone\n"
        "backbone = load_backbone('resnet18', 'pretrained')\n"
        "print(backbone.weights, float(backbone.module.network.conv1.weight.sum()))\n"
    )
    done = in_a_process(code, HF_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    weights, total = done.stdout.split()
    assert weights == "pretrained"
    assert float(total) == pytest.approx(float(timm_model.conv1.weight.detach().sum()), rel=1e-5)


def test_an_empty_cache_without_a_network_fails_at_once_and_in_one_line(tmp_path):
    code = (
        "import socket\n"
        "hosts = []\n"
        "def none(host, *_a, **_k): hosts.append(host); raise OSError('no name')\n"
        "socket.getaddrinfo = none\n"
        "from features.backbones.registry import load_backbone\n"
        "try:\n    load_backbone('resnet18', 'pretrained')\n"
        "except Exception as error:\n    print(type(error).__name__, len(hosts), error)\n"
    )
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "")
    done = in_a_process(code, HF_HOME=str(tmp_path), **proxies)
    assert done.stdout.startswith(
        "BackboneError 1 No pretrained weights for resnet18.tv_in1k: no name."
    )
    assert "set weights to a .safetensors or .pth file" in done.stdout
    assert done.stderr == ""
