"""A whole-slide image: opening it, its scale, and reading a square of it at any mpp."""

import threading
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image

from features.errors import ScaleError, SlideError, TileError
from features.slides.jpeg_tiles import JpegTiles

SLIDE_SUFFIXES = (
    ".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".czi", ".dcm", ".svslide",
)  # fmt: skip
PLAUSIBLE_MPP = (0.05, 20.0)  # finer than any objective, coarser than any slide scan
LEVEL_TOLERANCE = 1.01  # a level may be this much coarser than requested: 4.0003 is a 4x level
MAX_UPSAMPLING = 1.5  # beyond this, a tile would show detail that was never scanned
SAME_SCALE = 5e-4  # of a tile's side: below this difference, pixels are not resampled
MAX_DAMAGED_BLOCKS = 500  # of an overview; with more, the slide is unreadable
MIN_BLOCK_PX = 16  # of an overview: smaller damage is left white
# Pixels of a level that are read at once: a slide of one level may have 10^10.
BAND_PIXELS = 1 << 23  # for an overview
FIELD_PIXELS = 1 << 24  # for a field; a tile has 10^5, a very coarse tile may cover the whole slide


@dataclass(frozen=True)
class View:
    """One resolution at which a slide can be decoded: a level, or a level at a fraction of its size.

    Attributes:
        level: number of the level in the file.
        shrink: 1, or 2, 4, 8 where the file's JPEG tiles can be decoded at that fraction of their size.
        downsample: (x, y) level-0 pixels per pixel of the view, not rounded.
    """

    level: int
    shrink: int
    downsample: tuple[float, float]


