"""Slides of different cases that show the same tissue: scanned twice, cropped, or saved again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.bags.bag import Bag
from features.bags.bare import REGION
from mil.data.cohort import Cohort

NEIGHBOURS = 5  # slides of other cases, nearest by mean features, that a slide is compared with
TILES = 256  # of a slide that are looked up in the other
MIN_TILES = 8  # matched in one arrangement: fewer may be chance
ABOVE_CHANCE = 4  # times as many matches as with shuffled matches


@dataclass(frozen=True)
class Lookalike:
    """Two slides of which one holds tiles of the other, in the same arrangement.

    Attributes:
        first, second: (case, slide).
        matches: tiles of one slide that lie in the other at one common offset.
        compared: tiles that were looked up.
    """

    first: tuple[str, str]
    second: tuple[str, str]
    matches: int
    compared: int

    def __str__(self) -> str:
        (first_case, first), (second_case, second) = self.first, self.second
        return (
            f"Slides {first} (case {first_case}) and {second} (case {second_case}) look like the same "
            f"tissue: {self.matches} of {self.compared} tiles of one lie in the other in the same "
            "arrangement. If they come from one patient, give them the same case."
        )


def lookalikes(cohort: Cohort) -> tuple[Lookalike, ...]:
    """Slides of different cases that seem to show the same tissue.

    Each tile of a slide is looked up in the slides most like it. In another patient's slide the nearest
    tiles lie anywhere; in a second scan, a crop or a copy they lie at one offset. Matches by chance are
    counted with the matches shuffled. A rotated or mirrored copy is not recognised.
    """
    slides = [(case.name, bag) for case in cohort.cases for bag in case.bags]
    if slides[0][1].recipe.get("region") == REGION:
        return ()  # rows without places have no arrangement
    pairs = []
    for i, j in _candidates(slides):
        (first_case, first), (second_case, second) = slides[i], slides[j]
        small, large = (first, second) if len(first) <= len(second) else (second, first)
        matches, by_chance, compared = _count_matches(small, large)
        if matches >= max(MIN_TILES, ABOVE_CHANCE * by_chance):
            pairs.append(
                Lookalike((first_case, first.slide), (second_case, second.slide), matches, compared)
            )
    return tuple(pairs)


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


def _count_matches(small: Bag, large: Bag) -> tuple[int, int, int]:
    """(tiles at the commonest offset, the same with shuffled matches, tiles compared)."""
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(len(small))[:TILES])
    queries = np.asarray(small.features[rows], dtype=np.float32)
    tiles = np.asarray(large.features, dtype=np.float32)
    mean = tiles.mean(axis=0)  # what all tiles share tells none from another
    queries, tiles = queries - mean, tiles - mean
    nearest = np.argmin(np.square(tiles).sum(axis=1) - 2 * queries @ tiles.T, axis=1)
    side_um = max(small.side_l0[0] * small.mpp_l0[0], large.side_l0[0] * large.mpp_l0[0])
    origin = small.coords_l0[rows] * np.array(small.mpp_l0) / side_um
    match = (large.coords_l0 * np.array(large.mpp_l0) / side_um)[nearest]
    shuffled = rng.permutation(match)
    return _commonest(match - origin), _commonest(shuffled - origin), len(rows)


def _commonest(offsets: NDArray[np.float64]) -> int:
    """How many offsets lie within half a tile, in x and y, of the one with most neighbours."""
    close = np.abs(offsets[:, None] - offsets).max(axis=2) <= 0.5
    return int(close.sum(axis=1).max())
