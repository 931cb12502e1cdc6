"""From the scanner's colours to sRGB."""

from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import openslide
import pytest
from making import noise
from PIL import ImageCms

from features.errors import SlideError
from features.slides.icc import srgb_transform

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# The sRGB profile with the primaries of red and blue exchanged: a scanner that swaps both channels.
SWAPPED = SRGB.replace(b"rXYZ", b"TEMP").replace(b"bXYZ", b"rXYZ").replace(b"TEMP", b"bXYZ")


def worst(left, right):
    return np.abs(left.astype(int) - right.astype(int)).max()


@pytest.mark.parametrize("profile", [None, b""])
def test_without_a_profile_there_is_nothing_to_do(profile):
    assert srgb_transform(profile) is None


@pytest.mark.parametrize("shape", [(64, 64, 3), (5, 64, 48, 3)])
def test_srgb_onto_srgb_is_the_identity_for_one_tile_and_for_many(shape):
    tiles = noise(shape[-3] * (shape[0] if len(shape) == 4 else 1), shape[-2]).reshape(shape)
    result = srgb_transform(SRGB)(tiles)
    assert result.shape == shape
    assert result.dtype == np.uint8
    assert worst(result, tiles) <= 1


def test_the_profile_is_applied_and_from_the_scanner_to_srgb():
    tiles = noise(64, 64)[None]
    assert worst(srgb_transform(SWAPPED)(tiles), tiles[..., ::-1]) <= 1
    white = np.full((1, 8, 8, 3), 255, np.uint8)
    assert worst(srgb_transform(SWAPPED)(white), white) == 0


def test_a_profile_object_is_as_good_as_its_bytes():
    tiles = noise(32, 32)
    profile = ImageCms.getOpenProfile(BytesIO(SWAPPED))
    assert worst(srgb_transform(profile)(tiles), srgb_transform(SWAPPED)(tiles)) == 0


def test_threads_may_share_one_transform():
    convert = srgb_transform(SWAPPED)
    batches = [noise(256, 256, seed)[None] for seed in range(8)]
    alone = [convert(batch) for batch in batches]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(convert, batches * 10))
    assert all(worst(a, b) == 0 for a, b in zip(alone * 10, together, strict=True))


@pytest.mark.parametrize(
    "profile",
    [
        b"not a profile",
        SRGB[:200],
        ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
    ],
)
def test_an_unusable_profile_is_refused_with_the_remedy(profile):
    with pytest.raises(SlideError, match=r"ICC profile cannot be used.*Set icc to off"):
        srgb_transform(profile)


@pytest.mark.realdata
def test_the_profile_of_a_real_slide(realdata):
    with openslide.OpenSlide(realdata / "slides" / "TCGA-CR-7395-01A-01-TS1.svs") as slide:
        tile = np.asarray(slide.read_region((1500, 1500), 0, (256, 256)).convert("RGB"))
        convert = srgb_transform(slide.color_profile)
    assert worst(convert(tile), tile) <= 1  # this scanner declares sRGB itself
    with openslide.OpenSlide(realdata / "slides" / "CMU-1-Small-Region.svs") as slide:
        assert srgb_transform(slide.color_profile) is None
