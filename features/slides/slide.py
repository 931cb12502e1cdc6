"""A whole-slide image: opening it, its scale, and reading a square of it at any mpp."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image, ImageCms

from features.errors import SlideError, TileError
from features.slides.levels import usable_levels
from features.slides.names import slide_name
from features.slides.pixels import Pixels, View, open_handle
from features.slides.scale import UserScale, read_scale

LEVEL_TOLERANCE = 1.01  # a level may be this much coarser than requested: 4.0003 is a 4x level
MAX_UPSAMPLING = 1.5  # beyond this, a tile would show detail that was never scanned
SAME_SCALE = 5e-4  # of a tile's side: below this difference, pixels are not resampled
OVERVIEW_PX = 1024  # longest side of the overview in which tissue is found
MAX_DAMAGED_BLOCKS = 500  # of an overview; with more, the slide is unreadable
MIN_BLOCK_PX = 16  # of an overview: smaller damage is left white
# Pixels of a level that are read at once: a slide of one level may have 10^10.
BAND_PIXELS = 1 << 23  # for an overview
FIELD_PIXELS = 1 << 24  # for a field; a tile has 10^5, a very coarse tile may cover the whole slide


@dataclass(frozen=True)
class Slide:
    """An open slide with a known scale; a context manager, safe to read from several threads.

    Attributes:
        path: the file.
        mpp: micrometres per level-0 pixel, (x, y).
        mpp_source: where the scale comes from: ``file``, or the ``mpp_source`` passed to ``open_slide``.
        size_l0: (width, height) in level-0 pixels.
        downsamples: per level, the (x, y) ratio of level-0 size to level size, not rounded.
        levels: the levels that are read; others of the file have another aspect ratio, as a macro picture
            has, or a scale that an earlier level has, as a further focal plane has.
        bounds_l0: (x, y) of the scanned part's corner; QuPath crops to it and counts from there.
        bounds_size_l0: (width, height) of the scanned part; of the whole slide where the file names none.
        notes: remarks on the scale.
    """

    path: Path
    mpp: tuple[float, float]
    mpp_source: str
    size_l0: tuple[int, int]
    downsamples: tuple[tuple[float, float], ...]
    levels: tuple[int, ...]
    bounds_l0: tuple[int, int]
    bounds_size_l0: tuple[int, int]
    notes: tuple[str, ...]
    _pixels: Pixels
    _overview: Image.Image | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The file's name without its slide suffix."""
        return slide_name(self.path.name)

    @property
    def reader(self) -> str:
        """What decodes the pixels: ``jpeg tiles`` (our own reader, verified to be equal) or ``openslide``."""
        return "jpeg tiles" if self._pixels.jpeg else "openslide"

    @property
    def color_profile(self) -> Any:
        """The scanner's ICC profile as a Pillow object, or None.

        Raises:
            SlideError: the profile is damaged.
        """
        try:
            return self._pixels.handle.color_profile
        except (ImageCms.PyCMSError, OSError, ValueError) as error:
            raise SlideError(
                f"{self.path.name}: its ICC profile is damaged ({error}). Set icc to off to use the colours "
                "as they were scanned."
            ) from error

    def __enter__(self) -> "Slide":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._pixels.close()

    def view_for(self, mpp: float) -> View:
        """The coarsest view that is at least as fine as ``mpp``.

        A level decoded at a fraction of its size is used only if it has exactly the requested scale, so that
        nothing is left to resample. Otherwise full-size pixels are resampled once.
        """
        fine_enough = [
            View(level, 1, self.downsamples[level])
            for level in self.levels
            if self._view_mpp(self.downsamples[level]) <= mpp * LEVEL_TOLERANCE
        ]
        best = fine_enough[-1] if fine_enough else View(0, 1, self.downsamples[0])
        for shrink in self._pixels.shrinks(best.level):
            shrunk = (best.downsample[0] * shrink, best.downsample[1] * shrink)
            if mpp / LEVEL_TOLERANCE <= self._view_mpp(shrunk) <= mpp * LEVEL_TOLERANCE:
                return View(best.level, shrink, shrunk)
        return best

    def read(self, x_l0: int, y_l0: int, side_px: int, mpp: float) -> NDArray[np.uint8]:
        """Read a square at any mpp; pixels outside the slide and unscanned areas are white.

        Args:
            x_l0: left edge in level-0 pixels; may lie outside the slide.
            y_l0: top edge in level-0 pixels.
            side_px: width and height of the result.
            mpp: micrometres per pixel of the result.

        Returns:
            (side_px, side_px, 3) RGB.

        Raises:
            TileError: the pixels cannot be decoded; other parts of the slide may be intact.

        Example:
            A tile of 224 pixels at 10x (1 micrometre per pixel), from the corner of a slide:

            >>> from pathlib import Path
            >>> import numpy as np, tempfile, tifffile
            >>> from features.slides.slide import open_slide
            >>> path = Path(tempfile.mkdtemp()) / "case-01-s1.tiff"
            >>> tifffile.imwrite(path, np.full((1024, 1024, 3), 200, np.uint8), tile=(256, 256))
            >>> with open_slide(path, mpp=0.25) as slide:
            ...     slide.read(0, 0, side_px=224, mpp=1.0).shape
            (224, 224, 3)
        """
        return self.read_rectangle(x_l0, y_l0, (side_px, side_px), mpp)

    def read_rectangle(
        self, x_l0: float, y_l0: float, size_px: tuple[int, int], mpp: float
    ) -> NDArray[np.uint8]:
        """Read a rectangle at any mpp; pixels outside the slide and unscanned areas are white.

        Args:
            x_l0: left edge in level-0 pixels; may lie outside the slide.
            y_l0: top edge in level-0 pixels.
            size_px: (width, height) of the result.
            mpp: micrometres per pixel of the result.

        Returns:
            (height, width, 3) RGB.

        Raises:
            TileError: the pixels cannot be decoded; other parts of the slide may be intact.
        """
        field = (size_px[0] * mpp / self.mpp[0], size_px[1] * mpp / self.mpp[1])
        return self._read_field((x_l0, y_l0), field, size_px, self.view_for(mpp))

    def thumbnail(self, max_px: int) -> Image.Image:
        """The whole slide as an RGB image; damaged parts are white.

        Args:
            max_px: the longest side of the image in pixels.

        Raises:
            TileError: hardly anything of the slide can be read.
        """
        if self._overview and max_px == OVERVIEW_PX:
            return self._overview.copy()
        step = max(max(self.size_l0) / max_px, 1.0)
        picture = Image.new("RGB", _size_at(self.size_l0, step), "white")
        view = self._overview_view(step)
        row_pixels = self.size_l0[0] / view.downsample[0] * step / view.downsample[1]
        rows = max(1, int(BAND_PIXELS / row_pixels))
        blocks = [
            (0, top, picture.width, min(top + rows, picture.height))
            for top in range(0, picture.height, rows)
        ]
        readable, damage = False, None
        failed = 0
        while blocks:
            left, top, right, bottom = block = blocks.pop()
            scale = (self.size_l0[0] / picture.width, self.size_l0[1] / picture.height)
            # Resampling looks one pixel beyond a band, so that no seam shows.
            margin = int(right - left == picture.width)
            first, last = max(0, top - margin), min(picture.height, bottom + margin)
            corner = (left * scale[0], first * scale[1])
            field = ((right - left) * scale[0], (last - first) * scale[1])
            try:
                pixels = self._read_field(corner, field, (right - left, last - first), view)
                picture.paste(Image.fromarray(pixels[top - first : bottom - first]), (left, top))
                readable = True
            except TileError as error:
                damage, failed = error, failed + 1
                blocks += _split_block(block) if failed < MAX_DAMAGED_BLOCKS else []
        if damage and (failed >= MAX_DAMAGED_BLOCKS or not readable):
            raise damage
        return picture

    def read_part(self, level: int, part: float, side_px: int) -> NDArray[np.uint8]:
        """Read a square of a level, in its own pixels.

        Args:
            level: one of ``levels``.
            part: how far along the diagonal it lies, from 0 (first corner) to 1 (last).
            side_px: of the square.

        Raises:
            TileError: the pixels cannot be decoded.
        """
        view = View(level, 1, self.downsamples[level])
        sides = [
            round(side / step) for side, step in zip(self.size_l0, view.downsample, strict=True)
        ]
        left, top = (max(0, round(part * (side - side_px))) for side in sides)
        return self._pixels.read(view, (left, top), (side_px, side_px))

    def read_pixels(self, corner: tuple[int, int], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Read a rectangle of level 0 as it was scanned: (height, width, 3) RGB on white.

        Raises:
            TileError: the pixels cannot be decoded.
        """
        return self._pixels.read(View(0, 1, self.downsamples[0]), corner, size)

    def _overview_view(self, step: float) -> View:
        """The coarsest view at least as fine as ``step`` level-0 pixels."""
        views = [
            View(
                level,
                shrink,
                (shrink * self.downsamples[level][0], shrink * self.downsamples[level][1]),
            )
            for level in self.levels
            for shrink in (1, *self._pixels.shrinks(level))
        ]
        fine_enough = [view for view in views if max(view.downsample) <= step * LEVEL_TOLERANCE]
        return max(fine_enough or views[:1], key=lambda view: (max(view.downsample), -view.shrink))

    def _view_mpp(self, downsample: tuple[float, float]) -> float:
        return max(self.mpp[0] * downsample[0], self.mpp[1] * downsample[1])

    def _read_field(
        self,
        corner_l0: tuple[float, float],
        field_l0: tuple[float, float],
        size_px: tuple[int, int],
        view: View,
    ) -> NDArray[np.uint8]:
        """A rectangle of the slide, resampled to a size; its edges are exact to a fraction of a pixel."""
        (x, width), (y, height) = (
            (corner_l0[axis] / view.downsample[axis], field_l0[axis] / view.downsample[axis])
            for axis in (0, 1)
        )
        if all(
            abs(extent - side) <= SAME_SCALE * side
            for extent, side in zip((width, height), size_px, strict=True)
        ):
            return self._pixels.read(view, (round(x), round(y)), size_px)
        if width * height > FIELD_PIXELS and max(size_px) > MIN_BLOCK_PX:
            return self._read_halves(corner_l0, field_l0, size_px, view)
        left, top = int(np.floor(x + 1e-6)), int(np.floor(y + 1e-6))
        size = (_whole_pixels(x + width - left), _whole_pixels(y + height - top))
        raw = Image.fromarray(self._pixels.read(view, (left, top), size))
        box = (
            max(0.0, x - left), max(0.0, y - top),
            min(x - left + width, size[0]), min(y - top + height, size[1]),
        )  # fmt: skip
        return np.asarray(raw.resize(size_px, Image.Resampling.BILINEAR, box=box))

    def _read_halves(
        self,
        corner_l0: tuple[float, float],
        field_l0: tuple[float, float],
        size_px: tuple[int, int],
        view: View,
    ) -> NDArray[np.uint8]:
        """A rectangle read in two halves of its longer side; pixels outside the slide are not read."""
        axis = int(size_px[1] > size_px[0])
        step, middle, parts = field_l0[axis] / size_px[axis], size_px[axis] // 2, []
        for first, last in ((0, middle), (middle, size_px[axis])):
            # Resampling looks one pixel beyond a half, so that no seam shows.
            start, end = max(0, first - 1), min(size_px[axis], last + 1)
            corner, field, size = list(corner_l0), list(field_l0), list(size_px)
            corner[axis] += start * step
            field[axis], size[axis] = (end - start) * step, end - start
            if any(at >= side for at, side in zip(corner, self.size_l0, strict=True)):
                pixels = np.full((size[1], size[0], 3), 255, np.uint8)
            else:
                pixels = self._read_field(
                    (corner[0], corner[1]), (field[0], field[1]), (size[0], size[1]), view
                )
            half = slice(first - start, last - start)
            parts.append(pixels[:, half] if axis == 0 else pixels[half])
        return np.concatenate(parts, axis=1 - axis)


def _size_at(size_l0: tuple[int, int], step: float) -> tuple[int, int]:
    return max(1, round(size_l0[0] / step)), max(1, round(size_l0[1] / step))


def _split_block(block: tuple[int, int, int, int]) -> list[tuple[int, int, int, int]]:
    """The four quarters of a block; none where it is so small that it is left white."""
    left, top, right, bottom = block
    if max(right - left, bottom - top) <= MIN_BLOCK_PX:
        return []
    x, y = (left + right) // 2, (top + bottom) // 2
    parts = [(left, top, x, y), (x, top, right, y), (left, y, x, bottom), (x, y, right, bottom)]
    return [part for part in parts if part[0] < part[2] and part[1] < part[3]]


def _whole_pixels(extent: float) -> int:
    """The number of whole pixels that cover an extent; an excess of a thousandth is rounding."""
    return max(1, int(np.ceil(extent - 1e-3)))


def open_slide(
    path: Path | str,
    *,
    mpp: float | None = None,
    mpp_source: str = "given",
    fallback_mpp: float | None = None,
    overview: Image.Image | None = None,
) -> Slide:
    """Open a whole-slide image; use it as a context manager, so that the file is closed.

    Args:
        path: the slide file, in any format that OpenSlide reads.
        mpp: micrometres per level-0 pixel; overrides the scale in the file.
        mpp_source: where ``mpp`` comes from, for messages and the bag.
        fallback_mpp: micrometres per level-0 pixel, where the file gives none.
        overview: what ``thumbnail(1024)`` returns, if it was read before.

    Returns:
        The slide, whose pixels have not been read yet.

    Raises:
        SlideError: there is no such file, its tags contradict each other, or OpenSlide cannot open it.
        ScaleError: the scale is unknown or implausible.

    Example:
        >>> from pathlib import Path
        >>> import numpy as np, tempfile, tifffile
        >>> from features.slides.slide import open_slide
        >>> path = Path(tempfile.mkdtemp()) / "case-01-s1.tiff"
        >>> tifffile.imwrite(path, np.full((512, 1024, 3), 200, np.uint8), tile=(256, 256))
        >>> with open_slide(path, mpp=0.25) as slide:
        ...     slide.name, slide.size_l0, slide.mpp
        ('case-01-s1', (1024, 512), (0.25, 0.25))
    """
    path = Path(path)
    handle = open_handle(path)
    try:
        scale = read_scale(path.name, handle.properties, UserScale(mpp, mpp_source, fallback_mpp))
        pixels = Pixels(path, handle)
    except BaseException:
        handle.close()
        raise
    width, height = handle.dimensions
    corner, extent = _bounds(handle.properties, (width, height))
    return Slide(
        path=path,
        mpp=scale.mpp,
        mpp_source=scale.source,
        size_l0=(width, height),
        downsamples=tuple((width / w, height / h) for w, h in handle.level_dimensions),
        levels=usable_levels(handle.level_dimensions),
        bounds_l0=corner,
        bounds_size_l0=extent,
        notes=scale.notes,
        _pixels=pixels,
        _overview=overview,
    )


def _bounds(
    properties: Mapping[str, str], size_l0: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The corner and the size of the scanned part."""

    def number(name: str, default: int) -> int:
        try:
            return int(properties[name])
        except (KeyError, ValueError):
            return default

    return (
        (number(openslide.PROPERTY_NAME_BOUNDS_X, 0), number(openslide.PROPERTY_NAME_BOUNDS_Y, 0)),
        (
            number(openslide.PROPERTY_NAME_BOUNDS_WIDTH, size_l0[0]),
            number(openslide.PROPERTY_NAME_BOUNDS_HEIGHT, size_l0[1]),
        ),
    )
