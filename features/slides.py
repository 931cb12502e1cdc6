"""A whole-slide image: open it, know its scale, read a square of it at any mpp."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image

from features.errors import ScaleError, SlideError

SLIDE_SUFFIXES = (
    ".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".czi", ".dcm", ".svslide",
)  # fmt: skip
PLAUSIBLE_MPP = (0.05, 20.0)  # from electron-microscope fine to macro-photograph coarse
LEVEL_TOLERANCE = 1.01  # a level this much coarser than asked still counts: 4.0003 is a 4x level
MAX_UPSAMPLING = 1.5  # beyond this a tile would show detail that was never scanned


@dataclass(frozen=True)
class Slide:
    """An open slide with a known scale; a context manager, safe to read from several threads.

    Attributes:
        path: the file.
        mpp: micrometres per level-0 pixel, (x, y).
        mpp_source: where the scale comes from: ``file`` or ``given``.
        size_l0: (width, height) in level-0 pixels.
        downsamples: per level, the (x, y) ratio of level-0 size to level size, not rounded.
        bounds_l0: (x, y) of the scanned part's corner; QuPath crops to it and counts from there.
    """

    path: Path
    mpp: tuple[float, float]
    mpp_source: str
    size_l0: tuple[int, int]
    downsamples: tuple[tuple[float, float], ...]
    bounds_l0: tuple[int, int]
    _handle: openslide.OpenSlide

    @property
    def name(self) -> str:
        """The file's name without its slide suffix."""
        return slide_name(self.path.name)

    def __enter__(self) -> "Slide":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._handle.close()

    def level_for(self, mpp: float) -> int:
        """The coarsest level that still holds every pixel asked for at ``mpp``."""
        fine_enough = [
            level
            for level, (ds_x, ds_y) in enumerate(self.downsamples)
            if max(self.mpp[0] * ds_x, self.mpp[1] * ds_y) <= mpp * LEVEL_TOLERANCE
        ]
        return max(fine_enough, default=0)

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
            SlideError: the pixels cannot be decoded.
        """
        level = self.level_for(mpp)
        ds_x, ds_y = self.downsamples[level]
        width, height = side_px * mpp / self.mpp[0] / ds_x, side_px * mpp / self.mpp[1] / ds_y
        # Whole pixels are read, then exactly width x height of them is resampled: no truncated field.
        whole = (max(1, int(np.ceil(width - 1e-3))), max(1, int(np.ceil(height - 1e-3))))
        try:
            raw = self._handle.read_region((x_l0, y_l0), level, whole)
        except (openslide.OpenSlideError, OSError) as error:
            raise SlideError(
                f"{self.path.name}: the pixels at ({x_l0}, {y_l0}) of level {level} cannot be read "
                f"({error}). Copy the file again or scan the slide again."
            ) from error
        rgb = on_white(raw)
        if (
            whole == (side_px, side_px)
            and abs(width - side_px) < 0.5
            and abs(height - side_px) < 0.5
        ):
            return np.asarray(rgb)
        box = (0.0, 0.0, min(width, whole[0]), min(height, whole[1]))
        return np.asarray(rgb.resize((side_px, side_px), Image.Resampling.BILINEAR, box=box))

    def thumbnail(self, max_px: int) -> Image.Image:
        """The whole slide as RGB, its longer side at most ``max_px`` pixels."""
        try:
            return self._handle.get_thumbnail((max_px, max_px)).convert("RGB")
        except (openslide.OpenSlideError, OSError) as error:
            raise SlideError(
                f"{self.path.name}: the overview cannot be read ({error}). Copy the file again."
            ) from error


def open_slide(path: Path, *, mpp: float | None = None) -> Slide:
    """Open a slide with OpenSlide.

    Args:
        path: the slide file.
        mpp: micrometres per level-0 pixel; overrides what the file says.

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
        scale, source = _scale(path.name, handle.properties, mpp)
    except ScaleError:
        handle.close()
        raise
    width, height = handle.dimensions
    downsamples = tuple((width / w, height / h) for w, h in handle.level_dimensions)
    bounds = (
        int(handle.properties.get(openslide.PROPERTY_NAME_BOUNDS_X, 0)),
        int(handle.properties.get(openslide.PROPERTY_NAME_BOUNDS_Y, 0)),
    )
    return Slide(path, scale, source, (width, height), downsamples, bounds, handle)


def _scale(
    name: str, properties: Mapping[str, str], given: float | None
) -> tuple[tuple[float, float], str]:
    """The slide's (x, y) mpp and its source: what was given, else what the file says."""
    low, high = PLAUSIBLE_MPP
    if given is not None:
        scale, source = (given, given), "given"
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
        raise ScaleError(
            f"{name}: {scale[0]:g} x {scale[1]:g} micrometres per pixel ({source}) is not between "
            f"{low:g} and {high:g}. Pass the true value with --slide-mpp, e.g. 0.25 for a 40x scan."
        )
    return scale, source


def on_white(image: Image.Image) -> Image.Image:
    """Lay an RGBA image on white; ``convert("RGB")`` would turn what was not scanned black."""
    if image.mode != "RGBA" or image.getchannel("A").getextrema() == (255, 255):
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def slide_name(file_name: str) -> str:
    """A slide's name: the file name without a known suffix; other dots stay (``a.b.svs`` -> ``a.b``)."""
    path = Path(file_name)
    known = path.suffix.lower() in (*SLIDE_SUFFIXES, ".h5")
    return path.stem if known else path.name
