"""Folders of tile images, for cohorts without whole slides."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.errors import SlideError
from features.slides.find import is_of_system
from features.slides.pixels import flatten_on_white
from features.slides.slide import MAX_UPSAMPLING
from features.tiles.grid import TileGrid

SAME_SIDE = 0.01  # of an image: such a difference is rounding of the scale
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
# "Viable___Case-4-C27-32431-19828_114.jpg": a label before ___, which features must not read, then the
# slide, x and y, and perhaps a running number. The slide takes as much as it can, since its name may itself
# end in a number ("case-7-1024-2048").
TILE_NAME = re.compile(
    r"(?:.*?___)?(?P<slide>.+)(?P<sep>[-_])x?(?P<x>\d+)(?P=sep)y?(?P<y>\d+)(?:[-_]\d+)?",
    re.IGNORECASE,
)
PLACE_NAME = re.compile(
    r"(?P<slide>)x?(?P<x>\d+)[-_]y?(?P<y>\d+)", re.IGNORECASE
)  # in a slide's folder


@dataclass(frozen=True)
class FolderTiles:
    """The tile images of one slide, read from their files.

    Attributes:
        grid: where the tiles lie; coordinates come from the file names.
        files: one image per tile, in grid order; tiles that are parts of one image repeat it.
        mpp_l0: micrometres per pixel of the image files.
        image_px: side of an image.
        parts: (N, 2) the corner of each tile in its image, in pixels; None where tiles are whole images.
    """

    grid: TileGrid
    files: tuple[Path, ...]
    mpp_l0: float
    image_px: int
    parts: NDArray[np.int64] | None = None
    volume: ClassVar[None] = None  # tile images are of no volume

    def note(self, target_mpp: float) -> str:
        """What to know of tiles that have no places, or are not at the requested scale; else empty."""
        notes = []
        if not has_places(self.files):
            notes.append(
                f"File names such as {self.files[0].name} give no places: the {len(self.files)} images lie "
                "side by side in maps, and say nothing about their neighbours."
            )
        if abs(self.grid.mpp - target_mpp) > SAME_SIDE * target_mpp:
            notes.append(
                f"Tile images of {self.mpp_l0:g} µm per pixel have no detail of {target_mpp:g}: each is "
                f"taken whole, as a tile at {self.grid.mpp:.4g} µm per pixel. For smaller tiles set mpp "
                f"to {self.mpp_l0:g} or coarser."
            )
        return " ".join(notes)

    def check_images(self) -> None:
        """Look at the head of every file, as reading them would end at the first that is wrong.

        Raises:
            SlideError: one is no image, or has another size than the first.
        """
        for path in dict.fromkeys(self.files):
            with _open_image(path) as image:
                self._check_size(path, image.size)

    def _check_size(self, path: Path, size: tuple[int, int]) -> None:
        if size != (self.image_px, self.image_px):
            raise SlideError(
                f"{path}: {size[0]} x {size[1]} px, but the slide's first tile has {self.image_px} x "
                f"{self.image_px}. Use tiles of one size."
            )

    def select(self, rows: NDArray[np.int64]) -> "FolderTiles":
        """Some of its tiles."""
        return replace(
            self,
            grid=self.grid[rows],
            files=tuple(self.files[row] for row in rows),
            parts=None if self.parts is None else self.parts[rows],
        )

    @property
    def size_l0(self) -> tuple[int, int]:
        """The smallest (width, height) that holds all tiles, in pixels of the files."""
        right, bottom = self.grid.coords_l0.max(axis=0) + np.ceil(self.grid.side_l0).astype(int)
        return int(right), int(bottom)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Read one tile, cut from its image and resized to the grid's ``tile_px``."""
        path, side = self.files[index], self.grid.tile_px
        rgb = _read_rgb(path)
        self._check_size(path, rgb.size)
        if self.parts is not None:
            left, top = self.parts[index].tolist()
            width = self.grid.side_l0[0]
            box = (left, top, left + width, top + width)
            return np.asarray(rgb.resize((side, side), Image.Resampling.BILINEAR, box=box))
        if rgb.size != (side, side):
            rgb = rgb.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
        return np.asarray(rgb)


