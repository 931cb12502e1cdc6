"""What a recipe may choose: scales, samples, inclusion, quality, colour, given coordinates."""

import csv
import json
import os
import shutil
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from making import (
    MeanColour,
    box_ring,
    fake_backbone,
    feature,
    noise,
    stained,
    write_geojson,
    write_tiff,
)
from PIL import Image

from features.bags.bag import Bag, read_bag, write_bag
from features.errors import BagError, FeaturesError
from features.extraction import extract as module
from features.extraction.extract import extract
from features.extraction.jobs import SlideJob
from features.extraction.outputs import HOLD_OUT_SUFFIX
from features.recipe import QualityFlag, Recipe, Stain
from features.slides.names import slide_name
from features.tiles.quality import FLAGS
from features.tiles.stain import METHODS

RECIPE = Recipe(backbone="mean-colour", mpp=0.5, tile=64, precision="fp32", max_tiles=9)
MPPS = (0.17, 0.2204, 0.2527, 0.2985, 0.3031, 0.5021)


@pytest.fixture(autouse=True)
def _small_backbone(monkeypatch):
    monkeypatch.setattr(module, "load_backbone", lambda name, weights, **_options: fake_backbone())


@pytest.fixture
def slides(tmp_path):
    """Two slides of one case, all tissue: 64 tiles each at 0.5, with a tumour drawn over all of it."""
    for name, seed in (("a", 1), ("b", 2)):
        write_tiff(tmp_path / f"{name}.tiff", [noise(512, 512, seed)], mpp=0.5)
        write_geojson(tmp_path / f"{name}.geojson", feature(box_ring(0, 0, 512, 512)))
    return tmp_path


def jobs(folder, names="ab", **changes):
    fields = {"annotations": folder, "case": "P-1"} | changes
    return [SlideJob(slide=name, files=(folder / f"{name}.tiff",), **fields) for name in names]


def run(folder, recipe=RECIPE, names="ab", out="store", changes=None, **options):
    return extract(
        jobs(folder, names, **(changes or {})), recipe, folder / out, device="cpu", **options
    )


def places(path):
    return {tuple(corner) for corner in read_bag(path).coords_l0.tolist()}


def table(folder, name="extract.csv"):
    with (folder / name).open(newline="") as file:
        return {row["slide"]: row for row in csv.DictReader(file)}


def test_choices_offered_are_those_that_work():
    assert set(get_args(QualityFlag)) == set(FLAGS)
    assert get_args(Stain)[1:] == METHODS


@pytest.mark.parametrize("mpp", MPPS)
def test_a_tile_is_as_many_micrometres_on_every_scanner(tmp_path, mpp):
    path = write_tiff(tmp_path / "a.tiff", [stained()], mpp=mpp)
    job = SlideJob(slide="a", files=(path,))
    extract([job], replace(RECIPE, mpp=0.625, tile=32), tmp_path / "store", device="cpu")
    bag = read_bag(tmp_path / "store" / "a.h5")
    assert np.multiply(bag.side_l0, bag.mpp_l0) == pytest.approx((20, 20), rel=1e-6)


@pytest.mark.parametrize("mpp_y", [0.25, 0.5, 0.6])
def test_unequal_scales_make_tiles_square_in_micrometres(tmp_path, mpp_y):
    path = write_tiff(tmp_path / "a.tiff", [stained()], mpp=0.5, mpp_y=mpp_y)
    extract([SlideJob(slide="a", files=(path,))], RECIPE, tmp_path / "store", device="cpu")
    bag = read_bag(tmp_path / "store" / "a.h5")
    assert np.multiply(bag.side_l0, bag.mpp_l0) == pytest.approx((32, 32), rel=1e-5)
    assert bag.side_l0[0] != bag.side_l0[1] or mpp_y == 0.5


def test_source_of_the_scale_is_recorded(slides):
    run(slides, names="a", changes={"mpp": 0.5, "mpp_source": "table"})
    assert read_bag(slides / "store" / "a.h5").mpp_source == "table"
    assert table(slides / "store")["a"]["mpp_source"] == "table"


