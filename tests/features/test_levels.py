"""Which levels of a file are read: one factor in x and y, and the first of equals."""

from io import BytesIO

import numpy as np
import pytest
from making import noise, write_tiff
from PIL import Image

from features.slides.deepzoom import DeepZoom
from features.slides.levels import usable_levels
from features.slides.slide import open_slide

PYRAMID = [(6000, 4500), (3000, 2250), (1500, 1125)]


@pytest.mark.parametrize(
    ("sizes", "usable"),
    [
        (PYRAMID, (0, 1, 2)),
        ([(2001, 1602), (500, 400), (125, 100)], (0, 1, 2)),  # cut to whole pixels, twice
        ([(2003, 1603), (501, 401), (126, 101)], (0, 1, 2)),  # rounded up
        ([PYRAMID[0], PYRAMID[0], PYRAMID[0], PYRAMID[1]], (0, 3)),  # focal planes
        ([PYRAMID[0], PYRAMID[1], PYRAMID[1], PYRAMID[2], PYRAMID[2]], (0, 1, 3)),
        ([PYRAMID[0], (3000, 2251)], (0, 1)),
        ([PYRAMID[0], (1500, 1140), (1500, 1125)], (0, 2)),  # 1.3 % wider in y
        ([PYRAMID[0], (1150, 850)], (0,)),  # a macro picture
        ([PYRAMID[0], (400, 600)], (0,)),  # a label
        ([(512, 512)], (0,)),
        ([(70_000, 40_000), (7, 4), (1, 1)], (0, 1, 2)),
    ],
)
def test_a_level_has_one_factor_within_rounding_and_the_first_of_equals_counts(sizes, usable):
    assert usable_levels(sizes) == usable


def planes(folder, *levels):
    return write_tiff(folder / "s.tiff", list(levels), compression="jpeg")


@pytest.mark.parametrize("mpp", [0.25, 0.4])
def test_the_first_of_focal_planes_is_read(tmp_path, mpp):
    sharp, soft = noise(512, 768), np.full((512, 768, 3), 128, np.uint8)
    with open_slide(planes(tmp_path, sharp, soft, soft)) as slide:
        assert slide.levels == (0,)
        assert slide.read(0, 0, 128, mpp).std() > 15
        assert np.asarray(slide.thumbnail(1024)).std() > 15


def test_a_macro_picture_among_the_levels_is_never_shown(tmp_path):
    slide_level, macro = (
        np.full((600, 1200, 3), 60, np.uint8),
        np.full((130, 230, 3), 250, np.uint8),
    )
    path = planes(tmp_path, slide_level, macro)
    with open_slide(path) as slide:
        assert slide.levels == (0,)
        assert slide.read(0, 0, 64, 1.5).max() < 80
        assert np.asarray(slide.thumbnail(300)).max() < 80
    shown = DeepZoom(path)
    assert shown.levels - shown.coarsest > 2
    for level in range(shown.coarsest, shown.levels):
        assert np.asarray(Image.open(BytesIO(shown.tile(level, 0, 0)))).max() < 80
