"""What cells of a slide look like together: mean and standard deviation of each channel of their vectors."""

import numpy as np
from numpy.typing import NDArray


class Descriptor:
    """Gathers mean and spread of vectors that come in parts, which it does not keep.

    Args:
        channels: C, of each vector.

    Attributes:
        count: vectors so far.
    """

    def __init__(self, channels: int) -> None:
        self.count = 0
        self._mean = np.zeros(channels)
        self._squares = np.zeros(channels)

    def add(self, vectors: NDArray[np.floating]) -> None:
        """Add (n, C); means and squares are joined as in Chan, Golub and LeVeque (1983)."""
        if not len(vectors):
            return
        rows = vectors.astype(np.float64)
        mean, total = rows.mean(axis=0), self.count + len(rows)
        shift = mean - self._mean
        self._squares += ((rows - mean) ** 2).sum(axis=0)
        self._squares += shift**2 * self.count * len(rows) / total
        self._mean += shift * len(rows) / total
        self.count = total

    def values(self) -> NDArray[np.float32]:
        """(2 C,) the means, then the standard deviations; there must be a vector."""
        assert self.count
        return np.concatenate([self._mean, np.sqrt(self._squares / self.count)]).astype(np.float32)
