"""`mil explain --all`: what it says of the whole run, and what it must not keep to itself."""

import csv
import json
import re
from pathlib import Path

import pytest

from cli.explain import ExplainOptions, explain
from cli.options import UsageError
from features.bags.bag import read_bag, write_bag
from features.errors import AnnotationError
from mil.errors import FitError, RunError
from mil.explanation import compare_methods, methods
from mil.heads.registry import head_class
from mil.learning.fitted import save_model
from mil.learning.training import fit_model
from mil.runs.record import finish_run, start_run
from tests.features.making import box_ring, feature, write_geojson
from tests.mil.made import QUICK, made_bag, made_cohort

SLIDES = ("a", "b", "c")
SUITED = [method for method in methods.bag_methods() if method.suits(head_class("abmil"))]


@pytest.fixture
def trained(tmp_path, request):
    """A run of `mil train` and the store of three slides it names; the first is of a case it learnt from."""
    cohort, n_tiles = made_cohort(), getattr(request, "param", 9)
    for slide in SLIDES:
        write_bag(tmp_path / "store" / f"{slide}.h5", made_bag(slide, n_tiles=n_tiles))
    checksums = {name: read_bag(tmp_path / "store" / f"{name}.h5").data_sha256 for name in SLIDES}
    facts = {
        "recipe": dict(cohort.recipe), "bags": checksums, "classes": cohort.classes,
        "cases": dict(zip(SLIDES, (cohort.cases[0].name, "new-1", "new-2"), strict=True)),
    }  # fmt: skip
    settings = {"model": "abmil", "store": str(tmp_path / "store")}
    run = start_run(tmp_path / "trained", "train", settings, facts)
    run.model_path("abmil").parent.mkdir()
    fitted = fit_model("abmil", cohort.cases, (), cohort.classes, QUICK, seed=0)
    save_model(run.model_path("abmil"), fitted)
    return finish_run(run).path


@pytest.fixture
def explained(trained, tmp_path, capsys):
    """What `--all` prints, and the rows of its table: explained(...) -> (str, list of dict)."""

    def explain_all(**options):
        explain(ExplainOptions(run=trained, all=True, out=tmp_path / "out", **options))
        with (tmp_path / "out" / "faithfulness-abmil.csv").open() as file:
            rows = list(csv.DictReader(file))
        return " ".join("".join(capsys.readouterr()).split()), rows

    return explain_all


def test_all_methods_on_all_slides_are_ranked(explained):
    output, rows = explained()
    assert len(rows) == 3 * len(SUITED)
    assert {row["slide"] for row in rows} == set(SLIDES)
    for row in rows:
        assert float(row["gain"]) == pytest.approx(
            float(row["insertion"]) - float(row["deletion"]), abs=1e-5
        )
    assert "better than random" in output
    assert "Most faithful for abmil" in output or "No method's maps of abmil" in output


@pytest.mark.parametrize("trained", [1], indirect=True)
def test_infidelity_to_single_tiles_is_printed_as_a_dash(explained):
    output, rows = explained()
    assert {row["infidelity"] for row in rows} == {""}
    assert len(re.findall(r" - [01]/3", output)) == len(SUITED)


def test_slides_that_taught_the_model_are_counted(explained):
    assert "The model may have been trained on 1 of 3 slides." in explained()[0]


def test_a_run_that_may_have_guessed_has_no_most_faithful_method(trained, explained):
    result = {"model": "abmil", "correct": 7, "n": 20, "p_chance": 0.001, "p_majority": 0.3}
    (trained / "metrics.json").write_text(json.dumps({"models": [result]}))
    output, _ = explained()
    assert "These cases do not show that abmil beats guessing (7 of 20" in output
    assert "Most faithful" not in output


