"""What linear models with an L2 penalty share: the penalties to choose from, and rows made small."""

from typing import NamedTuple

import numpy as np

from mil.baselines.nested_cv import Floats, standard_of

COSTS = (0.01, 0.1, 1.0, 10.0, 100.0)  # of a row's loss; small is a strong penalty
USUAL_COST = 1.0  # where no inner folds can be made


class LinearFit(NamedTuple):
    """Logits of a row x are weight x + bias.

    Attributes:
        weight: (C, E).
        bias: (C,).
        cost: what a row's loss counted against half the squared length of the weights.
    """

    weight: Floats
    bias: Floats
    cost: float


class Span(NamedTuple):
    """Rows (n, E) in coordinates of the space they span, standardised and divided by the root of E.

    Under an L2 penalty the weights lie in the span of the rows: n coordinates are enough for E features. The
    division by the root of E makes one penalty mean the same for 5 columns and for 20,000 features.

    Attributes:
        rows: (n, R) coordinates.
        axes: (R, E) orthonormal.
        centre: (E,) mean of each feature.
        scale: (E,) what each feature was divided by.
    """

    rows: Floats
    axes: Floats
    centre: Floats
    scale: Floats

    def weight(self, coefficients: Floats) -> Floats:
        """Weights (..., E) of the original features from coefficients (..., R) of the coordinates."""
        weight: Floats = coefficients @ self.axes / self.scale
        return weight


def span_of(rows: Floats, weights: Floats) -> Span:
    """Rows (n, E) of weights (n,) in coordinates of their span."""
    standard = standard_of(rows, weights)
    scale = standard.spread * np.sqrt(rows.shape[1])  # (E,)
    # The penalty knows no directions, so any orthonormal axes do: a tenth of the time of the principal ones.
    axes, coordinates = np.linalg.qr(((rows - standard.centre) / scale).T)
    return Span(coordinates.T, axes.T, standard.centre, scale)
