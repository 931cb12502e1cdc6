import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from making import STAIN, box_ring, fake_backbone, feature, stained, write_geojson, write_tiff
from PIL import Image

from features.backbones.table import BACKBONES, feature_dim
from features.bags.arrays import compact
from features.bags.bag import Bag, write_bag
from features.extraction import extract as extraction
from features.extraction import picture, preflight
from features.extraction.jobs import SlideJob
from features.extraction.preflight import bag_bytes, check_slide, check_slides
from features.recipe import Recipe
from features.regions import annotations
from features.slides.slide import open_slide

RECIPE = Recipe(mpp=0.5, tile=32, precision="fp32")


@pytest.fixture
def cohort(tmp_path):
    """Slides that extraction takes, leaves out, and fails on, each for another reason."""
    drawn, slides = tmp_path / "annotations", tmp_path / "slides"
    drawn.mkdir()
    slides.mkdir()
    left = feature(box_ring(0, 0, 256, 512))
    away = feature(box_ring(0, 0, 256, 128), classification="Ignore*")
    annotated = {
        "good": [left, away],
        "scant": [feature(box_ring(0, 0, 64, 64))],
        "other": [feature(box_ring(0, 0, 256, 512), classification="Stroma")],
        "beside": [feature(box_ring(5000, 5000, 6000, 6000))],
        "thin": [feature(box_ring(0, 0, 512, 2))],
        "bare": [left],
        "coarse": [left],
        "broken": [left],
        "gone": [left],
    }
    for name, features in annotated.items():
        write_geojson(drawn / f"{name}.geojson", *features)
    mpp = {"bare": None, "coarse": 2.0}
    names = [*annotated, "undrawn"]
    for name in names:
        write_tiff(slides / f"{name}.tiff", [stained()], mpp=mpp.get(name, 0.5))
    (slides / "broken.tiff").write_bytes(b"no slide")
    (slides / "gone.tiff").unlink()
    return [
        SlideJob(slide=name, files=(slides / f"{name}.tiff",), annotations=drawn, case=name)
        for name in names
    ]


@pytest.fixture
def small_backbone(monkeypatch):
    monkeypatch.setattr(
        extraction, "load_backbone", lambda name, weights, **_options: fake_backbone()
    )


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        replace(RECIPE, max_tiles=7, min_tumour_of_tissue=0.1),
        replace(RECIPE, min_coverage=1.0, exclude=()),
    ],
)
def test_it_says_of_every_slide_what_extraction_then_does(cohort, tmp_path, small_backbone, recipe):
    outcomes = extraction.extract(cohort, recipe, tmp_path / "store", device="cpu")
    checks = list(check_slides(cohort, [recipe], tmp_path))
    assert {outcome.status for outcome in outcomes} >= {"done", "failed"}
    for outcome, found in zip(outcomes, checks, strict=True):
        [scale] = found.scales
        assert found.slide == outcome.slide
        assert scale.status == outcome.status.replace("done", "ready")
        assert scale.reason == outcome.reason
        assert scale.n_drawn == outcome.n_tiles
        if outcome.status == "done":
            assert found.mpp == outcome.mpp
            assert (found.mpp_source, found.reader) == (outcome.mpp_source, outcome.reader)
            assert found.tumour_of_tissue == outcome.tumour_of_tissue
            assert " ".join(found.notes) == outcome.notes


def test_a_slide_without_colour_profile_says_so(cohort, tmp_path):
    found = check_slide(cohort[0], [replace(RECIPE, icc="srgb")], tmp_path)
    assert "no colour profile" in " ".join(found.notes)
    assert "colour" not in " ".join(check_slide(cohort[0], [RECIPE], tmp_path).notes)


def test_an_annotation_is_read_once(cohort, tmp_path, monkeypatch):
    read = []
    whole = annotations.read_annotations
    monkeypatch.setattr(annotations, "read_annotations", lambda *p: read.append(p) or whole(*p))
    monkeypatch.setattr(picture, "read_annotations", lambda *p: read.append(p) or whole(*p))
    assert check_slide(cohort[0], [RECIPE], tmp_path).picture
    assert len(read) == 1


