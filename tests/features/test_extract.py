import csv
import io
import os
import re
import shutil
import signal
import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from making import (
    GLASS,
    STAIN,
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

from features.bags.bag import read_bag, read_request
from features.errors import BagError, FeaturesError
from features.extraction import embed as embedding
from features.extraction import extract as module
from features.extraction.extract import extract
from features.extraction.jobs import SlideJob
from features.files.atomic import atomic_path
from features.recipe import Recipe

RECIPE = Recipe(backbone="mean-colour", mpp=0.5, tile=64, precision="fp32", max_tiles=9)


@pytest.fixture(autouse=True)
def _small_backbone(monkeypatch):
    monkeypatch.setattr(module, "load_backbone", lambda name, weights, **_options: fake_backbone())


@pytest.fixture
def cohort(tmp_path):
    """Three slides with their annotations: four tiles of tumour in each."""
    return made_cohort(tmp_path)


@pytest.fixture(scope="module")
def once_extracted(tmp_path_factory):
    """The cohort with its store: do not write here."""
    folder = made_cohort(tmp_path_factory.mktemp("extracted"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_backbone", lambda name, weights, **_options: fake_backbone())
        assert set(statuses(run(folder)).values()) == {"done"}
    return folder


@pytest.fixture
def extracted(once_extracted, tmp_path):
    """A copy of the cohort with its store."""
    shutil.copytree(once_extracted, tmp_path, dirs_exist_ok=True)
    return tmp_path


def made_cohort(folder):
    for name in "abc":
        write_tiff(folder / f"{name}.tiff", [stained()], mpp=0.5)
        write_geojson(folder / f"{name}.geojson", feature(box_ring(0, 0, 128, 128)))
    return folder


def job(folder, name, **changes):
    told = {"slide": name, "files": (folder / f"{name}.tiff",), "annotations": folder} | changes
    return SlideJob(**told)


def jobs(folder, names="abc", **changes):
    return [job(folder, name, **changes) for name in names]


def run(folder, names="abc", recipe=RECIPE, **options):
    return extract(jobs(folder, names), recipe, folder / "store", device="cpu", **options)


def statuses(outcomes):
    return {outcome.slide: outcome.status for outcome in outcomes}


def failures(folder):
    with (folder / "store" / "failures.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def bag_of(folder, name="a"):
    return read_bag(folder / "store" / f"{name}.h5")


def contents(folder):
    return {path.name: path.read_bytes() for path in (folder / "store").glob("*.h5")}


def test_bag_holds_the_tumours_tiles_and_their_features(cohort):
    (outcome,) = run(cohort, "a")
    assert (outcome.status, outcome.n_tiles) == ("done", 4)
    bag = bag_of(cohort)
    assert bag.coords_l0.tolist() == [[0, 0], [64, 0], [0, 64], [64, 64]]
    assert bag.coverage.tolist() == [1, 1, 1, 1]
    assert np.abs(bag.features.astype(float) - np.divide(STAIN, 255)).max() < 1e-3
    assert bag.mpp_source == "file"
    assert bag.size_l0 == (512, 512)


def test_bag_says_how_it_was_made(cohort):
    extract([job(cohort, "a", case="P-1")], RECIPE, cohort / "store", device="cpu")
    bag = bag_of(cohort)
    assert bag.case == "P-1"
    assert bag.recipe["backbone"] == "mean-colour"
    assert bag.recipe["precision"] == "fp32"
    assert bag.recipe["region"] == "annotations"
    assert bag.recipe["classes"] == ["Tumor"]
    assert (bag.tile_px, bag.target_mpp, bag.side_l0) == (64, 0.5, (64, 64))


def test_bag_keeps_an_overview_of_the_slide(cohort):
    run(cohort, "a")
    overview = Image.open(io.BytesIO(bag_of(cohort).thumbnail))
    assert overview.size == (512, 512)
    assert np.abs(np.subtract(overview.getpixel((50, 400)), STAIN)).max() < 6
    assert np.abs(np.subtract(overview.getpixel((450, 400)), GLASS)).max() < 6


def test_ignored_region_is_taken_away(cohort):
    write_geojson(
        cohort / "a.geojson",
        feature(box_ring(0, 0, 128, 128)),
        feature(box_ring(64, 0, 128, 64), classification="Ignore*"),
    )
    run(cohort, "a")
    assert bag_of(cohort).coords_l0.tolist() == [[0, 0], [0, 64], [64, 64]]


def test_the_table_reports_how_much_of_the_drawing_is_glass_or_outside(cohort):
    ring = box_ring(128, 128, 640, 512)  # the tissue ends at 256, the slide at 512
    write_geojson(cohort / "a.geojson", feature(ring))
    outcomes = {outcome.slide: outcome for outcome in run(cohort)}
    assert outcomes["a"].drawn_outside == pytest.approx(0.25)
    assert outcomes["a"].drawn_glass == pytest.approx(0.5, abs=0.02)
    assert outcomes["a"].notes.startswith("25% of the drawn area lies outside the slide and 50% of")
    assert "tiles are mostly glass. Set drop to background" in outcomes["a"].notes
    assert "drawn area" not in outcomes["b"].notes + outcomes["c"].notes
    with (cohort / "store" / "extract.csv").open() as file:
        rows = {row["slide"]: row for row in csv.DictReader(file)}
    assert (rows["a"]["drawn_outside"], rows["b"]["drawn_outside"]) == ("0.250", "0.000")
    assert float(rows["a"]["drawn_glass"]) == pytest.approx(0.5, abs=0.02)


def test_overlapping_annotations_give_no_tile_twice(cohort):
    write_geojson(
        cohort / "a.geojson",
        feature(box_ring(0, 0, 40, 64)),
        feature(box_ring(20, 0, 64, 64)),
    )
    run(cohort, "a")
    assert bag_of(cohort).coords_l0.tolist() == [[0, 0]]


def test_without_annotations_the_tissue_is_used(cohort):
    extract([job(cohort, "a", annotations=None)], RECIPE, cohort / "store", device="cpu")
    bag = bag_of(cohort)
    assert bag.recipe["region"] == "tissue"
    assert len(bag) == 9  # --max-tiles
    assert (bag.coords_l0[:, 0] < 256).all()


def test_given_scale_is_recorded(cohort):
    extract([job(cohort, "a", mpp=0.25)], RECIPE, cohort / "store", device="cpu")
    bag = bag_of(cohort)
    assert (bag.mpp_l0, bag.mpp_source) == ((0.25, 0.25), "given")
    assert bag.coords_l0.tolist() == [[0, 0]]
    assert bag.side_l0 == (128, 128)


def test_one_bad_slide_stops_no_other(cohort):
    (cohort / "b.tiff").write_bytes(b"not a slide")
    outcomes = run(cohort)
    assert statuses(outcomes) == {"a": "done", "b": "failed", "c": "done"}
    assert sorted(contents(cohort)) == ["a.h5", "c.h5"]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda f: (f / "b.tiff").unlink(), "no such file"),
        (lambda f: (f / "b.tiff").write_bytes(b""), "not a slide OpenSlide can open"),
        (lambda f: write_tiff(f / "b.tiff", [stained()], mpp=None), "Set slide_mpp"),
        (lambda f: write_tiff(f / "b.tiff", [stained()], mpp=2.0), "Set mpp to 2 or coarser"),
        (lambda f: (f / "b.geojson").unlink(), "no annotation in .*b.geojson"),
        (lambda f: (f / "b.geojson").write_text("{"), "cannot be read as GeoJSON"),
        (
            lambda f: write_geojson(f / "b.geojson", feature(box_ring(0, 0, 9, 9))),
            "no tile of 64 px at 0.5 .* is 60% Tumor. Check the annotation",
        ),
        (
            lambda f: write_geojson(f / "b.geojson", feature(box_ring(9000, 0, 9900, 900))),
            "lies outside the slide",
        ),
        (
            lambda f: write_geojson(
                f / "b.geojson", feature(box_ring(0, 0, 99, 99), classification="Stroma")
            ),
            "the file has Stroma x1",
        ),
    ],
)
def test_failure_is_recorded_with_its_reason_and_remedy(cohort, spoil, reason):
    spoil(cohort)
    (outcome,) = run(cohort, "b")
    (row,) = failures(cohort)
    assert row["slide"] == "b"
    assert row["reason"] == outcome.reason
    assert row["details"] == outcome.details == ""
    assert re.search(reason, outcome.reason)
    assert "\n" not in outcome.reason


def test_unforeseen_error_is_recorded_with_its_traceback(cohort, monkeypatch):
    real = module.lay_tiles

    def fails_on_b(slide, *settings):
        if slide.name == "b":
            raise ZeroDivisionError("unforeseen")
        return real(slide, *settings)

    monkeypatch.setattr(module, "lay_tiles", fails_on_b)
    assert statuses(run(cohort)) == {"a": "done", "b": "failed", "c": "done"}
    (row,) = failures(cohort)
    assert row["reason"] == "ZeroDivisionError: unforeseen"
    assert "fails_on_b" in row["details"]


def test_full_disk_fails_the_slide_and_leaves_nothing(cohort, monkeypatch):
    @contextmanager
    def full(path):
        with atomic_path(path) as temporary:
            yield temporary
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("features.bags.bag.atomic_path", full)
        outcomes = run(cohort)
    assert set(statuses(outcomes).values()) == {"failed"}
    reason = failures(cohort)[0]["reason"]
    assert re.match(rf"\w: no room in {cohort / 'store'} \(.*No space left", reason)
    assert re.search(
        r"needs up to [\d.]+ MB, and [\d.,]+ MB are free\. .*the same command again", reason
    )
    left = {path.name for path in (cohort / "store").iterdir()}
    assert left == {"failures.csv", "extract.csv", ".extract"}
    assert set(statuses(run(cohort)).values()) == {"done"}


def test_no_failure_leaves_no_failures_file(extracted):
    assert not (extracted / "store" / "failures.csv").exists()


def test_mended_slide_clears_the_failures(cohort):
    good = (cohort / "b.tiff").read_bytes()
    (cohort / "b.tiff").write_bytes(b"")
    run(cohort)
    (cohort / "b.tiff").write_bytes(good)
    assert statuses(run(cohort)) == {"a": "skipped", "b": "done", "c": "skipped"}
    assert not (cohort / "store" / "failures.csv").exists()


def test_second_run_resumes_and_touches_nothing(extracted, monkeypatch):
    before = {p.name: p.stat().st_mtime_ns for p in (extracted / "store").glob("*.h5")}
    monkeypatch.setattr(module.Workers, "embed", lambda *a: pytest.fail("embedded again"))
    outcomes = run(extracted)
    assert set(statuses(outcomes).values()) == {"skipped"}
    assert [outcome.n_tiles for outcome in outcomes] == [4, 4, 4]
    assert {p.name: p.stat().st_mtime_ns for p in (extracted / "store").glob("*.h5")} == before


def test_changed_annotation_redoes_its_slide_only(extracted):
    write_geojson(extracted / "b.geojson", feature(box_ring(0, 0, 64, 64)))
    assert statuses(run(extracted)) == {"a": "skipped", "b": "done", "c": "skipped"}
    assert len(bag_of(extracted, "b")) == 1


def test_changed_slide_is_redone(extracted):
    write_tiff(extracted / "b.tiff", [noise(512, 512)], mpp=0.5)
    assert statuses(run(extracted)) == {"a": "skipped", "b": "done", "c": "skipped"}


def test_changed_scale_redoes_the_slide(cohort):
    run(cohort, "a")
    (outcome,) = extract([job(cohort, "a", mpp=0.25)], RECIPE, cohort / "store", device="cpu")
    assert outcome.status == "done"
    assert bag_of(cohort).mpp_l0 == (0.25, 0.25)


@pytest.mark.parametrize("damage", [lambda raw: raw[:-50], lambda raw: bytes(len(raw))])
def test_broken_bag_is_made_again(extracted, damage):
    before = contents(extracted)
    path = extracted / "store" / "b.h5"
    path.write_bytes(damage(path.read_bytes()))
    assert statuses(run(extracted)) == {"a": "skipped", "b": "done", "c": "skipped"}
    assert contents(extracted) == before


CHANGES = {
    "max_tiles": 3,
    "tile": 32,
    "mpp": 0.75,
    "seed": 1,
    "precision": "bf16",
    "min_coverage": 0.5,
    "classes": ("Tumor", "Bone"),
}


@pytest.mark.parametrize("key", CHANGES)
def test_store_of_another_recipe_is_refused_and_kept(extracted, key):
    before = contents(extracted)
    with pytest.raises(BagError, match=rf"another recipe \(a\.h5: {key} .*set overwrite"):
        run(extracted, recipe=replace(RECIPE, **{key: CHANGES[key]}))
    assert contents(extracted) == before


def test_overwriting_redoes_the_bags_of_another_recipe(extracted):
    outcomes = run(extracted, recipe=replace(RECIPE, max_tiles=3), overwrite=True)
    assert set(statuses(outcomes).values()) == {"done"}
    assert len(bag_of(extracted)) == 3


def test_overwriting_keeps_the_bags_of_the_same_recipe(extracted):
    assert set(statuses(run(extracted, overwrite=True)).values()) == {"skipped"}


def test_two_slides_of_one_name_are_refused_before_any_work(cohort):
    with pytest.raises(BagError, match=r"Two slides are named 'a': .*a\.tiff and .*a\.tiff"):
        run(cohort, "aba")
    assert not (cohort / "store").exists()


def test_two_kinds_of_region_are_refused(cohort):
    mixed = [job(cohort, "a"), job(cohort, "b", annotations=None)]
    with pytest.raises(BagError, match="annotations and tissue"):
        extract(mixed, RECIPE, cohort / "store", device="cpu")
    assert contents(cohort) == {}


def test_store_of_another_kind_of_region_is_refused(cohort):
    run(cohort, "a")
    with pytest.raises(BagError, match="another recipe"):
        extract([job(cohort, "b", annotations=None)], RECIPE, cohort / "store", device="cpu")


def test_bag_does_not_depend_on_the_other_slides(cohort):
    for name in "abc":
        write_geojson(cohort / f"{name}.geojson", feature(box_ring(0, 0, 512, 512)))
    run(cohort)
    together = contents(cohort)
    assert len(bag_of(cohort)) == RECIPE.max_tiles
    shutil.rmtree(cohort / "store")
    run(cohort, "c")
    assert contents(cohort)["c.h5"] == together["c.h5"]


def test_number_of_workers_changes_nothing(cohort, once_extracted):
    for workers in (1, 5):
        shutil.rmtree(cohort / "store", ignore_errors=True)
        run(cohort, workers=workers)
        assert contents(cohort) == contents(once_extracted)


class Interrupted:
    """Stops the run when the third slide's tiles are counted and the first slide is recorded."""

    def __init__(self, stop, folder):
        self.stop, self.first = stop, folder / "store" / ".extract" / "a.json"

    @contextmanager
    def task(self, name, total, unit):
        def advance(count):
            if name != "c":
                return
            for _ in range(1000):
                if self.first.is_file():
                    break
                time.sleep(0.01)
            self.stop()

        yield advance


def test_interrupt_keeps_what_is_done_and_the_next_run_goes_on(cohort):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(cohort, progress=Interrupted(stop, cohort))
    assert "c.h5" not in contents(cohort)  # while c was embedded, b may still have been written
    assert statuses(run(cohort))["a"] == "skipped"
    assert statuses(run(cohort)) == {"a": "skipped", "b": "skipped", "c": "skipped"}


def test_interrupt_leaves_the_tables_of_what_is_done_and_what_failed(cohort):
    (cohort / "b.geojson").unlink()
    records = [cohort / "store" / ".extract" / f"{name}.json" for name in "ab"]

    def stop():
        for _ in range(1000):
            if all(path.is_file() for path in records):
                raise KeyboardInterrupt
            time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt):
        run(cohort, progress=Interrupted(stop, cohort), workers=2)
    with (cohort / "store" / "extract.csv").open(newline="") as file:
        told = {row["slide"]: (row["status"], row["tiles"]) for row in csv.DictReader(file)}
    assert told == {"a": ("done", "4"), "b": ("failed", "0")}
    [failure] = failures(cohort)
    assert failure["slide"] == "b"
    assert "no annotation in" in failure["reason"]


