"""From the scanner's colours to sRGB, by the ICC profile a slide carries."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from features.errors import SlideError


def to_srgb(profile: bytes | Any) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None:
    """Build a slide's colour transform; do this once per slide.

    The profile's own rendering intent is used, as OpenSlide advises.

    Args:
        profile: ICC bytes, or what OpenSlide's ``color_profile`` gives: a Pillow profile, or None.

    Returns:
        A function from (H, W, 3) or (B, H, W, 3) RGB to the same shape in sRGB, which several threads may
        call at once. None for a slide without a profile.

    Raises:
        SlideError: the profile is damaged, or is not of an RGB scanner.
    """
    if not profile:
        return None
    try:
        if isinstance(profile, bytes):
            profile = ImageCms.getOpenProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(
            profile,
            ImageCms.createProfile("sRGB"),
            "RGB",
            "RGB",
            ImageCms.Intent(ImageCms.getDefaultIntent(profile)),
            # Pillow converts without the GIL; Little CMS lets threads share a transform without a cache.
            ImageCms.Flags.NOCACHE,
        )
    except (ImageCms.PyCMSError, ValueError) as error:
        raise SlideError(
            f"The slide's ICC profile cannot be used ({error}). "
            "Pass --icc off to keep the colours as they were scanned."
        ) from error

    def convert(tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
        tall = Image.fromarray(tiles.reshape(-1, *tiles.shape[-2:]))  # one tile above the other
        return np.asarray(transform.apply(tall)).reshape(tiles.shape)

    return convert
