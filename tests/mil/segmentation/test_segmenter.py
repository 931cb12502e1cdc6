"""A segmenter is learnt, stored, read, applied and judged; colour has no chance on these slides."""

import csv
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import shapely
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from features.errors import FeaturesError
from features.extraction.jobs import SlideJob, jobs_of_paths
from features.extraction.survey import survey_slide
from features.lowpower.feature_map import CELL_UM, CellGrid
from features.lowpower.segmenter import load_segmenter, read_segmenter_card, save_segmenter
from features.lowpower.tumour_map import TumourMap, smooth_over_tissue, write_geojson
from features.recipe import Recipe
from features.regions.annotations import read_annotations
from features.regions.masks import coverage
from features.slides.slide import open_slide
from mil.data.case import Row
from mil.errors import LeakageError
from mil.runs.record import NewRun
from mil.segmentation.application import apply_segmenter
from mil.segmentation.cross_validation import cross_validate, has_tumour
from mil.segmentation.evaluation import SegmentEvaluation
from mil.segmentation.fit import fit_linear, sample_cells
from mil.segmentation.folds import case_folds
from mil.segmentation.learner import COLOUR, MAP, probabilities, with_reference
from mil.segmentation.run import check_backbone, evaluate_segmenter, train_segmenter
from tests.features.making import write_tiff
from tests.mil.segmentation.conftest import draw_slide


def test_structure_is_found_where_colour_says_nothing(learner, slides):
    folds = case_folds(has_tumour(slides), 3, 0)
    evaluation = SegmentEvaluation(cross_validate(learner, slides, folds).scores(), MAP)
    assert evaluation.estimate(MAP, "dice").value > 0.9
    assert evaluation.estimate(COLOUR, "dice").value < 0.8
    assert evaluation.methods == [MAP, COLOUR, "tissue only"]
    assert {s.case for s in evaluation.judged(MAP)} == {f"case-{i}" for i in range(1, 5)}
    specificity = [
        s.specificity for s in evaluation.scores if (s.case, s.method) == ("case-6", MAP)
    ]
    assert specificity[0] > 0.9


def test_a_fold_never_learns_from_its_test_cases(learner, slides, monkeypatch):
    seen = []
    original = type(learner).fit
    monkeypatch.setattr(
        type(learner),
        "fit",
        lambda self, train, *a: seen.append({s.case for s in train}) or original(self, train, *a),
    )
    folds = case_folds(has_tumour(slides), 3, 0)
    cross_validate(learner, slides, folds)
    assert seen == [set(fold.train) for fold in folds]


def test_half_of_a_sample_is_tumour_and_it_is_always_the_same(study, slides):
    vectors, tumour = sample_cells(slides[0], MAP, study.settings)
    assert (len(vectors), int(tumour.sum())) == (400, 200)
    again, _ = sample_cells(slides[0], MAP, study.settings)
    np.testing.assert_array_equal(vectors, again)
    other, _ = sample_cells(slides[0], MAP, replace(study.settings, seed=1))
    assert not np.array_equal(vectors, other)
    _, normal = sample_cells(slides[5], MAP, study.settings)
    assert not normal.any()
    heads = [
        fit_linear([sample_cells(s, MAP, study.settings) for s in slides], study.settings)
        for _ in range(2)
    ]
    assert heads[0].weight.tobytes() == heads[1].weight.tobytes()


def test_a_file_gives_the_same_map_and_knows_its_cases(segmenter, slides, tmp_path):
    path = tmp_path / "segmenter.safetensors"
    save_segmenter(path, segmenter)
    loaded, (card, sha256) = load_segmenter(path), read_segmenter_card(path)
    assert card == loaded.card == segmenter.card
    assert card.trained_on == tuple(f"case-{i}" for i in range(1, 7))
    assert set(card.trained_on_slides) == {name for slide in slides for name in slide.sources}
    assert len(sha256) == 64
    with slides[0].opened() as slide:
        first, second = segmenter.tumour_map(slide), loaded.tumour_map(slide)
        colour = loaded.colour_map(slide, first.grid)
    np.testing.assert_array_equal(first.probability, second.probability)
    cached = probabilities(segmenter, slides[0])
    assert np.abs(cached[MAP] - first.probability).max() < 0.02  # half precision
    assert np.abs(cached[COLOUR] - colour.probability).max() < 0.02
    assert not first.probability[~first.grid.tissue].any()


@pytest.fixture(scope="session")
def knowing(segmenter, slides):
    """The segmenter, which knows what it marks as tumour on its own slides."""
    return with_reference(segmenter, slides)


