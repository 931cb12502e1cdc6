"""Slides of different cases that show the same tissue: scanned twice, cut out, or saved again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.bags.bag import Bag
from mil.data.cohort import Cohort

NEIGHBOURS = 5  # slides of other cases, nearest by mean features, that a slide is compared with
TILES = 256  # of a slide that are looked for in the other
LEAST_TILES = 8  # found in one arrangement: fewer may be chance
ABOVE_CHANCE = 4  # times as many as are found when the answers are shuffled


@dataclass(frozen=True)
class Lookalike:
    """Two slides of which one holds tiles of the other, in the same arrangement.

    Attributes:
        first, second: (case, slide).
        found: tiles of the one that lie in the other at one common offset.
        looked_for: of so many.
    """

    first: tuple[str, str]
    second: tuple[str, str]
    found: int
    looked_for: int

    def __str__(self) -> str:
        (one, a), (other, b) = self.first, self.second
        return (
            f"Slides {a} (case {one}) and {b} (case {other}) look like the same tissue: {self.found} of "
            f"{self.looked_for} tiles of one lie in the other in the same arrangement. If they are of one "
            "patient, give them one case."
        )


def lookalikes(cohort: Cohort) -> tuple[Lookalike, ...]:
    """Slides of different cases that seem to show the same tissue.

    Each tile of a slide is looked for in the slides most like it. In another patient's slide the
    nearest tiles lie anywhere; in a second scan, a crop or a copy they lie at one offset. How many agree
    by chance is counted with the answers shuffled. A copy that was turned or mirrored is not found.
    """
    slides = [(case.name, bag) for case in cohort.cases for bag in case.bags]
    found = []
    for i, j in _candidates(slides):
        (one, a), (other, b) = slides[i], slides[j]
        small, large = (a, b) if len(a) <= len(b) else (b, a)
        matches, by_chance, looked_for = _matched(small, large)
        if matches >= max(LEAST_TILES, ABOVE_CHANCE * by_chance):
            found.append(Lookalike((one, a.slide), (other, b.slide), matches, looked_for))
    return tuple(found)


def _candidates(slides: Sequence[tuple[str, Bag]]) -> Iterator[tuple[int, int]]:
    """Pairs of slides of different cases, one of which is among the most like the other."""
    means = np.stack([np.asarray(bag.features, dtype=np.float32).mean(axis=0) for _, bag in slides])
    case = np.array([name for name, _ in slides])
    square = np.square(means).sum(axis=1)
    distance = square[:, None] + square - 2 * means @ means.T
    distance[case[:, None] == case] = np.inf
    nearest = np.argsort(distance, axis=1)[:, :NEIGHBOURS]
    pairs = {
        (min(i, j), max(i, j)) for i, row in enumerate(nearest.tolist()) for j in row
        if np.isfinite(distance[i, j])
    }  # fmt: skip
    yield from sorted(pairs)


def _matched(small: Bag, large: Bag) -> tuple[int, int, int]:
    """(tiles at the commonest offset, the same with shuffled answers, tiles looked for)."""
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(len(small))[:TILES])
    wanted = np.asarray(small.features[rows], dtype=np.float32)
    held = np.asarray(large.features, dtype=np.float32)
    mean = held.mean(axis=0)  # what all tiles share tells none from another
    wanted, held = wanted - mean, held - mean
    nearest = np.argmin(np.square(held).sum(axis=1) - 2 * wanted @ held.T, axis=1)
    side_um = max(small.side_l0[0] * small.mpp_l0[0], large.side_l0[0] * large.mpp_l0[0])
    here = small.coords_l0[rows] * np.array(small.mpp_l0) / side_um
    there = (large.coords_l0 * np.array(large.mpp_l0) / side_um)[nearest]
    shuffled = rng.permutation(there)
    return _commonest(there - here), _commonest(shuffled - here), len(rows)


def _commonest(offsets: NDArray[np.float64]) -> int:
    """How many offsets lie within half a tile, in x and y, of the one that has most beside it."""
    near = np.abs(offsets[:, None] - offsets).max(axis=2) <= 0.5
    return int(near.sum(axis=1).max())
