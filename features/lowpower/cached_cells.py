"""The cell vectors of a slide on disk, so that folds and repeats read no slide twice."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from features.files.atomic import atomic_path
from features.files.file_map import FileMap
from features.lowpower.feature_map import CellGrid, CellMap
from features.slides.slide import Slide

NEAR_CELLS = 3  # glass beside tissue is kept too: it is shown to a segmenter as what is not tumour


@dataclass(frozen=True)
class SlideCells:
    """The cells of a slide that are tissue or beside it, with their vectors.

    Attributes:
        grid: all cells.
        numbers: (N,) which of them, counted row by row.
        vectors: (N, C) float16; mapped from disk.
    """

    grid: CellGrid
    numbers: NDArray[np.int64]
    vectors: NDArray[np.float16]


def read_cells(slide: Slide, grid: CellGrid, maps: CellMap, file: Path) -> SlideCells:
    """The cells of a slide, of a file that an earlier call has written, else of its pixels.

    Args:
        slide: an open slide.
        grid: its cells.
        maps: what is computed of them.
        file: ``.npy``, of this slide and this map.

    Raises:
        TileError: the pixels of a part cannot be decoded.
    """
    near, looked_at = np.zeros((2, *grid.shape), dtype=np.bool_)
    ndimage.binary_dilation(grid.tissue, iterations=NEAR_CELLS, output=near)
    for part in grid.parts():
        looked_at[part] = True
    near &= looked_at
    numbers = np.flatnonzero(near)
    if not file.is_file():
        place = np.full(grid.shape, -1)
        place[near] = np.arange(len(numbers))
        with atomic_path(file) as temporary:
            vectors = np.lib.format.open_memmap(
                temporary, "w+", np.float16, (len(numbers), maps.channels)
            )
            for window in maps.windows(slide, grid):
                rows = place[window.cells]
                vectors[rows[rows >= 0]] = window.features[rows >= 0]
            vectors.flush()
    stored = np.load(file, mmap_mode="r")
    mapped = FileMap(file, stored.dtype, "r", stored.offset, stored.shape)
    return SlideCells(grid, numbers, mapped)