def test_what_is_called_tumour_is_compared_with_what_was_learnt(
    knowing, slides, monkeypatch, tmp_path
):
    assert knowing.card.reference_cases == tuple(
        f"case-{n}" for n in range(1, 6)
    )  # the sixth has none
    save_segmenter(tmp_path / "s.safetensors", knowing)
    loaded = load_segmenter(tmp_path / "s.safetensors")
    for known in slides[:5]:
        with known.opened() as slide:
            assert loaded.tumour_map(slide).ratio < 0.6  # it is one of them, but for half precision
    assert math.isnan(tumour_of(draw_slide(69, tumour=False), loaded, tmp_path).ratio)
    like = tumour_of(draw_slide(70), loaded, tmp_path)
    assert like.ratio == tumour_of(draw_slide(70), knowing, tmp_path).ratio < 1.5
    assert (like.unlike, like.tumour_mm2 > 0.1) == ("", True)
    with monkeypatch.context() as patch:  # of so little tumour nothing can be said
        patch.setattr("features.lowpower.segmenter.LEAST_CELLS", 10_000)
        assert math.isnan(tumour_of(draw_slide(70), loaded, tmp_path).ratio)
    without = replace(loaded, descriptors=None)
    assert math.isnan(tumour_of(draw_slide(70), without, tmp_path).ratio)
    strange = tumour_of(with_other_hues(draw_slide(71)), loaded, tmp_path)
    assert strange.ratio > 1.5
    assert "times as far from them" in strange.unlike
    assert strange.note == f"W{strange.unlike[1:]}, so that the outline cannot be relied on."


def tumour_of(picture, segmenter, folder):
    write_tiff(folder / "new.tiff", [picture], mpp=2.5)
    with open_slide(folder / "new.tiff") as slide:
        return segmenter.tumour_map(slide)


def with_other_hues(picture):
    """Green where there was pink; glass stays white."""
    return np.ascontiguousarray(picture[..., [1, 0, 2]])


def test_a_strange_slide_is_outlined_and_named(study, knowing, tmp_path):
    write_tiff(tmp_path / "green.tiff", [with_other_hues(draw_slide(72))], mpp=2.5)
    jobs = jobs_of_paths([study.folder / "slides" / "case-2.tiff", tmp_path / "green.tiff"])
    like, strange = apply_segmenter(knowing, jobs, tmp_path / "out")
    assert (like.note, like.unlike, strange.status) == ("", "", "done")
    assert strange.unlike
    assert (tmp_path / "out" / "green.geojson").exists()
    with (tmp_path / "out" / "segments.csv").open() as file:
        rows = {row["slide"]: row for row in csv.DictReader(file)}
    assert (float(rows["green"]["ratio"]), rows["green"]["note"]) == (strange.ratio, strange.note)
    file = tmp_path / "s.safetensors"
    save_segmenter(file, knowing)
    for path, promised in ((tmp_path / "green.tiff", False), (jobs[0].files[0], True)):
        with open_slide(path) as slide:
            job = SlideJob(slide=path.stem, files=(path,), segmenter=file)
            view = survey_slide(slide, job, Recipe(backbone="resnet18", mpp=2.5))
        assert (strange.note in view.notes) is not promised


def test_a_changed_or_foreign_file_is_refused(segmenter, tmp_path):
    path = tmp_path / "segmenter.safetensors"
    save_segmenter(path, segmenter)
    with safe_open(path, "pt") as file:
        card = json.loads(file.metadata()["card"])
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    card["trained_on"] = card["trained_on"][1:]
    save_file(state, path, {"card": json.dumps(card)})
    for read in (load_segmenter, read_segmenter_card):
        with pytest.raises(FeaturesError, match="have changed since it was written"):
            read(path)
    save_file(state, path)
    with pytest.raises(FeaturesError, match="not a segmenter"):
        load_segmenter(path)
    with pytest.raises(FeaturesError, match="no such file"):
        load_segmenter(tmp_path / "none")
    path.write_bytes(b"nothing")
    with pytest.raises(FeaturesError, match="cannot be read as a segmenter"):
        load_segmenter(path)


