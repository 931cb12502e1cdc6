"""Whether something new is like what was learnt from: its distance, in terms of the distances among that.

A distance of its own to the nearest known item says little. Divided by the largest that a known item has to
its nearest neighbour among the others, it is 1 where the new item lies as far out as the oddest known one; of
n exchangeable items, one in n + 1 lies further out. The sample is the slide, not the tile: tiles of a slide
are alike, so that a test over tiles would call every new slide different.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

UNUSUAL, UNLIKE = 1.0, 1.5  # ratios above which a new item is unusual, and unlike all that is known
MIN_GROUPS = 4  # with fewer, the spread of one dimension is chance
MAX_GROUPS = (
    200  # whose distances are measured, evenly chosen: more would take long and change little
)
LEAST_SPREAD = 0.5  # of the median spread: a dimension that hardly varies would decide alone


@dataclass(frozen=True, eq=False)
class Reference:
    """Descriptors of known items, as the slides that a model was trained on.

    Attributes:
        vectors: (n, D) one descriptor per item.
        groups: n names; items of one group, as the slides of a case, are not each other's neighbours.
    """

    vectors: NDArray[np.float32]
    groups: tuple[str, ...]

    @property
    def is_enough(self) -> bool:
        """Whether there are enough groups to tell what is unusual."""
        return len(set(self.groups)) >= MIN_GROUPS

    @cached_property
    def distances(self) -> tuple[float, ...]:
        """The distance of each group's farthest item to the nearest of another group; of many, some."""
        groups = np.array(self.groups)
        names = list(dict.fromkeys(self.groups))
        names = names[:: -(-len(names) // MAX_GROUPS)]
        return tuple(
            _nearest(self.vectors[groups == name], self.vectors[groups != name]) for name in names
        )

    @property
    def ratios(self) -> tuple[float, ...]:
        """The distances in multiples of the largest: 1 is the oddest known item."""
        return tuple(distance / max(self.distances) for distance in self.distances)

    def ratio(self, vector: NDArray[np.floating], groups: Collection[str] = ()) -> float:
        """How far a new item lies, in multiples of the largest distance among the known ones.

        Args:
            vector: (D,) its descriptor.
            groups: items of these are left out; for an item that is known itself.

        Returns:
            The ratio; NaN where too few items are known.
        """
        others = np.array([name not in groups for name in self.groups])
        if not self.is_enough or max(self.distances) <= 0 or others.sum() < MIN_GROUPS:
            return float("nan")
        return _nearest(np.atleast_2d(vector), self.vectors[others]) / max(self.distances)


def describe_distance(ratio: float, known: str) -> str:
    """A ratio in words; empty where the new item lies no further out than the oddest known one.

    It is empty too where the ratio is not known.

    Args:
        ratio: as ``Reference.ratio``.
        known: the known items, as ``the training slides``.
    """
    if ratio > UNLIKE:
        return f"unlike {known}: {ratio:.1f} times as far from them as the oddest of them is from the others"
    if ratio > UNUSUAL:
        return f"unusual: {ratio:.2f} times as far from {known} as the oddest of them is from the others"
    return ""


def _nearest(items: NDArray[np.floating], known: NDArray[np.floating]) -> float:
    """The largest over (m, D) items of the distance to the nearest of (n, D) known ones.

    Distances are root mean squares over dimensions, each measured in its spread among the known ones.
    """
    known = known.astype(np.float64)
    spread = known.std(axis=0, ddof=1)
    spread = np.maximum(spread, max(LEAST_SPREAD * float(np.median(spread)), 1e-12))
    scaled = known / spread
    return max(
        float(np.sqrt(np.square(scaled - item / spread).mean(axis=1).min())) for item in items
    )
