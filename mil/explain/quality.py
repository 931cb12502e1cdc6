"""Whether a map points at what is no tissue, out of focus or inked over."""

import numpy as np

from features.tiles.quality import FLAGS
from mil.explain.scores import TileScores

TOLD_MASS = 0.05  # of a map on flagged tiles, from which it is worth a sentence


def quality_warnings(scores: TileScores) -> tuple[str, ...]:
    """A sentence for each quality flag on whose tiles a map puts more mass than their number.

    Mass is the sum of what speaks for the class: of attention all, of signed scores the positive.
    """
    flags = scores.bag.tile_flags
    if flags is None:
        return ()
    positive = np.maximum(scores.relative, 0)
    told = []
    for name, bit in FLAGS.items():
        flagged = (np.asarray(flags) & bit) > 0
        mass = positive[flagged].sum() / max(positive.sum(), np.finfo(float).tiny)
        if mass >= TOLD_MASS and mass > flagged.mean():
            told.append(
                f"{100 * mass:.0f} % of this map lies on the {int(flagged.sum())} tiles flagged {name} "
                f"({100 * flagged.mean():.0f} % of all): look at them before you believe it."
            )
    return tuple(told)
