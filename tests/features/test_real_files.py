import re

import numpy as np
import pytest
import shapely
from making import box_ring, fake_backbone, feature, write_geojson
from shapely.geometry import Polygon

from features.bags.bag import read_bag, write_bag
from features.bags.foreign_readers import SourceFacts
from features.bags.interchange import read_foreign
from features.errors import AnnotationError, ScaleError, SlideError
from features.extraction import extract as module
from features.extraction.extract import extract
from features.extraction.jobs import SlideJob
from features.recipe import Recipe
from features.regions.annotations import read_annotations
from features.regions.masks import tissue_mask
from features.slides.slide import OVERVIEW_PX, open_slide
from features.tiles.folders import group_tiles, open_folder

pytestmark = pytest.mark.realdata

CMU, TCGA = "CMU-1-Small-Region", "TCGA-CR-7395-01A-01-TS1"
RECIPE = Recipe(mpp=0.5, tile=64, precision="fp32", max_tiles=10_000)


@pytest.fixture(autouse=True)
def _small_backbone(monkeypatch):
    monkeypatch.setattr(module, "load_backbone", lambda name, weights, **_options: fake_backbone())


def extracted(path, out, **fields):
    job = SlideJob(slide=path.stem, files=(path,), **fields)
    (outcome,) = extract([job], RECIPE, out, device="cpu")
    return outcome