def test_several_scales_give_the_bags_of_single_runs(slides):
    scales = [RECIPE, replace(RECIPE, mpp=1.25)]
    outcomes = run(slides, scales)
    assert [o.status for o in outcomes] == ["done"] * 4
    for recipe in scales:
        run(slides, recipe, out=f"single-{recipe.mpp:g}")
        for name in "ab":
            together = slides / "store" / f"mpp-{recipe.mpp:g}" / f"{name}.h5"
            alone = slides / f"single-{recipe.mpp:g}" / f"{name}.h5"
            assert together.read_bytes() == alone.read_bytes()


def test_several_scales_open_a_slide_once(slides, monkeypatch):
    opened, whole = [], module.open_slide
    monkeypatch.setattr(module, "open_slide", lambda p, **k: opened.append(p) or whole(p, **k))
    run(slides, [RECIPE, replace(RECIPE, mpp=1.25)], names="a")
    assert len(opened) == 1


def test_one_scale_that_fails_keeps_the_others(slides):
    outcomes = run(slides, [RECIPE, replace(RECIPE, mpp=0.2)], names="a")
    assert [o.status for o in outcomes] == ["done", "failed"]
    assert "Set mpp to 0.5 or coarser" in outcomes[1].reason
    assert (slides / "store" / "mpp-0.5" / "a.h5").is_file()


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize(
    ("change", "words", "of_recipe", "of_model"),
    [
        ({"mpp": 0.3}, "a.tiff was scanned at 0.5 micrometres per pixel", "Set mpp to 0.5 or coarser",
         "a scan of 0.3 or finer, or use a model that was trained with mpp 0.5 or coarser"),
        ({"tile": 900}, "no tile of 900 px", "set min_coverage lower", "Check the annotation."),
    ],
)  # fmt: skip
def test_a_models_recipe_is_not_to_be_changed(slides, change, words, of_recipe, of_model, fixed):
    [outcome] = run(slides, replace(RECIPE, **change), "a", changes={"fixed": fixed})
    assert words in outcome.reason
    assert (of_recipe in outcome.reason) is not fixed
    assert (of_model in outcome.reason) is fixed


def test_hold_out_shares_no_tile_with_the_sample_and_says_that_it_shares_cases(slides):
    outcomes = run(slides, hold_out_tiles=20)
    reserve = slides / f"store{HOLD_OUT_SUFFIX}"
    assert "SHARES-CASES" in reserve.name
    assert [o.n_tiles for o in outcomes] == [9, 20, 9, 20]
    for name in "ab":
        assert not places(slides / "store" / f"{name}.h5") & places(reserve / f"{name}.h5")
    sample, its = (read_bag(folder / "a.h5") for folder in (slides / "store", reserve))
    assert sample.recipe_sha256 != its.recipe_sha256  # they cannot be taken for one store
    assert its.recipe["held_out"] == 20


def test_hold_out_does_not_change_the_sample(slides):
    run(slides)
    run(slides, out="other", hold_out_tiles=20)
    for name in ("a.h5", "b.h5"):
        assert (slides / "store" / name).read_bytes() == (slides / "other" / name).read_bytes()


def test_nothing_left_to_hold_out_is_reported(slides):
    sample, reserve = run(slides, replace(RECIPE, max_tiles=100), names="a", hold_out_tiles=5)
    assert (sample.status, reserve.status) == ("done", "excluded")
    assert "none is left to hold out" in reserve.reason


def test_tiles_per_case_are_drawn_from_all_its_slides(slides):
    recipe = replace(RECIPE, sample_per="case", max_tiles=40)
    outcomes = run(slides, recipe)
    assert sum(o.n_tiles for o in outcomes) == 40
    assert all(o.n_tiles > 8 for o in outcomes)
    again = run(slides, recipe)
    assert [o.status for o in again] == ["skipped", "skipped"]


def test_a_case_with_few_tiles_keeps_them_all(slides):
    outcomes = run(slides, replace(RECIPE, sample_per="case", max_tiles=1000))
    assert [o.n_tiles for o in outcomes] == [64, 64]


