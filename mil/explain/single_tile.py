"""What the model would say if a tile were the whole slide."""

import torch

from mil.explain.scores import TileScores, signed
from mil.explain.target import ExplanationTarget

TILES_AT_ONCE = 4096


@torch.inference_mode()
def single_tile_scores(question: ExplanationTarget) -> TileScores:
    """The margin of each tile as a bag of its own. It says what a tile shows, not what weight it has."""
    bags = torch.split(question.features[0].unsqueeze(1), TILES_AT_ONCE)  # (n, 1, D) each
    values = torch.cat([question.margin(part) for part in bags]).double().numpy()
    return signed(question, "single-tile", values, {}, relative=values)
