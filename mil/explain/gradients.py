"""The slope of the answer at each tile, and its integral from the mean training tile."""

from collections.abc import Callable

import torch
from torch import Tensor

from mil.errors import FitError
from mil.explain.scores import TileScores, signed
from mil.explain.target import ExplanationTarget

STEPS = 50
TILES_AT_ONCE = 8192  # that carry a gradient together


def gradient_scores(question: ExplanationTarget) -> TileScores:
    """Gradient times (tile - mean training tile), summed over the features."""
    features = question.features.clone().requires_grad_()
    (slope,) = torch.autograd.grad(_sloping(question)(features).sum(), features)
    values = (slope * (features.detach() - question.baseline)).sum(dim=-1)[0].double()
    return signed(question, "gradient", values.numpy(), _gap(question, values))


def integrated_gradients_scores(question: ExplanationTarget) -> TileScores:
    """Integrated gradients (M. Sundararajan et al., ICML 2017, equation 1) on the bag's features.

    Every tile starts as the mean training tile. The scores sum to the margin less that of a bag of mean
    tiles; by how much they miss it is told as the gap.
    """
    from captum.attr import IntegratedGradients

    attributed: Tensor = IntegratedGradients(_sloping(question)).attribute(
        question.features,
        baselines=question.baseline.expand_as(question.features),
        n_steps=STEPS,
        internal_batch_size=max(1, TILES_AT_ONCE // question.features.shape[1]),
    )
    values = attributed.sum(dim=-1)[0].double()
    return signed(question, "integrated-gradients", values.numpy(), _gap(question, values))


def _sloping(question: ExplanationTarget) -> Callable[[Tensor], Tensor]:
    """The margin, if it has a slope.

    Raises:
        FitError: the model answers without one.
    """

    def margin(features: Tensor) -> Tensor:
        answer = question.margin(features)
        if features.requires_grad and not answer.requires_grad:
            raise FitError(
                f"The answer of {question.fitted.model} has no slope in the features. Use --method shapley."
            )
        return answer

    return margin


def _gap(question: ExplanationTarget, values: Tensor) -> dict[str, float]:
    """How far scores are from summing to the change from a bag of mean tiles."""
    with torch.inference_mode():
        start = question.baseline.expand_as(question.features)
        change = question.margin(question.features) - question.margin(start)
    gap = float(values.sum()) - float(change)
    return {"explained": float(change), "gap": gap}
