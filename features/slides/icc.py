"""Colour management: from the scanner's colours to sRGB by the slide's ICC profile."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from features.errors import SlideError


def srgb_transform(profile: bytes | Any) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None:
    """Build a slide's colour transform, once per slide.

    The profile's own rendering intent is used, as OpenSlide advises.

    Args:
        profile: ICC bytes, or the value of OpenSlide's ``color_profile``: a Pillow profile or None.

    Returns:
        A function from (H, W, 3) or (B, H, W, 3) RGB to the same shape in sRGB, safe to call from several
        threads. None for a slide without a profile.

    Raises:
        SlideError: the profile is damaged or is not an RGB profile.
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
            # Pillow converts without the GIL; without a cache, threads may share a Little CMS transform.
            ImageCms.Flags.NOCACHE,
        )
    except (ImageCms.PyCMSError, ValueError) as error:
        raise SlideError(
            f"The slide's ICC profile cannot be used ({error}). "
            "Set icc to off to use the colours as they were scanned."
        ) from error

    def convert(tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
        stacked = Image.fromarray(tiles.reshape(-1, *tiles.shape[-2:]))  # one tile above the other
        return np.asarray(transform.apply(stacked)).reshape(tiles.shape)

    return convert
