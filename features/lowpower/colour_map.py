"""Colour alone in every cell of 20 micrometres: what a segmenter has to beat to be worth its network."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from features.lowpower.feature_map import MAP_MPP, STRIDE, CellMap

SCALES_PX = (1.0, 4.0, 16.0)  # standard deviations: 2.5, 10 and 40 micrometres
REACH = 3.0  # standard deviations


class ColourMap(CellMap):
    """Red, green and blue, blurred at three scales, at the middle of every cell."""

    channels = 3 * len(SCALES_PX)
    margin_px = 64  # more than the reach of the widest scale, and a multiple of the alignment

    @property
    def recipe(self) -> dict[str, Any]:
        """What shapes the map."""
        return {"colours": list(SCALES_PX), "mpp": MAP_MPP, "stride": STRIDE}

    def __call__(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(H, W, 3) -> (H / 8, W / 8, 9), out of 1."""
        image = rgb.astype(np.float32) / 255
        blurred = [
            ndimage.gaussian_filter(image, (scale, scale, 0), truncate=REACH, mode="nearest")
            for scale in SCALES_PX
        ]
        joined = np.concatenate(blurred, axis=2)
        # The middle of a cell lies between four pixels.
        first, second = slice(STRIDE // 2 - 1, None, STRIDE), slice(STRIDE // 2, None, STRIDE)
        around = [joined[rows, columns] for rows in (first, second) for columns in (first, second)]
        return np.asarray(np.mean(around, axis=0), dtype=np.float32)
