"""Bags of one row: the feature vector of a whole slide or case, as slide encoders make them.

They have no tiles and no places, which the recipe states as ``region: vector``. Pooled models read them;
nothing can be mapped.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.bags.bag import Bag
from features.recipe import VECTOR

ROWS_AT_ONCE = 65536


def mean_vector(bag: Bag) -> NDArray[np.float64]:
    """(D,) the mean of a bag's rows."""
    total = np.zeros(bag.dim)
    for start in range(0, len(bag), ROWS_AT_ONCE):
        total += np.asarray(bag.features[start : start + ROWS_AT_ONCE]).sum(
            axis=0, dtype=np.float64
        )
    return total / len(bag)


def vector_bag(
    slide: str, vector: NDArray[np.float32], recipe: Mapping[str, Any], *, case: str = ""
) -> Bag:
    """A bag of one row.

    Args:
        slide: its name; of a case, the case's.
        vector: (D,)
        recipe: what made the vector.
        case: if known.
    """
    return Bag(
        slide=slide,
        case=case,
        features=vector[None],
        coords_l0=np.zeros((1, 2), np.int64),
        coverage=np.ones(1, np.float32),
        side_l0=(1.0, 1.0),
        size_l0=(1, 1),
        mpp_l0=(1.0, 1.0),
        mpp_source="given",
        tile_px=1,
        target_mpp=1.0,
        recipe={**recipe, "region": VECTOR},
    )
