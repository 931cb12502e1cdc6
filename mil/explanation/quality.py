"""Whether a map points at tiles that are background, out of focus or inked over."""

import numpy as np

from features.tiles.quality import FLAGS
from mil.explanation.scores import TileScores

NOTABLE_MASS = 0.05  # share of a map on flagged tiles that deserves a warning


def quality_warnings(scores: TileScores) -> tuple[str, ...]:
    """A sentence for each quality flag whose tiles hold more than their share of a map.

    The mass of a map is the sum of its positive scores.
    """
    flags = scores.bag.tile_flags
    if flags is None:
        return ()
    positive = np.maximum(scores.relative, 0)
    warnings = []
    for name, bit in FLAGS.items():
        flagged = (np.asarray(flags) & bit) > 0
        mass = positive[flagged].sum() / max(positive.sum(), np.finfo(float).tiny)
        if mass >= NOTABLE_MASS and mass > flagged.mean():
            warnings.append(
                f"{100 * mass:.0f} % of this map lies on the {int(flagged.sum())} tiles flagged {name} "
                f"({100 * flagged.mean():.0f} % of all): look at them before you believe it."
            )
    return tuple(warnings)