def test_training_writes_a_folder_and_judging_refuses_its_cases(study, tmp_path):
    trained = train_segmenter(
        NewRun(path=tmp_path / "run"), study.source, study.settings, n_folds=2
    )
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "segmenter.safetensors", "scores.csv", "evaluation.json", "run.json"
    }  # fmt: skip
    figures = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert figures["methods"] == trained.segmenter.card.evaluation["methods"]
    assert len((tmp_path / "run" / "scores.csv").read_text().splitlines()) == 1 + 3 * 6
    assert load_segmenter(trained.path).card.evaluation["methods"]["map"]["cases"] == 4
    with pytest.raises(
        LeakageError, match=r"was trained on 6 of these cases, e\.g\. case-1, case-2"
    ):
        evaluate_segmenter(trained.path, study.source, tmp_path / "maps")
    # The same slide under another name of slide and case.
    other = tmp_path / "other"
    for kind, suffix in (("slides", "tiff"), ("annotations", "geojson")):
        (other / kind).mkdir(parents=True)
        shutil.copy(study.folder / kind / f"case-2.{suffix}", other / kind / f"new.{suffix}")
    (other / "t.csv").write_text("case,slide\nnew,new\n")
    source = replace(
        study.source,
        table=other / "t.csv",
        slides=other / "slides",
        jobs=replace(study.source.jobs, annotations=other / "annotations"),
    )
    with pytest.raises(LeakageError, match=r"was trained on 1 of these cases, e\.g\. new"):
        evaluate_segmenter(trained.path, source, tmp_path / "maps")


def test_weights_that_have_seen_a_tested_or_reserved_case_are_refused(learner, slides):
    seen = replace(learner.backbone, trained_on=("CASE-2",))
    with pytest.raises(LeakageError, match=r"1 of the cases that are tested .* e\.g\. case-2"):
        check_backbone(seen, slides, ())
    check_backbone(seen, slides[2:], ())
    row = Row(line=2, case="case-2", slide="x", split="test")
    with pytest.raises(LeakageError, match="kept for external validation"):
        check_backbone(seen, slides[2:], [row])
    by_content = replace(learner.backbone, trained_on_slides=tuple(slides[3].sources))
    with pytest.raises(LeakageError, match="case-4"):
        check_backbone(by_content, slides, ())
    check_backbone(learner.backbone, slides, [row])


def test_a_segmenter_is_judged_on_other_cases(study, learner, slides, tmp_path):
    path = tmp_path / "segmenter.safetensors"
    save_segmenter(path, learner.fit(slides[2:]))
    table = tmp_path / "t.csv"
    table.write_text("case,slide,annotated\ncase-1,case-1,full\ncase-2,case-2,full\n")
    evaluation = evaluate_segmenter(path, replace(study.source, table=table), tmp_path / "maps")
    assert len(evaluation.judged(MAP)) == 2
    assert evaluation.estimate(MAP, "dice").value > 0.9
    assert not (tmp_path / "maps").exists()


def test_applying_writes_what_qupath_reads_and_one_broken_slide_stops_nothing(
    study, segmenter, tmp_path
):
    broken = tmp_path / "broken.tiff"
    broken.write_bytes(b"no slide")
    jobs = jobs_of_paths([study.folder / "slides" / "case-1.tiff", broken])
    first, second = apply_segmenter(segmenter, jobs, tmp_path / "out")
    assert (first.status, first.trained_on_it, second.status) == ("done", True, "failed")
    assert "broken.tiff" in second.reason
    drawing = read_annotations(tmp_path / "out" / "case-1.geojson")
    assert set(drawing.histogram()) == {"Tumor: Predicted"}
    region = drawing.region(["Tumor"])
    assert region.area * 2.5**2 / 1e6 == pytest.approx(first.tumour_mm2, rel=0.05)
    assert sum(len(part.interiors) for part in shapely.get_parts(region)) == 1  # the hole
    overlay = np.asarray(Image.open(tmp_path / "out" / "case-1-overlay.png"))
    assert overlay.shape == (400, 400, 3)
    assert (overlay == (200, 0, 0)).all(axis=2).sum() > 500  # the outline
    probability = Image.open(tmp_path / "out" / "case-1-probability.png")
    assert probability.size == (50, 50)
    assert probability.text["micrometres per pixel"] == "20"
    rows = (tmp_path / "out" / "segments.csv").read_text().splitlines()
    assert len(rows) == 3


def test_a_corrected_outline_is_left_and_rows_of_earlier_calls_stay(study, segmenter, tmp_path):
    first, second = jobs_of_paths([study.folder / "slides" / f"case-{n}.tiff" for n in (1, 2)])
    apply_segmenter(segmenter, [first], tmp_path)
    apply_segmenter(segmenter, [second], tmp_path)
    with (tmp_path / "segments.csv").open() as file:
        assert [row["slide"] for row in csv.DictReader(file)] == ["case-1", "case-2"]
    outline = tmp_path / "case-1.geojson"
    corrected = outline.read_text().replace("Predicted", "corrected")
    outline.write_text(corrected)
    for _ in range(2):  # and after that it is still known as changed
        left, other = apply_segmenter(segmenter, [first, second], tmp_path)
        assert outline.read_text() == corrected
        assert "case-1.geojson was changed since it was written, and is left as it is." in left.note
        assert other.note == ""
    outline.unlink()
    assert apply_segmenter(segmenter, [first], tmp_path)[0].note == ""
    assert "Predicted" in outline.read_text()


