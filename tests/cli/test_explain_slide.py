"""What `mil explain` takes from the slide itself: its size, its scale, its pixels as they were embedded."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile

import mil
from cli.explain import ExplainOptions, explain
from cli.options import UsageError
from features.bags.bag import write_bag
from features.errors import BackboneError, SlideError
from features.extraction.extract import extract
from features.extraction.jobs import SlideJob, identify_files
from features.files.checksum import fingerprint
from features.recipe import Recipe
from mil.data.case import Case
from mil.errors import FitError, RunError
from mil.explanation.models import choose_target
from mil.explanation.slides import MOST_PX, draw_picture, open_bag_slide
from mil.explanation.target import explanation_target
from mil.explanation.write import RANDOM_WEIGHTS
from mil.learning.fitted import save_model
from mil.learning.training import fit_model
from mil.runs.record import finish_run, start_run
from mil.runs.run import open_run
from tests.features.making import box_ring, feature, noise, write_geojson, write_tiff
from tests.mil.made import QUICK, cohort_of, made_bag, made_cohort


@pytest.fixture
def trained(tmp_path):
    """A run of `mil train` on made-up bags; of slide "s" the table knows case and label."""
    return run_of(tmp_path / "trained", made_cohort(), labels={"s": "class-a"}, cases={"s": "s"})


def run_of(path, cohort, **facts):
    data = {"recipe": dict(cohort.recipe), "cases": {}} | facts
    run = start_run(path, "train", {"model": "abmil"}, data)
    run.model_path("abmil").parent.mkdir()
    fitted = fit_model("abmil", cohort.cases, (), cohort.classes, QUICK, seed=0)
    save_model(run.model_path("abmil"), fitted)
    return finish_run(run).path


# --- the slide of the bag


def opened(file, bag, *, slide_mpp=None, notices=None):
    return open_bag_slide(file, bag, slide_mpp, [].append if notices is None else notices.append)


def test_a_slide_that_says_no_scale_has_that_of_its_bag(tmp_path):
    write_tiff(tmp_path / "s.tiff", [noise(900, 2700)], mpp=None)
    bag = made_bag("s", size_l0=(2700, 900), mpp_l0=(0.3, 0.3))
    with pytest.raises(SlideError, match="micrometres"), opened(tmp_path / "s.tiff", bag):
        pass
    stated_mpp = replace(bag, mpp_source="argument")
    with opened(tmp_path / "s.tiff", stated_mpp) as slide:
        assert slide.mpp == (0.3, 0.3)
    with opened(tmp_path / "s.tiff", stated_mpp, slide_mpp=0.4) as slide:
        assert slide.mpp == (0.4, 0.4)


def test_a_slide_of_another_size_is_refused(tmp_path):
    write_tiff(tmp_path / "s.tiff", [noise(900, 2700)])
    with (
        pytest.raises(SlideError, match=r"2700 x 900 pixels, the bag's slide 900 x 2700\. Give"),
        opened(tmp_path / "s.tiff", made_bag("s", size_l0=(900, 2700))),
    ):
        pass


def test_a_file_of_other_content_is_noticed(tmp_path):
    write_tiff(tmp_path / "s.tiff", [noise(900, 2700)])
    own = fingerprint({"files": identify_files(SlideJob(slide="s", files=(tmp_path / "s.tiff",)))})
    for source, count in ((own, 0), ("another", 1), ("", 0)):
        bag = made_bag("s", size_l0=(2700, 900), source_sha256=source)
        notices = []
        with opened(tmp_path / "s.tiff", bag, notices=notices):
            pass
        assert ["is not the file that the bag of s" in notice for notice in notices] == [
            True
        ] * count


# --- the scale of the picture


@pytest.mark.parametrize(("mpp", "size"), [(1.0, (675, 225)), (0.5, (1350, 450))])
def test_the_picture_has_the_requested_scale(tmp_path, mpp, size):
    write_tiff(tmp_path / "s.tiff", [noise(900, 2700)])
    with opened(tmp_path / "s.tiff", made_bag("s", size_l0=(2700, 900))) as slide:
        assert draw_picture(slide, mpp).size == size
        assert max(draw_picture(slide, 0.1).size) <= 2700  # no finer than the slide


def test_too_large_a_picture_is_refused_with_the_scale_that_is_not(tmp_path):
    write_tiff(tmp_path / "s.tiff", [noise(900, 2700)])
    with opened(tmp_path / "s.tiff", made_bag("s", size_l0=(2700, 900))) as slide:
        least = 2700 * 0.25 / MOST_PX
        with pytest.raises(SlideError, match=rf"67500 pixels.*Set mpp to {least:.2g} or more"):
            draw_picture(slide, 0.01)
        assert draw_picture(slide, 1.01 * least).size


def test_mpp_is_that_of_the_map_and_of_the_finest_level(trained, tmp_path):
    write_bag(tmp_path / "s.h5", made_bag("s", size_l0=(2700, 900)))
    settings = {"run": trained, "input": tmp_path / "s.h5", "mpp": 0.5}
    with pytest.raises(UsageError, match=r"mpp needs the slide itself\. Set slides"):
        explain(ExplainOptions(**settings, out=tmp_path / "out"))
    (tmp_path / "slides").mkdir()
    write_tiff(tmp_path / "slides" / "s.tiff", [noise(900, 2700)])
    with_slide = settings | {"slides": tmp_path / "slides", "ome_tiff": True}
    explain(ExplainOptions(**with_slide, out=tmp_path / "out"))
    [painted] = (tmp_path / "out").glob("*.ome.tiff")
    with tifffile.TiffFile(painted) as tiff:
        assert tiff.series[0].shape == (450, 1350, 3)
    explain(ExplainOptions(**with_slide | {"mpp": 8.0}, out=tmp_path / "coarse"))
    fine, coarse = (
        (tmp_path / folder / "s-abmil-evidence.png").read_bytes() for folder in ("out", "coarse")
    )
    assert fine != coarse
    for wrong in (-1.0, float("inf"), float("nan")):
        with pytest.raises(UsageError, match="mpp must be a number above 0"):
            explain(ExplainOptions(**settings | {"mpp": wrong}, out=tmp_path / "out"))


# --- the class


@pytest.mark.parametrize(
    ("regions", "named", "label", "expected"),
    [
        (True, None, "class-a", "class-a"),
        (True, "class-b", "class-a", "class-b"),
        (False, None, "class-a", None),
        (True, None, "a class no model knows", None),
    ],
)
def test_beside_regions_the_class_is_that_of_the_table(tmp_path, regions, named, label, expected):
    run = open_run(run_of(tmp_path / "run", made_cohort(), labels={"s": label}, cases={"s": "s"}))
    cohort = made_cohort()
    fitted = fit_model("abmil", cohort.cases, (), cohort.classes, QUICK, seed=0)
    chosen = choose_target(run, made_bag("s"), fitted, named, tmp_path if regions else None)
    assert chosen == expected


def test_the_class_of_the_table_is_what_the_map_explains(trained, tmp_path):
    bag = made_bag("s", n_tiles=12)
    write_bag(tmp_path / "s.h5", bag)
    write_geojson(tmp_path / "s.geojson", feature(box_ring(0, 0, 3 * 448, 448)))
    for label in ("class-a", "class-b"):
        info = json.loads((trained / "run.json").read_text()) | {"labels": {"s": label}}
        (trained / "run.json").write_text(json.dumps(info))
        settings = {"run": trained, "input": tmp_path / "s.h5", "regions": tmp_path}
        out = tmp_path / label
        explain(ExplainOptions(**settings, method="evidence", out=out))
        [card] = out.glob("*.json")
        assert json.loads(card.read_text())["class"] == label


# --- what is refused before any work


def test_a_place_that_cannot_be_written_is_refused_first(trained, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"is a file\. Name a folder"):
        explain(ExplainOptions(run=trained, input=tmp_path / "none.h5", out=tmp_path / "file"))


# --- the pixels


def tissue_like(colours, seed):
    """Pixels between glass and two stains, by Beer and Lambert."""
    amounts = np.random.default_rng(seed).gamma(2.0, 0.35, (448, 448, 2))
    return np.clip(255 * np.exp(-amounts @ np.asarray(colours)), 0, 255).astype(np.uint8)


STAINS = {
    "a": ([0.65, 0.70, 0.29], [0.07, 0.99, 0.11]),
    "b": ([0.50, 0.75, 0.43], [0.2, 0.9, 0.35]),
}


@pytest.fixture
def embedded(tmp_path):
    """A model on bags of two slides, of which b's stain was brought to a's before it was embedded."""
    for seed, (name, colours) in enumerate(STAINS.items()):
        write_tiff(tmp_path / f"{name}.tiff", [tissue_like(colours, seed)], mpp=0.5)
        write_geojson(tmp_path / f"{name}.geojson", feature(box_ring(0, 0, 448, 448)))
    recipe = Recipe(
        backbone="resnet18", weights="random", mpp=0.5, tile=64, precision="fp32", max_tiles=6,
        stain="reinhard", stain_reference=("a",),
    )  # fmt: skip
    jobs = [
        SlideJob(slide=name, files=(tmp_path / f"{name}.tiff",), annotations=tmp_path, case=name)
        for name in STAINS
    ]
    extract(jobs, recipe, tmp_path / "store")
    from features.bags.bag import read_bag

    cases = [
        Case(name=name, label=name, bags=(read_bag(tmp_path / "store" / f"{name}.h5"),), other={})
        for name in STAINS
    ]
    return run_of(tmp_path / "run", cohort_of(cases))


def test_grad_cam_looks_at_tiles_as_they_were_embedded(embedded, tmp_path, capsys, monkeypatch):
    settings = {"run": embedded, "input": tmp_path / "store" / "b.h5", "method": "grad-cam"}
    with_slide = settings | {"slides": tmp_path, "out": tmp_path / "out"}
    explain(ExplainOptions(**with_slide))
    names = {path.name for path in (tmp_path / "out").glob("*evidence-*.png")}
    assert names == {"b-abmil-evidence-tiles.png", "b-abmil-evidence-grad-cam.png"}
    output = " ".join("".join(capsys.readouterr()).split())
    assert RANDOM_WEIGHTS in output
    assert "score differently" not in output
    monkeypatch.setattr("features.extraction.normalisation.tile_normaliser", lambda *_: None)
    explain(ExplainOptions(**with_slide))
    assert "score differently" in " ".join("".join(capsys.readouterr()).split())


def test_grad_cam_shows_where_a_risk_lies(embedded, mil, tmp_path):
    rows = [f"{name},{name},{5 + 4 * n},1" for n, name in enumerate(STAINS)]
    (tmp_path / "followed.csv").write_text("\n".join(["case,slide,time,event", *rows]) + "\n")
    mil(
        "train", "followed.csv", "store", "--task", "survival", "--time-unit", "days", "--model", "abmil",
        "--epochs", "1", "--seeds", "1", "--quiet", "--out", "risk", cwd=tmp_path,
    )  # fmt: skip
    bag = f"store/{next(iter(STAINS))}.h5"
    mil(
        "explain",
        "risk",
        bag,
        "--method",
        "grad-cam",
        "--slides",
        ".",
        "--out",
        "seen",
        cwd=tmp_path,
    )
    assert (tmp_path / "seen" / f"{next(iter(STAINS))}-abmil-evidence-grad-cam.png").is_file()
    assert embedded.is_dir()


def test_bags_of_another_tool_have_no_network_to_look_into(embedded, tmp_path):
    info = json.loads((embedded / "run.json").read_text())
    info["recipe"]["region"] = "converted"
    (embedded / "run.json").write_text(json.dumps(info))
    settings = {"run": embedded, "input": tmp_path / "store" / "b.h5", "method": "grad-cam"}
    with pytest.raises(BackboneError, match="made by another tool"):
        explain(ExplainOptions(**settings, slides=tmp_path, out=tmp_path / "out"))


def test_a_bag_of_another_width_is_refused(trained, tmp_path):
    cohort = made_cohort()
    fitted = fit_model("abmil", cohort.cases, (), cohort.classes, QUICK, seed=0)
    with pytest.raises(FitError, match="tiles have 7 features, the model reads 5"):
        explanation_target(fitted, made_bag("s", dim=7))


@pytest.mark.parametrize("features", [np.zeros((0, 5)), np.full((3, 5), np.nan)])
def test_a_bag_without_numbers_is_refused(features):
    cohort = made_cohort()
    fitted = fit_model("abmil", cohort.cases, (), cohort.classes, QUICK, seed=0)
    with pytest.raises(FitError, match="s: the bag has no tile, or values that are not finite"):
        explanation_target(fitted, made_bag("s", features.astype(np.float32)))


def drawn_run(tmp_path):
    """A run on tiles of 32 px inside annotations of class Tumor, with a slide that another class outlines."""
    recipe = Recipe(backbone="test_resnet", weights="random", mpp=0.5, tile=32, classes=("Tumor",))
    jobs = []
    for n, name in enumerate("abc"):
        write_tiff(tmp_path / f"{name}.tiff", [noise(320, 320, seed=n)], mpp=0.5)
        drawing = feature(box_ring(0, 0, 224, 224), classification="Tumor" if n < 2 else "Lesion")
        write_geojson(tmp_path / f"{name}.geojson", drawing)
        jobs.append(SlideJob(slide=name, files=(tmp_path / f"{name}.tiff",), annotations=tmp_path))
    extract(jobs[:2], recipe, tmp_path / "store")
    from features.bags.bag import read_bag

    cases = [
        Case(name=n, label=n, bags=(read_bag(tmp_path / "store" / f"{n}.h5"),), other={})
        for n in "ab"
    ]
    return run_of(tmp_path / "run", cohort_of(cases))


def test_a_slide_is_explained_beside_bags_that_answers_were_made_of(tmp_path):
    run = drawn_run(tmp_path)
    settings = {"annotations": tmp_path, "classes": ("Lesion",)}
    mil.predict_slides(run, tmp_path / "c.tiff")  # all tissue of it
    mil.predict_slides(run, tmp_path / "c.tiff", **settings)
    opened = mil.open_run(run)
    explained = opened.write_map(tmp_path / "c.tiff", tmp_path / "out", **settings)
    assert len(explained.scores.values) == 49
    with pytest.raises(FitError, match="no annotation of class 'Tumor'; the file has Lesion x1"):
        opened.write_map(tmp_path / "c.tiff", tmp_path / "out", annotations=tmp_path)
    bag = next((run / "bags").glob("annotations-*/c.h5"))
    with pytest.raises(
        FitError, match=r"classes \['Lesion'\] where it learnt from.*Set classes to"
    ):
        opened.write_map(bag, tmp_path / "out")
    assert opened.write_map(bag, tmp_path / "out", classes=("Lesion",)).paths


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"settings": {"segment": "per-fold"}}, "Each fold of .* has a segmenter of its own.*predict_slides"),
        ({"settings": {"finetune": "per-fold"}}, "has a backbone of its own"),
        ({"recipe": {"region": "segmented"}}, "Extract the slide with the same segmenter and give its bag"),
    ],
)  # fmt: skip
def test_a_new_slide_whose_tiles_a_segmenter_selects_is_refused_first(
    trained, tmp_path, facts, reason
):
    info = json.loads((trained / "run.json").read_text())
    for name, values in facts.items():
        info[name] |= values
    (trained / "run.json").write_text(json.dumps(info))
    (tmp_path / "x.tiff").touch()
    with pytest.raises(RunError, match=reason):
        mil.open_run(trained).write_map(tmp_path / "x.tiff", tmp_path / "out")
