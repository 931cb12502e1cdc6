"""A whole-slide image: open it, know its scale, read a square of it at any mpp."""

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
PLAUSIBLE_MPP = (0.05, 20.0)  # from electron-microscope fine to macro-photograph coarse
LEVEL_TOLERANCE = 1.01  # a level this much coarser than asked still counts: 4.0003 is a 4x level
MAX_UPSAMPLING = 1.5  # beyond this a tile would show detail that was never scanned
SAME_SCALE = 5e-4  # of a tile's side: less than this apart, pixels are taken as they are
MOST_DAMAGE = 500  # blocks of an overview that cannot be read before the slide is given up
LEAST_BLOCK_PX = 16  # of an overview: damage smaller than this is left white
# Of a level, read at once: a slide of one level may have 10^10 pixels.
BAND_PIXELS = 1 << 23  # for an overview
FIELD_PIXELS = (
    1 << 24
)  # for a field; a tile has 10^5, a tile of a pyramid's top may see the whole slide


@dataclass(frozen=True)
class View:
    """One way to see the slide: a level, or a level decoded at a fraction of its size.

    Attributes:
        level: of the file.
        shrink: 1, or 2, 4, 8 where the file's JPEG tiles can be decoded that much smaller.
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
        mpp_source: where the scale comes from: ``file``, or what the caller said it was.
        size_l0: (width, height) in level-0 pixels.
        downsamples: per level, the (x, y) ratio of level-0 size to level size, not rounded.
        bounds_l0: (x, y) of the scanned part's corner; QuPath crops to it and counts from there.
        bounds_size_l0: (width, height) of the scanned part; the whole slide's where none is stated.
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
        """What decodes the pixels: ``jpeg tiles`` (the file's own, proved equal) or ``openslide``."""
        return "jpeg tiles" if self._pixels.jpeg else "openslide"

    @property
    def color_profile(self) -> Any:
        """The scanner's ICC profile as Pillow holds it, or None."""
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
        """The coarsest level that still holds every pixel asked for at ``mpp``.

        A level decoded smaller serves only where it has the very scale asked for: then nothing is left
        to resample. Otherwise whole pixels are resampled once.
        """
        fine_enough = [
            View(level, 1, downsample)
            for level, downsample in enumerate(self.downsamples)
            if self._mpp_of(downsample) <= mpp * LEVEL_TOLERANCE
        ]
        best = fine_enough[-1] if fine_enough else View(0, 1, self.downsamples[0])
        for shrink in self._pixels.shrinks(best.level):
            shrunk = (best.downsample[0] * shrink, best.downsample[1] * shrink)
            if mpp / LEVEL_TOLERANCE <= self._mpp_of(shrunk) <= mpp * LEVEL_TOLERANCE:
                return View(best.level, shrink, shrunk)
        return best

    def read(self, x_l0: int, y_l0: int, side_px: int, mpp: float) -> NDArray[np.uint8]:
        """Read a square at any scale; what lies outside the slide or was not scanned is white.

        Args:
            x_l0: left edge in level-0 pixels; may lie outside the slide.
            y_l0: top edge in level-0 pixels.
            side_px: width and height of the result.
            mpp: micrometres per pixel of the result.

        Returns:
            (side_px, side_px, 3) RGB.

        Raises:
            TileError: the pixels cannot be decoded; other places of the slide may be whole.
        """
        field = (side_px * mpp / self.mpp[0], side_px * mpp / self.mpp[1])
        return self._field((x_l0, y_l0), field, (side_px, side_px), self.view_for(mpp))

    def thumbnail(self, max_px: int) -> Image.Image:
        """The whole slide as RGB, its longer side at most ``max_px`` pixels; damaged places are white.

        Raises:
            SlideError: hardly anything of it can be read.
        """
        step = max(max(self.size_l0) / max_px, 1.0)
        picture = Image.new("RGB", _size_at(self.size_l0, step), "white")
        view = self._overview(step)
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
                seen = self._field(corner, field, (right - left, last - first), view)
                picture.paste(Image.fromarray(seen[top - first : bottom - first]), (left, top))
                readable = True
            except TileError as error:
                damage, failed = error, failed + 1
                blocks += _quarters(block) if failed < MOST_DAMAGE else []
        if damage and (failed >= MOST_DAMAGE or not readable):
            raise damage
        return picture

    def _overview(self, step: float) -> View:
        """The coarsest view at least as fine as ``step`` level-0 pixels."""
        views = [
            View(level, shrink, (ds_x * shrink, ds_y * shrink))
            for level, (ds_x, ds_y) in enumerate(self.downsamples)
            for shrink in (1, *self._pixels.shrinks(level))
        ]
        fine_enough = [view for view in views if max(view.downsample) <= step * LEVEL_TOLERANCE]
        return max(fine_enough or views[:1], key=lambda view: (max(view.downsample), -view.shrink))

    def _mpp_of(self, downsample: tuple[float, float]) -> float:
        return max(self.mpp[0] * downsample[0], self.mpp[1] * downsample[1])

    def _field(
        self,
        corner_l0: tuple[float, float],
        field_l0: tuple[float, float],
        size_px: tuple[int, int],
        view: View,
    ) -> NDArray[np.uint8]:
        """A rectangle of the slide resampled to a size: exactly the field asked for, to a fraction."""
        (x, width), (y, height) = (
            (corner_l0[axis] / view.downsample[axis], field_l0[axis] / view.downsample[axis])
            for axis in (0, 1)
        )
        if all(
            abs(extent - side) <= SAME_SCALE * side
            for extent, side in zip((width, height), size_px, strict=True)
        ):
            return self._pixels.read(view, (round(x), round(y)), size_px)
        if width * height > FIELD_PIXELS and max(size_px) > LEAST_BLOCK_PX:
            return self._in_halves(corner_l0, field_l0, size_px, view)
        left, top = int(np.floor(x + 1e-6)), int(np.floor(y + 1e-6))
        whole = (_least_whole(x + width - left), _least_whole(y + height - top))
        raw = Image.fromarray(self._pixels.read(view, (left, top), whole))
        box = (
            max(0.0, x - left), max(0.0, y - top),
            min(x - left + width, whole[0]), min(y - top + height, whole[1]),
        )  # fmt: skip
        return np.asarray(raw.resize(size_px, Image.Resampling.BILINEAR, box=box))

    def _in_halves(
        self,
        corner_l0: tuple[float, float],
        field_l0: tuple[float, float],
        size_px: tuple[int, int],
        view: View,
    ) -> NDArray[np.uint8]:
        """A rectangle cut across its longer side; what lies outside the slide is not read."""
        axis = int(size_px[1] > size_px[0])
        step, middle, parts = field_l0[axis] / size_px[axis], size_px[axis] // 2, []
        for first, last in ((0, middle), (middle, size_px[axis])):
            # Resampling looks one pixel beyond a half, so that no seam shows.
            start, end = max(0, first - 1), min(size_px[axis], last + 1)
            corner, field, size = list(corner_l0), list(field_l0), list(size_px)
            corner[axis] += start * step
            field[axis], size[axis] = (end - start) * step, end - start
            if any(at >= side for at, side in zip(corner, self.size_l0, strict=True)):
                seen = np.full((size[1], size[0], 3), 255, np.uint8)
            else:
                seen = self._field(
                    (corner[0], corner[1]), (field[0], field[1]), (size[0], size[1]), view
                )
            kept = slice(first - start, last - start)
            parts.append(seen[:, kept] if axis == 0 else seen[kept])
        return np.concatenate(parts, axis=1 - axis)


class _Pixels:
    """What decodes a slide: the file's own JPEG tiles where they can be had, else OpenSlide.

    OpenSlide remembers its first error and fails ever after, so a handle that failed is replaced.
    """

    def __init__(self, path: Path, handle: openslide.OpenSlide) -> None:
        self.path = path
        self.handle = handle
        self.jpeg = JpegTiles.open(path, handle)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the file; readers on other threads must have ended."""
        self.handle.close()
        if self.jpeg:
            self.jpeg.close()

    def shrinks(self, level: int) -> tuple[int, ...]:
        """How much smaller than itself a level can be decoded: a subset of 2, 4, 8."""
        proved = self.jpeg.levels.get(level, ()) if self.jpeg else ()
        return tuple(shrink for shrink in proved if shrink > 1)

    def read(self, view: View, corner: tuple[int, int], size: tuple[int, int]) -> NDArray[np.uint8]:
        """A rectangle in whole pixels of a view, (height, width, 3) RGB on white."""
        if self.jpeg and view.shrink in self.jpeg.levels.get(view.level, ()):
            return self.jpeg.read(view.level, view.shrink, *corner, *size)
        handle = self.handle
        try:
            return _read_region(handle, view.level, corner, size)
        except openslide.OpenSlideError:  # perhaps the handle failed on another thread's tile
            return self._read_afresh(handle, view, corner, size)

    def _read_afresh(
        self,
        failed: openslide.OpenSlide,
        view: View,
        corner: tuple[int, int],
        size: tuple[int, int],
    ) -> NDArray[np.uint8]:
        """Read with a new handle, and put it in the place of the one that failed."""
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
        """Put a fresh handle in place; the failed one is let go when its last reader is done."""
        with self._lock:
            if self.handle is failed:
                self.handle = fresh
                return
        fresh.close()  # another thread was quicker


def _read_region(
    handle: openslide.OpenSlide, level: int, corner: tuple[int, int], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """OpenSlide takes level-0 positions and divides by a downsample of its own, the mean of x and y."""
    downsample = handle.level_downsamples[level]
    location = (round(corner[0] * downsample), round(corner[1] * downsample))
    return np.asarray(on_white(handle.read_region(location, level, size)))


def _size_at(size_l0: tuple[int, int], step: float) -> tuple[int, int]:
    return max(1, round(size_l0[0] / step)), max(1, round(size_l0[1] / step))


def _quarters(block: tuple[int, int, int, int]) -> list[tuple[int, int, int, int]]:
    """A block cut in four; nothing where it is small enough to be left out."""
    left, top, right, bottom = block
    if max(right - left, bottom - top) <= LEAST_BLOCK_PX:
        return []
    x, y = (left + right) // 2, (top + bottom) // 2
    parts = [(left, top, x, y), (x, top, right, y), (left, y, x, bottom), (x, y, right, bottom)]
    return [part for part in parts if part[0] < part[2] and part[1] < part[3]]


def _least_whole(extent: float) -> int:
    """Pixels that hold an extent; a thousandth over is rounding."""
    return max(1, int(np.ceil(extent - 1e-3)))


def open_slide(path: Path, *, mpp: float | None = None, mpp_source: str = "given") -> Slide:
    """Open a slide.

    Args:
        path: the slide file.
        mpp: micrometres per level-0 pixel; overrides what the file says.
        mpp_source: where ``mpp`` comes from, for the record.

    Raises:
        SlideError: there is no such file, or OpenSlide cannot open it.
        ScaleError: the scale is unknown or implausible.
    """
    if not path.is_file():
        raise SlideError(f"{path}: no such slide. Check the path or the slide column of the table.")
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
    told = handle.properties
    corner = (
        int(told.get(openslide.PROPERTY_NAME_BOUNDS_X, 0)),
        int(told.get(openslide.PROPERTY_NAME_BOUNDS_Y, 0)),
    )
    extent = (
        int(told.get(openslide.PROPERTY_NAME_BOUNDS_WIDTH, width)),
        int(told.get(openslide.PROPERTY_NAME_BOUNDS_HEIGHT, height)),
    )
    return Slide(
        path, scale, source, (width, height), downsamples, corner, extent, _Pixels(path, handle)
    )


def _scale(
    name: str, properties: Mapping[str, str], given: float | None, given_by: str
) -> tuple[tuple[float, float], str]:
    """The slide's (x, y) mpp and its source: what was given, else what the file says."""
    low, high = PLAUSIBLE_MPP
    if given is not None:
        scale, source = (given, given), given_by
    else:
        try:
            scale = (
                float(properties[openslide.PROPERTY_NAME_MPP_X]),
                float(properties[openslide.PROPERTY_NAME_MPP_Y]),
            )
        except (KeyError, ValueError) as error:
            raise ScaleError(
                f"{name} carries no micrometres per pixel. Pass --slide-mpp 0.25 (a 40x scan) or 0.5 "
                "(20x), or give the slide an mpp column in the table."
            ) from error
        source = "file"
    if not all(low <= value <= high for value in scale):
        remedy = (
            "Mend the table's mpp" if source == "table" else "Pass the true value with --slide-mpp"
        )
        raise ScaleError(
            f"{name}: {scale[0]:g} x {scale[1]:g} micrometres per pixel ({source}) is not between "
            f"{low:g} and {high:g}. {remedy}, e.g. 0.25 for a 40x scan."
        )
    return scale, source


def on_white(image: Image.Image) -> Image.Image:
    """Lay an RGBA image on white; ``convert("RGB")`` would turn what was not scanned black."""
    if image.mode != "RGBA" or image.getchannel("A").getextrema() == (255, 255):
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def slide_name(file_name: str) -> str:
    """A slide's name: the file name without a known suffix; other dots stay (``a.b.svs`` -> ``a.b``).

    A folder before it stays too, so that two slides called alike can be told apart
    (``site-1/a.svs`` -> ``site-1/a``), unless it is a place of one machine's own (``/data/a.svs``).
    """
    path = PurePosixPath(unicodedata.normalize("NFC", file_name))  # macOS takes accents apart
    bare = path.stem if path.suffix.lower() in (*SLIDE_SUFFIXES, ".h5") else path.name
    folder = path.parent
    return bare if folder.is_absolute() or ".." in folder.parts else (folder / bare).as_posix()


def file_name(slide: str) -> str:
    """A slide's name as that of one file: ``site-1/a`` -> ``site-1%2Fa``; no two become one."""
    return slide.replace("%", "%25").replace("/", "%2F")
