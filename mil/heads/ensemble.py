"""Several fits of one head as one head."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from mil.heads.head import Head, HeadOutput


class Ensemble(Head):
    """The mean of its members' probabilities (of survival: logits), of their attention and their scores.

    Each member has its own scale of features; its embedding stands beside those of the others.
    """

    def __init__(self, members: Sequence[Head]) -> None:
        super().__init__(members[0].settings)
        self.positional = members[0].positional
        self.learns_attention = members[0].learns_attention
        self.members = nn.ModuleList(members)

    def pool(self, features: Tensor, mask: Tensor, coords: Tensor | None) -> HeadOutput:
        """Ask each member."""
        return self._mean([member(features, mask, coords) for member in self.members])

    def takes_chunks(self) -> bool:
        """As its members do."""
        return members_of(self)[0].takes_chunks()

    def summarise(self, features: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """The members' summaries, one after the other."""
        parts = [m.summarise(m.standardise(features, mask), mask) for m in members_of(self)]
        return tuple(tensor for part in parts for tensor in part)

    def merge(self, parts: Sequence[tuple[Tensor, ...]]) -> HeadOutput:
        """Each member's answer from its share of the summaries."""
        size = len(parts[0]) // len(self.members)
        return self._mean(
            [
                member.merge([part[i * size : (i + 1) * size] for part in parts])
                for i, member in enumerate(members_of(self))
            ]
        )

    def _mean(self, outputs: Sequence[HeadOutput]) -> HeadOutput:
        """Probabilities of classes and of exceeding a grade are averaged, log hazards as they are."""
        averaged = AVERAGES[self.settings.outcome]
        told = [o.tile_logits for o in outputs if o.tile_logits is not None]
        padding = outputs[0].scores.isinf().all(dim=1).unsqueeze(-1)  # (B, N, 1)
        return HeadOutput(
            logits=averaged([o.logits for o in outputs]),
            attention=torch.stack([o.attention for o in outputs]).mean(dim=0),
            scores=torch.stack([o.scores for o in outputs]).mean(dim=0),
            embedding=torch.cat([o.embedding for o in outputs], dim=-1),
            tile_logits=averaged(told).masked_fill(padding, 0.0) if told else None,
        )


def members_of(head: Head) -> list[Head]:
    """The fits behind a head: those of an ensemble, or the head alone."""
    return list(head.members) if isinstance(head, Ensemble) else [head]  # type: ignore[arg-type]


def mean_logits(logits: Sequence[Tensor]) -> Tensor:
    """Logarithms of the members' mean probabilities, from logits (..., C) of each."""
    stacked = torch.stack([each.log_softmax(-1) for each in logits])
    return torch.logsumexp(stacked, dim=0) - math.log(len(logits))


def mean_of_logits(logits: Sequence[Tensor]) -> Tensor:
    """The members' mean logits, from logits (..., C) of each."""
    return torch.stack(list(logits)).mean(dim=0)


def mean_log_odds(logits: Sequence[Tensor]) -> Tensor:
    """Log odds of the members' mean probabilities, from log odds (..., C) of each."""
    stacked = torch.stack(list(logits))
    above, below = logsigmoid(stacked).logsumexp(dim=0), logsigmoid(-stacked).logsumexp(dim=0)
    return above - below


# By ``HeadSettings.outcome``.
AVERAGES = {"classes": mean_logits, "times": mean_of_logits, "ordered": mean_log_odds}