def group_tiles(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The tile images of a folder, by slide; slides and files are sorted by name.

    A folder whose file names give no places, or nothing else, is one slide of the folder's name. So is one
    whose names give slides and places that those of another folder give too.

    Raises:
        SlideError: there is none; some names of a folder give a place and some do not; or there is no folder
            that images without places could be named by.
    """
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not is_of_system(path.relative_to(folder))
    )
    if not files:
        raise SlideError(
            f"{folder}: contains no tile images ({', '.join(IMAGE_SUFFIXES)}). Check the path."
        )
    inside: dict[Path, list[Path]] = {}
    for path in files:
        inside.setdefault(path.parent, []).append(path)
    groups: dict[str, list[Path]] = {}
    times = Counter(match.groups() for path in files if (match := _match_name(path)))
    for parent, members in inside.items():
        placed = has_places(members)
        names = {path: match for path in members if (match := _match_name(path))}
        repeated = [path for path, match in names.items() if times[match.groups()] > 1]
        by_folder = not placed or bool(repeated) or not all(m["slide"] for m in names.values())
        if repeated and parent == folder:
            raise SlideError(
                f"{repeated[0]}: another file below {folder} has the same slide and position in its name. "
                "Put the tiles of each slide into a folder of its name, or remove one of the two."
            )
        if by_folder and parent == folder:
            odd = next(
                (path for path in members if path not in names or not names[path]["slide"]),
                files[0],
            )
            raise SlideError(
                f"{odd}: the file name does not give the tile's slide and position. Name tiles "
                "<slide>-<x>-<y>.png, or put those of each slide into a folder of its name."
            )
        own = _name_of_folder(parent, folder, inside)
        for path in members:
            groups.setdefault(own if by_folder else names[path]["slide"], []).append(path)
    return {slide: tuple(groups[slide]) for slide in sorted(groups)}


def has_places(files: Sequence[Path]) -> bool:
    """Whether the names of tile images give their places.

    Raises:
        SlideError: some do and some do not.
    """
    odd = [path for path in files if _match_name(path) is None]
    if odd and len(odd) < len(files):
        raise SlideError(
            f"{odd[0]}: its name gives no position, as those of {len(files) - len(odd)} of the {len(files)} "
            "images beside it do. Move it elsewhere if it is no tile, or name it <slide>-<x>-<y>.png."
        )
    return not odd


def _match_name(path: Path) -> re.Match[str] | None:
    """Slide (empty where it is the folder's), x and y by a file's name; None where it gives none."""
    return TILE_NAME.fullmatch(path.stem) or PLACE_NAME.fullmatch(path.stem)


def _name_of_folder(path: Path, root: Path, others: Iterable[Path]) -> str:
    """A folder's name; with those above it where another has the same."""
    alone = [other.name for other in others].count(path.name) == 1
    return path.name if alone or path == root else path.relative_to(root).as_posix()


def read_images(files: Sequence[Path], at_most: int) -> Iterator[NDArray[np.uint8]]:
    """Tile images in the order of their positions, evenly spaced: (H, W, 3) RGB on white.

    Raises:
        SlideError: an image cannot be read, or only some file names give x and y.
    """
    placed = _corners(files, 1).tolist()
    order = sorted(range(len(files)), key=placed.__getitem__)
    for row in np.unique(np.linspace(0, len(files) - 1, at_most).astype(int)):
        yield np.asarray(_read_rgb(files[order[row]]))


def open_folder(
    files: tuple[Path, ...], *, mpp: float, tile_px: int, target_mpp: float | None = None
) -> FolderTiles:
    """Open the tile images of one slide.

    Images larger than a tile are cut into as many whole tiles as fit, edge to edge from their corner. Images
    without the detail of ``target_mpp`` are taken whole, and ``note`` says at which scale that is.

    Args:
        files: square images of one size, named ``<slide>-<x>-<y>`` with x, y the top-left corner; others lie
            side by side.
        mpp: micrometres per pixel of the files.
        tile_px: side to which each tile is resized.
        target_mpp: micrometres per pixel of a tile; None takes every image whole.

    Raises:
        SlideError: the first image cannot be read or is not square, only some file names give x and y, or
            the images are smaller than a tile.
    """
    with _open_image(files[0]) as first:
        width, height = first.size
    if width != height:
        raise SlideError(
            f"{files[0]}: {width} x {height} px, but tiles are square. Crop the images."
        )
    corners = _corners(files, width)
    parts = _parts_of_image(files[0], width, mpp, tile_px, target_mpp)
    if parts is None:
        side, whole_mpp = float(width), mpp * width / tile_px
        return FolderTiles(_grid(corners, tile_px, whole_mpp, side), files, mpp, width)
    assert target_mpp is not None
    spread = (corners[:, None] + parts[None]).reshape(-1, 2)
    grid = _grid(spread, tile_px, target_mpp, tile_px * target_mpp / mpp)
    repeated = tuple(path for path in files for _ in parts)
    return FolderTiles(grid, repeated, mpp, width, np.tile(parts, (len(files), 1)))


def _corners(files: Sequence[Path], width: int) -> NDArray[np.int64]:
    """(N, 2) x, y of the images by their names; side by side where these give none."""
    if has_places(files):
        named = [(int(name["x"]), int(name["y"])) for name in map(_match_name, files) if name]
        return np.array(named, dtype=np.int64)
    rows, columns = np.divmod(np.arange(len(files)), math.ceil(math.sqrt(len(files))))
    return np.stack([columns, rows], axis=1) * width


def _parts_of_image(
    path: Path, width: int, mpp: float, tile_px: int, target_mpp: float | None
) -> NDArray[np.int64] | None:
    """The corners of the tiles that an image is cut into; None where it is one tile."""
    if target_mpp is None:
        return None
    whole_mpp = mpp * width / tile_px
    side = tile_px * target_mpp / mpp
    if abs(side - width) <= SAME_SIDE * width:
        return None
    if target_mpp * MAX_UPSAMPLING < mpp:  # that detail was never scanned
        return None
    if side > width:
        raise SlideError(
            f"{path}: a tile of {tile_px} px at {target_mpp:g} micrometres per pixel is {side:.0f} px of "
            f"these images ({mpp:g} micrometres per pixel), which have {width}. Set mpp to {whole_mpp:.4g} "
            "to take every image whole, or finer."
        )
    starts = np.rint(np.arange(int(width / side + SAME_SIDE)) * side).astype(np.int64)
    x, y = np.meshgrid(starts, starts)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def _grid(corners: NDArray[np.int64], tile_px: int, mpp: float, side: float) -> TileGrid:
    return TileGrid(
        coords_l0=corners,
        coverage=np.ones(len(corners), dtype=np.float32),
        tile_px=tile_px,
        mpp=mpp,
        side_l0=(side, side),
    )


def _read_rgb(path: Path) -> Image.Image:
    with _open_image(path) as image:
        return flatten_on_white(image.convert("RGBA") if "A" in image.getbands() else image)


@contextmanager
def _open_image(path: Path) -> Iterator[Image.Image]:
    """Open an image file; any damage is a SlideError."""
    try:
        with Image.open(path) as image:
            yield image
    except Image.DecompressionBombError as error:
        raise SlideError(
            f"{path}: has far more pixels than a tile. Remove it, or give a whole slide as a slide."
        ) from error
    except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises for damaged files
        raise SlideError(
            f"{path}: not a readable image ({error}). Remove or replace it."
        ) from error