def half_tissue(folder):
    """The left half is tissue; half of it, a quarter of the slide, is drawn as tumour."""
    write_tiff(folder / "a.tiff", [stained(512, 512)], mpp=0.5)
    write_geojson(folder / "a.geojson", feature(box_ring(0, 0, 256, 256)))


def test_tumour_fraction_of_the_tissue_is_written(tmp_path):
    half_tissue(tmp_path)
    run(tmp_path, names="a")
    assert read_bag(tmp_path / "store" / "a.h5").tumour_of_tissue == pytest.approx(0.5, abs=0.02)
    assert float(table(tmp_path / "store")["a"]["tumour_of_tissue"]) == pytest.approx(0.5, abs=0.02)


def test_slide_with_too_little_tumour_is_excluded_with_the_reason(tmp_path):
    half_tissue(tmp_path)
    run(tmp_path, names="a")
    (outcome,) = run(tmp_path, replace(RECIPE, min_tumour_of_tissue=0.6), names="a", overwrite=True)
    assert outcome.status == "excluded"
    assert "50% of the tissue is annotated, less than min_tumour_of_tissue 0.6" in outcome.reason
    assert not (tmp_path / "store" / "a.h5").exists()  # the bag of the former rule is set aside
    assert (tmp_path / "store" / "a.h5.outdated").is_file()
    assert not (tmp_path / "store" / "failures.csv").exists()
    assert table(tmp_path / "store")["a"]["status"] == "excluded"
    (outcome,) = run(tmp_path, replace(RECIPE, min_tumour_of_tissue=0.4), names="a", overwrite=True)
    assert outcome.status == "done"


def test_flags_are_stored_and_drop_nothing_by_default(tmp_path):
    picture = noise(512, 512)
    picture[:256] = 250  # glass
    write_tiff(tmp_path / "a.tiff", [picture], mpp=0.5)
    write_geojson(tmp_path / "a.geojson", feature(box_ring(0, 0, 512, 512)))
    everything = replace(RECIPE, max_tiles=100)
    run(tmp_path, everything, names="a")
    bag = read_bag(tmp_path / "store" / "a.h5")
    empty = (bag.tile_flags & FLAGS["background"]) > 0
    assert np.array_equal(empty, bag.coords_l0[:, 1] < 256)
    assert len(bag) == 64
    run(tmp_path, replace(everything, drop=("background",)), names="a", out="dropped")
    dropped = read_bag(tmp_path / "dropped" / "a.h5")
    assert np.array_equal(dropped.coords_l0, bag.coords_l0[~empty])
    assert np.array_equal(dropped.features, np.asarray(bag.features)[~empty])


def test_a_slide_that_is_dropped_whole_is_excluded(tmp_path):
    write_tiff(tmp_path / "a.tiff", [np.full((512, 512, 3), 250, np.uint8)], mpp=0.5)
    write_geojson(tmp_path / "a.geojson", feature(box_ring(0, 0, 512, 512)))
    (outcome,) = run(tmp_path, replace(RECIPE, drop=("background",)), names="a")
    assert outcome.status == "excluded"
    assert "drop (background) leaves none of 9 tiles" in outcome.reason


def tissue_like(colours, seed=0):
    """Pixels between glass and two stains, by Beer and Lambert."""
    rng = np.random.default_rng(seed)
    amounts = rng.gamma(2.0, 0.35, (512, 512, 2))
    od = amounts @ np.asarray(colours)
    return np.clip(255 * np.exp(-od), 0, 255).astype(np.uint8)


HE = ([0.65, 0.70, 0.29], [0.07, 0.99, 0.11])
OTHER = ([0.50, 0.75, 0.43], [0.20, 0.90, 0.35])


@pytest.fixture
def two_stains(tmp_path):
    for name, colours in (("a", HE), ("b", OTHER)):
        write_tiff(tmp_path / f"{name}.tiff", [tissue_like(colours)], mpp=0.5)
        write_geojson(tmp_path / f"{name}.geojson", feature(box_ring(0, 0, 512, 512)))
    return tmp_path


