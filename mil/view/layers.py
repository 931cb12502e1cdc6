"""What can be laid over a slide: the scores of every method on every model of a run it suits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from features.bags import Bag
from mil.explain.attention import attention_scores
from mil.explain.scores import TileScores
from mil.fitted import Fitted
from mil.heads.registry import HEADS


@dataclass(frozen=True)
class Method:
    """A way to score tiles.

    Attributes:
        suits: whether a model, by name, has anything to show.
        score: one bag under one fitted model.
    """

    suits: Callable[[str], bool]
    score: Callable[[Fitted, Bag], TileScores]


METHODS: Mapping[str, Method] = {
    "attention": Method(
        suits=lambda model: HEADS[model].learns_attention,
        score=attention_scores,
    ),
}


@dataclass(frozen=True)
class Layer:
    """One method on one model."""

    model: str
    method: str


def layers_of(models: Sequence[str]) -> tuple[Layer, ...]:
    """Every layer of a run's models, in their order."""
    return tuple(
        Layer(model, name)
        for model in models
        for name, method in METHODS.items()
        if method.suits(model)
    )
