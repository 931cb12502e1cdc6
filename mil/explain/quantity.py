"""What a map explains: one number, computed from a model's logits."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from mil.errors import FitError
from mil.heads.ensemble import mean_logits
from mil.learning.fitted import FittedModel
from mil.tasks.risk_model import HazardRatio, IntervalHazards

RISK = "risk"
NONLINEAR_LOSSES = ("discrete",)  # whose models have a score that is not linear in the logits


class Quantity(ABC):
    """A scalar function of the logits.

    Attributes:
        linear: whether the score is linear in one model's logits, up to a constant. Only then has every
            tile a share of its own where logits are sums over tiles.
        limits: range of the answer, where it has one.
    """

    linear: ClassVar[bool] = True
    limits: ClassVar[tuple[float, float] | None] = None

    @property
    @abstractmethod
    def name(self) -> str:
        """What positive scores speak for."""

    @property
    @abstractmethod
    def label(self) -> str:
        """Name of the score, for scales."""

    @property
    @abstractmethod
    def answer_label(self) -> str:
        """Name of the answer, for axes."""

    @property
    def index(self) -> int | None:
        """The logit that stands for it alone, if any."""
        return None

    @abstractmethod
    def score(self, logits: Tensor) -> Tensor:
        """(..., C) -> (...), unbounded and differentiable: the number that a map divides among tiles."""

    def answer(self, logits: Tensor) -> Tensor:
        """(..., C) normalised -> (...): the number as a reader knows it, e.g. a probability."""
        return self.score(logits.double())

    def merge(self, logits: Sequence[Tensor]) -> Tensor:
        """An ensemble's logits (..., C) from those of its members."""
        return torch.stack(list(logits)).mean(dim=0)

    def normalise(self, logits: Tensor) -> Tensor:
        """Logits (..., C) without the freedom they have."""
        return logits

    @abstractmethod
    def describe(self, answer: float) -> str:
        """The answer in words."""

    @abstractmethod
    def to_json(self, *, answer: float, score: float) -> dict[str, Any]:
        """Name and values for a map's JSON."""


@dataclass(frozen=True)
class ClassMargin(Quantity):
    """The margin of a class: its logit less the mean of all classes' logits.

    Unlike a probability it does not saturate, and unlike a bare logit it is the same whatever is added to
    all of them. The answer is the probability of the class.

    Attributes:
        class_name: the class.
        class_index: its place among the logits.
    """

    class_name: str
    class_index: int
    limits: ClassVar = (0.0, 1.0)

    @property
    def name(self) -> str:
        """The class."""
        return self.class_name

    @property
    def label(self) -> str:
        """Margin of the class."""
        return f"margin of {self.class_name}"

    @property
    def answer_label(self) -> str:
        """Probability of the class."""
        return f"probability of {self.class_name}"

    @property
    def index(self) -> int:
        """Of the class."""
        return self.class_index

    def score(self, logits: Tensor) -> Tensor:
        """The margin."""
        return logits[..., self.class_index] - logits.mean(dim=-1)

    def answer(self, logits: Tensor) -> Tensor:
        """The probability."""
        return logits[..., self.class_index].double().exp()

    def merge(self, logits: Sequence[Tensor]) -> Tensor:
        """Logarithms of the members' mean probabilities."""
        return mean_logits(logits)

    def normalise(self, logits: Tensor) -> Tensor:
        """Logarithms of probabilities."""
        return logits.log_softmax(dim=-1)

    def describe(self, answer: float) -> str:
        """The class and its probability."""
        return f"{self.class_name}, probability {answer:.2f}"

    def to_json(self, *, answer: float, score: float) -> dict[str, Any]:
        """Class, probability and margin."""
        return {"class": self.class_name, "probability": answer, "margin": score}


@dataclass(frozen=True)
class LogHazardRatio(Quantity):
    """The risk of a Cox model: the log hazard ratio to the median training case.

    Attributes:
        centre: logit of the median training case.
    """

    centre: float

    @property
    def name(self) -> str:
        """Risk."""
        return RISK

    @property
    def label(self) -> str:
        """Risk."""
        return RISK

    @property
    def answer_label(self) -> str:
        """Log hazard ratio to the median training case."""
        return "risk (log hazard ratio)"

    def score(self, logits: Tensor) -> Tensor:
        """The risk."""
        return logits[..., 0] - self.centre

    def describe(self, answer: float) -> str:
        """The risk and its scale."""
        return f"risk {answer:+.2f} (log hazard ratio to the median training case)"

    def to_json(self, *, answer: float, score: float) -> dict[str, Any]:
        """The risk."""
        del score
        return {"target": RISK, "risk": answer}


@dataclass(frozen=True)
class SurvivalDeficit(LogHazardRatio):
    """The risk of a discrete-time model: how far its mean survival lies below the median training case's.

    Mean over the ends of the intervals. No linear function of the logits.
    """

    linear: ClassVar = False

    @property
    def answer_label(self) -> str:
        """Loss of survival against the median training case."""
        return "risk (loss of mean survival)"

    def score(self, logits: Tensor) -> Tensor:
        """The risk."""
        log_survival = torch.nn.functional.logsigmoid(-logits).cumsum(dim=-1)
        return -log_survival.exp().mean(dim=-1) - self.centre

    def describe(self, answer: float) -> str:
        """The risk and its scale."""
        return f"risk {answer:+.2f} (mean survival below that of the median training case)"


def quantity_names(fitted: FittedModel) -> tuple[str, ...]:
    """What can be explained of a model: one of its classes, or its risk."""
    return fitted.classes


def predicted_name(fitted: FittedModel, logits: Tensor) -> str:
    """What is explained unless another name is requested: the predicted class of logits (C,), or the risk."""
    return fitted.classes[fitted.readout.index(logits)]


def quantity(fitted: FittedModel, name: str) -> Quantity:
    """A model's quantity by its name.

    Raises:
        FitError: the model has none of this name.
    """
    names = quantity_names(fitted)
    if name not in names:
        kind = "class" if len(names) > 1 else "target"
        raise FitError(f"No {kind} {name!r}; the model knows {', '.join(names)}.")
    if isinstance(fitted.readout, IntervalHazards):
        return SurvivalDeficit(fitted.readout.centre)
    if isinstance(fitted.readout, HazardRatio):
        return LogHazardRatio(fitted.readout.centre)
    return ClassMargin(name, fitted.classes.index(name))
