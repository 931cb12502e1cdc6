"""Does a map depend on what the model has learnt?"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from scipy.stats import spearmanr

from mil.explain.scores import TileScores
from mil.explain.target import ExplanationTarget
from mil.heads.ensemble import members_of
from mil.heads.registry import build_head

DRAWS = 5
ALIKE = 0.5  # rank correlation from which a map is said to show little of what was learnt


def likeness_to_untrained(
    question: ExplanationTarget,
    method: Callable[[ExplanationTarget], TileScores],
    *,
    draws: int = DRAWS,
) -> float | None:
    """Mean absolute rank correlation of a map with those of the same head with fresh weights.

    Near 0 the map shows what was learnt; near 1 it shows the head's structure, or the tiles, whatever was
    learnt (J. Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018). The scale of features is kept.
    None where a map is flat, or the head has no weights.
    """
    fitted = question.fitted
    if not list(fitted.head.parameters()):
        return None
    trained, found = method(question).relative, []
    for seed in range(draws):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = build_head(fitted.model, fitted.head.settings, len(members_of(fitted.head)))
        fresh.load_state_dict(dict(fitted.head.named_buffers()), strict=False)
        untrained = replace(fitted, head=fresh.eval())
        scores = method(replace(question, fitted=untrained)).relative
        if np.ptp(trained) == 0 or np.ptp(scores) == 0:
            return None
        found.append(abs(float(spearmanr(trained, scores).statistic)))
    return float(np.mean(found))


def sanity_warnings(likeness: float | None, scores: TileScores) -> tuple[str, ...]:
    """A sentence where a map is like those of untrained heads, beyond what so few values do by chance."""
    if likeness is None:
        return ()
    n_values = len(np.unique(scores.relative))
    # Of unrelated values the rank correlation's size is half-normal: the 95 % point of the draws' mean.
    spread = 1 / math.sqrt(max(n_values - 1, 1))
    by_chance = spread * (math.sqrt(2 / math.pi) + 1.645 * math.sqrt((1 - 2 / math.pi) / DRAWS))
    if likeness < max(ALIKE, by_chance):
        return ()
    return (
        f"Heads that have learnt nothing give much the same map (rank correlation {likeness:.2f}): it shows "
        "how the head is built, or the tiles, more than what was learnt.",
    )
