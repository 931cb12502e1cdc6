"""Several fits of one head as one head."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from mil.heads.head import Head, HeadOutput, Outcome


class Ensemble(Head):
    """The mean of the members' predictions, of their attention and of their scores.

    For classes and levels probabilities are averaged, for times logits. Each member has its own scale of
    features; the embeddings are concatenated.
    """

    def __init__(self, members: Sequence[Head]) -> None:
        super().__init__(members[0].settings)
        self.positional = members[0].positional
        self.learns_attention = members[0].learns_attention
        self.members = nn.ModuleList(members)

    def pool(self, features: Tensor, mask: Tensor, coords: Tensor | None) -> HeadOutput:
        """Run every member, and average."""
        return self._mean([member(features, mask, coords) for member in self.members])

    def takes_chunks(self) -> bool:
        """Whether its members do."""
        return members_of(self)[0].takes_chunks()

    def summarise(self, features: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """The concatenated summaries of the members."""
        parts = [m.summarise(m.standardise(features, mask), mask) for m in members_of(self)]
        return tuple(tensor for part in parts for tensor in part)

    def merge(self, parts: Sequence[tuple[Tensor, ...]]) -> HeadOutput:
        """The answer of every member from its part of the summaries."""
        size = len(parts[0]) // len(self.members)
        return self._mean(
            [
                member.merge([part[i * size : (i + 1) * size] for part in parts])
                for i, member in enumerate(members_of(self))
            ]
        )

    def _mean(self, outputs: Sequence[HeadOutput]) -> HeadOutput:
        """One output, its logits averaged as the outcome needs."""
        average = AVERAGES[self.settings.outcome]
        tile_logits = [o.tile_logits for o in outputs if o.tile_logits is not None]
        padding = outputs[0].scores.isinf().all(dim=1).unsqueeze(-1)  # (B, N, 1)
        return HeadOutput(
            logits=average([o.logits for o in outputs]),
            attention=torch.stack([o.attention for o in outputs]).mean(dim=0),
            scores=torch.stack([o.scores for o in outputs]).mean(dim=0),
            embedding=torch.cat([o.embedding for o in outputs], dim=-1),
            tile_logits=average(tile_logits).masked_fill(padding, 0.0) if tile_logits else None,
        )


def members_of(head: Head) -> list[Head]:
    """The fits behind a head: those of an ensemble, or the head alone."""
    return list(head.members) if isinstance(head, Ensemble) else [head]  # type: ignore[arg-type]


def mean_logits(logits: Sequence[Tensor]) -> Tensor:
    """Logarithms (..., C) of the mean probabilities of several logits (..., C)."""
    stacked = torch.stack([member.log_softmax(-1) for member in logits])
    return torch.logsumexp(stacked, dim=0) - math.log(len(logits))


def _mean_of_logits(logits: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(logits)).mean(dim=0)


def _mean_of_cumulative(logits: Sequence[Tensor]) -> Tensor:
    """Logits of the mean of P(level > k), which falls with k as its members do."""
    stacked = torch.stack(list(logits))
    above = torch.logsumexp(logsigmoid(stacked), dim=0)
    return above - torch.logsumexp(logsigmoid(-stacked), dim=0)


AVERAGES: dict[Outcome, Callable[[Sequence[Tensor]], Tensor]] = {
    "classes": mean_logits,
    "times": _mean_of_logits,
    "ordered": _mean_of_cumulative,
}
