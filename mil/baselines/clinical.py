"""A linear model on the clinical columns of the table; no tile is seen."""

from torch import Tensor

from mil.baselines.linear import LinearHead, mean_of_tiles
from mil.heads.head import HeadSettings


class Clinical(LinearHead):
    """Logistic regression, or its counterpart for the outcome, on the clinical columns.

    A bag is one row of an ``Encoding``.
    """

    learns_from = "table"

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__(settings, settings.dim)

    def describe(self, features: Tensor, mask: Tensor) -> Tensor:
        """The row itself."""
        return mean_of_tiles(features, mask)
