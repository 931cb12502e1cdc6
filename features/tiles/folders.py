"""Folders of tile images, for cohorts without whole slides."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.errors import SlideError
from features.slides.pixels import flatten_on_white
from features.tiles.grid import TileGrid

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
# "Viable___Case-4-C27-32431-19828_114.jpg": a label before ___, which features must not read, then the
# slide, x and y, and perhaps a running number. The slide takes as much as it can, since its name may itself
# end in a number ("case-7-1024-2048").
TILE_NAME = re.compile(
    r"(?:.*?___)?(?P<slide>.+)(?P<sep>[-_])x?(?P<x>\d+)(?P=sep)y?(?P<y>\d+)(?:[-_]\d+)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class FolderTiles:
    """The tile images of one slide, read from their files.

    Attributes:
        grid: where the tiles lie; coordinates come from the file names.
        files: one image per tile, in grid order.
        mpp_l0: micrometres per pixel of the image files.
    """

    grid: TileGrid
    files: tuple[Path, ...]
    mpp_l0: float

    @property
    def size_l0(self) -> tuple[int, int]:
        """The smallest (width, height) that holds all tiles, in pixels of the files."""
        right, bottom = self.grid.coords_l0.max(axis=0) + np.ceil(self.grid.side_l0).astype(int)
        return int(right), int(bottom)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Read one tile, resized to the grid's ``tile_px``."""
        path, side = self.files[index], self.grid.tile_px
        with _open_image(path) as image:
            rgb = flatten_on_white(image.convert("RGBA") if "A" in image.getbands() else image)
        if (float(rgb.width), float(rgb.height)) != self.grid.side_l0:
            raise SlideError(
                f"{path}: {rgb.size[0]} x {rgb.size[1]} px, but the slide's first tile has "
                f"{self.grid.side_l0[0]:g} x {self.grid.side_l0[1]:g}. Use tiles of one size."
            )
        if rgb.size != (side, side):
            rgb = rgb.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
        return np.asarray(rgb)


def group_tiles(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The tile images of a folder, by slide; slides and files are sorted by name.

    Raises:
        SlideError: there is none, or a file name does not give slide, x and y.
    """
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise SlideError(
            f"{folder}: contains no tile images ({', '.join(IMAGE_SUFFIXES)}). Check the path."
        )
    groups: dict[str, list[Path]] = {}
    for path in files:
        groups.setdefault(_parse_name(path)["slide"], []).append(path)
    return {slide: tuple(groups[slide]) for slide in sorted(groups)}


def open_folder(files: tuple[Path, ...], *, mpp: float, tile_px: int) -> FolderTiles:
    """Open the tile images of one slide.

    Args:
        files: square images of one size, named ``<slide>-<x>-<y>`` with x, y the top-left corner.
        mpp: micrometres per pixel of the files.
        tile_px: side to which each image is resized; its mpp becomes mpp x side / tile_px.

    Raises:
        SlideError: the first image cannot be read or is not square, or a file name gives no x and y.
    """
    with _open_image(files[0]) as first:
        width, height = first.size
    if width != height:
        raise SlideError(
            f"{files[0]}: {width} x {height} px, but tiles are square. Crop the images."
        )
    corners = [(int(name["x"]), int(name["y"])) for name in map(_parse_name, files)]
    grid = TileGrid(
        coords_l0=np.array(corners, dtype=np.int64),
        coverage=np.ones(len(files), dtype=np.float32),
        tile_px=tile_px,
        mpp=mpp * width / tile_px,
        side_l0=(float(width), float(height)),
    )
    return FolderTiles(grid, files, mpp)


@contextmanager
def _open_image(path: Path) -> Iterator[Image.Image]:
    """Open an image file; any damage is a SlideError."""
    try:
        with Image.open(path) as image:
            yield image
    except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises for damaged files
        raise SlideError(
            f"{path}: not a readable image ({error}). Remove or replace it."
        ) from error


def _parse_name(path: Path) -> re.Match[str]:
    match = TILE_NAME.fullmatch(path.stem)
    if match is None:
        raise SlideError(
            f"{path}: the file name does not give the tile's position. Name tiles <slide>-<x>-<y>.png."
        )
    return match
