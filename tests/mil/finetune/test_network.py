"""What learns and what is frozen, over all backbones that have a short name."""

from dataclasses import replace

import pytest
import timm
import torch
from torch import nn

from features.backbones.network_recipe import NetworkRecipe
from features.backbones.networks import PooledFeatures
from features.backbones.registry import Backbone, load_backbone
from features.backbones.table import BACKBONES
from mil.errors import FitError
from mil.finetune.network import TileClassifier, blocks_of, parameter_groups
from mil.finetune.settings import FinetuneSettings

NAMES = [
    *(entry.timm_name for entry in BACKBONES.values()),
    "test_vit",
    "test_convnext",
    "test_efficientnet",
]


@pytest.fixture(scope="module")
def shapes():
    """Every backbone without the memory of its weights, built once."""
    with torch.device("meta"):
        return {name: PooledFeatures(timm.create_model(name, num_classes=0)) for name in NAMES}


def on_meta(shapes, name):
    recipe = NetworkRecipe(name=name, dim=8, mean=(0.5,) * 3, std=(0.5,) * 3)
    return Backbone(recipe, shapes[name], "random", "")


def classifier(name="test_resnet", n_classes=3, **settings):
    backbone = load_backbone(name, "random")
    return TileClassifier(backbone, n_classes, FinetuneSettings(**settings))


def learns(network):
    return {name for name, weight in network.named_parameters() if weight.requires_grad}


def images(n=4):
    return torch.randn(n, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_in_one_block(shapes, name):
    backbone = on_meta(shapes, name)
    blocks = blocks_of(backbone)
    assert len(blocks) >= 4
    listed = [parameter for block in blocks for parameter in block]
    assert sorted(listed) == sorted(name for name, _ in backbone.module.named_parameters())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("settings", [{"train": "head"}, {"train": "last", "last_blocks": 2}, {}])
def test_frozen_layers_stay_in_evaluation_and_the_others_do_not(shapes, name, settings):
    network = TileClassifier(on_meta(shapes, name), 2, FinetuneSettings(**settings))
    network.eval()
    network.train()
    n_learning = 0
    for module in network.backbone.modules():
        own = list(module.parameters(recurse=False))
        if own and not list(module.children()):  # a transformer's own tokens lie outside its layers
            n_learning += own[0].requires_grad
            assert len({weight.requires_grad for weight in own}) == 1
            assert module.training == own[0].requires_grad
    assert (n_learning > 0) == (settings.get("train") != "head")
    assert network.head.training


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_that_learns_is_in_one_group_and_rates_fall_towards_the_image(shapes, name):
    settings = FinetuneSettings(layer_decay=0.5, weight_decay=0.1, hidden=(4,))
    network = TileClassifier(on_meta(shapes, name), 2, settings)
    groups = parameter_groups(network, settings)
    listed = [id(weight) for group in groups for weight in group["params"]]
    assert sorted(listed) == sorted(map(id, network.parameters()))
    scale = {id(weight): group["scale"] for group in groups for weight in group["params"]}
    by_name = dict(network.backbone.named_parameters())
    of_blocks = [{scale[id(by_name[name])] for name in block} for block in network.blocks]
    assert of_blocks == [{0.5 ** (len(of_blocks) - depth)} for depth in range(len(of_blocks))]
    assert {scale[id(weight)] for weight in network.head.parameters()} == {1.0}
    for group in groups:
        assert (group["weight_decay"] == 0) or all(w.ndim > 1 for w in group["params"])
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm):
            for weight in module.parameters():
                [group] = [g for g in groups if any(weight is member for member in g["params"])]
                assert group["weight_decay"] == 0


@pytest.mark.parametrize(("settings", "still"), [({"train": "last"}, "layer1"), ({}, None)])
def test_statistics_move_only_where_weights_learn(settings, still):
    network = classifier(**settings)
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    network(images()).sum().backward()
    moved = {
        name
        for name, value in network.backbone.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert moved
    assert all("running" in name or "tracked" in name for name in moved)
    last = [name for name in moved if ".layer4." in name]
    assert last
    assert (len(moved) == len(last)) == (still is not None)
    with_gradient = {name for name, weight in network.named_parameters() if weight.grad is not None}
    assert with_gradient == learns(network)


def test_the_head_alone_learns_on_an_unchanging_backbone():
    network = classifier(train="head", dropout=0.0)
    assert learns(network) == {"head.1.weight", "head.1.bias"}
    assert torch.equal(network(images())[:2], network(images(4))[:2])


def test_hidden_layers_have_the_requested_widths():
    widths = [m.out_features for m in classifier(hidden=(7, 5)).head if isinstance(m, nn.Linear)]
    assert widths == [7, 5, 3]


def test_checkpointing_changes_no_gradient():
    gradients = []
    for wanted in (False, True):
        network = classifier("test_vit", grad_checkpointing=wanted, dropout=0.0)
        with torch.no_grad():
            for weight in network.head.parameters():
                weight.fill_(0.1)
        tiles = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
        network(tiles)[:, 0].sum().backward()
        gradients.append([w.grad for w in network.backbone.parameters() if w.grad is not None])
    assert gradients[0]
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)


def test_settings_that_do_not_suit_the_backbone_are_refused(shapes):
    with pytest.raises(
        FitError, match=r"no gradient checkpointing for vgg19.*grad_checkpointing off"
    ):
        TileClassifier(
            on_meta(shapes, "vgg19.tv_in1k"), 2, FinetuneSettings(grad_checkpointing=True)
        )
    with pytest.raises(FitError, match="has 5 blocks; got last_blocks 6"):
        classifier(train="last", last_blocks=6)
    backbone = load_backbone("test_resnet", "random")
    without = replace(backbone, module=nn.Sequential())
    without.module.network = nn.Identity()
    with pytest.raises(FitError, match="knows no blocks"):
        blocks_of(without)


@pytest.mark.parametrize(
    "wrong",
    [
        {"train": "some"}, {"epochs": 0}, {"hidden": (0,)}, {"learning_rate": 0.0}, {"dropout": 1.0},
        {"layer_decay": 1.5}, {"tile_cache": -1.0}, {"early_stopping": "yes"}, {"warmup": float("nan")},
    ],
)  # fmt: skip
def test_settings_refuse_nonsense(wrong):
    with pytest.raises(FitError, match=next(iter(wrong))):
        FinetuneSettings(**wrong)
