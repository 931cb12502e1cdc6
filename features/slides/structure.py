"""The structure of a slide's tissue without its colours, small enough to compare with that of every other.

Each slide is put on a common ladder of scales, so that two slides are compared at the same micrometres per
pixel whatever scanned them. Stain, brightness and contrast differ between two scans of one specimen: what
remains is where the tissue is darker or lighter than its surroundings.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

FIELD_PX = 256  # longest side of the tissue, at most
SURROUNDINGS_PX = 2.5  # standard deviation of the surroundings with which a pixel is compared
FLAT_GREY = 2.0  # of 255: smaller differences are noise and compression
INSIDE = 0.9  # part of a pixel that is tissue: the tissue's outline is no structure of it
RIM_PX = 2  # of the picture, in which the tissue's outline is mixed with glass
LIMIT = 3.0  # of a standardised value, so that no fold or ink outweighs the rest


@dataclass(frozen=True, kw_only=True)
class Structure:
    """The tissue of a slide as grey values, cropped to its extent.

    Attributes:
        grey: (H, W) uint8, 0 outside the tissue.
        tissue: (H, W) uint8, the part of each pixel that is tissue, out of 255.
        step: um_per_px is 2 ** (step / 2).
        corner_um: (x, y) of its first pixel on the slide.
        size_um: (width, height) of the whole slide.
    """

    grey: NDArray[np.uint8]
    tissue: NDArray[np.uint8]
    step: int
    corner_um: tuple[float, float]
    size_um: tuple[float, float]

    @property
    def um_per_px(self) -> float:
        """Micrometres per pixel, equal along both axes."""
        return scale_of(self.step)

    def standardise(self, step: int) -> NDArray[np.float32]:
        """How much darker or lighter each pixel is than its surroundings, at a scale of the ladder.

        Args:
            step: of the ladder, at least the structure's own.

        Returns:
            (H, W), 0 outside the tissue.
        """
        weight, sums = self._shrink(step)
        grey = sums / np.maximum(weight, 1e-3)
        around = _smooth(weight) + 1e-6
        difference = grey - _smooth(grey * weight) / around
        variance = _smooth(np.square(difference) * weight) / around
        inside = weight >= INSIDE
        typical = float(np.median(variance[inside])) if inside.any() else 0.0
        spread = np.sqrt(variance + typical / 4 + FLAT_GREY**2)
        return np.asarray(inside * np.clip(difference / spread, -LIMIT, LIMIT), np.float32)

    def _shrink(self, step: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(part that is tissue, grey value times that part), each (h, w)."""
        weight = self.tissue.astype(np.float32) / np.float32(255)
        sums = self.grey * weight
        if step == self.step:
            return weight, sums
        ratio = scale_of(step) / self.um_per_px
        return _resize(weight, ratio), _resize(sums, ratio)


def scale_of(step: int) -> float:
    """Micrometres per pixel at a step of the ladder."""
    return float(2 ** (step / 2))


def find_structure(
    picture: NDArray[np.uint8], tissue: NDArray[np.bool_], um_per_px: float
) -> Structure | None:
    """The structure of a slide's tissue; None without tissue.

    Args:
        picture: (H, W, 3) of the whole slide, at least some 500 pixels wide.
        tissue: (H, W) True where there is tissue.
        um_per_px: micrometres per pixel of the picture.
    """
    tissue = ndimage.binary_erosion(tissue, iterations=RIM_PX, border_value=1)
    if not tissue.any():
        return None
    rows, columns = np.flatnonzero(tissue.any(axis=1)), np.flatnonzero(tissue.any(axis=0))
    crop = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    weight = tissue[crop].astype(np.float32)
    grey = picture[crop].mean(axis=2, dtype=np.float32)
    extent_um = max(grey.shape) * um_per_px
    step = max(
        math.ceil(2 * math.log2(extent_um / FIELD_PX) - 1e-9),
        math.floor(2 * math.log2(um_per_px) + 0.5),  # nothing is drawn larger than it was
    )
    ratio = scale_of(step) / um_per_px
    part = _resize(weight, ratio)
    mean = _resize(grey * weight, ratio) / np.maximum(part, 1e-3)
    return Structure(
        grey=np.rint(np.clip(mean, 0, 255)).astype(np.uint8),
        tissue=np.rint(255 * part).astype(np.uint8),
        step=step,
        corner_um=(float(columns[0]) * um_per_px, float(rows[0]) * um_per_px),
        size_um=(picture.shape[1] * um_per_px, picture.shape[0] * um_per_px),
    )


def _smooth(values: NDArray[np.floating]) -> NDArray[np.float32]:
    smoothed: NDArray[np.float32] = ndimage.gaussian_filter(
        values, SURROUNDINGS_PX, mode="constant", truncate=3
    )
    return smoothed


def _resize(values: NDArray[np.float32], ratio: float) -> NDArray[np.float32]:
    """Fewer pixels by a ratio along both axes; whole pixels only, the rest is cut."""
    height, width = (max(1, round(side / ratio)) for side in values.shape)
    box = (0.0, 0.0, min(width * ratio, values.shape[1]), min(height * ratio, values.shape[0]))
    filter_ = Image.Resampling.BOX if ratio > 1 else Image.Resampling.BILINEAR
    resized = Image.fromarray(values).resize((width, height), filter_, box=box)
    return np.asarray(resized, np.float32)