def test_tiles_per_case_are_shared_as_extraction_shares_them(cohort, tmp_path, small_backbone):
    recipe = replace(RECIPE, sample_per="case", max_tiles=20)
    jobs = [replace(cohort[row], case="one") for row in (0, 1, 2)]
    outcomes = extraction.extract(jobs, recipe, tmp_path / "store", device="cpu")
    checks = list(check_slides(jobs, [recipe], tmp_path))
    assert [found.scales[0].n_drawn for found in checks] == [o.n_tiles for o in outcomes]
    assert sum(found.scales[0].n_drawn for found in checks) == 20


def test_a_slide_is_measured(cohort, tmp_path):
    found = check_slide(cohort[0], [RECIPE], tmp_path)
    assert found.classes == {"Tumor": 1, "Ignore*": 1}
    assert found.tissue_mm2 == pytest.approx(256 * 512 * 0.5**2 / 1e6, rel=0.02)
    assert found.area_mm2 == pytest.approx(256 * 384 * 0.5**2 / 1e6)
    assert found.tumour_of_tissue == pytest.approx(0.75, abs=0.02)
    assert found.size_l0 == (512, 512)
    assert found.file_format == "generic-tiff"
    [scale] = found.scales
    assert (scale.n_tiles, scale.level, scale.shrink) == (8 * 12, 0, 1)


def test_each_scale_has_a_fate_of_its_own(slide_file, tmp_path):
    job = SlideJob(slide="a", files=(slide_file,))
    recipes = [replace(RECIPE, mpp=mpp) for mpp in (0.1, 0.5, 1)]
    found = check_slide(job, recipes, tmp_path)
    assert [scale.status for scale in found.scales] == ["failed", "ready", "ready"]
    assert "Set mpp to 0.5 or coarser" in found.scales[0].reason
    assert [scale.n_tiles for scale in found.scales] == [0, 8 * 16, 4 * 8]
    assert found.status == "failed"


def test_the_picture_shows_tiles_where_they_lie(cohort, tmp_path):
    few = replace(RECIPE, max_tiles=10)
    found = check_slide(cohort[0], [few], tmp_path)
    with open_slide(cohort[0].files[0]) as slide:
        grid = preflight.lay_tiles(
            slide, cohort[0], preflight.survey_slide(slide, cohort[0], few), few
        )
    drawn = preflight.sample(grid, 10, seed=0, name="good")
    panel = np.asarray(Image.open(found.picture).convert("RGB"))[-76 - 1000 : -76, 24:1024]
    blueness = {"drawn": [], "left": [], "outside": []}
    for x, y in np.stack(np.meshgrid(np.arange(16), np.arange(16)), -1).reshape(-1, 2) * 32:
        kind = "outside" if [x, y] not in grid.coords_l0.tolist() else "left"
        kind = "drawn" if [x, y] in drawn.coords_l0.tolist() else kind
        red, _, blue = panel[int((y + 16) * 1000 / 512), int((x + 16) * 1000 / 512)].astype(int)
        blueness[kind].append(blue - red)
    assert len(blueness["drawn"]) == 10
    assert min(blueness["drawn"]) > max(blueness["left"])
    assert min(blueness["left"]) > max(blueness["outside"])


def test_what_is_drawn_is_shown_also_where_no_tile_comes_of_it(cohort, tmp_path):
    wrong_class = next(job for job in cohort if job.slide == "other")
    found = check_slide(wrong_class, [RECIPE], tmp_path)
    assert "the file has Stroma x1" in found.scales[0].reason
    picture = Image.open(found.picture).convert("RGB")
    colours = {colour for _, colour in picture.getcolors(1 << 24)}
    assert any(np.abs(np.subtract(colour, (0xDC, 0xDF, 0xE1))).max() < 12 for colour in colours)


@pytest.mark.parametrize("size", [(16, 16), (3000, 40), (40, 3000)])
def test_a_slide_of_any_shape_has_a_picture(tmp_path, size):
    file = write_tiff(tmp_path / "a.tiff", [np.full((*size, 3), STAIN, np.uint8)], mpp=0.5)
    found = check_slide(SlideJob(slide="site/a", files=(file,)), [RECIPE, RECIPE], tmp_path)
    assert found.picture == tmp_path / "site%2Fa.png"
    assert found.picture.is_file()