@pytest.mark.parametrize("method", METHODS)
def test_stain_is_taken_from_the_reference_and_recorded(two_stains, method):
    run(two_stains)
    recipe = replace(RECIPE, stain=method, stain_reference=("a",))
    run(two_stains, recipe, out="normalised")

    def apart(store):
        a, b = (read_bag(two_stains / store / f"{name}.h5").features.astype(float) for name in "ab")
        return np.abs(a.mean(axis=0) - b.mean(axis=0)).sum()

    assert apart("normalised") < 0.4 * apart("store")
    reference = read_bag(two_stains / "normalised" / "b.h5").recipe["stain_reference"]
    assert (reference["slides"], reference["cases"]) == (["a"], ["P-1"])


def test_saved_reference_gives_the_same_bags(two_stains):
    recipe = replace(RECIPE, stain="macenko", stain_reference=("a",))
    run(two_stains, recipe)
    saved = str(two_stains / "store" / "stain-reference.json")
    run(two_stains, replace(recipe, stain_reference=(saved,)), names="b", out="later")
    first, later = (read_bag(two_stains / store / "b.h5") for store in ("store", "later"))
    assert np.array_equal(first.features, later.features)
    assert first.recipe_sha256 == later.recipe_sha256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stain": "macenko"}, "go together"),
        ({"stain_reference": ("a",)}, "go together"),
        ({"stain": "vahadane", "stain_reference": ("a",)}, "off, macenko or reinhard"),
        ({"drop": ("dust",)}, "background, blur or pen"),
        ({"icc": "cmyk"}, "off or srgb"),
        ({"annotation_origin": "corner"}, "auto, level0 or bounds"),
        ({"sample_per": "study"}, "slide or case"),
        ({"min_tumour_of_tissue": 60}, "For 60 % write 0.6"),
    ],
)
def test_nonsense_is_refused_with_the_remedy(changes, message):
    with pytest.raises(FeaturesError, match=message):
        replace(RECIPE, **changes)


def test_stain_of_an_unknown_slide_is_refused(slides):
    with pytest.raises(
        FeaturesError, match="stain_reference names z, which is not among the slides of this run"
    ):
        run(slides, replace(RECIPE, stain="macenko", stain_reference=("z",)))


def write_coordinates(folder, corners, side):
    bag = Bag(
        slide="a", features=np.ones((len(corners), 2), np.float32), coords_l0=np.array(corners),
        coverage=np.ones(len(corners), np.float32), side_l0=(side, side), size_l0=(512, 512),
        mpp_l0=(0.5, 0.5), mpp_source="given", tile_px=int(side), target_mpp=0.5, recipe={},
    )  # fmt: skip
    write_bag(folder / "foreign" / "a.h5", bag)
    return folder / "foreign" / "a.h5"


def test_given_coordinates_are_read_again_in_their_order(slides):
    corners = [[448, 480], [3, 7], [100, 50]]  # not on a grid, and over the edge
    path = write_coordinates(slides, corners, 64.0)
    run(slides, names="a", changes={"annotations": None, "coordinates": path})
    bag = read_bag(slides / "store" / "a.h5")
    assert bag.coords_l0.tolist() == corners
    assert bag.recipe["region"] == "coordinates"
    picture = np.full((576, 576, 3), 255.0)
    picture[:512, :512] = noise(512, 512, 1)
    expected = [picture[y : y + 64, x : x + 64].mean(axis=(0, 1)) / 255 for x, y in corners]
    assert np.abs(bag.features.astype(float) - expected).max() < 0.05


def test_given_coordinates_of_another_extent_are_refused_with_the_settings_to_use(slides):
    path = write_coordinates(slides, [[0, 0]], 100.0)
    (outcome,) = run(slides, names="a", changes={"annotations": None, "coordinates": path})
    assert outcome.status == "failed"
    assert "Set tile to 100 and mpp to 0.5" in outcome.reason


def corrupted(path, tile_numbers):
    """Zero the bytes of some JPEG tiles."""
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        where = [(page.dataoffsets[n], page.databytecounts[n]) for n in tile_numbers]
    with path.open("r+b") as file:
        for offset, count in where:
            file.seek(offset)
            file.write(bytes(count))


