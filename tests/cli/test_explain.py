"""`mil explain` leaves its files where it was told to."""

import csv
import json

import pytest
import tifffile

from cli.explain import ExplainOptions, explain
from cli.options import UsageError
from features.bags.bag import write_bag
from mil.errors import RunError
from mil.explanation.known import known_tiles
from mil.learning.fitted import save_model
from mil.learning.training import fit_model
from mil.runs.record import finish_run, start_run
from tests.features.making import box_ring, feature, noise, write_geojson, write_tiff
from tests.mil.made import QUICK, made_bag, made_cohort


@pytest.fixture
def trained(tmp_path):
    """A run of `mil train` on made-up bags."""
    cohort = made_cohort()
    data = {"recipe": dict(cohort.recipe), "cases": {}}
    run = start_run(tmp_path / "trained", "train", {"model": "abmil"}, data)
    run.model_path("abmil").parent.mkdir()
    fitted = fit_model("abmil", cohort.cases, (), cohort.classes, QUICK, seed=0)
    save_model(run.model_path("abmil"), fitted)
    return finish_run(run).path


def test_slide_in_a_folder_is_explained_inside_out_and_beside_its_namesake(trained, tmp_path):
    for slide in ("site-1/a", "site-2/a"):
        path = tmp_path / "store" / f"{slide}.h5"
        write_bag(path, made_bag(slide))
        explain(ExplainOptions(run=trained, input=path, out=tmp_path / "out"))
    left = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*")}
    assert left == {
        f"site-{site}%2Fa-abmil-evidence.{suffix}"
        for site in (1, 2)
        for suffix in ("csv", "geojson", "json", "png")
    }


def test_a_model_that_another_fit_has_replaced_is_not_explained(trained, tmp_path):
    cohort = made_cohort(seed=1)
    other = fit_model("abmil", cohort.cases, (), cohort.classes, QUICK, seed=1)
    save_model(trained / "models" / "abmil.safetensors", other)
    path = tmp_path / "a.h5"
    write_bag(path, made_bag("a"))
    with pytest.raises(RunError, match="not as the run wrote it"):
        explain(ExplainOptions(run=trained, input=path, out=tmp_path / "out"))


def test_the_map_is_painted_on_the_slide_of_the_bag_or_refused_without_it(trained, tmp_path):
    bag = made_bag("a", size_l0=(2700, 900))
    write_bag(tmp_path / "a.h5", bag)
    settings = {
        "run": trained,
        "input": tmp_path / "a.h5",
        "out": tmp_path / "out",
        "ome_tiff": True,
    }
    with pytest.raises(
        UsageError, match=r"ome_tiff needs the slide itself\. Set slides to the folder"
    ):
        explain(ExplainOptions(**settings))
    (tmp_path / "slides").mkdir()
    write_tiff(tmp_path / "slides" / "a.tiff", [noise(900, 2700)])
    explain(ExplainOptions(**settings, slides=tmp_path / "slides"))
    [path] = (tmp_path / "out").glob("*.ome.tiff")
    with tifffile.TiffFile(path) as tiff:
        assert tiff.series[0].shape == (225, 675, 3)  # of 0.25 micrometres per pixel, at 1


