"""What the table says of a case, without a look at its tiles: a logistic regression on its columns."""

from torch import Tensor

from mil.baselines.logistic import LogisticHead, mean_of_tiles
from mil.heads.head import HeadSettings


class Clinical(LogisticHead):
    """Logistic regression on the clinical columns; its bag is one row of an ``Encoding``."""

    learns_from = "table"

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__(settings, settings.dim)

    def describe(self, features: Tensor, mask: Tensor) -> Tensor:
        """The row itself."""
        return mean_of_tiles(features, mask)
