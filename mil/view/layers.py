"""What can be shown over a slide: the maps of every instant method and model of a run."""

from collections.abc import Sequence
from dataclasses import dataclass

from features.bags.bag import Bag
from mil.explanation.methods import METHODS, list_methods
from mil.explanation.quantity import NONLINEAR_LOSSES
from mil.explanation.scores import TileScores
from mil.explanation.target import explanation_target
from mil.heads.registry import head_class, loadable_models
from mil.learning.fitted import FittedModel
from mil.settings import FitSettings


@dataclass(frozen=True)
class Layer:
    """One method applied to one model."""

    model: str
    method: str

    def score(self, fitted: FittedModel, bag: Bag) -> TileScores:
        """Scores of one bag's tiles under a fit of the model."""
        return METHODS[self.method](explanation_target(fitted, bag))


def list_layers(models: Sequence[str], settings: FitSettings) -> tuple[Layer, ...]:
    """Every layer of models that were trained with these settings, attention models first."""
    linear = settings.loss_name not in NONLINEAR_LOSSES
    return tuple(
        Layer(model, method.name)
        for model in sorted(
            loadable_models(models), key=lambda name: not head_class(name).learns_attention
        )
        for method in list_methods()
        if method.instant and method.suits(head_class(model)) and (linear or not method.linear_only)
    )