@pytest.fixture(params=["jpeg tiles", "openslide"])
def big(request, tmp_path, monkeypatch):
    """16 x 16 file tiles of 64 px, each of them one tile of the grid, decoded in either way."""
    if request.param == "openslide":
        monkeypatch.setattr("features.slides.jpeg_tiles.JpegTiles.open", lambda *a, **k: None)
    write_tiff(tmp_path / "a.tiff", [noise(1024, 1024)], mpp=0.5, compression="jpeg", tile=(64, 64))
    write_geojson(tmp_path / "a.geojson", feature(box_ring(0, 0, 1024, 1024)))
    return tmp_path


EVERYTHING = replace(RECIPE, max_tiles=1000)


def test_a_corrupt_tile_is_left_out_and_counted(big):
    run(big, EVERYTHING, names="a", out="whole")
    corrupted(big / "a.tiff", [100, 37])
    (outcome,) = run(big, EVERYTHING, names="a")
    assert (outcome.status, outcome.n_tiles, outcome.n_unreadable) == ("done", 254, 2)
    bag, whole = (read_bag(big / store / "a.h5") for store in ("store", "whole"))
    assert bag.n_failed == 2
    left = np.setdiff1d(np.arange(256), [100, 37])
    assert np.array_equal(bag.coords_l0, whole.coords_l0[left])
    assert np.abs(bag.features.astype(float) - whole.features[left]).max() < 1e-3
    assert table(big / "store")["a"]["unreadable"] == "2"


def test_a_slide_with_more_than_one_corrupt_tile_in_a_hundred_fails(big):
    corrupted(big / "a.tiff", [100, 37, 200])
    (outcome,) = run(big, EVERYTHING, names="a")
    assert outcome.status == "failed"
    assert "3 or more of 256 tiles cannot be decoded, and at most 1% may be left" in outcome.reason
    assert "a.tiff" in outcome.reason
    assert not (big / "store" / "a.h5").exists()


def test_every_outcome_is_in_the_table(slides):
    half_tissue(slides)
    (slides / "c.tiff").write_bytes(b"no slide")
    run(slides, replace(RECIPE, min_tumour_of_tissue=0.6), names="abc")
    rows = table(slides / "store")
    assert {name: row["status"] for name, row in rows.items()} == {
        "a": "excluded",
        "b": "done",
        "c": "failed",
    }
    assert rows["b"]["tiles"] == "9"
    assert float(rows["b"]["seconds"]) > 0
    assert float(rows["b"]["tiles_per_s"]) > 0
    assert "annotation" in rows["c"]["reason"] or "not a slide" in rows["c"]["reason"]
    run(slides, replace(RECIPE, min_tumour_of_tissue=0.6), names="b")
    assert {name: row["status"] for name, row in table(slides / "store").items()} == {
        "a": "excluded",
        "b": "skipped",
        "c": "failed",
    }


def test_names_that_differ_in_letter_case_only_are_refused(slides):
    twins = [replace(job, slide=name) for job, name in zip(jobs(slides), ("S1", "s1"), strict=True)]
    with pytest.raises(BagError, match="Two slides are named"):
        extract(twins, RECIPE, slides / "store", device="cpu")


def test_slides_of_one_name_in_two_folders_have_two_bags(slides):
    twins = [
        replace(job, slide=f"site-{n}/x") for n, job in enumerate(jobs(slides, annotations=None))
    ]
    extract(twins, RECIPE, slides / "store", device="cpu")
    first, second = (read_bag(slides / "store" / f"site-{n}" / "x.h5") for n in (0, 1))
    assert (first.slide, second.slide) == ("site-0/x", "site-1/x")
    assert not np.array_equal(first.features, second.features)
    outcome = json.loads((slides / "store" / ".extract" / "site-0%2Fx.json").read_text())
    assert outcome["status"] == "done"


def test_times_of_the_stages_are_recorded(slides):
    (outcome,) = run(slides, names="a")
    assert set(outcome.stages) == {"open", "read", "prepare", "forward", "write"}
    assert all(seconds > 0 for seconds in outcome.stages.values())


