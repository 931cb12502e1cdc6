"""The weight a head gives each tile: where the head looks, not what it concludes."""

from features.bags.bag import Bag
from mil.errors import FitError
from mil.explanation.scores import TileScores
from mil.explanation.target import ExplanationTarget
from mil.learning.fitted import FittedModel, run_head


def attention_scores(fitted: FittedModel, bag: Bag, index: int | None = None) -> TileScores:
    """Attention of a fitted head over one bag.

    Args:
        fitted: the model.
        bag: made by the model's own recipe.
        index: the class whose map is shown, of a head with a map per class; the predicted one if not given.

    Raises:
        FitError: the model learns no attention, or the bag does not suit it.
    """
    if not fitted.head.learns_attention:
        raise FitError(
            f"Model {fitted.model} learns no attention: the weight of its tiles is fixed. Explain an "
            "attention model, e.g. abmil."
        )
    output = run_head(fitted, bag)
    maps = output.attention[0]  # (A, N)
    shown = int(output.logits[0].argmax()) if index is None else index
    weights = maps[shown if len(maps) > 1 else 0].double().numpy()
    return TileScores(
        bag=bag,
        method="attention",
        model=fitted.model,
        values=weights,
        relative=weights * len(weights),
    )


def target_attention(target: ExplanationTarget) -> TileScores:
    """Attention behind what is explained.

    Raises:
        FitError: as ``attention_scores``.
    """
    return attention_scores(target.fitted, target.bag, target.quantity.map_index)
