"""A fitted model's probabilities for bags; no label is needed."""

import torch

from features.bags import Bag
from mil.batches import collate, run_in_chunks
from mil.errors import FitError
from mil.fitted import Fitted
from mil.heads.head import HeadOutput


@torch.inference_mode()
def run_head(fitted: Fitted, bag: Bag) -> HeadOutput:
    """The head on all tiles of one bag, as a batch of one.

    Raises:
        FitError: the bag was made by another recipe than the model's.
    """
    if bag.recipe_sha256 != fitted.recipe_sha256:
        keys = sorted({*fitted.recipe, *bag.recipe})
        differing = [key for key in keys if fitted.recipe.get(key) != bag.recipe.get(key)]
        changes = ", ".join(
            f"{key} {bag.recipe.get(key)} where it learnt from {fitted.recipe.get(key)}"
            for key in differing[:4]
        )
        raise FitError(
            f"{bag.slide}: the bag does not suit model {fitted.model} ({changes or 'recipe'}). Extract "
            "the slide with the settings the model's bags were made with."
        )
    chunk_tiles = fitted.settings.chunk_tiles
    if 0 < chunk_tiles < len(bag):
        return run_in_chunks(fitted.head, bag.features, chunk_tiles)
    output: HeadOutput = fitted.head(*collate([bag.features]))
    return output


def probabilities(fitted: Fitted, bag: Bag) -> list[float]:
    """(C,) probabilities of one bag, in the order of ``fitted.classes``."""
    logits = run_head(fitted, bag).logits[0].double()
    return [float(p) for p in torch.softmax(logits, dim=0)]
