"""A network with its norms folded away computes what it did before."""

import copy

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from features.backbones.folding import fold_batch_norms, round_taps, to_half_precision
from features.backbones.networks import PooledFeatures
from features.threads import one_thread

PX = 64


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


def trained(module, seed=0):
    """As if it had seen images: norms whose statistics are neither 0 nor 1, and all unlike."""
    random = torch.Generator().manual_seed(seed)

    def between(low, high, like):
        return torch.empty_like(like).uniform_(low, high, generator=random)

    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.copy_(between(-0.5, 0.5, layer.running_mean))
            layer.running_var.copy_(between(0.5, 2.0, layer.running_var))
            if layer.affine:
                layer.weight.data.copy_(between(0.5, 1.5, layer.weight))
                layer.bias.data.copy_(between(-0.3, 0.3, layer.bias))
    return module.eval().requires_grad_(requires_grad=False)


def backbone(name, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model(name, pretrained=False, num_classes=0, **options)
    return trained(PooledFeatures(network))


def images(n=2, channels=3):
    return torch.randn(n, channels, PX, PX, generator=torch.Generator().manual_seed(1))


def norms(module):
    return [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]


def assert_same(module, other, given=None, *, apart=1e-3):
    given = images() if given is None else given
    with torch.inference_mode():
        before, after = module(given), other(given)
    assert before.shape == after.shape
    assert before.std() > 1e-4  # else anything is the same
    cosine = nn.functional.cosine_similarity(before.flatten(1).double(), after.flatten(1).double())
    assert cosine.min() > 0.99999
    assert (before - after).abs().max() < apart * before.abs().max()


NETWORKS = {  # norms before and after; what is left follows something other than a convolution
    "resnet18": (20, 0),
    "resnetv2_50": (49, 17),
    "tf_efficientnetv2_b0": (59, 0),
    "densenet121": (121, 62),
    "mobilenetv3_small_050": (34, 0),
    "vgg11_bn": (8, 0),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_folded_network_gives_the_same_features(name):
    module = backbone(name)
    whole = copy.deepcopy(module)
    result = fold_batch_norms(module)
    assert (len(norms(whole)), len(norms(result))) == NETWORKS[name]
    assert_same(whole, result)


@pytest.mark.parametrize("name", ["resnet18", "efficientnetv2_rw_t"])
def test_folding_is_exact_to_the_last_digits_of_double_precision(name):
    """Also where a network with random weights multiplies each rounding by a million."""
    module = backbone(name).double()
    assert_same(module, fold_batch_norms(copy.deepcopy(module)), images().double(), apart=1e-7)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_transformer_is_left_as_it_is(name):
    module = backbone(name, img_size=PX)
    weights = {key: value.clone() for key, value in module.state_dict().items()}
    assert fold_batch_norms(module) is module
    assert module.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[key]) for key, value in module.state_dict().items())
    with torch.inference_mode():
        assert module(images()).shape == (2, module.network.num_features)


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_halving_leaves_the_original_untouched(name, dtype):
    module = backbone(name, **({"img_size": PX} if "vit" in name else {}))
    text, weights = str(module), {key: value.clone() for key, value in module.state_dict().items()}
    result = to_half_precision(module, dtype)
    assert result is not module
    assert str(module) == text
    held = module.state_dict()
    assert held.keys() == weights.keys()
    assert all(torch.equal(value, weights[key]) for key, value in held.items())
    mine = {id(part) for part in [*module.parameters(), *module.buffers()]}
    assert not any(id(part) in mine for part in [*result.parameters(), *result.buffers()])
    cast = [layer for layer in result.modules() if type(layer) in (nn.Conv2d, nn.Linear)]
    assert {layer.weight.dtype for layer in cast} == {dtype}
    with torch.inference_mode(), torch.autocast("cpu", dtype):
        after = result(images()).float()
    with torch.inference_mode():
        before = module(images())
    assert nn.functional.cosine_similarity(before, after).min() > 0.99


def test_norms_that_are_left_keep_their_precision():
    result = to_half_precision(backbone("resnetv2_50"), torch.bfloat16)
    assert len(norms(result)) == 17
    assert {norm.running_var.dtype for norm in norms(result)} == {torch.float32}
    assert {norm.weight.dtype for norm in norms(result)} == {torch.float32}


