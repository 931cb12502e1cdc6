"""Make a network cheaper to run in half precision, changing nothing but the last digits."""

import copy
from collections import Counter
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

_PLAIN = (
    nn.Conv2d,
    Conv2dSame,
    nn.Linear,
)  # exactly these: a subclass may compute with its weights


# What a network's own code raises when it is run on placeholders: it branches on values, takes their
# length, or has no ``forward_features``. It then runs as it is, only slower.
UNTRACEABLE = (
    fx.proxy.TraceError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


def halved(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy for half precision: batch norms folded into their convolutions, weights cast once.

    Under autocast the weights of convolutions and linear layers would be cast for every batch. Norms
    that no convolution precedes keep their fp32 statistics.

    Args:
        module: in evaluation mode; it is not changed.
        dtype: ``torch.bfloat16`` or ``torch.float16``.
    """
    network = folded(copy.deepcopy(module))
    for layer in network.modules():
        if type(layer) in _PLAIN:
            layer.to(dtype)
    return network


def folded(module: nn.Module) -> nn.Module:
    """Fold batch norms into the convolutions whose output nothing else sees.

    A network that torch.fx cannot trace is returned as it is. timm's norm with activation leaves its
    activation behind.
    """
    try:
        graph = _Tracer().trace(module)
    except UNTRACEABLE:
        return module
    layers: dict[str, nn.Module] = dict(module.named_modules())
    once = _used_once(module, graph)
    for node in graph.nodes:
        norm, before = _norm_after_convolution(node, layers, once)
        if norm is None:
            continue
        convolution: Any = layers[before]
        weight, bias = fuse_conv_bn_weights(
            convolution.weight, convolution.bias, norm.running_mean, norm.running_var,
            norm.eps, norm.weight, norm.bias,
        )  # fmt: skip
        convolution.weight, convolution.bias = weight, bias
        _put(module, str(node.target), _activation(norm))
    return module


class _Tracer(fx.Tracer):
    """Sees norms and convolutions as wholes, and the network up to its last feature map."""

    def trace(self, root: nn.Module) -> fx.Graph:  # type: ignore[override]
        """The calls of ``forward_features``: what pools them branches on shapes, which cannot be traced."""
        self.traced_func_name = "forward_features"
        return super().trace(root)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Also timm's own subclasses."""
        whole = isinstance(m, nn.BatchNorm2d | Conv2dSame)
        return whole or super().is_leaf_module(m, module_qualified_name)


def _used_once(module: nn.Module, graph: fx.Graph) -> set[str]:
    """Layers that have one name, are called once, and whose weights nothing else takes."""
    names = Counter(layer for _, layer in module.named_modules(remove_duplicate=False))
    uses = Counter(
        str(node.target) if node.op == "call_module" else str(node.target).rpartition(".")[0]
        for node in graph.nodes
        if node.op in ("call_module", "get_attr")
    )
    return {name for name, layer in module.named_modules() if names[layer] == uses[name] == 1}


def _norm_after_convolution(
    node: fx.Node, layers: dict[str, nn.Module], once: set[str]
) -> tuple[Any, str]:
    """The norm a node calls and the convolution before it; None where they cannot be one."""
    if node.op != "call_module" or not isinstance(layers[str(node.target)], nn.BatchNorm2d):
        return None, ""
    (source, *_) = node.args
    if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) != 1:
        return None, ""
    name = str(source.target)
    norm: Any = layers[str(node.target)]
    foldable = type(layers[name]) in _PLAIN[:2] and norm.track_running_stats
    foldable &= {name, str(node.target)} <= once
    return (norm, name) if foldable else (None, "")


def _activation(norm: nn.BatchNorm2d) -> nn.Module:
    """What is left of a norm: timm's BatchNormAct2d goes on with drop and act."""
    parts = [getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)]
    return nn.Sequential(*parts) if parts else nn.Identity()


def _put(module: nn.Module, target: str, new: nn.Module) -> None:
    parent, _, name = target.rpartition(".")
    setattr(module.get_submodule(parent), name, new)