@dataclass(frozen=True)
class Slide:
    """An open slide with a known scale; a context manager, safe to read from several threads.

    Attributes:
        path: the file.
        mpp: micrometres per level-0 pixel, (x, y).
        mpp_source: where the scale comes from: ``file``, or the ``mpp_source`` passed to ``open_slide``.
        size_l0: (width, height) in level-0 pixels.
        downsamples: per level, the (x, y) ratio of level-0 size to level size, not rounded.
        bounds_l0: (x, y) of the scanned part's corner; QuPath crops to it and counts from there.
        bounds_size_l0: (width, height) of the scanned part; of the whole slide where the file names none.
    """

    path: Path
    mpp: tuple[float, float]
    mpp_source: str
    size_l0: tuple[int, int]
    downsamples: tuple[tuple[float, float], ...]
    bounds_l0: tuple[int, int]
    bounds_size_l0: tuple[int, int]
    _pixels: "_Pixels"

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
        """The scanner's ICC profile as a Pillow object, or None."""
        return self._pixels.handle.color_profile

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
            View(level, 1, downsample)
            for level, downsample in enumerate(self.downsamples)
            if self._view_mpp(downsample) <= mpp * LEVEL_TOLERANCE
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
        field = (side_px * mpp / self.mpp[0], side_px * mpp / self.mpp[1])
        return self._read_field((x_l0, y_l0), field, (side_px, side_px), self.view_for(mpp))

    def thumbnail(self, max_px: int) -> Image.Image:
        """The whole slide as an RGB image; damaged parts are white.

        Args:
            max_px: the longest side of the image in pixels.

        Raises:
            TileError: hardly anything of the slide can be read.
        """
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

    def _overview_view(self, step: float) -> View:
        """The coarsest view at least as fine as ``step`` level-0 pixels."""
        views = [
            View(level, shrink, (ds_x * shrink, ds_y * shrink))
            for level, (ds_x, ds_y) in enumerate(self.downsamples)
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


class _Pixels:
    """The decoder of a slide: the file's own JPEG tiles where possible, else OpenSlide.

    After its first error, an OpenSlide handle fails at every read, so a handle that failed is replaced.
    """

    def __init__(self, path: Path, handle: openslide.OpenSlide) -> None:
        self.path = path
        self.handle = handle
        self.jpeg = JpegTiles.open(path, handle)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the file; no other thread may still be reading."""
        self.handle.close()
        if self.jpeg:
            self.jpeg.close()

    def shrinks(self, level: int) -> tuple[int, ...]:
        """The fractions of its size at which a level can be decoded: a subset of 2, 4, 8."""
        verified = self.jpeg.levels.get(level, ()) if self.jpeg else ()
        return tuple(shrink for shrink in verified if shrink > 1)

    def read(self, view: View, corner: tuple[int, int], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Read a rectangle in whole pixels of a view: (height, width, 3) RGB on white."""
        if self.jpeg and view.shrink in self.jpeg.levels.get(view.level, ()):
            return self.jpeg.read(view.level, view.shrink, *corner, *size)
        handle = self.handle
        try:
            return _read_region(handle, view.level, corner, size)
        except openslide.OpenSlideError:  # perhaps the handle failed on another thread's tile
            return self._read_reopened(handle, view, corner, size)

    def _read_reopened(
        self,
        failed: openslide.OpenSlide,
        view: View,
        corner: tuple[int, int],
        size: tuple[int, int],
    ) -> NDArray[np.uint8]:
        """Read with a new handle, and replace the one that failed."""
        fresh = openslide.OpenSlide(self.path)
        try:
            pixels = _read_region(fresh, view.level, corner, size)
        except (openslide.OpenSlideError, OSError) as error:
            fresh.close()
            raise TileError(
                f"{self.path.name}: the pixels at ({corner[0]}, {corner[1]}) of level {view.level} "
                f"cannot be read ({error}). Copy the file again or scan the slide again."
            ) from error
        self._replace(failed, fresh)
        return pixels

    def _replace(self, failed: openslide.OpenSlide, fresh: openslide.OpenSlide) -> None:
        """Replace a failed handle; it is closed once its last reader is done."""
        with self._lock:
            if self.handle is failed:
                self.handle = fresh
                return
        fresh.close()  # another thread has replaced it already


def _read_region(
    handle: openslide.OpenSlide, level: int, corner: tuple[int, int], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Read from OpenSlide, which takes level-0 positions and divides by the mean downsample of x and y."""
    downsample = handle.level_downsamples[level]
    location = (round(corner[0] * downsample), round(corner[1] * downsample))
    return np.asarray(flatten_on_white(handle.read_region(location, level, size)))


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


def open_slide(path: Path | str, *, mpp: float | None = None, mpp_source: str = "given") -> Slide:
    """Open a whole-slide image; use it as a context manager, so that the file is closed.

    Args:
        path: the slide file, in any format that OpenSlide reads.
        mpp: micrometres per level-0 pixel; overrides the scale in the file.
        mpp_source: where ``mpp`` comes from, for messages and the bag.

    Returns:
        The slide, whose pixels have not been read yet.

    Raises:
        SlideError: there is no such file, or OpenSlide cannot open it.
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
    if not path.is_file():
        raise SlideError(
            f"{path}: no such slide. Check the path, or the slide column of the table."
        )
    try:
        handle = openslide.OpenSlide(path)
    except (openslide.OpenSlideError, OSError) as error:
        raise SlideError(
            f"{path.name}: not a slide OpenSlide can open ({str(error) or type(error).__name__}). "
            "Copy the file again, or convert it to a pyramidal TIFF."
        ) from error
    try:
        scale, source = _scale(path.name, handle.properties, mpp, mpp_source)
    except ScaleError:
        handle.close()
        raise
    width, height = handle.dimensions
    downsamples = tuple((width / w, height / h) for w, h in handle.level_dimensions)
    properties = handle.properties
    corner = (
        int(properties.get(openslide.PROPERTY_NAME_BOUNDS_X, 0)),
        int(properties.get(openslide.PROPERTY_NAME_BOUNDS_Y, 0)),
    )
    extent = (
        int(properties.get(openslide.PROPERTY_NAME_BOUNDS_WIDTH, width)),
        int(properties.get(openslide.PROPERTY_NAME_BOUNDS_HEIGHT, height)),
    )
    return Slide(
        path, scale, source, (width, height), downsamples, corner, extent, _Pixels(path, handle)
    )


def _scale(
    name: str, properties: Mapping[str, str], mpp: float | None, mpp_source: str
) -> tuple[tuple[float, float], str]:
    """The slide's (x, y) mpp and its source: ``mpp`` if it is set, else the scale in the file."""
    low, high = PLAUSIBLE_MPP
    if mpp is not None:
        scale, source = (mpp, mpp), mpp_source
    else:
        try:
            scale = (
                float(properties[openslide.PROPERTY_NAME_MPP_X]),
                float(properties[openslide.PROPERTY_NAME_MPP_Y]),
            )
        except (KeyError, ValueError) as error:
            raise ScaleError(
                f"{name}: the file gives no micrometres per pixel. Set slide_mpp to 0.25 (a 40x scan) or 0.5 "
                "(20x), or add an mpp column to the table."
            ) from error
        source = "file"
    if not all(low <= value <= high for value in scale):
        remedy = (
            "Correct the mpp in the table"
            if source == "table"
            else "Set slide_mpp to the true value"
        )
        raise ScaleError(
            f"{name}: {scale[0]:g} x {scale[1]:g} micrometres per pixel ({source}) is not between "
            f"{low:g} and {high:g}. {remedy}, e.g. 0.25 for a 40x scan."
        )
    return scale, source


def flatten_on_white(image: Image.Image) -> Image.Image:
    """Flatten an RGBA image onto white; ``convert("RGB")`` would make unscanned areas black."""
    if image.mode != "RGBA" or image.getchannel("A").getextrema() == (255, 255):
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def slide_name(file_name: str) -> str:
    """A slide's name: the file name without a known suffix; other dots stay (``a.b.svs`` -> ``a.b``).

    A relative folder stays too, so that two slides of the same name differ (``site-1/a.svs`` ->
    ``site-1/a``); an absolute one is dropped (``/data/a.svs`` -> ``a``).
    """
    path = PurePosixPath(unicodedata.normalize("NFC", file_name))  # macOS decomposes accents
    bare = path.stem if path.suffix.lower() in (*SLIDE_SUFFIXES, ".h5") else path.name
    folder = path.parent
    return bare if folder.is_absolute() or ".." in folder.parts else (folder / bare).as_posix()


def file_name(slide: str) -> str:
    """A slide's name as a file name: ``site-1/a`` -> ``site-1%2Fa``; different slides stay different."""
    return slide.replace("%", "%25").replace("/", "%2F")
