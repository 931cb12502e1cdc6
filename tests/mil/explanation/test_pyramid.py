"""The OME-TIFF opens again in tifffile and OpenSlide, with the map where the tiles are, at every level."""

import xml.etree.ElementTree as ET

import numpy as np
import openslide
import pytest
import tifffile

from features.errors import SlideError
from features.slides.slide import open_slide
from mil.explanation import pyramid
from mil.explanation.heatmap import OPACITY, tile_colours
from mil.explanation.pyramid import write_ome_tiff
from mil.explanation.scores import TileScores
from tests.features.making import noise, write_tiff
from tests.mil.made import made_bag

SIZE = (4100, 2300)  # (width, height): no multiple of a tile


@pytest.fixture
def scored():
    bag = made_bag("a", n_tiles=4, size_l0=SIZE, side_l0=(448.0, 448.0), mpp_l0=(0.5, 0.5))
    relative = np.array([1 / 16, 1.0, 4.0, 16.0])
    return TileScores(
        bag=bag, method="attention", model="abmil", values=relative, relative=relative
    )


def test_it_reads_back_with_the_slide_and_the_map_at_every_level(tmp_path, scored, monkeypatch):
    monkeypatch.setattr(pyramid, "SIDE_PX", 256)
    grey = np.full((SIZE[1], SIZE[0], 3), 200, np.uint8)
    path = tmp_path / "a.ome.tiff"
    with open_slide(write_tiff(tmp_path / "a.tiff", [grey], mpp=0.5)) as slide:
        write_ome_tiff(path, slide, scored)
    blended = OPACITY * tile_colours(scored) + (1 - OPACITY) * 200
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome
        [series] = tiff.series
        assert [level.shape[:2] for level in series.levels] == [
            (1150, 2050),
            (575, 1025),
            (288, 513),
        ]
        described = ET.fromstring(tiff.ome_metadata).find(".//{*}Pixels").attrib
        assert float(described["PhysicalSizeX"]) == float(described["PhysicalSizeY"]) == 1.0
        for index, level in enumerate(series.levels):
            pixels, side = level.asarray().astype(float), 224 >> index
            for tile in range(4):
                middle = pixels[
                    side // 4 : side * 3 // 4,
                    tile * side + side // 4 : (tile + 1) * side - side // 4,
                ]
                assert np.abs(middle - blended[tile]).max() <= 4
            assert np.abs(pixels[side + 10 : -16, :-16] - 200).max() <= 4
            assert np.abs(pixels[: side // 2, 4 * side + 10 : -16] - 200).max() <= 4
    with openslide.OpenSlide(path) as again:
        assert again.dimensions == (2050, 1150)
        assert float(again.properties["openslide.mpp-x"]) == pytest.approx(1.0)
        seen = np.asarray(again.read_region((224 + 60, 60), 0, (100, 100)))[..., :3].astype(float)
        assert np.abs(seen - blended[1]).max() <= 4


def test_the_pixels_are_the_slides_own_where_it_is_coarser(tmp_path, scored):
    picture = np.kron(noise(SIZE[1] // 50, SIZE[0] // 50), np.ones((50, 50, 1), np.uint8))
    path = tmp_path / "a.ome.tiff"
    with open_slide(write_tiff(tmp_path / "a.tiff", [picture], mpp=2.0)) as slide:
        scored.bag.__dict__["size_l0"] = slide.size_l0
        write_ome_tiff(path, slide, scored)
    with tifffile.TiffFile(path) as tiff:
        pixels = tiff.series[0].levels[0].asarray().astype(int)
    assert pixels.shape == picture.shape
    middles = [
        axis.ravel() for axis in np.mgrid[525 : picture.shape[0] : 50, 25 : picture.shape[1] : 50]
    ]
    assert np.abs(pixels[middles[0], middles[1]] - picture[middles[0], middles[1]]).max() <= 16


def test_scores_of_another_slide_are_refused_and_nothing_is_left(tmp_path, scored):
    with (
        open_slide(write_tiff(tmp_path / "b.tiff", [noise(300, 400)])) as slide,
        pytest.raises(SlideError, match="400 x 300 pixels, but the scores of a"),
    ):
        write_ome_tiff(tmp_path / "b.ome.tiff", slide, scored)
    assert [path.name for path in tmp_path.iterdir()] == ["b.tiff"]
