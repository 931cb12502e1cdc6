"""A part of a file as an array that stays on disk until it is used."""

import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class FileMap(np.memmap):
    """A memory map that is pickled as its place in the file, not as its numbers."""

    def __reduce__(self) -> Any:
        base: object = self.base
        if isinstance(base, mmap.mmap):
            return FileMap, (self.filename, self.dtype, "r", self.offset, self.shape)
        return np.asarray(self).__reduce__()  # rows of a map, or a result computed from one


def map_dataset(path: Path, dataset: Any) -> NDArray[Any]:
    """Map a dataset into memory, read-only; free, as it is contiguous and uncompressed."""
    offset = dataset.id.get_offset()
    if offset is None:  # an empty or a chunked dataset, as other tools write
        values: NDArray[Any] = dataset[:]
        return values
    return FileMap(path, dtype=dataset.dtype, mode="r", offset=offset, shape=dataset.shape)
