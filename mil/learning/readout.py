"""How logits are read: what a fitted model answers, and what of it can be explained."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

ANSWER_PREFIX = "p_"


class Readout(ABC):
    """From logits to the columns of a table of predictions.

    Attributes:
        outputs: names of the logits, in their order.
        classes: names of what can be explained: the classes; of a single score its name.
        linear: whether ``score`` is linear in the logits, so that contributions of tiles add up to it.
        unit: of ``answer_of``, for axes: ``probability``, ``risk``.
        answer_names: columns of ``answer`` without a cohort.
        labels: of cases, that the answer tells apart; none for a risk.
        same_scale: whether logits of different fits may be averaged.
    """

    outputs: tuple[str, ...]
    linear: ClassVar[bool]
    unit: ClassVar[str]
    same_scale: ClassVar[bool] = True

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Names of what can be explained."""

    @property
    @abstractmethod
    def answer_names(self) -> tuple[str, ...]:
        """The columns of ``answer`` without a cohort."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of cases that the answer tells apart."""
        return ()

    @abstractmethod
    def answer(self, logits: Tensor, columns: Sequence[str] = ()) -> dict[str, float]:
        """What the model answers.

        Args:
            logits: (C,) of one bag or the mean of several, double precision.
            columns: of a table of predictions; empty for those that need no cohort.
        """

    @abstractmethod
    def verdict(self, answer: Mapping[str, float]) -> str:
        """An answer in words: the class, ``high risk``."""

    @abstractmethod
    def index(self, logits: Tensor) -> int:
        """The index in ``classes`` of what the model calls, from logits (C,)."""

    @abstractmethod
    def score(self, logits: Tensor, target: int) -> Tensor:
        """(...) the number that is explained, from logits (..., C); it does not saturate."""

    @abstractmethod
    def answer_of(self, logits: Tensor, target: int) -> Tensor:
        """(...) the same on the scale a reader knows (``unit``), from logits (..., C)."""

    @abstractmethod
    def to_json(self) -> dict[str, Any] | None:
        """What a model's card holds beside ``outputs``; None where these say it all."""


@dataclass(frozen=True)
class ClassReadout(Readout):
    """Probabilities of classes by softmax.

    Attributes:
        outputs: class names.
    """

    outputs: tuple[str, ...]
    linear: ClassVar[bool] = True
    unit: ClassVar[str] = "probability"

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names."""
        return self.outputs

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names."""
        return self.outputs

    @property
    def answer_names(self) -> tuple[str, ...]:
        """One ``p_<class>`` per class."""
        return tuple(ANSWER_PREFIX + name for name in self.outputs)

    def answer(self, logits: Tensor, columns: Sequence[str] = ()) -> dict[str, float]:
        """One ``p_<class>`` per class."""
        del columns
        p = torch.softmax(logits, dim=0)
        return dict(zip(self.answer_names, map(float, p), strict=True))

    def verdict(self, answer: Mapping[str, float]) -> str:
        """The most probable class; among equals the first."""
        return max(self.outputs, key=lambda name: answer[ANSWER_PREFIX + name])

    def index(self, logits: Tensor) -> int:
        """The class of the highest logit."""
        return int(logits.argmax())

    def score(self, logits: Tensor, target: int) -> Tensor:
        """The margin of a class: its logit less the mean of all logits.

        Unlike a probability it does not saturate; unlike a bare logit it does not depend on what is added
        to all of them.
        """
        return logits[..., target] - logits.mean(dim=-1)

    def answer_of(self, logits: Tensor, target: int) -> Tensor:
        """The probability of a class."""
        return logits.log_softmax(dim=-1)[..., target].exp()

    def to_json(self) -> None:
        """Nothing beside the names."""
