"""What each tile contributes to the score, where the logits are a sum over tiles: no approximation."""

import numpy as np
import torch
from torch import Tensor

from mil.errors import FitError
from mil.explanation.scores import TileScores, signed_scores
from mil.explanation.single_tile import single_tile_scores
from mil.explanation.target import ExplanationTarget
from mil.heads.ensemble import members_of

TOLERANCE = 1e-4  # of the sum of contributions, relative to their size
POINTS = 64  # quadrature points along the path of an ensemble's logits


@torch.inference_mode()
def evidence_scores(target: ExplanationTarget) -> TileScores:
    """Attention times the score of the tile's own logits; over tiles it sums to the bag's score.

    A constant in the score, such as the risk of the median training case, is shared out by attention. An
    ensemble of classifiers computes the logarithm of a mean of probabilities, which is no sum over members.
    Each member's part of its margin comes from integrated gradients along the path from logits of 0, so
    that here too the tiles sum to the margin.

    Raises:
        FitError: the logits are no sum over tiles, or the score is not linear in them.
    """
    _check_linear(target)
    mask = torch.ones(target.features.shape[:2], dtype=torch.bool)
    contributions, logits, attentions = [], [], []
    for head in members_of(target.fitted.head):
        output = head(target.features, mask)
        if output.tile_logits is None:
            raise _not_a_sum(target)
        attention = output.attention[0].T.double()  # (N, A)
        contributed = attention * output.tile_logits[0].double()  # (N, C)
        gap = (contributed.sum(dim=0) - output.logits[0]).abs().max()
        if gap > TOLERANCE * (1 + contributed.abs().sum(dim=0).max()):
            raise _not_a_sum(target)
        contributions.append(contributed)
        logits.append(contributed.sum(dim=0))
        attentions.append(attention.mean(dim=1))
    slopes = _mean_slope(target, torch.stack(logits))  # (M, C)
    values = torch.einsum("mnc,mc->n", torch.stack(contributions), slopes)
    if constant := float(target.quantity.score(torch.zeros_like(logits[0]))):
        values += constant * torch.stack(attentions).mean(dim=0)
    score = float(target.score(target.features)[0])
    facts = {"explained": score, "gap": float(values.sum()) - score}
    return signed_scores(target, "evidence", values.numpy(), facts)


def evidence_or_single_tile(target: ExplanationTarget) -> TileScores:
    """Evidence where the score is a sum over tiles, else the scores of single tiles."""
    try:
        return evidence_scores(target)
    except FitError:
        return single_tile_scores(target)


def _mean_slope(target: ExplanationTarget, logits: Tensor) -> Tensor:
    """(M, C) mean gradient of the score on the straight path from 0 to the members' logits."""
    at, weights = np.polynomial.legendre.leggauss(POINTS)
    with torch.inference_mode(mode=False), torch.enable_grad():
        path = torch.from_numpy((at + 1) / 2).view(-1, 1, 1) * logits.clone()  # (P, M, C)
        path.requires_grad_()
        scores = target.quantity.score(target.quantity.merge(list(path.unbind(dim=1))))  # (P,)
        (slopes,) = torch.autograd.grad(scores.sum(), path)
    mean: Tensor = torch.einsum("p,pmc->mc", torch.from_numpy(weights / 2), slopes)
    return mean


def _check_linear(target: ExplanationTarget) -> None:
    if not target.quantity.linear:
        raise FitError(
            f"The {target.quantity.label} of this model is not linear in its logits, so no tile has an exact "
            "share of it. Use method single-tile or shapley."
        )


def _not_a_sum(target: ExplanationTarget) -> FitError:
    return FitError(
        f"The output of {target.fitted.model} is not a sum over tiles, so it cannot be split into shares of "
        "the tiles. Use method single-tile, or a model such as abmil."
    )