def test_annotated_tissue_of_an_aperio_slide_becomes_its_tiles(realdata, tmp_path):
    outer = [[300, 250], [1900, 400], [1750, 2600], [500, 2300], [300, 250]]
    hole = box_ring(900, 900, 1300, 1500)
    write_geojson(tmp_path / f"{CMU}.geojson", feature(outer, hole))
    outcome = extracted(
        realdata / "slides" / f"{CMU}.svs", tmp_path / "store", annotations=tmp_path
    )
    assert outcome.status == "done", outcome.reason
    bag = read_bag(tmp_path / "store" / f"{CMU}.h5")
    assert bag.mpp_l0 == (0.499, 0.499)
    assert bag.size_l0 == (2220, 2967)
    area, side = Polygon(outer, [hole]), 64 * 0.5 / 0.499
    expected = {}
    for row in range(int(2967 // side) + 1):
        for column in range(int(2220 // side) + 1):
            x, y = round(column * side), round(row * side)
            share = (area & shapely.box(x, y, x + side, y + side)).area / side**2
            if share >= 0.6:
                expected[x, y] = share
    coverage = dict(zip(map(tuple, bag.coords_l0.tolist()), bag.coverage.tolist(), strict=True))
    assert coverage == pytest.approx(expected, abs=1e-6)
    assert len(coverage) > 500
    with open_slide(realdata / "slides" / f"{CMU}.svs") as slide:
        for index in (0, 200, len(bag) - 1):
            x, y = bag.coords_l0[index]
            colour = slide.read(int(x), int(y), 64, 0.5).mean(axis=(0, 1)) / 255
            assert np.abs(colour - bag.features[index].astype(float)).max() < 4e-3


def test_tissue_of_an_aperio_slide_is_about_a_third_of_it(realdata):
    with open_slide(realdata / "slides" / f"{CMU}.svs") as slide:
        overview = slide.thumbnail(OVERVIEW_PX)
        um_per_px = slide.mpp[0] * slide.size_l0[0] / overview.width
        share = tissue_mask(np.asarray(overview), um_per_px).mean()
    assert 0.25 < share < 0.45


def test_slide_without_a_scale_is_refused(realdata):
    with pytest.raises(ScaleError, match=f"{TCGA}.*Set slide_mpp"):
        open_slide(realdata / "slides" / f"{TCGA}.svs")


def test_slide_without_a_scale_is_read_at_the_scale_of_the_caller(realdata, tmp_path):
    path = realdata / "slides" / f"{TCGA}.svs"
    assert extracted(path, tmp_path).status == "failed"
    outcome = extracted(path, tmp_path, mpp=0.5)
    assert (outcome.status, outcome.n_tiles > 1000) == ("done", True)


def test_levels_of_a_jpeg_2000_slide_show_the_same_place(realdata):
    with open_slide(realdata / "slides" / f"{TCGA}.svs", mpp=0.5) as slide:
        assert [slide.view_for(mpp).level for mpp in (0.5, 1.0)] == [0, 1]
        coarse = slide.read(1000, 1000, 200, 1.0).astype(float)
        fine = slide.read(1000, 1000, 400, 0.5).astype(float)
    fine = fine.reshape(200, 2, 200, 2, 3).mean(axis=(1, 3))
    assert np.corrcoef(fine.ravel(), coarse.ravel())[0, 1] > 0.98


def test_hamamatsu_slide_opens_with_its_scale_and_levels(realdata):
    with open_slide(realdata / "slides" / "fluorescence-DAPI.ndpi") as slide:
        assert slide.mpp[0] == pytest.approx(0.228, abs=5e-4)
        assert slide.size_l0 == (3968, 4864)
        assert len(slide.downsamples) == 7
        assert slide.read(0, 0, 64, 2.5).shape == (64, 64, 3)


def test_dicom_slide_opens_with_its_scale(realdata):
    with open_slide(realdata / "slides" / "blank.dcm") as slide:
        assert slide.mpp == pytest.approx((0.499, 0.499))
        assert slide.size_l0 == (50, 50)


def test_blank_slide_has_no_tile_and_says_so(realdata, tmp_path):
    outcome = extracted(realdata / "slides" / "blank.dcm", tmp_path)
    assert outcome.status == "failed"
    assert "no tile of 64 px" in outcome.reason
    assert list(tmp_path.glob("*.h5")) == []


@pytest.mark.parametrize("name", ["broken.svs", "unreadable.svs", "unopenable.tiff"])
@pytest.mark.parametrize("mpp", [None, 0.5])
def test_bad_slide_is_one_clear_error_and_no_bag(realdata, tmp_path, name, mpp):
    outcome = extracted(realdata / "slides" / "bad" / name, tmp_path, mpp=mpp)
    assert outcome.status == "failed"
    assert outcome.reason.startswith(name)
    assert "\n" not in outcome.reason
    assert re.search(r"Copy|Set slide_mpp|Give the slide itself", outcome.reason)
    assert outcome.details == ""
    assert list(tmp_path.glob("*.h5")) == []


def test_json_of_another_tool_is_refused(realdata):
    with pytest.raises(AnnotationError, match="neither a FeatureCollection nor features"):
        read_annotations(realdata / "annotations" / "not-geojson-darwin.json")


def test_annotation_without_classes_says_what_it_has(realdata):
    path = realdata / "annotations" / "qupath-0.5-names.geojson"
    drawing = read_annotations(path)
    assert len(drawing.annotations) == 3
    assert all(a.polygon.is_valid and a.polygon.area > 0 and a.name for a in drawing.annotations)
    with pytest.raises(
        AnnotationError, match=r"qupath-0\.5.*\(unclassified\) x3.*set the class in QuPath"
    ):
        drawing.region(("Tumor",))


def test_tile_images_are_grouped_into_their_blocks(realdata):
    groups = group_tiles(realdata / "tiles" / "osteosarcoma")
    assert len(groups) == 26
    assert sum(map(len, groups.values())) == 60
    assert len(groups["Case-48-P5-C20"]) == 7
    assert not [name for name in groups if "Viable" in name or "Tumor" in name]


def test_tile_images_of_a_block_are_read(realdata):
    files = group_tiles(realdata / "tiles" / "osteosarcoma")["Case-48-P5-C20"]
    source = open_folder(files, mpp=0.5, tile_px=224)
    assert source.grid.coords_l0[0].tolist() == [44108, 28521]
    tile = source.read(0)
    assert tile.shape == (224, 224, 3)
    assert 20 < tile.std() < 100


def test_images_whose_names_say_no_place_are_refused(realdata):
    with pytest.raises(SlideError, match="Name tiles"):
        group_tiles(realdata / "tiles" / "quality")


def test_foreign_bag_is_extracted_again_on_its_own_grid(realdata, tmp_path):
    """52 tiles of another tool, the last row of which runs over the slide's edge."""
    slide = realdata / "slides" / "CMU-1-Small-Region.svs"
    with open_slide(slide) as opened:
        facts = SourceFacts(slide_mpp=opened.mpp, slide_size=opened.size_l0, tile_l0=256.0)
    foreign = read_foreign(
        realdata / "bags" / "CMU-1-Small-Region-resnet50.npz", facts=facts, slide=slide.stem
    )
    write_bag(tmp_path / "foreign.h5", foreign)
    recipe = Recipe(backbone="resnet18", weights="random", tile=256, mpp=foreign.mpp_l0[0])
    job = SlideJob(slide=slide.stem, files=(slide,), coordinates=tmp_path / "foreign.h5")
    (outcome,) = extract([job], recipe, tmp_path / "store", device="cpu")
    assert (outcome.status, outcome.n_tiles) == ("done", 52), outcome.reason
    again = read_bag(tmp_path / "store" / f"{slide.stem}.h5")
    assert np.array_equal(again.coords_l0, foreign.coords_l0)
    assert (again.coords_l0[:, 1] + 256 > again.size_l0[1]).any()
    with np.load(realdata / "bags" / "CMU-1-Small-Region-resnet50.npz") as archive:
        assert np.array_equal(again.coords_l0, archive["coords"])
