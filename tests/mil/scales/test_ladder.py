"""One cohort at several scales, in the same folds."""

import csv
import json
from dataclasses import replace

import pytest

from features.errors import InputError
from features.extraction.jobs import JobSettings, SlideJob
from features.extraction.survey import count_tiles, lay_tiles
from features.recipe import Recipe
from mil.errors import RunError
from mil.evaluation.judge import compare_tables, evaluate
from mil.report.ladder import write_ladder
from mil.runs.cross_validation import Plan
from mil.scales.ladder import ScaledSlides, choose_sides, climb_ladder
from mil.settings import FitSettings, SplitSettings
from mil.study import Study
from mil.tasks.diagnosis import Diagnosis
from tests.features.making import box_ring, feature, write_geojson, write_tiff
from tests.mil.segmentation.conftest import TUMOUR, draw_slide

PLAN = Plan(models=("pooled-logistic",), fit=FitSettings(), split=SplitSettings(folds="2"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ladder")
    (folder / "slides").mkdir()
    lines = ["case,slide,label"]
    for number in range(4):
        name = f"case-{number}"
        write_tiff(folder / "slides" / f"{name}.tiff", [draw_slide(number)], mpp=2.5)
        ring = box_ring(TUMOUR[0], 64, TUMOUR[1], 256)
        write_geojson(folder / "slides" / f"{name}.geojson", feature(ring))
        lines.append(f"{name},{name},{'ab'[number % 2]}")
    (folder / "cohort.csv").write_text("\n".join(lines) + "\n")
    return folder


def climb(folder, out, mpps=(2.5, 5.0), tiles_px=(32, 32)):
    study = Study(table=folder / "cohort.csv", task=Diagnosis(), store=folder)
    scaled = ScaledSlides(
        slides=folder / "slides",
        settings=JobSettings(annotations=folder / "slides"),
        recipe=Recipe(backbone="test_resnet", weights="random"),
        mpps=mpps,
        tiles_px=tiles_px,
    )
    return climb_ladder(study, scaled, PLAN, out)


def test_each_scale_has_a_store_and_a_run_in_the_same_folds(folder, tmp_path):
    ladder = climb(folder, tmp_path / "l")
    fine, coarse = ladder.rungs
    assert (fine.magnification, coarse.magnification) == ("4x", "2x")
    assert fine.tiles > 2 * coarse.tiles > 0
    assert fine.p is None
    [pair] = compare_tables(coarse.run.predictions(), fine.run.predictions()).pairs
    assert coarse.p == pair.p
    for rung in (fine, coarse):
        judged = rung.run.predictions()
        assert rung.accuracy == evaluate(judged)["pooled-logistic"].metrics["accuracy"]
    assert [run.folds for run in (fine.run, coarse.run)] == [fine.run.folds] * 2
    write_ladder(ladder)
    with (tmp_path / "l" / "ladder.csv").open(newline="") as file:
        assert [row["scale"] for row in csv.DictReader(file)] == ["4x", "2x"]
    facts = json.loads((tmp_path / "l" / "ladder.json").read_text())
    assert [row["tile_px"] for row in facts["scales"]] == [32, 32]
    assert len(facts["notes"]) == 1
    assert (tmp_path / "l" / "ladder.png").read_bytes().startswith(b"\x89PNG")
    before = json.loads((tmp_path / "l" / "mpp-5" / "run" / "run.json").read_text())["finished"]
    again = climb(folder, tmp_path / "l")
    after = json.loads((tmp_path / "l" / "mpp-5" / "run" / "run.json").read_text())["finished"]
    assert before == after
    assert again.rows() == ladder.rows()


def test_a_scale_without_tiles_is_refused_with_the_slide(folder, tmp_path):
    with pytest.raises(RunError, match=r"4 slides have no bag at 5 micrometres.*smaller tiles"):
        climb(folder, tmp_path / "l", tiles_px=(32, 300))
    for mpps, tiles_px in (((5.0, 5.0), (32, 32)), ((5.0,), (32,))):
        with pytest.raises(InputError, match="two scales or more, all different"):
            climb(folder, tmp_path / "l", mpps=mpps, tiles_px=tiles_px)
    with pytest.raises(InputError, match="tile is one number, or one for each of 2 scales; got 3"):
        climb(folder, tmp_path / "l", tiles_px=(32, 32, 64))


def test_tiles_are_smaller_at_scales_that_have_no_room_and_that_is_said(folder, tmp_path):
    ladder = climb(folder, tmp_path / "l", mpps=(2.5, 10.0), tiles_px=())
    sides = [rung.tile_px for rung in ladder.rungs]
    assert sides == [64, 32]
    assert [rung.run.recipe["tile"] for rung in ladder.rungs] == sides
    write_ladder(ladder)
    facts = json.loads((tmp_path / "l" / "ladder.json").read_text())
    assert [row["tile_px"] for row in facts["scales"]] == sides
    assert "At 1x (32 px) tiles are smaller than the 64 px of the others" in facts["notes"][-1]


def test_slides_without_any_tile_are_left_to_the_extraction(tmp_path):
    recipe = Recipe(backbone="test_resnet", weights="random")
    write_tiff(tmp_path / "s.tiff", [draw_slide(0)], mpp=2.5)
    (tmp_path / "broken.tiff").write_text("no slide")
    jobs = [SlideJob(slide=name, files=(tmp_path / f"{name}.tiff",)) for name in ("s", "broken")]
    assert choose_sides(jobs[1:], recipe, (2.5, 5.0)) == (224, 224)
    assert choose_sides(jobs, recipe, (2.5, 5.0)) == choose_sides(jobs[:1], recipe, (2.5, 5.0))


def test_tiles_smaller_than_needed_are_not_laid(tmp_path, monkeypatch):
    recipe = Recipe(backbone="test_resnet", weights="random")
    write_tiff(tmp_path / "s.tiff", [draw_slide(0)], mpp=2.5)
    job = SlideJob(slide="s", files=(tmp_path / "s.tiff",))
    recipes = [replace(recipe, mpp=mpp, tile=tile) for mpp in (2.5, 5.0) for tile in (160, 64, 32)]
    counts = count_tiles(job, recipes)
    enough = counts[1]
    assert counts[0] < enough < counts[2]
    laid = []

    def lay(slide, job, view, chosen):
        laid.append((chosen.mpp, chosen.tile))
        return lay_tiles(slide, job, view, chosen)

    monkeypatch.setattr("features.extraction.survey.lay_tiles", lay)
    assert count_tiles(job, recipes, enough)[:3] == [counts[0], enough, enough]
    assert (2.5, 64) in laid
    assert (2.5, 32) not in laid
