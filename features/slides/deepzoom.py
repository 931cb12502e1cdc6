"""A slide as a DeepZoom pyramid of JPEG tiles, for a viewer in the browser."""

import io
import threading
from pathlib import Path

import openslide
from openslide.deepzoom import DeepZoomGenerator
from PIL import Image

from features.errors import SlideError, TileError
from features.slides.levels import usable_levels
from features.slides.pixels import open_handle

TILE_PX, OVERLAP_PX = 510, 1  # as OpenSlide advises: with the overlap a power of two
MAX_DECODED_PIXELS = 1 << 24  # for one tile: a slide of one level may have 10^10
JPEG_QUALITY = 80


class DeepZoom:
    """The DeepZoom pyramid of one slide file, safe to read from several threads.

    Attributes:
        path: the file.
        size_l0: (width, height) in level-0 pixels; tiles cover all of it, bounds not subtracted.
        levels: the number of levels; the last is level 0 of the file.
        coarsest: the first level that is served; coarser ones would decode too much of the file.

    Raises:
        SlideError: OpenSlide cannot open the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pyramid = self._open()
        self.size_l0: tuple[int, int] = self._pyramid.level_dimensions[-1]
        self.levels = self._pyramid.level_count
        self.coarsest = next(
            level
            for level in range(self.levels)
            if self._decoded_pixels(level) <= MAX_DECODED_PIXELS
        )
        self._replacing = threading.Lock()

    def tile(self, level: int, column: int, row: int) -> bytes:
        """Read one tile, as the bytes of a JPEG.

        Raises:
            SlideError: there is no such tile.
            TileError: its pixels cannot be decoded; other tiles may be intact.
        """
        pyramid = self._pyramid
        if not (
            self.coarsest <= level < self.levels
            and 0 <= column < pyramid.level_tiles[level][0]
            and 0 <= row < pyramid.level_tiles[level][1]
        ):
            raise SlideError(
                f"{self.path.name} has no tile {column}, {row} of level {level}. Levels "
                f"{self.coarsest} to {self.levels - 1} can be read."
            )
        try:
            picture = pyramid.get_tile(level, (column, row))
        except openslide.OpenSlideError as error:
            self._replace(pyramid)
            raise TileError(
                f"{self.path.name}: tile {column}, {row} of level {level} cannot be read ({error}). "
                "Copy the file again or scan the slide again."
            ) from error
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
        return buffer.getvalue()

    def _open(self) -> DeepZoomGenerator:
        try:
            return DeepZoomGenerator(open_handle(self.path, _UsableLevels), TILE_PX, OVERLAP_PX)
        except (openslide.OpenSlideError, ValueError) as error:
            raise SlideError(
                f"{self.path.name}: its levels cannot be shown ({str(error) or type(error).__name__}). "
                "Copy the file again, or convert it to a pyramidal TIFF."
            ) from error

    def _replace(self, failed: DeepZoomGenerator) -> None:
        """Open the slide anew: after its first error, an OpenSlide handle fails at every read."""
        with self._replacing:
            if self._pyramid is failed:
                self._pyramid = self._open()

    def _decoded_pixels(self, level: int) -> int:
        """How many pixels of the file are decoded for the first tile of a level."""
        _, _, (width, height) = self._pyramid.get_tile_coordinates(level, (0, 0))
        return width * height


class _UsableLevels(openslide.OpenSlide):
    """A slide without the levels that show something else, for DeepZoom."""

    def __init__(self, filename: Path) -> None:
        super().__init__(filename)
        self._levels: tuple[int, ...] | None = None
        sizes, factors = super().level_dimensions, super().level_downsamples
        self._levels = usable_levels(sizes)
        self._sizes = tuple(sizes[level] for level in self._levels)
        self._factors = tuple(factors[level] for level in self._levels)

    @property
    def level_count(self) -> int:
        """The number of usable levels; of all levels, until those are known."""
        return super().level_count if self._levels is None else len(self._levels)

    @property
    def level_dimensions(self) -> tuple[tuple[int, int], ...]:
        """(width, height) of every usable level."""
        return self._sizes

    @property
    def level_downsamples(self) -> tuple[float, ...]:
        """The factor of every usable level."""
        return self._factors

    def get_best_level_for_downsample(self, downsample: float) -> int:
        """The coarsest usable level that is fine enough."""
        fine = [number for number, factor in enumerate(self._factors) if factor <= downsample]
        return fine[-1] if fine else 0

    def read_region(
        self, location: tuple[int, int], level: int, size: tuple[int, int]
    ) -> Image.Image:
        """Read a rectangle of a usable level."""
        assert self._levels is not None
        return super().read_region(location, self._levels[level], size)