def test_a_tile_that_no_worker_embedded_fails_the_slide(cohort, monkeypatch):
    real = embedding.reading_order
    monkeypatch.setattr(embedding, "reading_order", lambda grid: real(grid)[:-1])
    (outcome,) = run(cohort, "a")
    assert (outcome.status, outcome.reason) == ("failed", "AssertionError: a tile was lost")
    assert not contents(cohort)


def killed(folder):
    """The body of a process that is killed in the middle of the third slide."""
    module.load_backbone = lambda name, weights, **_options: fake_backbone()
    run(folder, progress=Interrupted(lambda: os.kill(os.getpid(), signal.SIGKILL), folder))


def test_killed_run_goes_on_to_the_same_bytes_as_one_uninterrupted(cohort, once_extracted, forked):
    process = forked.Process(target=killed, args=(cohort,))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert "c.h5" not in contents(cohort)  # while c was embedded, b may still have been written
    assert statuses(run(cohort))["a"] == "skipped"
    assert statuses(run(cohort)) == {"a": "skipped", "b": "skipped", "c": "skipped"}
    assert contents(cohort) == contents(once_extracted)


def test_features_that_are_not_finite_fail_the_slide(cohort, monkeypatch):
    class Sick(MeanColour):
        def forward(self, images):
            return super().forward(images) * float("nan")

    monkeypatch.setattr(module, "load_backbone", lambda *a, **k: fake_backbone(Sick()))
    (outcome,) = run(cohort, "a")
    assert outcome.status == "failed"
    assert "not finite" in outcome.reason
    assert read_request(cohort / "store" / "a.h5") is None


