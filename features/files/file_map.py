"""A part of a file as an array that stays on disk until it is used."""

import mmap
from typing import Any

import numpy as np


class FileMap(np.memmap):
    """A memory map that is pickled as its place in the file, not as its numbers."""

    def __reduce__(self) -> Any:
        base: object = self.base
        if isinstance(base, mmap.mmap):
            return FileMap, (self.filename, self.dtype, "r", self.offset, self.shape)
        return np.asarray(self).__reduce__()  # rows of a map, or a result computed from one
