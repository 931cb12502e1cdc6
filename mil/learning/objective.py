"""What one fit minimises: bags of training cases with their outcomes, for epochs and solvers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mil.heads.batches import UNREADY, Features, ReadyBags
from mil.heads.head import Head, Training
from mil.heads.stack import Stack
from mil.learning.adamw import AdamW
from mil.learning.epochs import History, prepare_bags
from mil.learning.readout import Readout
from mil.settings import FitSettings


class Objective(ABC):
    """Training cases of one fit, and the loss over them.

    Attributes:
        outputs: names of the logits.
        slides: (N, D) features of every training slide, in the order of the cases.
        inner_slides: the same of the inner validation cases.
        counts: (C,) training cases per output, for heads that learn from counts.
        validates: whether there are cases to choose the epoch by.
        ready: the bags as the head that is trained takes them.
    """

    outputs: tuple[str, ...]
    slides: Sequence[Features]
    inner_slides: Sequence[Features]
    counts: Tensor
    validates: bool
    ready: ReadyBags = UNREADY

    def prepare(self, head: Head, settings: FitSettings) -> None:
        """Standardise the bags for the epochs of this head, whose scale is known."""
        self.ready = prepare_bags(head, [*self.slides, *self.inner_slides], settings)

    @abstractmethod
    def training(self, seed: int) -> Training:
        """The training part for heads that are solved."""

    @abstractmethod
    def epoch(
        self,
        head: Head,
        settings: FitSettings,
        rng: np.random.Generator,
        optimizer: AdamW,
    ) -> list[float]:
        """One pass over the training cases; the loss of each step."""

    @abstractmethod
    def validate(self, head: Head, settings: FitSettings) -> float:
        """The loss on the inner validation cases."""

    @abstractmethod
    def readout(self, head: Head, settings: FitSettings) -> Readout:
        """How the logits of a trained head are read."""


@dataclass
class SeedFit:
    """A fit with one seed.

    Attributes:
        objective: what it minimises.
        seed: of the objective's part of the cases.
        head: its scale is known before the first step.
        rng: of tiles and order.
        generator: of what the head draws.
        history: of its training.
    """

    objective: Objective
    seed: int
    head: Head
    rng: np.random.Generator
    generator: torch.Generator
    history: History = field(default_factory=History)


@dataclass(frozen=True)
class StackedFits:
    """Fits of one head that are trained as one: on the same cases, or on parts of as many steps.

    Attributes:
        stack: of their heads.
        fits: the members.
        ready: the bags as each of them takes them.
    """

    stack: Stack
    fits: Sequence[SeedFit]
    ready: Sequence[ReadyBags]


class StackObjective(Objective):
    """An objective that can teach several heads at once."""

    @abstractmethod
    def n_steps(self, head: Head, settings: FitSettings) -> int:
        """Steps of an epoch."""

    @abstractmethod
    def epoch_together(
        self, members: StackedFits, settings: FitSettings, optimizer: AdamW
    ) -> list[list[float]]:
        """``epoch`` of all members, whose objectives are of this class; for each step all their losses."""