def test_sick_tiles_of_one_scale_leave_the_other(slides, monkeypatch):
    class Sick(MeanColour):
        def forward(self, images):
            return super().forward(images) * float("nan")

    monkeypatch.setattr(module, "load_backbone", lambda *a, **k: fake_backbone(Sick()))
    outcomes = run(slides, [RECIPE, replace(RECIPE, mpp=1.25)], names="a")
    assert {o.status for o in outcomes} == {"failed"}
    assert "not finite" in outcomes[0].reason


def tile_images(folder, n):
    for number in range(n):
        Image.fromarray(noise(64, 64, number)).save(folder / f"s-{64 * number}-0.png")
    return tuple(sorted(folder.glob("s-*.png")))


def test_tile_images_are_drawn_and_held_out_like_the_tiles_of_a_slide(tmp_path):
    job = SlideJob(slide="s", files=tile_images(tmp_path, 12), mpp=0.5, from_tiles=True)
    few = replace(RECIPE, max_tiles=5)
    outcomes = extract([job], few, tmp_path / "store", device="cpu", hold_out_tiles=4)
    assert [o.n_tiles for o in outcomes] == [5, 4]
    sample, reserve = (
        read_bag(tmp_path / name / "s.h5") for name in ("store", f"store{HOLD_OUT_SUFFIX}")
    )
    assert not {*map(tuple, sample.coords_l0)} & {*map(tuple, reserve.coords_l0)}
    for bag in (sample, reserve):
        for corner, features in zip(bag.coords_l0, bag.features, strict=True):
            expected = noise(64, 64, corner[0] // 64).mean(axis=(0, 1)) / 255
            assert np.abs(features - expected).max() < 0.02


def test_nothing_can_be_held_out_of_given_coordinates(slides):
    path = write_coordinates(slides, [[0, 0]], 64.0)
    changes = {"annotations": None, "coordinates": path}
    with pytest.raises(BagError, match="no others to hold out"):
        run(slides, names="a", changes=changes, hold_out_tiles=3)


def test_parts_of_a_run_draw_what_the_whole_draws(slides):
    recipe = replace(RECIPE, sample_per="case", max_tiles=40)
    run(slides, recipe)
    for number in (1, 2):
        run(slides, recipe, out="parts", part=(number, 2))
    for name in ("a.h5", "b.h5"):
        assert (slides / "parts" / name).read_bytes() == (slides / "store" / name).read_bytes()


@pytest.mark.parametrize("order", [(0.5, 1.0), (1.0, 0.5)])
def test_tiles_per_case_are_counted_at_every_scale(slides, order):
    recipes = [replace(RECIPE, mpp=mpp, sample_per="case", max_tiles=20) for mpp in order]
    run(slides, recipes)
    for recipe in recipes:
        run(slides, recipe, out=f"single-{recipe.mpp:g}")
        for name in "ab":
            together = slides / "store" / f"mpp-{recipe.mpp:g}" / f"{name}.h5"
            alone = slides / f"single-{recipe.mpp:g}" / f"{name}.h5"
            assert together.read_bytes() == alone.read_bytes()


def test_slides_of_one_name_have_annotations_of_their_own(slides):
    for n, side in enumerate((256, 512)):
        (slides / "drawn" / f"site-{n}").mkdir(parents=True)
        drawn = feature(box_ring(0, 0, side, 64))
        write_geojson(slides / "drawn" / f"site-{n}" / "x.geojson", drawn)
    twins = [
        replace(job, slide=f"site-{n}/x", annotations=slides / "drawn")
        for n, job in enumerate(jobs(slides))
    ]
    outcomes = extract(twins, RECIPE, slides / "store", device="cpu")
    assert [o.n_tiles for o in outcomes] == [4, 8]
    write_geojson(slides / "drawn" / "a.tiff.geojson", feature(box_ring(0, 0, 64, 64)))
    shutil.rmtree(slides / "drawn" / "site-0")
    first, _ = extract(twins, RECIPE, slides / "store", device="cpu")
    assert first.status == "failed"  # what lies outside its folder may be another slide's


def test_bag_of_a_former_annotation_is_set_aside_and_comes_back_with_it(slides):
    run(slides, names="a")
    made = (slides / "store" / "a.h5").read_bytes()
    before = (slides / "a.geojson").read_text()
    write_geojson(slides / "a.geojson", feature(box_ring(0, 0, 9, 9), classification="Stroma"))
    (outcome,) = run(slides, names="a")
    assert outcome.status == "failed"
    assert not (slides / "store" / "a.h5").exists()
    (slides / "a.geojson").write_text(before)
    (outcome,) = run(slides, names="a")
    assert outcome.status == "skipped"
    assert (slides / "store" / "a.h5").read_bytes() == made


def test_bag_stays_where_its_slide_is_out_of_reach(slides):
    run(slides, names="a")
    (slides / "a.tiff").rename(slides / "away.tiff")
    assert run(slides, names="a")[0].status == "failed"
    assert (slides / "store" / "a.h5").is_file()


def test_a_mended_file_gets_its_lost_tiles_back(big):
    whole = (big / "a.tiff").read_bytes()
    corrupted(big / "a.tiff", [100])
    assert run(big, EVERYTHING, names="a")[0].n_unreadable == 1
    assert run(big, EVERYTHING, names="a")[0].status == "skipped"
    (big / "a.tiff").write_bytes(whole)
    later = (big / "store" / "a.h5").stat().st_mtime + 10
    os.utime(big / "a.tiff", (later, later))
    (outcome,) = run(big, EVERYTHING, names="a")
    assert (outcome.status, outcome.n_tiles, outcome.n_unreadable) == ("done", 256, 0)


def test_a_corrupt_tile_does_not_spoil_the_stain(two_stains):
    for name in "ab":
        picture = tissue_like(HE, seed=3).repeat(2, axis=0).repeat(2, axis=1)
        path = two_stains / f"{name}.tiff"
        write_tiff(path, [picture], mpp=0.5, compression="jpeg", tile=(64, 64))
        write_geojson(two_stains / f"{name}.geojson", feature(box_ring(0, 0, 1024, 1024)))
        corrupted(path, [0])
    recipe = replace(EVERYTHING, stain="reinhard", stain_reference=("a",))
    assert [(o.status, o.n_unreadable) for o in run(two_stains, recipe)] == [("done", 1)] * 2


def test_tumour_of_a_slide_without_colour_cannot_be_judged(tmp_path):
    grey = np.repeat(noise(512, 512)[:, :, :1], 3, axis=2)
    write_tiff(tmp_path / "a.tiff", [grey], mpp=0.5)
    write_geojson(tmp_path / "a.geojson", feature(box_ring(0, 0, 512, 512)))
    (outcome,) = run(tmp_path, replace(RECIPE, min_tumour_of_tissue=0.6), names="a")
    assert outcome.status == "failed"
    assert "Set min_tumour_of_tissue to 0" in outcome.reason
    assert run(tmp_path, RECIPE, names="a", out="free")[0].status == "done"


def test_a_slide_without_colour_profile_says_so(slides):
    (outcome,) = run(slides, replace(RECIPE, icc="srgb"), names="a")
    assert "no colour profile" in outcome.notes


def test_second_run_keeps_the_record_of_the_first(slides):
    run(slides)
    first = table(slides / "store")["a"]
    run(slides)
    second = table(slides / "store")["a"]
    assert second["status"] == "skipped"
    assert {**second, "status": "done"} == first


def test_accents_composed_or_apart_are_one_name(slides):
    apart, composed = (unicodedata.normalize(form, "größe") for form in ("NFD", "NFC"))
    (slides / "a.geojson").rename(slides / f"{apart}.geojson")
    assert slide_name(f"{apart}.tiff") == slide_name(f"{composed}.tiff") == composed
    job = replace(jobs(slides, "a")[0], slide=composed)
    (outcome,) = extract([job], RECIPE, slides / "store", device="cpu")
    assert outcome.status == "done"


def test_hold_out_of_the_present_folder_has_a_name(slides, monkeypatch):
    (slides / "here").mkdir()
    monkeypatch.chdir(slides / "here")
    extract(jobs(slides, "a"), RECIPE, Path(), device="cpu", hold_out_tiles=3)
    assert (slides / f"here{HOLD_OUT_SUFFIX}" / "a.h5").is_file()
