"""Training for grades: one logit for each grade but the last, that of exceeding it.

Each logit is a binary decision with the same bags behind it (L. Li, H. Lin, Ordinal regression by extended
binary classification, NeurIPS 2006). What a bag answers must not rise from one grade to the next; where
trained logits do, the lower of them holds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mil.data.case import Case
from mil.data.encoding import ColumnEncoding
from mil.errors import FitError
from mil.evaluation.grade.predictions import PREFIX
from mil.heads.head import Head, Training
from mil.learning.losses import ordinal_log_losses
from mil.learning.readout import Readout
from mil.settings import FitSettings
from mil.tasks.diagnosis_objective import ClassObjective, WeightedBag
from mil.tasks.tile_objective import TileObjective


class GradeObjective(ClassObjective):
    """Log loss of exceeding each grade but the last, averaged over these; every case weighs the same.

    Args:
        train: cases to learn from; every grade is among them.
        valid: further training cases to choose the epoch by.
        classes: the grades, lowest first.
        encoding: how clinical columns become a row, in place of tiles.

    Raises:
        FitError: a grade without a training case.
    """

    def __init__(
        self,
        train: Sequence[Case],
        valid: Sequence[Case],
        classes: Sequence[str],
        encoding: ColumnEncoding | None = None,
    ) -> None:
        super().__init__(train, valid, classes, encoding)
        self.grades = tuple(classes)
        self.outputs = output_names(self.grades)
        self.examples = _weigh_cases(self.examples, train)
        self.validation = _weigh_cases(self.validation, valid)

    def training(self, seed: int) -> Training:
        """Grades and weights of the slides."""
        n_slides = [len(case.bags) for case in self.cases]
        return Training(
            features=self.slides,
            labels=np.array([example.label for example in self.examples], dtype=np.int64),
            weights=np.array([example.weight for example in self.examples]),
            cases=np.repeat(np.arange(len(self.cases)), n_slides),
            seed=seed,
            outcome="ordered",
        )

    def readout(self, head: Head, settings: FitSettings) -> "GradeReadout":  # type: ignore[override]
        """Cumulative logits."""
        del head, settings
        return GradeReadout(self.grades)

    def losses(self, logits: Tensor, labels: Tensor, settings: FitSettings) -> Tensor:
        """(B,) the log loss of exceeding each grade but the last."""
        del settings
        return ordinal_log_losses(logits, labels)


class GradeTileObjective(TileObjective):
    """Log loss of exceeding each grade but the last, averaged over these; every case weighs the same.

    Args:
        grades: of the training cases, lowest first.
    """

    def __init__(self, grades: Sequence[str]) -> None:
        self.grades = tuple(grades)
        self.outputs = output_names(self.grades)

    def targets(self, cases: Sequence[Case]) -> Tensor:
        """(n,) place of the grade, 0 for the lowest."""
        if unknown := sorted({case.label for case in cases} - set(self.grades)):
            raise FitError(f"No training case of grade {', '.join(unknown)}. Add one, or drop it.")
        return torch.tensor([self.grades.index(case.label) for case in cases])

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(B,) mean log loss over the decisions."""
        return ordinal_log_losses(logits, targets)


@dataclass(frozen=True)
class GradeReadout(Readout):
    """Probabilities of grades from the logits of exceeding each but the last.

    Attributes:
        grades: lowest first.
    """

    grades: tuple[str, ...]
    linear: ClassVar[bool] = True
    unit: ClassVar[str] = "expected grade"

    @property
    def outputs(self) -> tuple[str, ...]:  # type: ignore[override]
        """One per grade but the last."""
        return output_names(self.grades)

    @property
    def classes(self) -> tuple[str, ...]:
        """The one score."""
        return ("grade",)

    @property
    def labels(self) -> tuple[str, ...]:
        """The grades."""
        return self.grades

    @property
    def answer_names(self) -> tuple[str, ...]:
        """One ``g_<grade>`` per grade."""
        return tuple(PREFIX + name for name in self.grades)

    def answer(self, logits: Tensor, columns: Sequence[str] = ()) -> dict[str, float]:
        """One ``g_<grade>`` per grade."""
        del columns
        exceeding = exceedance(logits)  # (K - 1,)
        ones, zeros = exceeding.new_ones(1), exceeding.new_zeros(1)
        p = torch.cat([ones, exceeding]) - torch.cat([exceeding, zeros])
        return dict(zip(self.answer_names, map(float, p), strict=True))

    def verdict(self, answer: Mapping[str, float]) -> str:
        """The median of the predicted distribution, which makes the least absolute error."""
        cumulative = np.cumsum([answer[name] for name in self.answer_names])
        return self.grades[int(np.searchsorted(cumulative, 0.5 - 1e-12))]

    def index(self, logits: Tensor) -> int:
        """The one score."""
        del logits
        return 0

    def score(self, logits: Tensor, target: int) -> Tensor:
        """The sum of the log odds of exceeding each grade: higher is worse, and linear in the logits."""
        del target
        return logits.sum(dim=-1)

    def answer_of(self, logits: Tensor, target: int) -> Tensor:
        """The expected grade, counted from 1 for the lowest."""
        del target
        return 1 + exceedance(logits).sum(dim=-1)

    def to_json(self) -> dict[str, Any]:
        """The grades."""
        return {"kind": "ordered", "grades": list(self.grades)}


def output_names(grades: Sequence[str]) -> tuple[str, ...]:
    """Names of the logits: one per grade but the last."""
    return tuple(f"above {name}" for name in grades[:-1])


def exceedance(logits: Tensor) -> Tensor:
    """(..., K - 1) probabilities of exceeding each grade, from logits (..., K - 1); they never rise."""
    return logits.sigmoid().cummin(dim=-1).values


def _weigh_cases(examples: Sequence[WeightedBag], cases: Sequence[Case]) -> list[WeightedBag]:
    """The slides of cases with weights of mean 1, every case weighing the same."""
    weights = [1 / len(case.bags) for case in cases for _bag in case.bags]
    scale = len(weights) / max(len(cases), 1)
    return [
        WeightedBag(example.features, example.label, weight * scale)
        for example, weight in zip(examples, weights, strict=True)
    ]
