"""The pixels of a slide, by level: from the file's own JPEG tiles where possible, else from OpenSlide."""

import contextlib
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image

from features.errors import SlideError, TileError
from features.slides.dicom import other_modality, transfer_syntax_kind
from features.slides.jpeg_tiles import JpegTiles
from features.slides.tiff_tags import check_tags, undecodable_pixels

TEXT_BYTES = 4096
TEXT_SUFFIXES = (".mrxs", ".vmu", ".vms")  # slides whose first file may be text


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


class Pixels:
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
        fresh = None
        try:
            fresh = openslide.OpenSlide(self.path)
            pixels = _read_region(fresh, view.level, corner, size)
        except (openslide.OpenSlideError, OSError) as error:
            if fresh:
                fresh.close()
            raise TileError(
                f"{self.path.name}: the pixels at ({corner[0]}, {corner[1]}) of level {view.level} "
                f"cannot be read ({error}). {_remedy(self.path)}"
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


def open_handle(
    path: Path, kind: type[openslide.OpenSlide] = openslide.OpenSlide
) -> openslide.OpenSlide:
    """Open a file with OpenSlide, after a look at its tags.

    Raises:
        SlideError: there is no such file, its tags contradict each other, or OpenSlide cannot open it.
    """
    if not path.is_file():
        raise SlideError(
            f"{path}: no such slide. Check the path, or the slide column of the table."
        )
    if problem := _other_content(path):
        raise SlideError(f"{path.name}: not a slide OpenSlide can open: {problem}")
    check_tags(path)
    try:
        return kind(path)
    except (openslide.OpenSlideError, OSError) as error:
        raise SlideError(
            f"{path.name}: not a slide OpenSlide can open ({str(error) or type(error).__name__}). "
            f"{_remedy(path, otherwise='Copy the file again, or convert it to a pyramidal TIFF.')}"
        ) from error


def _other_content(path: Path) -> str:
    """What a file is that is no image at all, with the remedy; empty if it may be one."""
    with path.open("rb") as file:
        start = file.read(TEXT_BYTES)
    if not start:
        return "the file is empty. Copy it again."
    if modality := other_modality(path):
        return f"it is DICOM of modality {modality}, no slide. Keep scans in a folder of their own."
    if path.suffix.lower() not in TEXT_SUFFIXES and b"\0" not in start:
        with contextlib.suppress(UnicodeDecodeError):
            text = start.decode("utf-8").strip()
            if text and text.isprintable() | ("\n" in text) and len(start) == path.stat().st_size:
                return f"it is a text file that begins with {text[:40]!r}. Give the slide itself."
    return ""


def _remedy(path: Path, otherwise: str = "Copy the file again or scan the slide again.") -> str:
    """What to do about a file that is not read: its pixels may be of a kind that no copy changes."""
    kind = undecodable_pixels(path) or transfer_syntax_kind(path)
    if not kind:
        return otherwise
    return (
        f"The file holds {kind}, which are not read: convert it to a pyramidal TIFF with 8-bit RGB in JPEG "
        "tiles."
    )


def _read_region(
    handle: openslide.OpenSlide, level: int, corner: tuple[int, int], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Read from OpenSlide, which takes level-0 positions and divides by the mean downsample of x and y."""
    downsample = handle.level_downsamples[level]
    location = (round(corner[0] * downsample), round(corner[1] * downsample))
    return np.asarray(flatten_on_white(handle.read_region(location, level, size)))


def flatten_on_white(image: Image.Image) -> Image.Image:
    """Flatten an RGBA image onto white; ``convert("RGB")`` would make unscanned areas black."""
    if image.mode != "RGBA" or image.getchannel("A").getextrema() == (255, 255):
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")
