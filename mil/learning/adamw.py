"""The optimiser of heads."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw


class AdamW:
    """Adam with decoupled weight decay; its rate falls by a cosine from epoch to epoch.

    I. Loshchilov, F. Hutter, Decoupled Weight Decay Regularization, ICLR 2019; rate as their SGDR, ICLR 2017,
    equation 5. It computes with torch's function, and the results are those of ``torch.optim.AdamW``, whose
    first use loads torch's compiler into every process: 2.4 CPU s, more than most fits take.

    Args:
        weights: to be trained; those without a gradient stay.
        rate: learning rate of the first epoch.
        weight_decay: share of a weight that each step takes away, times the rate.
        epochs: after these the rate is 0.
    """

    def __init__(
        self, weights: Iterable[nn.Parameter], *, rate: float, weight_decay: float, epochs: int
    ) -> None:
        self.weights = list(weights)
        self.rate, self.weight_decay = rate, weight_decay
        self._epoch, self._epochs = 0, epochs
        self._moments: dict[nn.Parameter, tuple[Tensor, Tensor, Tensor]] = {}

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for weight in self.weights:
            weight.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Take one step along the gradients."""
        weights = [weight for weight in self.weights if weight.grad is not None]
        moments = [self._moments_of(weight) for weight in weights]
        means, squares, counts = (list(of_all) for of_all in zip(*moments, strict=True))
        adamw(
            weights,  # type: ignore[arg-type]
            [weight.grad for weight in weights if weight.grad is not None],
            means,
            squares,
            [],
            counts,
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self.rate,
            weight_decay=self.weight_decay,
            eps=1e-8,
            maximize=False,
        )

    def end_epoch(self) -> None:
        """Lower the rate."""
        before, self._epoch = self._epoch, self._epoch + 1
        fallen = 1 + math.cos(math.pi * self._epoch / self._epochs)
        self.rate *= fallen / (1 + math.cos(math.pi * before / self._epochs))

    def _moments_of(self, weight: nn.Parameter) -> tuple[Tensor, Tensor, Tensor]:
        """Running means of the gradient and of its square, and the number of steps."""
        if weight not in self._moments:
            count = torch.zeros((), dtype=torch.float32, device=weight.device)
            self._moments[weight] = torch.zeros_like(weight), torch.zeros_like(weight), count
        return self._moments[weight]
