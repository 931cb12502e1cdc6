"""What each tile contributes to the answer, where the answer is their sum: no approximation."""

import numpy as np
import torch
from torch import Tensor

from mil.errors import FitError
from mil.explain.scores import TileScores, signed
from mil.explain.target import ExplanationTarget
from mil.heads.ensemble import mean_logits, members_of

TOLERANCE = 1e-4  # of the sum of contributions, relative to their size
POINTS = 64  # on the way of an ensemble's logits


@torch.inference_mode()
def evidence_scores(question: ExplanationTarget) -> TileScores:
    """Attention times the tile's own logits; over tiles it sums to the bag's margin.

    An ensemble answers with the logarithm of a mean of probabilities, which is no sum over members. How much
    of its margin is each member's is given by integrated gradients from no logits at all, so that here too
    the tiles sum to the margin.

    Raises:
        FitError: the head's answer is no sum over tiles.
    """
    mask = torch.ones(question.features.shape[:2], dtype=torch.bool)
    contributions, answers = [], []
    for head in members_of(question.fitted.head):
        output = head(question.features, mask)
        if output.tile_logits is None:
            raise _not_a_sum(question)
        attention = output.attention[0].T.double()  # (N, A)
        contributed = attention * output.tile_logits[0].double()  # (N, C)
        gap = (contributed.sum(dim=0) - output.logits[0]).abs().max()
        if gap > TOLERANCE * (1 + contributed.abs().sum(dim=0).max()):
            raise _not_a_sum(question)
        contributions.append(contributed)
        answers.append(contributed.sum(dim=0))
    slopes = _mean_slope(question, torch.stack(answers))  # (M, C)
    values = torch.einsum("mnc,mc->n", torch.stack(contributions), slopes)
    answer = float(question.margin(question.features)[0])
    facts = {"explained": answer, "gap": float(values.sum()) - answer}
    return signed(question, "evidence", values.numpy(), facts)


def _mean_slope(question: ExplanationTarget, logits: Tensor) -> Tensor:
    """(M, C) mean gradient of the ensemble's margin on the straight way from 0 to its members' logits."""
    at, weights = np.polynomial.legendre.leggauss(POINTS)
    with torch.inference_mode(mode=False), torch.enable_grad():
        way = torch.from_numpy((at + 1) / 2).view(-1, 1, 1) * logits.clone()  # (P, M, C)
        way.requires_grad_()
        margins = question.margin_of(mean_logits(list(way.unbind(dim=1))))  # (P,)
        (slopes,) = torch.autograd.grad(margins.sum(), way)
    found: Tensor = torch.einsum("p,pmc->mc", torch.from_numpy(weights / 2), slopes)
    return found


def _not_a_sum(question: ExplanationTarget) -> FitError:
    return FitError(
        f"The answer of {question.fitted.model} does not come as a sum over tiles, so none has a share to "
        "show. Use --method single-tile, or a model such as abmil."
    )
