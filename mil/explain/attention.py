"""The weight a head gives each tile. It says where the head looks, not what it concludes."""

from features.bags.bag import Bag
from mil.errors import FitError
from mil.explain.scores import TileScores
from mil.learning.fitted import Fitted
from mil.learning.prediction import run_head


def attention_scores(fitted: Fitted, bag: Bag, target: int | None = None) -> TileScores:
    """Attention of a fitted head over one bag.

    Heads with a map per class show that of the class asked about, or of the one they predict.

    Raises:
        FitError: the model learns no attention, or the bag does not suit it.
    """
    if not fitted.head.learns_attention:
        raise FitError(
            f"Model {fitted.model} learns no attention: every tile has the weight it is given. "
            "Explain an attention model, e.g. --model abmil."
        )
    output = run_head(fitted, bag)
    maps = output.attention[0]  # (A, N)
    called = int(output.logits[0].argmax()) if target is None else target
    shown = maps[called if len(maps) > 1 else 0]
    weights = shown.double().numpy()
    return TileScores(
        bag=bag,
        method="attention",
        model=fitted.model,
        values=weights,
        relative=weights * len(weights),
    )
