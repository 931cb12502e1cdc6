"""A slide's DeepZoom tiles come in bounded time, and a damaged place spoils no other."""

import numpy as np
import openslide
import pytest

from features.errors import SlideError, TileError
from features.slides import deepzoom
from features.slides.deepzoom import DeepZoom
from tests.features.making import noise, write_tiff


def test_levels_that_would_decode_too_much_are_not_served(tmp_path, monkeypatch):
    monkeypatch.setattr(deepzoom, "MAX_DECODED_PIXELS", 1024**2)
    picture = noise(3000, 2000)
    flat = DeepZoom(write_tiff(tmp_path / "flat.tiff", [picture]))
    deep = DeepZoom(write_tiff(tmp_path / "deep.tiff", [picture, picture[::4, ::4]]))
    assert flat.levels == deep.levels == 13
    assert flat.coarsest == 12 - 1  # 1022 pixels of the file a side; one level up it is 2044
    assert deep.coarsest == 0
    with pytest.raises(SlideError, match="Levels 11 to 12"):
        flat.tile(10, 0, 0)


@pytest.mark.parametrize("place", [(13, 0, 0), (12, 4, 0), (12, 0, 6), (12, -1, 0), (-1, 0, 0)])
def test_a_tile_there_is_not_is_an_error(tmp_path, place):
    pyramid = DeepZoom(write_tiff(tmp_path / "a.tiff", [noise(3000, 2000)]))
    assert pyramid.tile(12, 3, 5).startswith(b"\xff\xd8")
    with pytest.raises(SlideError, match="has no tile"):
        pyramid.tile(*place)


def test_what_is_no_slide_is_an_error(tmp_path):
    (tmp_path / "a.tiff").write_bytes(b"II*\0")
    with pytest.raises(SlideError, match="not a slide OpenSlide can open"):
        DeepZoom(tmp_path / "a.tiff")


def test_a_damaged_place_spoils_no_other(tmp_path):
    path = write_tiff(tmp_path / "a.tiff", [noise(2000, 2000)])
    whole = DeepZoom(path).tile(11, 3, 3)
    with openslide.OpenSlide(path) as slide:
        assert slide.dimensions == (2000, 2000)
    raw = bytearray(path.read_bytes())
    raw[2000:60000] = bytes(58000)  # of the first tiles' deflate streams
    path.write_bytes(raw)
    pyramid = DeepZoom(path)
    with pytest.raises(TileError, match="cannot be read"):
        pyramid.tile(11, 0, 0)
    assert pyramid.tile(11, 3, 3) == whole


def test_real_slides_are_served_at_every_level(realdata):
    for name in ("CMU-1-Small-Region.svs", "TCGA-CR-7395-01A-01-TS1.svs", "fluorescence-DAPI.ndpi"):
        pyramid = DeepZoom(realdata / "slides" / name)
        for level in (pyramid.coarsest, pyramid.levels - 2, pyramid.levels - 1):
            assert pyramid.tile(level, 0, 0).startswith(b"\xff\xd8")
        assert pyramid.coarsest == 0
        assert np.prod(pyramid.size_l0) > 6e6