def test_every_method_leaves_a_map_of_its_own_that_says_how_faithful_it_is(trained, tmp_path):
    path = tmp_path / "s.h5"
    write_bag(path, made_bag("s", n_tiles=30))
    for method, ordered in (("evidence", "tiles"), ("shapley", "regions")):
        explain(
            ExplainOptions(
                run=trained, input=path, method=method, class_name="class-b", out=tmp_path / "out"
            )
        )
        card = json.loads((tmp_path / "out" / f"s-abmil-{method}-class-b.json").read_text())
        assert (card["method"], card["class"]) == (method, "class-b")
        assert f"than random orders of {ordered} (" in card["faithfulness"]["verdict"]
        with (tmp_path / "out" / f"s-abmil-{method}-class-b.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert {row["class"] for row in rows} == {"class-b"}
        values = [float(row[method]) for row in rows]
        assert sum(values) == pytest.approx(
            card["map"]["explained" if method == "evidence" else "sum"], abs=1e-5
        )


def test_measures_of_a_single_tile_are_undefined(trained, tmp_path, capsys):
    path = tmp_path / "s.h5"
    write_bag(path, made_bag("s", n_tiles=1))
    explain(ExplainOptions(run=trained, input=path, method="evidence", out=tmp_path / "out"))
    assert "infidelity undefined (0: the scores predict" in " ".join(
        capsys.readouterr().out.split()
    )


def test_unknown_method_is_refused_with_the_nearest(trained, tmp_path):
    settings = {"run": trained, "input": tmp_path / "s.h5", "out": tmp_path}
    with pytest.raises(UsageError, match="Did you mean 'attention'"):
        explain(ExplainOptions(method="atention", **settings))
    with pytest.raises(UsageError, match=r"No method 'deep-lift'.*shapley"):
        explain(ExplainOptions(method="deep-lift", **settings))


@pytest.mark.parametrize("every", [True, False])
def test_one_slide_or_all_of_them(trained, tmp_path, every):
    bag_path = tmp_path / "s.h5" if every else None
    with pytest.raises(UsageError, match="or --all"):
        explain(ExplainOptions(run=trained, input=bag_path, all=every, out=tmp_path))


def test_pixels_need_the_slide(trained, tmp_path):
    write_bag(tmp_path / "s.h5", made_bag("s"))
    settings = {"run": trained, "input": tmp_path / "s.h5", "method": "grad-cam", "out": tmp_path}
    with pytest.raises(UsageError, match=r"grad-cam needs the slide itself\. Set slides"):
        explain(ExplainOptions(**settings))
    (tmp_path / "slides").mkdir()
    write_tiff(tmp_path / "slides" / "other.tiff", [noise(300, 300)])
    with pytest.raises(UsageError, match="holds no slide s"):
        explain(ExplainOptions(**settings, slides=tmp_path / "slides"))


@pytest.mark.parametrize(("p", "warned"), [(0.3, True), (0.01, False)])
def test_map_of_a_model_that_may_have_guessed_says_so(trained, tmp_path, p, warned):
    result = {"model": "abmil", "correct": 7.0, "n": 20, "p_chance": 0.001, "p_majority": p}
    (trained / "metrics.json").write_text(json.dumps({"models": [result]}))
    write_bag(tmp_path / "s.h5", made_bag("s"))
    explain(ExplainOptions(run=trained, input=tmp_path / "s.h5", out=tmp_path / "out"))
    guessing = json.loads((tmp_path / "out" / "s-abmil-evidence.json").read_text())["guessing"]
    sentence = (
        "These cases do not show that abmil beats guessing (7 of 20 right, p = 0.300): do not read its maps "
        "as showing the disease."
    )
    assert guessing == (sentence if warned else "")


def test_tiles_inside_what_was_drawn_are_the_known_ones(tmp_path):
    from shapely.geometry import box, mapping

    (tmp_path / "s.geojson").write_text(json.dumps(mapping(box(448, 0, 3 * 448 + 100, 448))))
    assert known_tiles(tmp_path, made_bag("s")).tolist() == [False, True, True, False, False, False]
    moved = made_bag("s", bounds_l0=(448, 0), annotation_origin="bounds")
    assert known_tiles(tmp_path, moved).tolist() == [False, False, True, True, False, False]


def test_a_class_that_is_not_predicted_has_files_of_its_own(trained, tmp_path, capsys):
    write_bag(tmp_path / "s.h5", made_bag("s"))
    left = {}
    for name in (None, "class-a", "class-b"):
        settings = {"run": trained, "input": tmp_path / "s.h5", "method": "evidence"}
        explain(ExplainOptions(**settings, class_name=name, out=tmp_path / "out"))
        path = max((tmp_path / "out").glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
        left[name] = (path.name, json.loads(path.read_text()))
    called = left[None][1]["class"]
    [other] = {"class-a", "class-b"} - {called}
    assert left[called] == left[None]
    assert left[other][0] == f"s-abmil-evidence-{other}.json"
    assert f"{other}, probability" in (output := capsys.readouterr().out)
    assert f"; the model predicts {called}." in output
    ids = [
        {tile["id"] for tile in json.loads(path.read_text())["features"]}
        for path in sorted((tmp_path / "out").glob("*.geojson"))
    ]
    assert not ids[0] & ids[1]


def test_a_model_that_nobody_has_judged_says_so(trained, tmp_path, capsys):
    write_bag(tmp_path / "s.h5", made_bag("s"))
    explain(ExplainOptions(run=trained, input=tmp_path / "s.h5", out=tmp_path / "out"))
    [path] = (tmp_path / "out").glob("*.json")
    warnings = json.loads(path.read_text())["warnings"]
    [caveat] = [warning for warning in warnings if "Nobody" in warning]
    assert "a cross-validation with the same settings" in caveat
    assert " ".join(caveat.split()) in " ".join(capsys.readouterr().err.split())


def test_a_bag_that_changed_since_the_run_is_refused(trained, tmp_path):
    write_bag(tmp_path / "s.h5", made_bag("s"))
    info = json.loads((trained / "run.json").read_text()) | {"bags": {"s": "another"}}
    (trained / "run.json").write_text(json.dumps(info))
    with pytest.raises(RunError, match="The bag of s has changed"):
        explain(ExplainOptions(run=trained, input=tmp_path / "s.h5", out=tmp_path / "out"))


def test_what_is_to_be_ignored_is_not_what_a_map_should_find(tmp_path):
    drawn = [
        feature(box_ring(0, 0, 2 * 448, 448)),
        feature(box_ring(448, 0, 4 * 448, 448), classification="Ignore*"),
    ]
    write_geojson(tmp_path / "s.geojson", *drawn)
    assert known_tiles(tmp_path, made_bag("s")).tolist() == [True] + 5 * [False]
