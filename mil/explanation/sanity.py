"""Does a map depend on what the model has learnt?"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from mil.distributions import rankdata
from mil.explanation.scores import TileScores
from mil.explanation.target import ExplanationTarget
from mil.heads.ensemble import members_of
from mil.heads.registry import build_head

DRAWS = 5
ALIKE = 0.5  # rank correlation from which a map shows little of what was learnt


def similarity_to_untrained(
    target: ExplanationTarget,
    method: Callable[[ExplanationTarget], TileScores],
    *,
    draws: int = DRAWS,
) -> float | None:
    """Mean absolute rank correlation of a map with those of the same head with fresh weights.

    Near 0 the map shows what was learnt. Near 1 it shows the head's structure or the tiles, whatever was
    learnt (J. Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018). The scale of features stays.
    None for a flat map, or a head without weights.
    """
    fitted = target.fitted
    if not list(fitted.head.parameters()):
        return None
    trained, correlations = method(target).relative, []
    for seed in range(draws):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = build_head(fitted.model, fitted.head.settings, len(members_of(fitted.head)))
        fresh.load_state_dict(dict(fitted.head.named_buffers()), strict=False)
        untrained = replace(fitted, head=fresh.eval())
        scores = method(replace(target, fitted=untrained)).relative
        if np.ptp(trained) == 0 or np.ptp(scores) == 0:
            return None
        correlations.append(abs(float(np.corrcoef(rankdata(trained), rankdata(scores))[0, 1])))
    return float(np.mean(correlations))


def sanity_warnings(similarity: float | None, scores: TileScores) -> tuple[str, ...]:
    """A sentence if a map resembles those of untrained heads more than chance explains."""
    if similarity is None:
        return ()
    n_values = len(np.unique(scores.relative))
    # Absolute rank correlations of unrelated values are half-normal: 95 % point of the mean over draws.
    spread = 1 / math.sqrt(max(n_values - 1, 1))
    by_chance = spread * (math.sqrt(2 / math.pi) + 1.645 * math.sqrt((1 - 2 / math.pi) / DRAWS))
    if similarity < max(ALIKE, by_chance):
        return ()
    return (
        f"Untrained heads give much the same map (rank correlation {similarity:.2f}): it shows how the head "
        f"is built, or the {scores.part}s, more than what was learnt.",
    )
