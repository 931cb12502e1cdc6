"""Tile grids: laid over a region at a given mpp, sampled, and read."""

import zlib
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import shapely
from numpy.typing import NDArray

from features.errors import ScaleError
from features.regions.drawing import Region, polygonal_parts
from features.regions.masks import coverage
from features.slides.slide import MAX_UPSAMPLING, Slide

BLOCK_L0 = 4096  # level-0 pixels: decoded tiles of a block and its neighbours fit a small cache
ROUNDING = 1e-9  # of a tile, so that a coverage of exactly min_coverage passes


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
    """Anything that reads tiles by number: a slide with a grid, a folder of tile images."""

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
    area: Region,
    slide: Slide,
    *,
    tile_px: int,
    mpp: float,
    min_coverage: float,
    fixed: bool = False,
) -> TileGrid:
    """Lay square tiles edge to edge from the slide's origin and select those the region covers.

    The grid is the same for every region of a slide, so tiles never overlap or repeat.

    Args:
        area: polygons in level-0 pixels.
        slide: gives its size and mpp.
        tile_px: side of a tile in pixels at ``mpp``.
        mpp: micrometres per pixel.
        min_coverage: the smallest fraction of a tile inside the region.
        fixed: the scale is that of a trained model.

    Raises:
        ScaleError: the slide was scanned too coarsely for ``mpp``.
    """
    if max(slide.mpp) > mpp * MAX_UPSAMPLING:
        raise ScaleError(_too_coarse(slide, mpp, fixed=fixed))
    side = (tile_px * mpp / slide.mpp[0], tile_px * mpp / slide.mpp[1])
    width, height = slide.size_l0
    inside = polygonal_parts(area & shapely.box(0, 0, width, height))
    if inside.is_empty:
        columns = rows = np.arange(0)
    else:
        left, top, right, bottom = inside.bounds
        columns = np.arange(int(left // side[0]), int(np.ceil(right / side[0])))
        rows = np.arange(int(top // side[1]), int(np.ceil(bottom / side[1])))
    # Row by row: neighbouring reads share decoded pixels.
    row, column = (index.ravel() for index in np.meshgrid(rows, columns, indexing="ij"))
    coords = np.stack([np.rint(column * side[0]), np.rint(row * side[1])], axis=1)
    covered = coverage(inside, coords[:, 0], coords[:, 1], side)
    inside_enough = (covered >= min_coverage - ROUNDING) & (covered > 0)
    return TileGrid(
        coords[inside_enough].astype(np.int64),
        covered[inside_enough].astype(np.float32),
        tile_px,
        mpp,
        side,
    )


def sample(grid: TileGrid, max_tiles: int, *, seed: int, name: str) -> TileGrid:
    """At most ``max_tiles`` tiles of the grid, drawn without replacement, in grid order.

    The draw depends on the seed and the slide's name only, not on the other slides of a run.
    """
    return grid[draw_rows(len(grid), max_tiles, seed=seed, name=name)]


def draw_rows(n_tiles: int, max_tiles: int, *, seed: int, name: str) -> NDArray[np.int64]:
    """The row numbers of the tiles that ``sample`` draws from a grid of ``n_tiles``, in ascending order."""
    if n_tiles <= max_tiles:
        return np.arange(n_tiles)
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return np.sort(rng.choice(n_tiles, size=max_tiles, replace=False))


def draw_unused_rows(
    n_tiles: int, max_tiles: int, max_unused: int, *, seed: int, name: str
) -> NDArray[np.int64]:
    """At most ``max_unused`` row numbers among those that ``draw_rows`` does not draw, in ascending order."""
    drawn = draw_rows(n_tiles, max_tiles, seed=seed, name=name)
    unused = np.setdiff1d(np.arange(n_tiles), drawn)
    return unused[draw_rows(len(unused), max_unused, seed=seed, name=f"{name}: held out")]


def _too_coarse(slide: Slide, mpp: float, *, fixed: bool) -> str:
    scan = f"{slide.path.name} was scanned at {max(slide.mpp):g} micrometres per pixel"
    if fixed:
        return (
            f"{scan}, and the model reads tiles at {mpp:g}. Give it a scan of {mpp:g} or finer, or use a "
            f"model that was trained with mpp {max(slide.mpp):.2g} or coarser."
        )
    return (
        f"{scan}; tiles at {mpp:g} would show detail that was never scanned. Set mpp to "
        f"{max(slide.mpp):.2g} or coarser."
    )


def reading_order(grid: TileGrid) -> NDArray[np.int64]:
    """The order in which to read a grid: block by block of the slide, so that decoded pixels are reused.

    Returns:
        (N,) row numbers of the grid.
    """
    block = np.maximum(BLOCK_L0, np.ceil(grid.side_l0).astype(np.int64))
    (column, row), (x, y) = (grid.coords_l0 // block).T, grid.coords_l0.T
    return np.lexsort((x, y, column, row))
