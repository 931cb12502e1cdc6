"""What a map explains: one number, computed from a model's logits as its readout defines it."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

from torch import Tensor

from features.choices import unknown_problem
from mil.errors import UnknownModel
from mil.heads.ensemble import AVERAGES
from mil.heads.head import Outcome
from mil.learning.fitted import FittedModel
from mil.learning.readout import Readout
from mil.tasks.registry import task_class

NONLINEAR_LOSSES = ("discrete",)  # whose models have a score that is not linear in the logits


@dataclass(frozen=True)
class Quantity:
    """A scalar function of the logits; subclasses add words for readouts of their unit.

    Attributes:
        readout: from logits to answers.
        outcome: how members of an ensemble are averaged, as ``HeadSettings.outcome``.
        index: of the explained name among the readout's.
        limits: range of the answer, if it has one.
    """

    readout: Readout
    outcome: Outcome
    index: int
    limits: ClassVar[tuple[float, float] | None] = None

    @property
    def linear(self) -> bool:
        """Whether the score is linear in one model's logits, up to a constant.

        Only then does every tile have a share of its own where logits are sums over tiles.
        """
        return self.readout.linear

    @property
    def name(self) -> str:
        """What positive scores speak for."""
        return self.readout.classes[self.index]

    @property
    def map_index(self) -> int | None:
        """Which map it is, of a head with a map per logit; None where no logit stands for it alone."""
        return None

    @property
    def label(self) -> str:
        """Name of the score, for scales."""
        return self.name

    @property
    def answer_label(self) -> str:
        """Name of the answer, for axes."""
        return self.readout.unit

    def score(self, logits: Tensor) -> Tensor:
        """(..., C) -> (...), unbounded and differentiable: the number that a map divides among tiles."""
        return self.readout.score(logits, self.index)

    def answer(self, logits: Tensor) -> Tensor:
        """(..., C) normalised -> (...): the number as a reader knows it, e.g. a probability."""
        return self.readout.answer_of(logits.double(), self.index)

    def merge(self, logits: Sequence[Tensor]) -> Tensor:
        """An ensemble's logits (..., C) from those of its members."""
        return AVERAGES[self.outcome](logits)

    def normalise(self, logits: Tensor) -> Tensor:
        """Logits (..., C) without the freedom they have."""
        return logits

    def describe(self, answer: float) -> str:
        """The answer in words."""
        return f"{self.name} {answer:.2f}"

    def to_json(self, *, answer: float, score: float) -> dict[str, Any]:
        """Name and values for a map's JSON."""
        return {"target": self.name, self.readout.unit: answer, "score": score}


@dataclass(frozen=True)
class ClassMargin(Quantity):
    """The margin of a class: its logit less the mean of all classes' logits.

    Unlike a probability it does not saturate, and unlike a bare logit it is the same whatever is added to
    all of them. The answer is the probability of the class.
    """

    limits: ClassVar = (0.0, 1.0)

    @property
    def map_index(self) -> int:
        """The class's own map."""
        return self.index

    @property
    def label(self) -> str:
        """Margin of the class."""
        return f"margin of {self.name}"

    @property
    def answer_label(self) -> str:
        """Probability of the class."""
        return f"probability of {self.name}"

    def answer(self, logits: Tensor) -> Tensor:
        """The probability, of logits that are its logarithms."""
        return logits[..., self.index].double().exp()

    def normalise(self, logits: Tensor) -> Tensor:
        """Logarithms of probabilities."""
        return logits.log_softmax(dim=-1)

    def describe(self, answer: float) -> str:
        """The class and its probability."""
        return f"{self.name}, probability {answer:.2f}"

    def to_json(self, *, answer: float, score: float) -> dict[str, Any]:
        """Class, probability and margin."""
        return {"class": self.name, "probability": answer, "margin": score}


@dataclass(frozen=True)
class Risk(Quantity):
    """A risk: the log hazard ratio to the median training case, or its loss of mean survival."""

    @property
    def answer_label(self) -> str:
        """The risk and its scale."""
        return f"risk ({'log hazard ratio' if self.linear else 'loss of mean survival'})"

    def describe(self, answer: float) -> str:
        """The risk and its scale."""
        scale = "log hazard ratio to" if self.linear else "mean survival below that of"
        return f"risk {answer:+.2f} ({scale} the median training case)"

    def to_json(self, *, answer: float, score: float) -> dict[str, Any]:
        """The risk."""
        del score
        return {"target": self.name, "risk": answer}


def predicted_name(fitted: FittedModel, logits: Tensor) -> str:
    """What is explained unless another name is requested, from logits (C,): of classes the predicted one."""
    return fitted.classes[fitted.readout.index(logits)]


def quantity(fitted: FittedModel, name: str) -> Quantity:
    """A model's quantity by its name: a class, or the name of its only score.

    Raises:
        UnknownModel: the model has none of this name.
    """
    known = fitted.classes
    if name not in known and len(known) == 1:
        raise UnknownModel(
            f"{fitted.model} predicts no classes but a {known[0]}: its maps show what raises the {known[0]} "
            f"and what lowers it, so that there is no {name!r} to choose. Explain the {known[0]} itself."
        )
    if problem := unknown_problem("class", [name], known):
        raise UnknownModel(problem)
    module, _, attribute = task_class(fitted.settings.task).quantity.partition(":")
    kind: type[Quantity] = getattr(import_module(module), attribute)
    outcome, index = fitted.head.settings.outcome, fitted.classes.index(name)
    return kind(fitted.readout, outcome, index)
