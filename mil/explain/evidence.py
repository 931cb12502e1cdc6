"""What each tile contributes to the answer, where the answer is their sum: no approximation."""

import torch

from mil.errors import FitError
from mil.explain.question import Question
from mil.explain.scores import TileScores, signed
from mil.heads.ensemble import members_of

TOLERANCE = 1e-4  # of the sum of contributions, relative to their size


@torch.inference_mode()
def evidence_scores(question: Question) -> TileScores:
    """Attention times the tile's own margin; over tiles it sums to the bag's margin.

    Of an ensemble it is the mean over members, which sums to the members' mean margin; the ensemble's own
    answer, of mean probabilities, differs from that, and the difference is told.

    Raises:
        FitError: the head's answer is no sum over tiles.
    """
    mask = torch.ones(question.features.shape[:2], dtype=torch.bool)
    shares = []
    for head in members_of(question.fitted.head):
        output = head(question.features, mask)
        if output.tile_logits is None:
            raise _not_a_sum(question)
        attention = output.attention[0].T.double()  # (N, A)
        contributed = attention * output.tile_logits[0].double()  # (N, C)
        gap = (contributed.sum(dim=0) - output.logits[0]).abs().max()
        if gap > TOLERANCE * (1 + contributed.abs().sum(dim=0).max()):
            raise _not_a_sum(question)
        shares.append(question.margin_of(contributed))
    values = torch.stack(shares).mean(dim=0)
    answer = float(question.margin(question.features)[0])
    facts = {"explained": float(values.sum()), "gap to the answer": float(values.sum()) - answer}
    return signed(question, "evidence", values.numpy(), facts)


def _not_a_sum(question: Question) -> FitError:
    return FitError(
        f"The answer of {question.fitted.model} is no sum over tiles, so no tile has a share of it. Use "
        "--method single-tile, or a model such as abmil."
    )
