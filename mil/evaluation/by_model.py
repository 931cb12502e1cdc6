"""Results of several models, looked up by the name of the model."""

from collections.abc import Mapping
from typing import Generic, Protocol, TypeVar

from features.choices import unknown_problem
from mil.errors import PredictionsError
from mil.evaluation.display import format_count
from mil.evaluation.intervals import Estimate


class Named(Protocol):
    """What one model achieved."""

    @property
    def model(self) -> str:
        """Name of the model."""

    @property
    def metrics(self) -> Mapping[str, Estimate]:
        """Estimates by the name of the metric."""


Result = TypeVar("Result", bound=Named)


class ByModel(Generic[Result]):
    """Adds ``evaluation["abmil"]`` to an evaluation.

    Attributes:
        models: one result per model.
    """

    models: tuple[Result, ...]
    n_cases: int

    def __repr__(self) -> str:
        """How many cases, and every model with the first of its metrics."""
        texts = [f"{result.model} {_first(result.metrics)}" for result in self.models]
        return f"{type(self).__name__}({format_count(self.n_cases, 'case')}: {', '.join(texts)})"

    def __getitem__(self, model: str) -> Result:
        """The result of a model.

        Raises:
            PredictionsError: no such model was evaluated.
        """
        for result in self.models:
            if result.model == model:
                return result
        raise PredictionsError(unknown_problem("model", [model], [r.model for r in self.models]))


def _first(metrics: Mapping[str, Estimate]) -> str:
    """The first metric with its value."""
    name, estimate = next(iter(metrics.items()))
    return f"{name} {'undefined' if estimate.value is None else f'{estimate.value:.2f}'}"
