"""A folder of tile images: bags without a slide."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.errors import SlideError
from features.slides.slide import on_white
from features.tiles.grid import TileGrid

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
# "Viable___Case-4-C27-32431-19828_114.jpg": what comes before ___ is a label and is not ours to read;
# then the slide, x and y, and perhaps a running number. As much as can be is the slide's, whose name may
# itself end in a number ("case-7-1024-2048").
TILE_NAME = re.compile(
    r"(?:.*?___)?(?P<slide>.+)(?P<sep>[-_])x?(?P<x>\d+)(?P=sep)y?(?P<y>\d+)(?:[-_]\d+)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class FolderTiles:
    """The tile images of one slide, read from their files.

    Attributes:
        grid: where they lie; coordinates come from the file names.
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
        with _image(path) as image:
            rgb = on_white(image.convert("RGBA") if "A" in image.getbands() else image)
        if (float(rgb.width), float(rgb.height)) != self.grid.side_l0:
            raise SlideError(
                f"{path}: {rgb.size[0]} x {rgb.size[1]} px where the other tiles of the slide are "
                f"{self.grid.side_l0[0]:g} x {self.grid.side_l0[1]:g}. Use tiles of one size."
            )
        if rgb.size != (side, side):
            rgb = rgb.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
        return np.asarray(rgb)


def group_tiles(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The tile images of a folder by slide, both sorted by name.

    Raises:
        SlideError: there is none, or a name does not say slide, x and y.
    """
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise SlideError(f"{folder}: holds no tile images ({', '.join(IMAGE_SUFFIXES)}).")
    groups: dict[str, list[Path]] = {}
    for path in files:
        groups.setdefault(_parsed(path)["slide"], []).append(path)
    return {slide: tuple(groups[slide]) for slide in sorted(groups)}


def open_folder(files: tuple[Path, ...], *, mpp: float, tile_px: int) -> FolderTiles:
    """The tiles of one slide from their image files.

    Args:
        files: square images of one size, named ``<slide>-<x>-<y>`` with x, y the top-left corner.
        mpp: micrometres per pixel of the files.
        tile_px: side to which each is resized; its scale becomes mpp x side / tile_px.
    """
    with _image(files[0]) as first:
        width, height = first.size
    if width != height:
        raise SlideError(f"{files[0]}: {width} x {height} px; a tile is square. Crop the images.")
    corners = [(int(name["x"]), int(name["y"])) for name in map(_parsed, files)]
    grid = TileGrid(
        coords_l0=np.array(corners, dtype=np.int64),
        coverage=np.ones(len(files), dtype=np.float32),
        tile_px=tile_px,
        mpp=mpp * width / tile_px,
        side_l0=(float(width), float(height)),
    )
    return FolderTiles(grid, files, mpp)


@contextmanager
def _image(path: Path) -> Iterator[Image.Image]:
    """An image file, open; every way it can be broken is a SlideError."""
    try:
        with Image.open(path) as image:
            yield image
    except (OSError, ValueError, SyntaxError) as error:  # Pillow's, for a damaged file
        raise SlideError(
            f"{path}: not a readable image ({error}). Remove or replace it."
        ) from error


def _parsed(path: Path) -> re.Match[str]:
    found = TILE_NAME.fullmatch(path.stem)
    if found is None:
        raise SlideError(
            f"{path}: the name does not say where the tile lies. Name tiles <slide>-<x>-<y>.png."
        )
    return found
