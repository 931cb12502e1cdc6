"""What fine-tuning minimises: single tiles learn the outcome of their slide's case."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from mil.data.case import Case


class TileObjective(ABC):
    """The outputs of a network that sees one tile, and the loss of their logits.

    Attributes:
        outputs: names of the C logits.
        weighs_labels_equally: whether each label has the same total weight, and each case an equal share
            of its label's; else every case has the same weight.
    """

    outputs: tuple[str, ...]
    weighs_labels_equally: ClassVar[bool] = False

    @abstractmethod
    def targets(self, cases: Sequence[Case]) -> Tensor:
        """(n, ...) what the tiles of each case should predict."""

    @abstractmethod
    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(B,) the loss of each tile; the caller weighs and adds them.

        Args:
            logits: (B, C) float32.
            targets: (B, ...) rows of ``targets``.
        """