def test_an_unforeseen_error_is_told_and_ends_nothing(cohort, tmp_path, monkeypatch):
    def fails(slide, job, recipe):
        raise RuntimeError("surprise")

    monkeypatch.setattr(preflight, "survey_slide", fails)
    checks = list(check_slides(cohort[:2], [RECIPE], tmp_path))
    assert [found.scales[0].reason for found in checks] == ["RuntimeError: surprise"] * 2


def test_a_picture_that_cannot_be_written_ends_the_check(slide_file, tmp_path):
    with pytest.raises(OSError, match="absent"):
        check_slide(SlideJob(slide="a", files=(slide_file,)), [RECIPE], tmp_path / "absent")


def test_tile_images_are_counted(tmp_path):
    files = tuple(tmp_path / f"a-{x}-0.png" for x in (0, 64, 128))
    for file in files:
        Image.new("RGB", (64, 64), STAIN).save(file)
    job = SlideJob(slide="a", files=files, mpp=0.5, from_tiles=True)
    [scale] = check_slide(job, [replace(RECIPE, max_tiles=2)], tmp_path).scales
    assert (scale.status, scale.n_tiles, scale.n_drawn) == ("ready", 12, 2)  # four in an image
    assert scale.mpp == 0.5
    [scale] = check_slide(replace(job, mpp=None), [RECIPE], tmp_path).scales
    assert "Set slide_mpp" in scale.reason


@pytest.mark.parametrize("name", ["resnetv2_50", "resnet18.tv_in1k", *BACKBONES])
def test_dims_are_those_of_the_backbones(name):
    import timm
    import torch

    from features.backbones.imagenet import timm_recipe
    from features.backbones.networks import PooledFeatures
    from features.backbones.registry import resolve_name

    recipe = timm_recipe(resolve_name(name))
    with torch.device("meta"):
        network = timm.create_model(recipe.architecture, pretrained=False)
        network = PooledFeatures(network, recipe.pooling)
        shape = network.eval()(torch.empty(1, 3, 299, 299)).shape
    assert shape == (1, feature_dim(name))


def test_a_bag_takes_about_the_bytes_foretold(tmp_path):
    n, rng = 1000, np.random.default_rng(0)
    bag = Bag(
        slide="a", features=compact(rng.random((n, 512), np.float32)), side_l0=(32.0, 32.0),
        coords_l0=rng.integers(0, 9999, (n, 2)), coverage=np.ones(n, np.float32), tile_px=32,
        target_mpp=0.5, recipe={}, size_l0=(9999, 9999), mpp_l0=(0.5, 0.5), mpp_source="file",
        tile_flags=np.zeros(n, np.uint8), thumbnail=bytes(preflight.BAG_BYTES),
    )  # fmt: skip
    write_bag(tmp_path / "a.h5", bag)
    assert (tmp_path / "a.h5").stat().st_size == pytest.approx(bag_bytes(n, "resnet18"), rel=0.05)


def test_no_torch():
    code = (
        "import sys, features.extraction.preflight, features.extraction.picture as p; p._font(15)\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.realdata
def test_real_slides_are_looked_at(realdata, tmp_path):
    files = [*sorted((realdata / "slides").glob("*.*")), *(realdata / "slides" / "bad").iterdir()]
    jobs = [SlideJob(slide=file.stem, files=(file,)) for file in files]
    recipes = [replace(RECIPE, mpp=mpp, tile=224) for mpp in (0.5, 1)]
    found = {each.slide: each for each in check_slides(jobs, recipes, tmp_path)}
    cmu = found["CMU-1-Small-Region"]
    assert (cmu.status, cmu.mpp, cmu.mpp_source, cmu.file_format) == (
        "ready", 0.499, "file", "aperio",
    )  # fmt: skip
    assert cmu.picture.is_file()
    assert "Set slide_mpp" in found["TCGA-CR-7395-01A-01-TS1"].scales[0].reason
    assert found["fluorescence-DAPI"].file_format == "hamamatsu"
    for name in ("blank", "broken", "unopenable", "unreadable"):
        assert found[name].status == "failed"
