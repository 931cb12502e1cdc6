"""Several fits of one head as one, to be trained together: what small cohorts cost is mostly single calls.

The bags of all members are one batch, member after member, and a linear layer multiplies the part of each by
its own weights. Nothing else in such a head knows one bag of another, so it runs as it is.
"""

import copy
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from mil.heads.batches import ReadyBatch
from mil.heads.head import Head
from mil.heads.layers import Dropout, factors_of

Shapes = Sequence[tuple[int, int]]  # (bags, tiles) of the batches a member would have had by itself


class StackedLinear(nn.Module):
    """Linear layers side by side, (S B, ..., D) -> (S B, ..., E).

    Args:
        layers: S of one shape.
    """

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        with torch.no_grad():
            # (S, D, E), so that the gradient needs no transposing
            self.weight = nn.Parameter(torch.stack([layer.weight.T for layer in layers]))
            biased = layers[0].bias is not None
            bias = torch.stack([layer.bias for layer in layers]) if biased else None
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Each part by its own weights."""
        n_members, length, n_outputs = self.weight.shape
        rows = x.reshape(n_members, x.numel() // n_members // length, length)
        if self.bias is None:
            product = torch.bmm(rows, self.weight)
        else:
            product = torch.baddbmm(self.bias.unsqueeze(1), rows, self.weight)
        return product.view(*x.shape[:-1], n_outputs)

    @torch.no_grad()
    def unstack(self, layers: Sequence[nn.Linear]) -> None:
        """Give the layers their weights back."""
        for number, layer in enumerate(layers):
            layer.weight.copy_(self.weight[number].T)
            if self.bias is not None:
                layer.bias.copy_(self.bias[number])


class StackedDropout(nn.Module):
    """Dropout that draws for each member what the member would have drawn by itself.

    Args:
        share: that is dropped.
        generators: of the members, which go on with them.
    """

    def __init__(self, share: float, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.share, self.generators = share, generators
        self.shapes: Sequence[Shapes] = ()

    def forward(self, x: Tensor) -> Tensor:
        """Drop in training, (S B, N, E) -> the same; ``shapes`` are of the members' own batches.

        A member with fewer bags than the others has nothing but zeros in the rows after its own.
        """
        if not self.training or self.share == 0:
            return x
        groups = [
            (
                member * (len(x) // len(self.generators)) + first,
                bags,
                tiles,
                self.generators[member],
            )
            for member, shapes in enumerate(self.shapes)
            for first, bags, tiles in _with_first(shapes)
        ]
        sizes = [math.ceil(bags * tiles * x.shape[-1] / 4) for _, bags, tiles, _ in groups]
        words = torch.empty(sum(sizes), dtype=torch.int64)
        for own, (*_, generator) in zip(torch.split(words, sizes), groups, strict=True):
            own.random_(-(2**63), None, generator=generator)
        drawn = torch.split(factors_of(words, self.share, x.dtype), [4 * size for size in sizes])
        factors = x.new_zeros(x.shape)
        for own, (row, bags, tiles, _) in zip(drawn, groups, strict=True):
            shape = bags, tiles, x.shape[-1]
            factors[row : row + bags, :tiles] = own[: math.prod(shape)].view(shape)
        return x * factors


class Stack:
    """Heads of one class and shape, in training as one.

    Args:
        heads: to be trained.
        generators: what each draws from.

    Attributes:
        head: the stacked one, whose bags are those of all members, one member after the other.
    """

    def __init__(self, heads: Sequence[Head], generators: Sequence[torch.Generator]) -> None:
        self.members = heads
        self.head = copy.deepcopy(heads[0])
        self.dropouts: list[StackedDropout] = []
        self._linear: dict[str, StackedLinear] = {}
        for name, layer in heads[0].named_modules():
            if isinstance(layer, nn.Linear):
                self._linear[name] = StackedLinear(self._layers(name))
                self.head.set_submodule(name, self._linear[name])
            elif isinstance(layer, Dropout):
                self.dropouts.append(StackedDropout(layer.share, generators))
                self.head.set_submodule(name, self.dropouts[-1])

    def run(self, batch: ReadyBatch, shapes: Sequence[Shapes]) -> Tensor:
        """Logits (S B, C) of the bags of all members, one member after the other.

        Args:
            batch: as many bags of each member, (S B, N, D).
            shapes: of the bags and tiles of each member that count.
        """
        for dropout in self.dropouts:
            dropout.shapes = shapes
        return self.head.pool(*batch, None).logits

    def unstack(self) -> None:
        """Give the members what they have learnt."""
        for name, layer in self._linear.items():
            layer.unstack(self._layers(name))

    def _layers(self, name: str) -> list[nn.Linear]:
        return [head.get_submodule(name) for head in self.members]  # type: ignore[misc]


def _with_first(shapes: Shapes) -> Iterator[tuple[int, int, int]]:
    """(first bag, bags, tiles) of each batch."""
    first = 0
    for bags, tiles in shapes:
        yield first, bags, tiles
        first += bags


def stacks(head: Head) -> bool:
    """Whether heads like this can be trained as one.

    The class says so itself, for what derives from it may compare bags, and its weights are those of linear
    layers. It has no loss of its own, which would need the member's head.
    """
    names = {
        f"{name}.{weight}"
        for name, layer in head.named_modules()
        if type(layer) is nn.Linear
        for weight in ("weight", "bias")
    }
    return (
        bool(vars(type(head)).get("stacks"))
        and type(head).auxiliary_loss is Head.auxiliary_loss
        and all(name in names for name, _ in head.named_parameters())
    )
