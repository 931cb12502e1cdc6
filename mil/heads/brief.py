"""Bags in brief: a few tiles of which a head answers what it answers of all, made once for all fits.

Only what knows nothing of other bags may be made once: scales and weights are fitted in each fold anew.
"""

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tiles = NDArray[Any]
Brief = Callable[[Tiles], NDArray[np.float32]]

ROWS_AT_ONCE = (
    256  # tiles that are summed in double precision while they are in the processor's cache
)

_made: dict[tuple[int, Brief], NDArray[np.float32]] = {}


def brief_of(bag: Tiles, brief: Brief) -> NDArray[np.float32]:
    """``brief(bag)``, computed once for a bag (N, D) that nobody can write to, as those of a store."""
    flags = getattr(bag, "flags", None)
    if flags is None or flags.writeable:
        return brief(bag)
    key = id(bag), brief  # while the bag is in memory, its number is its own
    if key not in _made:
        made = brief(bag)
        weakref.finalize(bag, _made.pop, key, None).atexit = False
        _made[key] = made
    return _made[key]


def mean_tile(bag: Tiles) -> NDArray[np.float32]:
    """(1, D) the mean of the tiles."""
    total = np.zeros(bag.shape[1])
    for start in range(0, len(bag), ROWS_AT_ONCE):
        rows = np.asarray(bag[start : start + ROWS_AT_ONCE])
        total += rows.astype(np.float64).sum(axis=0)
    return (total / len(bag)).astype(np.float32)[None]
