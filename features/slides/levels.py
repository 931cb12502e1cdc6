"""Which levels of a slide file show the slide at a scale of its own."""

import math
from collections.abc import Sequence

ROUNDING_PX = 1  # sides of a level are cut or rounded to whole pixels
ROUNDING = 1e-3  # of a factor: levels made from each other drift a little further
SAME_FACTOR = 1.005  # ratio of two factors below which levels have the same scale


def usable_levels(sizes: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """The levels that show the whole slide, shrunk by one factor in x and y; the first of equals.

    A file may store other pictures among its levels: a macro image of the glass, a label, a thumbnail with
    a margin, or further focal planes of the same size. Those have another aspect ratio, or a factor that an
    earlier level has.

    Args:
        sizes: (width, height) of every level of the file, finest first.
    """
    levels: list[int] = []
    factors: list[float] = []
    for number, size in enumerate(sizes):
        factor = _common_factor(sizes[0], size)
        if factor and all(max(factor, f) > SAME_FACTOR * min(factor, f) for f in factors):
            levels.append(number)
            factors.append(factor)
    return tuple(levels)


def _common_factor(full: tuple[int, int], size: tuple[int, int]) -> float | None:
    """The factor by which a level is shrunk in x as in y; None if there is no such factor."""
    least, most = 0.0, float("inf")
    for whole, side in zip(full, size, strict=True):
        least = max(least, whole / (side + ROUNDING_PX) * (1 - ROUNDING))
        most = min(most, whole / max(side - ROUNDING_PX, 0.5) * (1 + ROUNDING))
    if least > most:
        return None
    return math.sqrt(full[0] * full[1] / (size[0] * size[1]))
