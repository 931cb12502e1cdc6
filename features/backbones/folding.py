"""Make a network cheaper to run in half precision; only the last digits of its features change."""

import copy
from collections import Counter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

# Raised by a network that torch.fx cannot trace: it branches on values, takes their length, or has no
# ``forward_features``. Such a network runs unchanged, only slower.
UNTRACEABLE = (
    fx.proxy.TraceError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


def to_half_precision(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy for half precision: batch norms folded into their convolutions, weights cast once.

    Under autocast the weights of convolutions and linear layers would be cast for every batch. Norms
    that no convolution precedes keep their fp32 statistics. Filters are rounded by ``round_taps``.

    Args:
        module: in evaluation mode; it is not changed.
        dtype: ``torch.bfloat16`` or ``torch.float16``.
    """
    network = fold_batch_norms(copy.deepcopy(module))
    for layer in network.modules():
        if type(layer) in (*_convolutions(), nn.Linear):
            if layer.weight.ndim == 4:
                layer.weight.data = round_taps(layer.weight.data, dtype)  # type: ignore[arg-type]
            layer.to(dtype)
    return network


def round_taps(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Filters (O, I, h, w) rounded so that each keeps the sum of its taps; still single precision.

    Neighbouring pixels are alike, so what a filter of nearly cancelling taps answers is the sum of their
    rounding errors. Largest first, each tap takes over the error of the taps before it.
    """
    taps = weight.flatten(2).flatten(0, 1)  # (O I, h w)
    order = taps.abs().argsort(dim=1, descending=True)
    rounded, error = torch.empty_like(taps), taps.new_zeros(len(taps), 1)
    for place in torch.split(order, 1, dim=1):
        value = taps.gather(1, place) + error
        nearest = value.to(dtype).float()
        rounded.scatter_(1, place, nearest)
        error = value - nearest
    return rounded.reshape(weight.shape)


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Fold batch norms into the convolutions whose output nothing else sees.

    A network that torch.fx cannot trace is returned unchanged. The activation inside a timm norm is kept.
    """
    try:
        graph = _Tracer().trace(module)
    except UNTRACEABLE:
        return module
    layers: dict[str, nn.Module] = dict(module.named_modules())
    once = _single_use_layers(module, graph)
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
        _replace_module(module, str(node.target), _activation(norm))
    return module


def _convolutions() -> tuple[type[nn.Module], ...]:
    """Exactly these are folded: another subclass may compute with its weights."""
    from timm.layers.conv2d_same import (
        Conv2dSame,
    )  # takes seconds, which bags alone need not wait for

    return nn.Conv2d, Conv2dSame


class _Tracer(fx.Tracer):
    """Traces the network up to its last feature map; norms and convolutions are leaves."""

    def trace(self, root: nn.Module) -> fx.Graph:  # type: ignore[override]
        """Trace ``forward_features``; the pooling after it branches on shapes, which cannot be traced."""
        self.traced_func_name = "forward_features"
        return super().trace(root)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is not traced into: timm's subclasses are not, either."""
        is_layer = isinstance(m, (nn.BatchNorm2d, *_convolutions()))
        return is_layer or super().is_leaf_module(m, module_qualified_name)


def _single_use_layers(module: nn.Module, graph: fx.Graph) -> set[str]:
    """Names of the layers that have one name, are called once and share no weights."""
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
    """The norm that a node calls and the convolution before it; None if they cannot be folded."""
    if node.op != "call_module" or not isinstance(layers[str(node.target)], nn.BatchNorm2d):
        return None, ""
    (source, *_) = node.args
    if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) != 1:
        return None, ""
    name = str(source.target)
    norm: Any = layers[str(node.target)]
    foldable = type(layers[name]) in _convolutions() and norm.track_running_stats
    foldable &= {name, str(node.target)} <= once
    return (norm, name) if foldable else (None, "")


def _activation(norm: nn.BatchNorm2d) -> nn.Module:
    """The rest of a folded norm: dropout and activation of timm's BatchNormAct2d, else nothing."""
    parts = [getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)]
    return nn.Sequential(*parts) if parts else nn.Identity()


def _replace_module(module: nn.Module, target: str, new: nn.Module) -> None:
    parent, _, name = target.rpartition(".")
    setattr(module.get_submodule(parent), name, new)
