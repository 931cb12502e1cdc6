import copy

import pytest
import timm
import torch
from torch import nn

from features.backbones.folding import folded, halved
from features.backbones.registry import PooledFeatures

NORMS_LEFT = {"resnet18": 0, "resnetv2_50": 17, "densenet121": 62, "tf_efficientnetv2_b0": 0}


def network(name):
    """With norms that are not the identity they are born as."""
    torch.manual_seed(0)
    module = PooledFeatures(timm.create_model(name, num_classes=0)).eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.1)
    return module


def norms(module):
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())


def cosine(a, b):
    return torch.cosine_similarity(a.float(), b.float()).min().item()


@pytest.mark.parametrize("name", NORMS_LEFT)
def test_folded_network_is_the_same_function(name):
    module = network(name)
    images = torch.randn(2, 3, 64, 64)
    cheaper = folded(copy.deepcopy(module))
    assert norms(cheaper) == NORMS_LEFT[name] < norms(module)
    with torch.inference_mode():
        before, after = module(images), cheaper(images)
    assert cosine(before, after) > 0.99999
    assert torch.allclose(before, after, rtol=1e-2, atol=1e-3 * before.abs().max().item())


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "vgg11"])
def test_halved_network_points_where_the_whole_does(name):
    module = network(name)
    kept = copy.deepcopy(module.state_dict())
    images = torch.randn(2, 3, 224, 224)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        half = halved(module, torch.bfloat16)(images)
    with torch.inference_mode():
        assert cosine(module(images), half) > 0.999
    for key, value in module.state_dict().items():  # the module itself is as it was
        assert value.dtype == kept[key].dtype
        assert torch.equal(value, kept[key])


class Net(nn.Module):
    """A convolution and a norm, wired as the subclass says."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.norm.running_mean.fill_(0.5)

    def forward_features(self, images):
        return self.norm(self.conv(images))


class UsedTwice(Net):
    def forward_features(self, images):
        seen = self.conv(images)
        return self.norm(seen) + seen


class CalledTwice(Net):
    def forward_features(self, images):
        return self.norm(self.conv(images)) + self.conv(images + 1)


class Branching(Net):
    def forward_features(self, images):
        return self.norm(self.conv(images)) if images.sum() > 0 else images


@pytest.mark.parametrize(
    ("kind", "left"), [(Net, 0), (UsedTwice, 1), (CalledTwice, 1), (Branching, 1)]
)
def test_only_what_nothing_else_sees_is_folded(kind, left):
    torch.manual_seed(1)
    module = kind().eval()
    images = torch.rand(1, 3, 8, 8)
    with torch.inference_mode():
        before = module.forward_features(images)
        after = (cheaper := folded(copy.deepcopy(module))).forward_features(images)
    assert norms(cheaper) == left
    assert torch.allclose(before, after, atol=1e-5)


def test_a_convolution_that_computes_with_its_weights_keeps_them():
    class Standardised(nn.Conv2d):
        """Its weights are worth something only in fp32."""

    module = nn.Sequential(Standardised(3, 3, 1), nn.Conv2d(3, 3, 1), nn.LayerNorm(4))
    first, second, norm = halved(module, torch.bfloat16)
    assert first.weight.dtype == norm.weight.dtype == torch.float32
    assert second.weight.dtype == torch.bfloat16
