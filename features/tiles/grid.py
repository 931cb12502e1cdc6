"""A grid of tiles over a region, at a stated scale."""

import zlib
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import shapely
from numpy.typing import NDArray

from features.errors import ScaleError
from features.regions.annotations import Region, polygons_of
from features.regions.masks import coverage
from features.slides.slide import MAX_UPSAMPLING, Slide

BLOCK_L0 = (
    4096  # level-0 pixels: the decoded tiles of one block and its neighbours fit a small cache
)
ROUNDING = 1e-9  # of a tile: a tile covered by exactly the least fraction is kept


@dataclass(frozen=True)
class TileGrid:
    """Where the tiles of one slide lie.

    Attributes:
        coords_l0: (N, 2) int64, the top-left corner (x, y) of each tile in level-0 pixels.
        coverage: (N,) float32, the fraction of each tile inside the region.
        tile_px: side of a tile as it is read.
        mpp: micrometres per pixel of a tile as it is read.
        side_l0: (width, height) of a tile in level-0 pixels, not rounded.
    """

    coords_l0: NDArray[np.int64]
    coverage: NDArray[np.float32]
    tile_px: int
    mpp: float
    side_l0: tuple[float, float]

    def __len__(self) -> int:
        return len(self.coords_l0)

    def __getitem__(self, rows: NDArray[np.int64]) -> "TileGrid":
        """The grid of some of its tiles."""
        return replace(self, coords_l0=self.coords_l0[rows], coverage=self.coverage[rows])


class TileSource(Protocol):
    """Anything that hands out tiles by number: a slide with a grid, a folder of images."""

    @property
    def grid(self) -> TileGrid:
        """Where the tiles lie."""

    def read(self, index: int) -> NDArray[np.uint8]:
        """Tile ``index`` of the grid, (tile_px, tile_px, 3) RGB."""


@dataclass(frozen=True)
class SlideTiles:
    """The tiles of a grid, read from their slide."""

    slide: Slide
    grid: TileGrid

    def read(self, index: int) -> NDArray[np.uint8]:
        """Read one tile."""
        x, y = self.grid.coords_l0[index]
        return self.slide.read(int(x), int(y), self.grid.tile_px, self.grid.mpp)


def lay_grid(
    area: Region, slide: Slide, *, tile_px: int, mpp: float, min_coverage: float
) -> TileGrid:
    """Lay square tiles edge to edge from the slide's origin and keep those the region covers.

    The grid is the same for every region of a slide, so tiles never overlap or repeat.

    Args:
        area: polygons in level-0 pixels.
        slide: gives size and scale.
        tile_px: side of a tile in pixels at ``mpp``.
        mpp: micrometres per pixel.
        min_coverage: the least fraction of a tile inside the region.

    Raises:
        ScaleError: the slide was scanned too coarsely for ``mpp``.
    """
    if max(slide.mpp) > mpp * MAX_UPSAMPLING:
        raise ScaleError(
            f"{slide.path.name} was scanned at {max(slide.mpp):g} micrometres per pixel; tiles at "
            f"{mpp:g} would show detail that is not there. Use --mpp {max(slide.mpp):.2g} or coarser."
        )
    side = (tile_px * mpp / slide.mpp[0], tile_px * mpp / slide.mpp[1])
    width, height = slide.size_l0
    inside = polygons_of(area & shapely.box(0, 0, width, height))
    if inside.is_empty:
        columns = rows = np.arange(0)
    else:
        left, top, right, bottom = inside.bounds
        columns = np.arange(int(left // side[0]), int(np.ceil(right / side[0])))
        rows = np.arange(int(top // side[1]), int(np.ceil(bottom / side[1])))
    # Row by row, so that neighbouring reads share decoded pixels.
    row, column = (index.ravel() for index in np.meshgrid(rows, columns, indexing="ij"))
    coords = np.stack([np.rint(column * side[0]), np.rint(row * side[1])], axis=1)
    covered = coverage(inside, coords[:, 0], coords[:, 1], side)
    keep = (covered >= min_coverage - ROUNDING) & (covered > 0)
    return TileGrid(
        coords[keep].astype(np.int64), covered[keep].astype(np.float32), tile_px, mpp, side
    )


def sample(grid: TileGrid, max_tiles: int, *, seed: int, name: str) -> TileGrid:
    """At most ``max_tiles`` of the grid, drawn without replacement, in grid order.

    The draw depends on the seed and the slide's name only, not on the other slides of a run.
    """
    return grid[drawn(len(grid), max_tiles, seed=seed, name=name)]


def drawn(n_tiles: int, at_most: int, *, seed: int, name: str) -> NDArray[np.int64]:
    """The row numbers that ``sample`` takes of so many tiles."""
    if n_tiles <= at_most:
        return np.arange(n_tiles)
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return np.sort(rng.choice(n_tiles, size=at_most, replace=False))


def held_out(n_tiles: int, at_most: int, n_held: int, *, seed: int, name: str) -> NDArray[np.int64]:
    """At most ``n_held`` of the rows that ``sample`` leaves: the same slide, and no tile in common."""
    taken = drawn(n_tiles, at_most, seed=seed, name=name)
    left = np.setdiff1d(np.arange(n_tiles), taken)
    return left[drawn(len(left), n_held, seed=seed, name=f"{name}: held out")]


def walk(grid: TileGrid) -> NDArray[np.int64]:
    """The order to read a grid in: block after block of the slide, so that decoded pixels are used again.

    Returns:
        (N,) row numbers of the grid.
    """
    block = np.maximum(BLOCK_L0, np.ceil(grid.side_l0).astype(np.int64))
    (column, row), (x, y) = (grid.coords_l0 // block).T, grid.coords_l0.T
    return np.lexsort((x, y, column, row))