def test_a_copy_without_names_has_the_fingerprint_of_its_original(segmenter, tmp_path):
    save_segmenter(tmp_path / "a.safetensors", segmenter)
    _, original = read_segmenter_card(tmp_path / "a.safetensors")
    card = replace(segmenter.card, trained_on=("x",), copy_of=original)
    save_segmenter(tmp_path / "b.safetensors", replace(segmenter, card=card))
    assert read_segmenter_card(tmp_path / "b.safetensors")[1] == original


def blobs(seed, tissue_columns=60):
    """A map of smooth random tumour with holes, on 60 x 50 cells of 80.4 x 79.6 level-0 pixels."""
    rng = np.random.default_rng(seed)
    from scipy import ndimage

    field = ndimage.gaussian_filter(rng.normal(size=(50, 60)), 3)
    tissue = np.zeros((50, 60), bool)
    tissue[:, :tissue_columns] = True
    probability = np.where(tissue, 1 / (1 + np.exp(-40 * field)), 0).astype(np.float32)
    grid = CellGrid((50, 60), (80.4, 79.6), tissue)
    return TumourMap(probability, grid, 0.5, (4790, 3970), (120, 40))


@pytest.mark.parametrize("seed", range(4))
def test_a_region_goes_to_qupath_and_back_with_the_same_tiles(seed, tmp_path):
    tumour = blobs(seed, 40)
    write_geojson(tmp_path / "a.geojson", tumour, "Tumor")
    drawing = read_annotations(tmp_path / "a.geojson")
    assert not drawing.notes
    x, y = (
        grid.ravel() for grid in np.meshgrid(np.arange(0, 4700, 224.0), np.arange(0, 3900, 224.0))
    )
    # QuPath counts from the scanned part's corner.
    shares = [
        coverage(region, x - dx, y - dy, (224, 224))
        for region, dx, dy in ((tumour.region, 0, 0), (drawing.region(["Tumor"]), 120, 40))
    ]
    assert np.abs(shares[0] - shares[1]).max() < 1e-5
    assert 0.1 < shares[0].mean() < 0.9


@pytest.mark.parametrize("seed", range(4))
def test_a_region_follows_the_mask(seed):
    tumour = blobs(seed, 40)
    x, y = tumour.grid.corners_l0()
    shares = coverage(tumour.region, x, y, tumour.grid.side_l0).reshape(tumour.mask.shape)
    assert np.abs(shares - tumour.mask).mean() < 0.06  # cells that the outline crosses
    assert shares[~tumour.grid.tissue].max() < 0.26  # smoothing may cut a corner, not more
    assert tumour.region.area == pytest.approx(tumour.mask.sum() * 80.4 * 79.6, rel=0.03)
    assert tumour.tumour_mm2 == pytest.approx(tumour.mask.sum() * CELL_UM**2 / 1e6)
    assert all(part.area >= 4 * 80.4 * 79.6 for part in shapely.get_parts(tumour.region))
    means = [tumour.mean_probability(part) for part in shapely.get_parts(tumour.region)]
    assert min(means) > 0.5


def test_the_region_ends_where_the_slide_does():
    tumour = blobs(0)
    everywhere = replace(tumour, probability=np.ones_like(tumour.probability))
    assert everywhere.region.bounds == (0, 0, 4790, 3970)
    nowhere = replace(tumour, probability=np.zeros_like(tumour.probability))
    assert nowhere.region.is_empty
    assert nowhere.tumour_of_tissue == 0


def test_glass_has_no_say_in_what_tissue_beside_it_is():
    tissue = np.zeros((9, 9), bool)
    tissue[:, :4] = True
    probability = np.where(tissue, 0.8, 0.0).astype(np.float32)
    np.testing.assert_allclose(smooth_over_tissue(probability, tissue), probability, atol=1e-6)


def test_a_slide_opened_at_another_scale_has_its_cells_there(segmenter, study):
    with open_slide(study.folder / "slides" / "case-1.tiff", mpp=1.25) as slide:
        tumour = segmenter.tumour_map(slide)
    assert tumour.grid.shape == (25, 25)
    assert tumour.grid.side_l0 == (16, 16)
