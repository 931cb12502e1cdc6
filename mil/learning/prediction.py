"""A fitted model's probabilities for bags; no label is needed."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch

from features.bags.bag import Bag
from mil.errors import FitError
from mil.heads.head import HeadOutput
from mil.learning.batches import collate, run_in_chunks
from mil.learning.fitted import Fitted

EMPTY: Mapping[str, str] = MappingProxyType({})


@torch.inference_mode()
def run_head(fitted: Fitted, bag: Bag, other: Mapping[str, str] = EMPTY) -> HeadOutput:
    """The head on all tiles of one bag, as a batch of one.

    Args:
        fitted: the model.
        bag: of the model's own recipe.
        other: what the table says of the bag's case; read by a model that learnt from that, and not
            from tiles.

    Raises:
        FitError: the bag was made by another recipe than the model's.
        CohortError: the model reads a column that is not in ``other``.
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
    encoding, chunk_tiles = fitted.encoding, fitted.settings.chunk_tiles
    if encoding is None and 0 < chunk_tiles < len(bag) and fitted.head.takes_chunks():
        return run_in_chunks(fitted.head, bag.features, chunk_tiles)
    batch = collate([encoding.row(bag.slide, other) if encoding else bag.features])
    output: HeadOutput = fitted.head(*batch)
    return output


def probabilities(fitted: Fitted, bag: Bag, other: Mapping[str, str] = EMPTY) -> list[float]:
    """(C,) probabilities of one bag, in the order of ``fitted.classes``.

    Raises:
        FitError: as ``run_head``, or a model of survival.
    """
    if fitted.timeline:
        raise FitError(f"{fitted.model} learnt survival, not classes. Ask for its risk.")
    logits = run_head(fitted, bag, other).logits[0].double()
    return [float(p) for p in torch.softmax(logits, dim=0)]


def risk(
    fitted: Fitted, bag: Bag, at: Sequence[float], other: Mapping[str, str] = EMPTY
) -> tuple[float, list[float]]:
    """The risk of one bag, 0 being the median training case, and its survival until each time ``at``.

    Raises:
        FitError: as ``run_head``, or a model of classes.
    """
    if fitted.timeline is None:
        raise FitError(f"{fitted.model} learnt classes, not survival. Ask for probabilities.")
    logits = run_head(fitted, bag, other).logits.double().numpy()
    survival = fitted.timeline.survival(logits, np.array(at))[0]
    return float(fitted.timeline.risk(logits)[0]), [float(p) for p in survival]
