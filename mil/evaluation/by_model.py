"""Results of several models, looked up by the name of the model."""

from typing import Generic, Protocol, TypeVar

from features.choices import unknown_problem
from mil.errors import PredictionsError


class Named(Protocol):
    """What one model achieved."""

    @property
    def model(self) -> str:
        """Name of the model."""


Result = TypeVar("Result", bound=Named)


class ByModel(Generic[Result]):
    """Adds ``evaluation["abmil"]`` to an evaluation.

    Attributes:
        models: one result per model.
    """

    models: tuple[Result, ...]

    def __getitem__(self, model: str) -> Result:
        """The result of a model.

        Raises:
            PredictionsError: no such model was evaluated.
        """
        for result in self.models:
            if result.model == model:
                return result
        raise PredictionsError(unknown_problem("model", [model], [r.model for r in self.models]))
