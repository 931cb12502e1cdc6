"""Feature rows that wait on the disk while a slide is embedded: memory stays flat for any number of tiles."""

import os
import tempfile
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray


class FeatureSpool:
    """(N, D) float32 rows of a slide in the making, filled in any order by several threads.

    The file has no name, so that the system removes it also when the process is killed.

    Args:
        folder: on the disk that will hold the bag.
        n_rows: of the grid.
        dim: length of a row.
    """

    def __init__(self, folder: Path, n_rows: int, dim: int) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
        self._row_bytes = 4 * dim
        self.dim = dim
        self.filled = np.zeros(n_rows, dtype=bool)

    def __enter__(self) -> "FeatureSpool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._file.close()

    def put(self, numbers: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Fill rows ``numbers`` with (B, D) values.

        Raises:
            OSError: the disk is full.
        """
        for number, row in zip(numbers, np.ascontiguousarray(values, np.float32), strict=True):
            data, place = memoryview(row).cast("B"), int(number) * self._row_bytes
            while data:  # a nearly full disk takes a part, and refuses the next
                written = os.pwrite(self._file.fileno(), data, place)
                data, place = data[written:], place + written
        self.filled[numbers] = True

    def kept(
        self, keep: NDArray[np.bool_], dtype: type[np.floating[Any]] = np.float32
    ) -> "SpooledRows":
        """The rows to keep, as an array that is read when it is sliced."""
        return SpooledRows(self, np.flatnonzero(keep), np.dtype(dtype))

    def _read(self, first: int, into: NDArray[np.float32]) -> None:
        """Read rows from ``first`` on."""
        data, place = into.data.cast("B"), first * self._row_bytes
        while data:  # the system hands out at most 2 GiB at once
            count = os.preadv(self._file.fileno(), [data], place)
            assert count, "rows that were never filled are not kept"
            data, place = data[count:], place + count


class SpooledRows:
    """Some rows of a ``Rows``: has shape and dtype, and gives an array for a slice."""

    ndim = 2

    def __init__(
        self, rows: FeatureSpool, numbers: NDArray[np.int64], dtype: "np.dtype[np.floating[Any]]"
    ) -> None:
        self._rows, self._numbers, self.dtype = rows, numbers, dtype
        self.shape = (len(numbers), rows.dim)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, part: slice) -> NDArray[np.floating[Any]]:
        numbers = self._numbers[part]
        held = np.empty((len(numbers), self.shape[1]), np.float32)
        gaps = np.flatnonzero(np.diff(numbers) != 1) + 1
        for start, stop in pairwise((0, *gaps, len(numbers))):  # what is not kept is not read
            if start < stop:
                self._rows._read(int(numbers[start]), held[start:stop])
        return held.astype(self.dtype, copy=False)

    def astype(self, dtype: type[np.floating[Any]]) -> "SpooledRows":
        """The same rows in another number format."""
        return SpooledRows(self._rows, self._numbers, np.dtype(dtype))
