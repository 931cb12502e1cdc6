"""What a fitted model answers for bags; no outcome is needed."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch

from features.bags.bag import Bag
from mil.errors import FitError
from mil.heads.head import HeadOutput
from mil.learning.batches import collate, run_in_chunks
from mil.learning.fitted import FittedModel

EMPTY: Mapping[str, str] = MappingProxyType({})


@torch.inference_mode()
def run_head(fitted: FittedModel, bag: Bag, other: Mapping[str, str] = EMPTY) -> HeadOutput:
    """The head on all tiles of one bag, as a batch of one.

    Args:
        fitted: the model.
        bag: made with the model's own recipe.
        other: further columns of the table for the bag's case; read by a model that learnt from those.

    Raises:
        FitError: the bag was made with another recipe than the model's.
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


def predict(
    fitted: FittedModel,
    bag: Bag,
    other: Mapping[str, str] = EMPTY,
    columns: Sequence[str] = (),
) -> dict[str, float]:
    """What a model answers for one bag: ``p_<class>`` of each class, or a ``risk``.

    Args:
        fitted: the model.
        bag: made with the model's own recipe.
        other: further columns of the table for the bag's case.
        columns: of a table of predictions, where more is asked than every model of the kind can answer, as
            survival until a time.

    Raises:
        FitError: the model answers something else than these columns, or as ``run_head``.
        CohortError: as ``run_head``.
    """
    logits = run_head(fitted, bag, other).logits[0].double()
    answer = fitted.readout.answer(logits, columns)
    if unanswered := [name for name in columns if name not in answer]:
        raise FitError(
            f"{fitted.model} answers {', '.join(answer)}, not {unanswered[0]}. Use a model that was trained "
            "for this task."
        )
    return answer
