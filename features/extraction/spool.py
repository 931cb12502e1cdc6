"""Feature rows stored on the disk while a slide is embedded, so that memory does not grow with the tiles."""

import os
import tempfile
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray


class FeatureSpool:
    """(N, D) float32 rows of a slide, filled in any order by several threads.

    The file has no name, so that the system removes it even if the process is killed.

    Args:
        folder: on the disk of the bag.
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
            while data:  # a nearly full disk writes a part and refuses the next
                written = os.pwrite(self._file.fileno(), data, place)
                data, place = data[written:], place + written
        self.filled[numbers] = True

    def select(
        self, rows: NDArray[np.bool_], dtype: type[np.floating[Any]] = np.float32
    ) -> "SpooledRows":
        """The rows of a (N,) mask, as an array that is read when it is sliced."""
        return SpooledRows(self, np.flatnonzero(rows), np.dtype(dtype))

    def read_into(self, first: int, into: NDArray[np.float32]) -> None:
        """Fill an array with the rows from ``first`` on."""
        data, place = into.data.cast("B"), first * self._row_bytes
        while data:  # the system reads at most 2 GiB at once
            count = os.preadv(self._file.fileno(), [data], place)
            assert count, "a row was read that was never filled"
            data, place = data[count:], place + count


class SpooledRows:
    """Some rows of a ``FeatureSpool``, with a shape and a dtype; a slice of it is an array."""

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
        values = np.empty((len(numbers), self.shape[1]), np.float32)
        gaps = np.flatnonzero(np.diff(numbers) != 1) + 1
        for start, stop in pairwise(
            (0, *gaps, len(numbers))
        ):  # rows that are not selected are not read
            if start < stop:
                self._rows.read_into(int(numbers[start]), values[start:stop])
        return values.astype(self.dtype, copy=False)

    def astype(self, dtype: type[np.floating[Any]]) -> "SpooledRows":
        """The same rows in another number format."""
        return SpooledRows(self._rows, self._numbers, np.dtype(dtype))
