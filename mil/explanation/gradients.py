"""The gradient of the score at each tile, and its integral from the mean training tile."""

from collections.abc import Callable

import torch
from torch import Tensor

from mil.errors import FitError
from mil.explanation.scores import TileScores, signed_scores
from mil.explanation.target import ExplanationTarget

STEPS = 50
TILES_AT_ONCE = 8192  # in one backward pass


def gradient_scores(target: ExplanationTarget) -> TileScores:
    """Gradient times (tile - mean training tile), summed over the features."""
    features = target.features.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(_differentiable_score(target)(features).sum(), features)
    values = (gradient * (features.detach() - target.baseline)).sum(dim=-1)[0].double()
    return signed_scores(target, "gradient", values.numpy(), _completeness_gap(target, values))


def integrated_gradients_scores(target: ExplanationTarget) -> TileScores:
    """Integrated gradients (M. Sundararajan et al., ICML 2017, equation 1) on the bag's features.

    Every tile starts as the mean training tile. The scores sum to the bag's score less that of a bag of mean
    tiles; the gap is their error.
    """
    from captum.attr import IntegratedGradients

    attributed: Tensor = IntegratedGradients(_differentiable_score(target)).attribute(
        target.features,
        baselines=target.baseline.expand_as(target.features),
        n_steps=STEPS,
        internal_batch_size=max(1, TILES_AT_ONCE // target.features.shape[1]),
    )
    values = attributed.sum(dim=-1)[0].double()
    return signed_scores(
        target, "integrated-gradients", values.numpy(), _completeness_gap(target, values)
    )


def _differentiable_score(target: ExplanationTarget) -> Callable[[Tensor], Tensor]:
    """The score as a function of features that must have a gradient.

    Raises:
        FitError: it has none.
    """

    def score(features: Tensor) -> Tensor:
        scores = target.score(features)
        if features.requires_grad and not scores.requires_grad:
            raise FitError(
                f"The answer of {target.fitted.model} has no gradient in the features. Use method shapley."
            )
        return scores

    return score


def _completeness_gap(target: ExplanationTarget, values: Tensor) -> dict[str, float]:
    """What the scores should sum to, the change from a bag of mean tiles, and how far they miss it."""
    with torch.inference_mode():
        start = target.baseline.expand_as(target.features)
        change = target.score(target.features) - target.score(start)
    gap = float(values.sum()) - float(change)
    return {"explained": float(change), "gap": gap}