def test_a_slide_without_a_drawing_or_with_nothing_known_in_it_is_ranked_all_the_same(
    explained, tmp_path
):
    drawn = tmp_path / "drawn"
    drawn.mkdir()
    write_geojson(drawn / "a.geojson", feature(box_ring(0, 0, 3 * 448, 448)))
    write_geojson(drawn / "b.geojson", feature(box_ring(0, 448, 448, 896)))  # beside all tiles
    output, rows = explained(regions=drawn)
    assert "No annotation of 1 slide: c." in output
    assert "No tile, or every tile, in the regions of 1 slide: b." in output
    known = {
        slide: {row["known_auc"] != "" for row in rows if row["slide"] == slide} for slide in SLIDES
    }
    assert known == {"a": {True}, "b": {False}, "c": {False}}


def test_a_method_that_does_not_suit_the_model_is_named_with_the_reason(explained, monkeypatch):
    def refuse(target):
        raise FitError("No such answer for this model.")

    monkeypatch.setattr("mil.explanation.evidence.evidence_scores", refuse)
    output, rows = explained()
    assert "No such answer for this model." in output
    assert {row["method"] for row in rows} == {method.name for method in methods.bag_methods()} - {
        "evidence"
    }


def test_a_drawing_that_cannot_be_read_ends_it(explained, tmp_path):
    (tmp_path / "drawn").mkdir()
    (tmp_path / "drawn" / "a.geojson").write_text("{not JSON")
    with pytest.raises(AnnotationError, match=r"a\.geojson"):
        explained(regions=tmp_path / "drawn")


def test_what_was_cut_off_goes_on_and_ends_the_same(explained, tmp_path, monkeypatch):
    output, rows = explained()
    (tmp_path / "out" / "faithfulness-abmil.csv").unlink()
    done, target_of = [], compare_methods.explanation_target

    def cut(fitted, bag, name=None):
        if bag.slide == "c" and "c" not in done:
            done.append("c")
            raise KeyboardInterrupt
        done.append(bag.slide)
        return target_of(fitted, bag, name)

    monkeypatch.setattr(compare_methods, "explanation_target", cut)
    with pytest.raises(KeyboardInterrupt):
        explained()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["faithfulness-abmil.part.csv"]
    assert explained() == (output, rows)
    assert done == ["a", "b", "c", "c"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["faithfulness-abmil.csv"]


def test_rows_of_another_question_are_not_taken_up(explained, tmp_path, monkeypatch):
    part = tmp_path / "out" / "faithfulness-abmil.part.csv"
    monkeypatch.setattr("pathlib.Path.unlink", lambda *_args, **_named: None)
    _, called = explained()
    assert part.is_file()
    _, rows = explained(class_name="class-a")
    assert {row["class"] for row in rows} == {"class-a"}
    assert {row["class"] for row in called} != {"class-a"} or rows == called


def test_a_changed_bag_ends_it(explained, tmp_path):
    write_bag(tmp_path / "store" / "b.h5", made_bag("b", n_tiles=9, seed=1))
    with pytest.raises(RunError, match="The bag of b has changed"):
        explained()


def test_a_slide_of_the_run_is_explained_by_its_name(trained, tmp_path):
    for folder, source in (("name", "b"), ("bag", tmp_path / "store" / "b.h5")):
        explain(ExplainOptions(run=trained, input=Path(source), out=tmp_path / folder))
    tables = [next((tmp_path / folder).glob("b-*.csv")).read_text() for folder in ("name", "bag")]
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("new-2", "new-2 is a case; its slide is c"),
        ("a2", "Did you mean 'a'"),
        ("zz", "Name one of its"),
    ],
)
def test_a_name_that_is_no_slide_of_the_run_is_refused_with_the_nearest(
    trained, tmp_path, name, hint
):
    with pytest.raises(UsageError) as caught:
        explain(ExplainOptions(run=trained, input=Path(name), out=tmp_path / "out"))
    assert f"there is no such file, and the run has no slide of this name. {hint}" in str(
        caught.value
    )
    assert not (tmp_path / "out").exists()


def test_a_named_slide_has_no_pixels_without_its_folder(trained, tmp_path):
    with pytest.raises(FitError, match="ome_tiff needs the slide itself"):
        explain(ExplainOptions(run=trained, input=Path("b"), out=tmp_path / "out", ome_tiff=True))
