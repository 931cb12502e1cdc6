"""What can be laid over a slide: the scores of every method on every model of a run it suits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from features.bags.bag import Bag
from mil.explain.attention import attention_scores
from mil.explain.methods import METHODS
from mil.explain.scores import TileScores
from mil.explain.target import explanation_target
from mil.heads.registry import head_class
from mil.learning.fitted import Fitted

# Those that are computed while one waits, by whether a model, by name, has such to show.
SUITS: Mapping[str, Callable[[str], bool]] = {
    "attention": lambda model: head_class(model).learns_attention,
    "evidence": lambda model: head_class(model).adds_up,
    "single-tile": lambda model: head_class(model).learns_from in ("bags", "tiles"),
}


def score(method: str, fitted: Fitted, bag: Bag) -> TileScores:
    """One bag under one fitted model."""
    if method == "attention":  # answers no question: the same for every class, or for a risk
        return attention_scores(fitted, bag)
    return METHODS[method](explanation_target(fitted, bag))


@dataclass(frozen=True)
class Layer:
    """One method on one model."""

    model: str
    method: str


def layers_of(models: Sequence[str], *, survival: bool = False) -> tuple[Layer, ...]:
    """Every layer of a run's models, attention first; of survival, which asks about no class, only that."""
    return tuple(
        Layer(model, name)
        for model in sorted(models, key=lambda name: not head_class(name).learns_attention)
        for name, suits in SUITS.items()
        if suits(model) and (name == "attention" or not survival)
    )
