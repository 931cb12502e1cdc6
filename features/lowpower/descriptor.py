"""What a slide looks like as a whole: mean and standard deviation of its feature map over tissue."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.errors import NoTiles
from features.lowpower.feature_map import CellGrid, FeatureMap, Window, lay_cells
from features.slides.slide import Slide, open_slide


class DescriptorSums:
    """Gathers a slide's descriptor from its windows, which it does not keep.

    Args:
        grid: the slide's cells.
        channels: of the feature map.
    """

    def __init__(self, grid: CellGrid, channels: int) -> None:
        self._tissue = grid.tissue
        self._cells = 0
        self._mean = np.zeros(channels)
        self._squares = np.zeros(channels)

    def add(self, window: Window) -> None:
        """Add the tissue of a window: means and squares are joined as in Chan, Golub and LeVeque (1983)."""
        rows = window.features[self._tissue[window.cells]].astype(np.float64)
        if not len(rows):
            return
        mean, total = rows.mean(axis=0), self._cells + len(rows)
        shift = mean - self._mean
        self._squares += ((rows - mean) ** 2).sum(axis=0)
        self._squares += shift**2 * self._cells * len(rows) / total
        self._mean += shift * len(rows) / total
        self._cells = total

    def descriptor(self) -> NDArray[np.float32]:
        """(2 C,) the means, then the standard deviations."""
        assert self._cells
        return np.concatenate([self._mean, np.sqrt(self._squares / self._cells)]).astype(np.float32)


def slide_descriptor(
    slide: Slide | Path | str,
    maps: FeatureMap | None = None,
    tissue: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """The descriptor of a slide: how it differs from others in tissue, stain, focus and scale.

    Args:
        slide: an open slide, or the path of one whose file states its scale.
        maps: the network to look at it with; descriptors of equal ``FeatureMap.sha256`` are comparable.
        tissue: (H, W) of the whole slide, where it was found before.

    Returns:
        (2 C,) mean and standard deviation over tissue of each channel; 352 numbers with EfficientNet-Lite0.

    Raises:
        NoTiles: it shows no tissue.
        SlideError: it cannot be opened.
        TileError: its pixels cannot be decoded.
    """
    if not isinstance(slide, Slide):
        with open_slide(slide) as opened:
            return slide_descriptor(opened, maps, tissue)
    maps, grid = maps or FeatureMap(), lay_cells(slide, tissue)
    if not grid.tissue.any():
        raise NoTiles(
            f"{slide.path.name}: no tissue is found by its colour. Look at the slide: it may be empty, or "
            "not be stained with H&E."
        )
    sums = DescriptorSums(grid, maps.channels)
    for window in maps.windows(slide, grid):
        sums.add(window)
    return sums.descriptor()