def tile_files(folder, *places):
    made = []
    for x, y in places:
        made.append(folder / f"s-{x}-{y}.png")
        Image.fromarray(np.full((64, 64, 3), (x, y, 0), np.uint8)).save(made[-1])
    return tuple(made)


def test_tile_images_become_a_bag(tmp_path):
    files = tile_files(tmp_path, (0, 0), (64, 0), (0, 128))
    tiles = SlideJob(slide="s", files=files, mpp=0.5, from_tiles=True)
    (outcome,) = extract([tiles], RECIPE, tmp_path / "store", device="cpu")
    assert outcome.status == "done"
    bag = bag_of(tmp_path, "s")
    assert bag.coords_l0.tolist() == [[0, 0], [64, 0], [0, 128]]
    expected = np.array([[0, 0, 0], [64, 0, 0], [0, 128, 0]]) / 255
    assert np.abs(bag.features.astype(float) - expected).max() < 1e-3
    assert bag.size_l0 == (128, 192)
    assert (bag.recipe["mpp"], bag.target_mpp) == (RECIPE.mpp, 0.5 * 64 / RECIPE.tile)


def test_tile_images_without_a_scale_name_the_remedy(tmp_path):
    tiles = SlideJob(slide="s", files=tile_files(tmp_path, (0, 0)), from_tiles=True)
    (outcome,) = extract([tiles], RECIPE, tmp_path / "store", device="cpu")
    assert "Set slide_mpp" in outcome.reason


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"mpp": 40.0}, "40x is 0.25"),
        ({"mpp": float("nan")}, "between 0.05 and 20"),
        ({"tile": 16}, "Use 224"),
        ({"min_coverage": 60}, "For 60 % write 0.6"),
        ({"min_coverage": 0.0}, r"\(0, 1\]"),
        ({"max_tiles": 0}, "at least 1"),
        ({"seed": -1}, "0 or more"),
        ({"classes": ()}, "at least one"),
        ({"precision": "fp8"}, "Use auto"),
    ],
)
def test_recipe_refuses_nonsense_with_the_remedy(change, told):
    with pytest.raises(FeaturesError, match=told):
        Recipe(**change)


def test_annotations_of_a_cropped_slide_are_moved_to_level_0(cohort, monkeypatch):
    """QuPath crops to the scanned part and counts from its corner; stored coordinates do not."""
    run(cohort, "a")
    plain = bag_of(cohort)
    side, opened = round(plain.side_l0[0]), module.open_slide

    def cropped(path, **options):
        return replace(opened(path, **options), bounds_l0=(side, 2 * side))

    monkeypatch.setattr(module, "open_slide", cropped)
    (cohort / "store" / "a.h5").unlink()
    run(cohort, "a")
    moved = bag_of(cohort)
    width, height = plain.size_l0
    expected = {(x + side, y + 2 * side) for x, y in plain.coords_l0.tolist()}
    inside = {(x, y) for x, y in expected if x < width and y < height}
    assert inside
    assert {(x, y) for x, y in moved.coords_l0.tolist()} == inside
    assert moved.bounds_l0 == (side, 2 * side)
