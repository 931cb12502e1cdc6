"""Reader of tiled JPEG TIFFs, several times faster than OpenSlide and verified against it."""

import logging
import os
import struct
import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import openslide
import simplejpeg
import tifffile
from numpy.typing import NDArray

from features.errors import TileError

_IGNORE = logging.NullHandler()
SHRINKS = (2, 4, 8)  # besides full size, the factors by which libjpeg can reduce 8 x 8 blocks
VERIFIED_TILES, SAMPLED_TILES = 5, 16  # compared per level; to choose from if some are damaged
MAX_JPEG_BYTES = 1 << 28  # of a tile
MAX_BLEND_DIFF = 2  # grey values: OpenSlide blends neighbouring pixels with weights of 7 bits
MAX_SHRINK_RMS = 2.5  # grey values, 40 dB; on H&E, bilinear and box resampling differ by 1.6 to 3
JPEG = 7  # TIFF's number for that compression
SOI, EOI = b"\xff\xd8", b"\xff\xd9"  # start and end of a JPEG
ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"  # an APP14 marker up to its transform
TRANSFORMS = {2: b"\x00", 6: b"\x01"}  # TIFF photometric RGB, YCbCr -> the marker's transform


@dataclass(frozen=True, eq=False)
class Level:
    """One pyramid level of a tiled JPEG TIFF.

    Attributes:
        size: (width, height) in pixels of the level.
        tile: (width, height) of a JPEG tile.
        offsets: (N,) int64, where each tile begins in the file; row by row.
        byte_counts: (N,) int64, its compressed length.
        head: prepended to every tile: tables, and a marker that gives its colour space.
    """

    size: tuple[int, int]
    tile: tuple[int, int]
    offsets: NDArray[np.int64]
    byte_counts: NDArray[np.int64]
    head: bytes

    @property
    def across(self) -> int:
        """Tiles in a row."""
        return -(-self.size[0] // self.tile[0])

    def corner(self, index: int) -> tuple[int, int]:
        """(x, y) of a tile in pixels of the level."""
        row, column = divmod(index, self.across)
        return column * self.tile[0], row * self.tile[1]

    def samples(self) -> list[int]:
        """Tiles to compare: the largest, the last (it extends over the border), the first, and others."""
        by_size = np.argsort(self.byte_counts)[::-1]
        spread = by_size[np.linspace(0, len(by_size) - 1, SAMPLED_TILES).astype(int)]
        order = [int(by_size[0]), len(by_size) - 1, 0, *spread[1:].tolist()]
        return list(dict.fromkeys(order))

    def jpeg(self, file: int, index: int) -> bytes:
        """Read a tile from a file descriptor, as a complete JPEG.

        Raises:
            ValueError: there is no JPEG.
            OSError: the file cannot be read.
        """
        count = min(int(self.byte_counts[index]), MAX_JPEG_BYTES)  # a damaged one exceeds memory
        stored = os.pread(file, count, int(self.offsets[index]))
        if not stored.startswith(SOI):
            raise ValueError("no JPEG begins there")
        return self.head + stored[len(SOI) :]

    def decode(self, file: int, index: int, shrink: int) -> NDArray[np.uint8]:
        """Decode a tile from a file descriptor: (tile height / shrink, tile width / shrink, 3) RGB.

        Raises:
            ValueError: it is not a JPEG of that size, or libjpeg warns, which is an error in OpenSlide too.
            OSError: as ``jpeg``.
        """
        jpeg = self.jpeg(file, index)
        height, width, *_ = simplejpeg.decode_jpeg_header(jpeg)
        if (width, height) != self.tile:  # also limits the memory a damaged header can request
            raise ValueError(f"its JPEG is of another size, {width} x {height}")
        rgb: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            jpeg,
            "RGB",
            min_height=height // shrink,
            min_width=width // shrink,
            strict=True,
        )
        return rgb