class Small(nn.Module):
    """Two convolutions and norms, used as a subclass says."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.conv2 = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1, bias=False)
        self.norm, self.norm2 = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, images):
        return self.forward_features(images)


class Plain(Small):
    def forward_features(self, x):
        return self.norm2(self.conv2(self.norm(self.conv(x)).relu()))


class Activated(Small):
    def __init__(self):
        super().__init__()
        self.norm = BatchNormAct2d(3, act_layer=nn.SiLU)

    def forward_features(self, x):
        return self.norm2(self.conv2(self.norm(self.conv(x))))


class Unlearnt(Small):
    """A norm without weights of its own."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3, affine=False)

    def forward_features(self, x):
        return self.norm2(self.conv2(self.norm(self.conv(x))))


class UsedTwice(Small):
    """What the convolution gives is also seen without the norm."""

    def forward_features(self, x):
        x = self.conv(x)
        return self.norm(x) + x


class CalledTwice(Small):
    """One convolution, with and without a norm after it."""

    def forward_features(self, x):
        return self.conv(self.norm(self.conv(x)))


class WithTwoNorms(Small):
    def forward_features(self, x):
        return self.norm2(self.conv(self.norm(self.conv(x))))


class SharedNorm(Small):
    """One norm, after a convolution and after something else."""

    def forward_features(self, x):
        return self.norm(self.norm(self.conv(x)).relu())


class SharedByTwo(Small):
    def forward_features(self, x):
        return self.norm(self.conv2(self.norm(self.conv(x))))


class NormWithTwoNames(Small):
    def __init__(self):
        super().__init__()
        self.another = self.norm

    def forward_features(self, x):
        return self.another(self.conv(x))


class ConvolutionWithTwoNames(Small):
    def __init__(self):
        super().__init__()
        self.another = self.conv

    def forward_features(self, x):
        return self.another(self.norm(self.conv(x)))


class WeightSeen(Small):
    """The weights of the convolution are also used by themselves."""

    def forward_features(self, x):
        return self.norm(self.conv(x)) * self.conv.weight.abs().mean()


class NotBefore(Small):
    def forward_features(self, x):
        return self.norm(self.conv(x).relu())


class Standardised(nn.Conv2d):
    """A subclass computes with its weights: what it does to folded ones is not known."""

    def forward(self, x):
        weight = self.weight / self.weight.norm()
        return nn.functional.conv2d(x, weight, self.bias, padding=1)


class OfASubclass(Small):
    def __init__(self):
        super().__init__()
        self.conv = Standardised(3, 3, 3, padding=1)

    def forward_features(self, x):
        return self.norm(self.conv(x))


class Branching(Small):
    """Cannot be traced: what it does hangs on the pixels."""

    def forward_features(self, x):
        return self.norm(self.conv(x)) if x.mean() < 100 else x


class NoForwardFeatures(Small):
    def forward(self, x):
        return self.norm(self.conv(x))


FOLDED = (Plain, Activated, Unlearnt)
LEFT = (
    UsedTwice, CalledTwice, WithTwoNorms, SharedNorm, SharedByTwo, NormWithTwoNames,
    ConvolutionWithTwoNames, WeightSeen, NotBefore, OfASubclass, Branching, NoForwardFeatures,
)  # fmt: skip


@pytest.mark.parametrize("kind", [*FOLDED, *LEFT], ids=lambda kind: kind.__name__)
def test_only_what_nothing_else_sees_is_folded(kind):
    module = trained(kind())
    whole, weight = copy.deepcopy(module), module.conv.weight.clone()
    result = fold_batch_norms(module)
    assert result is module
    assert len(norms(result)) == (0 if kind in FOLDED else 2)
    assert torch.equal(module.conv.weight, weight) == (kind in LEFT)
    assert_same(whole, result, apart=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_filters_keep_the_sum_of_their_taps_when_they_are_rounded(dtype):
    weight = torch.randn(40, 3, 5, 5, generator=torch.Generator().manual_seed(3))
    weight -= weight.mean(dim=(2, 3), keepdim=True)  # edges: nothing on an even ground
    ours, nearest = round_taps(weight, dtype), weight.to(dtype).float()
    assert torch.equal(ours, ours.to(dtype).float())
    even = [one.sum(dim=(2, 3)).abs().mean() for one in (ours, nearest)]
    assert even[0] < even[1] / 20
    assert (ours - weight).abs().max() < 2 * (nearest - weight).abs().max()
