"""The score of each tile as a slide of its own."""

import torch

from mil.explanation.scores import TileScores, signed_scores
from mil.explanation.target import ExplanationTarget

TILES_AT_ONCE = 4096


@torch.inference_mode()
def single_tile_scores(target: ExplanationTarget) -> TileScores:
    """The score of each tile as a bag of its own: what a tile shows, not what weight it has."""
    bags = torch.split(target.features[0].unsqueeze(1), TILES_AT_ONCE)  # (n, 1, D)
    values = torch.cat([target.score(part) for part in bags]).double().numpy()
    return signed_scores(target, "single-tile", values, {}, relative=values)
