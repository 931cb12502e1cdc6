"""Made pictures of specimens, and what a second scan does to them."""

import io

import numpy as np
from PIL import Image, ImageFilter
from scipy import ndimage

from features.regions.masks import tissue_mask
from features.slides.structure import find_structure

SIDE, UM = 320, 5.0  # of a made picture: a slide of 1.6 mm
STAIN = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11))  # haematoxylin and eosin: density in R, G, B
OTHER_STAIN = ((0.45, 0.60, 0.55), (0.25, 0.70, 0.30))


def specimen(seed):
    """(2, SIDE, SIDE) amounts of both stains: the same outline and tumour, its own texture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    tissue = ndimage.gaussian_filter(((abs(x) < 0.42) & (abs(y + 0.1 * x) < 0.38)) * 1.0, 2)
    tumour = ndimage.gaussian_filter((np.hypot(x - 0.05, y) < 0.25) * 1.0, 2)

    def texture(sigma):
        field = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), sigma)
        return field / field.std()

    blue = 0.25 + 0.2 * tumour + 0.08 * texture(2) + 0.08 * texture(8)
    pink = 0.45 - 0.1 * tumour + 0.05 * texture(3) + 0.08 * texture(12)
    return np.clip(np.stack([blue, pink]), 0.02, None) * tissue


def stained(amounts, stain=STAIN):
    density = np.tensordot(amounts.transpose(1, 2, 0), np.array(stain), axes=1)
    return np.rint(243 * 10**-density).astype(np.uint8)


def saved(picture, quality=90):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return file.getvalue()


def opened(file):
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def moved(picture, right, down):
    on_glass = np.full_like(picture, 243)
    on_glass[down:, right:] = picture[: SIDE - down, : SIDE - right]
    return on_glass


def scaled(picture, factor):
    side = round(SIDE * factor)
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC))


def blurred(picture, sigma):
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(sigma)))


def tilted(picture, degrees):
    turned = Image.fromarray(picture).rotate(
        degrees, Image.Resampling.BILINEAR, fillcolor=(243,) * 3
    )
    return np.asarray(turned)


def structure(picture, um=UM):
    return find_structure(picture, tissue_mask(picture, um), um)
