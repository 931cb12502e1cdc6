"""What needs no network: the values of the region, and where regions lie in the field of training cases."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mil.contouring.cases import ContourCase

BINS = 64
HEIGHTS = 16  # of the field, from the lowest slice to the highest
CUTS = 32


@dataclass(frozen=True)
class ValueWindow:
    """Two values of grey between which a pixel is called region.

    Attributes:
        low, high: the limits.
    """

    low: float
    high: float

    def mask(self, case: ContourCase) -> NDArray[np.bool_]:
        """(z, side, side) the pixels of the image between the limits."""
        return (case.pixels >= self.low) & (case.pixels <= self.high) & case.inside


def best_window(cases: Sequence[ContourCase]) -> ValueWindow:
    """The limits with the highest mean Dice over training cases, out of all pairs of 64 quantiles."""
    values = np.concatenate([case.pixels[case.inside] for case in cases])
    edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)))
    if len(edges) < 2:
        return ValueWindow(float(edges[0]), float(edges[0]))
    total = np.zeros((len(edges) - 1, len(edges) - 1))
    for case in cases:
        assert case.region is not None
        counts = np.histogram(case.pixels[case.inside], edges)[0]
        hits = np.histogram(case.pixels[case.inside & case.region], edges)[0]
        if hits.any():
            called, right = (np.concatenate([[0], np.cumsum(n)]) for n in (counts, hits))
            size = called[1:][None] - called[:-1][:, None] + int(case.region.sum())
            total += 2 * (right[1:][None] - right[:-1][:, None]) / np.maximum(size, 1)
    first, last = np.unravel_index(int(np.triu(total).argmax()), total.shape)
    return ValueWindow(float(edges[first]), float(edges[last + 1]))


@dataclass(frozen=True)
class UsualPlace:
    """Where in the field regions lie, whatever the image shows.

    Attributes:
        share: (heights, side, side) of training cases whose region lies there.
        cut: the share from which a place is called region.
    """

    share: NDArray[np.float32]
    cut: float

    def mask(self, case: ContourCase) -> NDArray[np.bool_]:
        """(z, side, side) the pixels of the image at these places."""
        return (self.share[_heights(len(case.pixels))] >= self.cut) & case.inside


def usual_place(cases: Sequence[ContourCase]) -> UsualPlace:
    """The places whose cut has the highest mean Dice over training cases."""
    maps = []
    for case in cases:
        assert case.region is not None
        rows = np.round(np.linspace(0, len(case.region) - 1, HEIGHTS)).astype(int)
        maps.append(case.region[rows])
    stack = np.stack(maps).astype(np.float32)
    share = stack.mean(axis=0)
    sizes = stack.sum(axis=(1, 2, 3))
    best, cut = -1.0, 1.0
    for level in np.unique(share[share > 0])[:CUTS]:
        called = share >= level
        hits = (stack * called).sum(axis=(1, 2, 3))
        mean = float(np.mean(2 * hits / np.maximum(called.sum() + sizes, 1)))
        if mean > best:
            best, cut = mean, float(level)
    return UsualPlace(share, cut)


def _heights(n_slices: int) -> NDArray[np.int64]:
    """(z,) the height of every slice."""
    return np.round(np.linspace(0, HEIGHTS - 1, n_slices)).astype(np.int64)