class JpegTiles:
    """The pixels of a tiled JPEG TIFF or SVS without OpenSlide; safe to read from several threads.

    Attributes:
        levels: OpenSlide's level -> the verified shrinks at which it can be read; 1 is always among them.
    """

    levels: Mapping[int, tuple[int, ...]]

    def __init__(self, path: Path, stored: Mapping[int, Level], cache_bytes: int) -> None:
        self._path, self._stored = path, stored
        self._file = os.open(path, os.O_RDONLY)
        self._release = weakref.finalize(self, os.close, self._file)
        self._lock = threading.Lock()
        self._cache: OrderedDict[tuple[int, int, int], Future[NDArray[np.uint8]]] = OrderedDict()
        self._cache_bytes, self._cached = cache_bytes, 0
        referee = _Referee(path)
        verified = {
            number: _verify_shrinks(self._file, number, level, referee)
            for number, level in stored.items()
        }
        referee.close()
        self.levels = MappingProxyType({n: shrinks for n, shrinks in verified.items() if shrinks})

    @classmethod
    def open(
        cls, path: Path, handle: openslide.OpenSlide, *, cache_bytes: int = 96 << 20
    ) -> "JpegTiles | None":
        """Open the levels that are verified to equal OpenSlide's; None where no level is.

        Sample tiles of each level are compared with OpenSlide. At full size they must be identical. Where
        OpenSlide blends neighbouring pixels, because a tile's corner is not at a whole level-0 pixel, they
        must be within 2 grey values of that blend. A shrunk tile must be within a root mean square of 2.5
        grey values of the mean over each square of full-size pixels.

        Args:
            path: the slide file.
            handle: the same slide; only its geometry is used, since a failed read would break it.
            cache_bytes: the memory that decoded tiles may occupy.
        """
        stored = _find_levels(path, handle)
        if not stored or not hasattr(os, "pread"):  # Windows has none
            return None
        reader = cls(path, stored, cache_bytes)
        return reader if reader.levels else None

    def read(
        self, level: int, shrink: int, x: int, y: int, width: int, height: int
    ) -> NDArray[np.uint8]:
        """Read a rectangle of a level, shrunk; pixels outside the level are white.

        Args:
            level: a key of ``levels``.
            shrink: one of its shrinks; pixel i covers level pixels i * shrink to (i + 1) * shrink. The
                remainder of a side that ``shrink`` does not divide counts as outside.
            x: left edge in pixels of the shrunk level; may lie outside it.
            y: top edge, in the same pixels.
            width: of the result, in the same pixels.
            height: of the result, in the same pixels.

        Returns:
            (height, width, 3) RGB, a new array.

        Raises:
            TileError: a JPEG tile that is needed cannot be decoded; others stay readable.
        """
        assert shrink in self.levels[level], f"level {level} is not verified at 1/{shrink}"
        stored = self._stored[level]
        tile_w, tile_h = (side // shrink for side in stored.tile)
        left, right = max(x, 0), min(x + width, stored.size[0] // shrink)
        top, bottom = max(y, 0), min(y + height, stored.size[1] // shrink)
        inside = (left, top, right, bottom) == (x, y, x + width, y + height)
        if inside and (x % tile_w, y % tile_h, width, height) == (0, 0, tile_w, tile_h):
            return self._decode(level, shrink, y // tile_h * stored.across + x // tile_w)
        out = np.empty((height, width, 3), np.uint8)
        if not inside:
            out.fill(255)
        if left >= right or top >= bottom:
            return out
        for row in range(top // tile_h, -(-bottom // tile_h)):
            y0, y1 = max(top, row * tile_h), min(bottom, (row + 1) * tile_h)
            for column in range(left // tile_w, -(-right // tile_w)):
                x0, x1 = max(left, column * tile_w), min(right, (column + 1) * tile_w)
                tile = self._tile(level, shrink, row * stored.across + column)
                out[y0 - y : y1 - y, x0 - x : x1 - x] = tile[
                    y0 - row * tile_h : y1 - row * tile_h,
                    x0 - column * tile_w : x1 - column * tile_w,
                ]
        return out

    def close(self) -> None:
        """Close the file; a later read that needs it raises a TileError."""
        self._file = -1  # the old number may soon belong to another file
        self._release()
        with self._lock:
            self._cache.clear()
            self._cached = 0

    def _tile(self, level: int, shrink: int, index: int) -> NDArray[np.uint8]:
        """One decoded tile, decoded once for all threads that wait for it; shared, so not to be modified."""
        key = (level, shrink, index)
        with self._lock:
            tile = self._cache.get(key)
            cached = tile is not None
            if tile is None:
                tile = self._cache[key] = Future()
                self._cached += self._bytes_of(key)
                while self._cached > self._cache_bytes:
                    self._cached -= self._bytes_of(self._cache.popitem(last=False)[0])
            else:
                self._cache.move_to_end(key)
        if not cached:
            try:
                tile.set_result(self._decode(level, shrink, index))
            except BaseException as error:
                tile.set_exception(error)
                self._forget(key, tile)
                raise
        return tile.result()

    def _forget(self, key: tuple[int, int, int], tile: Future[NDArray[np.uint8]]) -> None:
        with self._lock:
            if self._cache.get(key) is tile:
                del self._cache[key]
                self._cached -= self._bytes_of(key)

    def _bytes_of(self, key: tuple[int, int, int]) -> int:
        level, shrink, _ = key
        width, height = self._stored[level].tile
        return 3 * width * height // shrink**2

    def _decode(self, level: int, shrink: int, index: int) -> NDArray[np.uint8]:
        stored = self._stored[level]
        try:
            return stored.decode(self._file, index, shrink)
        except (ValueError, OSError) as error:
            raise TileError(
                f"{self._path.name}: the JPEG tile at {stored.corner(index)} of level {level} (in that "
                f"level's pixels) cannot be decoded ({error}). Copy the file again or scan again."
            ) from error


class _Referee:
    """OpenSlide on a separate handle, reopened after an error, since a failed handle stays unusable."""

    def __init__(self, path: Path) -> None:
        self._path, self._handle = path, openslide.OpenSlide(path)

    def confirms(
        self, number: int, level: Level, index: int, tile: NDArray[np.uint8] | None
    ) -> bool | None:
        """Whether OpenSlide reads the same tile; None where it cannot be compared, or fails as well."""
        downsample = self._handle.level_downsamples[number]
        corner = level.corner(index)
        x_l0, y_l0 = (int(np.ceil(start * downsample - 1e-6)) for start in corner)
        # OpenSlide draws with this offset, a fraction of a level pixel, and blends neighbours.
        right, below = x_l0 / downsample - corner[0], y_l0 / downsample - corner[1]
        width, height = (
            min(side, size - start) - int(shift > 1e-6)
            for side, size, start, shift in zip(
                level.tile, level.size, corner, (right, below), strict=True
            )
        )
        if not width or not height:
            return None
        try:
            reference = np.asarray(self._handle.read_region((x_l0, y_l0), number, (width, height)))
        except (openslide.OpenSlideError, OSError):
            self.close()
            self._handle = openslide.OpenSlide(self._path)
            return None if tile is None else False
        if tile is None:
            return False
        if max(right, below) <= 1e-6:
            return np.array_equal(reference[..., :3], tile[:height, :width])
        blend = (1 - right) * tile[:, :width] + right * np.roll(tile, -1, axis=1)[:, :width]
        blend = (1 - below) * blend[:height] + below * np.roll(blend, -1, axis=0)[:height]
        return bool(np.abs(reference[..., :3] - blend).max() <= MAX_BLEND_DIFF)

    def close(self) -> None:
        self._handle.close()


def _verify_shrinks(file: int, number: int, level: Level, referee: _Referee) -> tuple[int, ...]:
    """The shrinks at which the level's sample tiles equal OpenSlide's; empty where the level does not."""
    shrinks, confirmed = list(SHRINKS), 0
    for index in level.samples():
        try:
            tile = level.decode(file, index, 1)
        except (ValueError, OSError):
            tile = None
        verdict = referee.confirms(number, level, index, tile)
        if verdict is False:
            return ()
        if verdict is None or tile is None:
            continue  # damaged, or at a border: neither confirms nor refutes
        means = _square_means(tile, shrinks)
        shrinks = [n for n in shrinks if _is_close(level.decode(file, index, n), means[n])]
        confirmed += 1
        if confirmed == VERIFIED_TILES:
            break
    return (1, *shrinks) if confirmed else ()


def _square_means(
    tile: NDArray[np.uint8], shrinks: Sequence[int]
) -> dict[int, NDArray[np.float64]]:
    """Shrink -> the mean of a full-size tile over each of its squares of so many pixels.

    Sides are halved repeatedly: ``mean(axis=(1, 3))`` over squares takes ten times as long. The sum of 8 x 8
    grey values fits into 16 bits.
    """
    means, sums = {}, tile.astype(np.uint16)
    for shrink in SHRINKS[: SHRINKS.index(max(shrinks)) + 1] if shrinks else ():
        rows = sums[::2] + sums[1::2]
        sums = rows[:, ::2] + rows[:, 1::2]
        means[shrink] = sums / shrink**2
    return means


def _is_close(shrunk: NDArray[np.uint8], mean: NDArray[np.float64]) -> bool:
    """Whether a shrunk tile is close enough to the mean over squares of the full-size tile."""
    return bool(np.sqrt(np.mean((shrunk - mean) ** 2)) <= MAX_SHRINK_RMS)


def _find_levels(path: Path, handle: openslide.OpenSlide) -> dict[int, Level]:
    """OpenSlide's levels that match exactly one JPEG-tiled page in size."""
    logging.getLogger("tifffile").addHandler(_IGNORE)  # else it prints what is damaged
    try:
        with tifffile.TiffFile(path) as tiff:
            pages = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage)]
            matches = {
                number: [page for page in pages if (page.imagewidth, page.imagelength) == size]
                for number, size in enumerate(handle.level_dimensions)
            }
            return {
                number: level
                for number, sized in matches.items()
                if len(sized) == 1 and (level := _level(sized[0], number, handle.properties))
            }
    except (
        ArithmeticError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        OSError,
        struct.error,
    ):
        return {}  # not a TIFF, or none that tifffile understands


def _level(page: tifffile.TiffPage, number: int, properties: Mapping[str, str]) -> Level | None:
    """A page as a level; None unless its tiles are complete colour JPEGs side by side."""
    if not page.is_tiled or page.compression != JPEG or page.photometric not in TRANSFORMS:
        return None
    offsets, counts = (np.array(n, np.int64) for n in (page.dataoffsets, page.databytecounts))
    level = Level(
        size=(page.imagewidth, page.imagelength),
        tile=(page.tilewidth, page.tilelength),
        offsets=offsets,
        byte_counts=counts,
        # Added last, since the last Adobe marker counts; without one, libjpeg guesses the colour space.
        head=(page.jpegtables or SOI).removesuffix(EOI) + ADOBE + TRANSFORMS[page.photometric],
    )
    # Where tiles overlap, OpenSlide reports no tile size or a smaller one.
    reported = [
        properties.get(f"openslide.level[{number}].tile-{side}") for side in ("width", "height")
    ]
    regular = reported == [str(side) for side in level.tile] and not any(n % 16 for n in level.tile)
    complete = len(offsets) == level.across * -(-level.size[1] // level.tile[1]) and counts.all()
    return level if regular and complete else None
