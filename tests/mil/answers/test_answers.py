"""One row per slide and per case, whatever happens; the same answers from a package."""

import csv
import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from features.backbones.network_recipe import NetworkRecipe
from features.bags.bag import write_bag
from features.errors import NoTiles, NoTissue, SlideError
from features.extraction.jobs import SlideJob
from features.files.checksum import fingerprint
from features.lowpower.segmenter import (
    CellHead,
    Segmenter,
    SegmenterCard,
    read_segmenter_card,
    save_segmenter,
)  # fmt: skip
from mil.answers.card import card_of_run, describe_segmenter
from mil.answers.gather import NewSlides, _choose_mask, gather_slides
from mil.answers.maps import answer_map
from mil.answers.masks import FOLDS, OUTLINE
from mil.answers.new_inputs import NewInputs
from mil.answers.package import CARD, SEGMENTER, open_predictor, read_package, write_package
from mil.answers.predict import predict_slides
from mil.answers.risks import RiskReader
from mil.answers.run_predictor import predictor_of_run
from mil.data.case import Row
from mil.errors import CohortError, FitError, RunError
from mil.evaluation.classification.recalibration import temperature
from mil.explanation.default import default_scores
from mil.explanation.target import explanation_target
from mil.likeness.hidden import COST, hidden
from mil.likeness.reference import SlideReference
from mil.report.answers import write_answers
from mil.segmentation.application import AppliedSlide
from tests.features.making import box_ring, feature, write_geojson
from tests.mil.made import made_bag, made_cohort
from tests.mil.made_runs import make_run

RECIPE = {"backbone": "toy", "weights": "pretrained", "mpp": 0.5, "tile": 224, "min_coverage": 0.6}
AGES = [str(age) for age in np.random.default_rng(0).integers(20, 90, 16)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two repeats of two folds over 16 cases, with attention and with clinical columns."""
    folder = tmp_path_factory.mktemp("answers")
    cohort = made_cohort((8, 8), n_tiles=12, seed=1)
    return make_run(folder, cohort, ("majority", "abmil"), age=AGES)


@pytest.fixture(scope="module")
def predictor(run):
    return predictor_of_run(run, "abmil")


@pytest.fixture(autouse=True)
def _cheap_fingerprints(monkeypatch):
    monkeypatch.setitem(COST, "n", 2)


def slides_of(*bags, **unusable):
    return NewSlides(
        names=(*(bag.slide for bag in bags), *unusable),
        bags={bag.slide: bag for bag in bags},
        unusable=unusable,
        masks={},
        paths={},
    )


def test_a_known_case_is_answered_by_the_fits_that_have_not_seen_it(run, predictor):
    slide, case = next(iter(run.cases.items()))
    answers = predict_slides(predictor, slides_of(run.bag(slide)))
    [row] = answers.slides
    assert (row.case, row.trained_on) == (case, "out of fold")
    fits = [fit for fit in predictor.fits if case not in fit.model.trained_on]
    assert len(fits) == 2  # of two repeats
    logs = [np.log([fit.model.predict(run.bag(slide))[n] for n in row.values]) for fit in fits]
    others = [i for i, name in enumerate(predictor.reader.known.names) if name != hidden(case)]
    known = predictor.reader.known
    heat = temperature(np.tile(known.truth[others], 2), np.concatenate(known.p[:, others]))
    scaled = np.exp(np.mean(logs, axis=0) / heat)
    assert list(row.values.values()) == pytest.approx(scaled / scaled.sum(), abs=1e-6)
    assert "only fits that were not trained on them answer" in " ".join(answers.warnings())


def test_a_training_slide_under_another_name_is_recognised(run, predictor):
    slide = next(iter(run.cases))
    other = replace(run.bag(slide), slide="new", case="P-77")
    [row] = predict_slides(predictor, slides_of(other)).slides
    assert (row.case, row.trained_on) == ("P-77", "out of fold")
    assert any("is that of a training slide" in note for note in row.notes)
    case = run.cases[slide]
    fits = predictor.unseeing(other, predictor.known_cases(other, "P-77"))
    assert all(case not in fit.model.trained_on for fit in fits)
    assert 0 < len(fits) < len(predictor.fits)
    again = replace(made_bag("again", n_tiles=12), source_sha256="the file")
    known = replace(predictor, bags={**predictor.bags, "the file": hidden(case)})
    [row] = predict_slides(
        known, slides_of(again)
    ).slides  # embedded again, from a copy of the file
    assert row.trained_on == "out of fold"


def test_what_the_segmenter_or_the_backbone_has_learnt_from_proves_nothing(predictor):
    for seen in ({"trained_on": ("P-77",)}, {"trained_on": (hidden("p 77"),)}):
        bag = replace(made_bag("x", n_tiles=12), case="P-77", **seen)
        [row] = predict_slides(predictor, slides_of(bag)).slides
        assert row.trained_on == "yes"
        assert any("has learnt from this case" in note for note in row.notes)
    bag = replace(made_bag("x", n_tiles=12), source_sha256="f", trained_on_slides=("f",))
    answers = predict_slides(predictor, slides_of(bag))
    assert answers.slides[0].trained_on == "yes"
    assert "cannot be used to judge the model" in " ".join(answers.warnings())


def test_a_mask_of_a_slide_unlike_the_segmenters_own_answers_nothing(run, predictor):
    slide = next(iter(run.cases))
    new = slides_of(run.bag(slide))

    def segmented(**facts):
        applied = AppliedSlide(slide=slide, status="done", **facts)
        [row] = predict_slides(predictor, replace(new, segmented={slide: applied})).slides
        return row

    [row] = predict_slides(predictor, new).slides
    assert segmented() == row
    strange = segmented(ratio=2.5, unlike="unlike all", note="Unlike all, so beware.")
    assert (strange.outcome, strange.reason, strange.values) == ("abstained", "unlike all", {})
    unusual = segmented(ratio=1.2, note="Unusual.")
    assert (unusual.outcome, unusual.notes) == (row.outcome, (*row.notes, "Unusual."))


def test_one_training_slide_makes_its_whole_case_a_known_one(run, predictor):
    slide, case = next(iter(run.cases.items()))
    rows = [
        replace(row, case="X", slide=n) for row, n in zip(run.rows()[:2], ("a", "b"), strict=True)
    ]
    new, copy = made_bag("a", n_tiles=12), replace(run.bag(slide), slide="b", case="")
    forth = predict_slides(predictor, slides_of(new, copy), table=rows)
    back = predict_slides(predictor, slides_of(copy, new), table=rows)
    for answers in (forth, back):
        assert {row.trained_on for row in answers.rows} == {"out of fold"}
        assert all(case not in fit.model.trained_on for fit in answers.relations["X"].fits)
    assert forth.cases[0].values == pytest.approx(back.cases[0].values)
    made = replace(made_bag("b", n_tiles=12), trained_on=("X",))
    answers = predict_slides(predictor, slides_of(new, made), table=rows)
    assert {row.trained_on for row in answers.rows} == {"yes"}


def test_with_three_training_cases_nothing_can_be_compared(predictor):
    bags = [made_bag(f"t{i}", n_tiles=12) for i in range(3)]
    few = replace(predictor, reference=SlideReference.of_bags(bags, ["p", "q", "r"]))
    [row] = predict_slides(few, slides_of(made_bag("x", n_tiles=12))).slides
    assert (row.outcome, row.values) == ("abstained", {})
    assert "too few other training cases" in row.reason


def test_without_facts_of_the_training_slides_nothing_is_answered(predictor):
    [row] = predict_slides(replace(predictor, reference=None), slides_of(made_bag("x"))).slides
    assert (row.outcome, row.values) == ("abstained", {})
    assert "nothing is known of the slides that the model learnt from" in row.reason


def test_a_slide_that_fails_stays_with_its_case(run, predictor):
    rows = [replace(row, case="X", slide=n) for row, n in zip(run.rows()[:2], "ab", strict=True)]
    new = slides_of(made_bag("a", n_tiles=12), b=FitError("broken"))
    answers = predict_slides(predictor, new, table=rows)
    [case] = answers.cases
    assert case.case == "X"
    assert "Without b (failed)." in case.notes


def test_two_files_of_one_slide_and_regions_of_another_class_are_refused(run, predictor, tmp_path):
    for name in ("one", "two"):
        write_bag(tmp_path / f"{name}.h5", made_bag("same", n_tiles=12))
    both = NewInputs(inputs=(tmp_path / "one.h5", tmp_path / "two.h5"))
    new = gather_slides(predictor, both, tmp_path)
    assert list(new.bags) == ["one"]
    assert "holds slide same, as" in str(new.unusable["two"])
    drawn = {**run.recipe, "region": "annotations", "classes": ["Tumor"]}
    fits = tuple(replace(f, model=replace(f.model, recipe=drawn)) for f in predictor.fits)
    necrosis = made_bag("n", n_tiles=12, recipe={**drawn, "classes": ["Necrosis"]})
    [row] = predict_slides(replace(predictor, fits=fits), slides_of(necrosis)).slides
    assert row.outcome == "failed"
    assert "classes" in row.reason
    segmented = {**drawn, "region": "segmented", "classes": [], "segmenter_sha256": "1"}
    by_segmenter = made_bag("s", n_tiles=12, recipe=segmented)
    answers = predict_slides(replace(predictor, fits=fits), slides_of(by_segmenter))
    assert not answers.slides[0].is_promised
    assert answers.promise.startswith("Nothing is promised")


@pytest.mark.parametrize("region", ["segmented", "tissue", "coordinates"])
def test_too_few_tiles_abstain_however_they_were_chosen(run, predictor, region):
    """Where the region is one that the model may be shown; of other places, the number says nothing."""
    drawn = {**run.recipe, "region": "annotations", "classes": ["Tumor"]}
    fits = tuple(replace(f, model=replace(f.model, recipe=drawn)) for f in predictor.fits)
    strict = replace(predictor.reference, n_tiles=np.full(len(predictor.reference.slides), 100.0))
    few = made_bag("s", n_tiles=12, recipe={**drawn, "region": region, "classes": []})
    [row] = predict_slides(replace(predictor, fits=fits, reference=strict), slides_of(few)).slides
    counts = "too few tiles: 12, where the smallest training slide has 100" in row.reason
    assert counts is (region != "coordinates")
    assert (row.outcome == "abstained") is counts or region == "coordinates"


def test_the_outline_of_a_segmenter_that_comes_back_is_no_drawing(run, predictor, tmp_path):
    slide = next(iter(run.cases))
    new = slides_of(run.bag(slide))
    [drawn] = predict_slides(predictor, replace(new, masks={slide: "annotations"})).slides
    assert (drawn.trained_on, drawn.is_promised) == ("out of fold", True)
    [row] = predict_slides(predictor, replace(new, masks={slide: OUTLINE})).slides
    assert (row.trained_on, row.is_promised, row.values) == ("unknown", False, drawn.values)
    assert any("give it the class of a drawing in QuPath" in note for note in row.notes)
    tuned = replace(predictor, fits=tuple(
        replace(f, model=replace(f.model, recipe={**run.recipe, "region": "annotations"}))
        for f in predictor.fits
    ))  # fmt: skip
    for class_name, mask in (("Tumor", "annotations"), ("Tumor: Predicted", OUTLINE)):
        ring = feature(box_ring(0, 0, 50, 50), classification=class_name)
        write_geojson(tmp_path / "s.geojson", ring)
        inputs = NewInputs(inputs=(), annotations=tmp_path)
        job = SlideJob(slide="s", files=(tmp_path / "s.svs",))
        assert _choose_mask(tuned, inputs, job) == mask


def test_an_outline_of_a_known_case_is_not_called_unknown(run, predictor):
    slide = next(iter(run.cases))
    stranger = replace(made_bag("stranger", n_tiles=12), recipe=run.recipe)
    new = replace(
        slides_of(run.bag(slide), stranger), masks=dict.fromkeys((slide, "stranger"), OUTLINE)
    )
    outlined, unknown = predict_slides(predictor, new).warnings()
    assert f"The cases of {slide} belong to this study, but their outlines do not say" in outlined
    assert unknown.startswith("The case of stranger is not known")


@pytest.mark.parametrize(
    ("mask", "error", "reason"),
    [
        ("all tissue", NoTissue("s: none. Look."), "no tissue is found on it"),
        ("segmenters", NoTissue("s: none. Look."), "no tissue is found on it"),
        ("segmenters", NoTiles("s"), "no tile lies in what a fold's segmenter marks as tumour"),
        ("segmenter", NoTiles("s"), "no tile lies in what the segmenter marks as tumour"),
        ("annotations", NoTiles("s"), "no tile lies inside its annotation"),
        ("all tissue", NoTiles("s"), "its tissue is smaller than a tile"),
    ],
)
def test_every_reason_to_have_no_tile_is_told_apart(predictor, mask, error, reason):
    new = replace(slides_of(s=error), masks={"s": mask})
    [row] = predict_slides(predictor, new).slides
    assert (row.outcome, row.reason) == ("abstained", f"nothing to answer from: {reason}")
    assert row.mask == mask


def test_a_slide_that_cannot_be_read_has_no_mask(predictor):
    new = replace(slides_of(s=SlideError("s: no slide.")), masks={"s": "all tissue"})
    answers = predict_slides(predictor, new)
    assert [(row.outcome, row.mask) for row in (*answers.slides, *answers.cases)] == [
        ("failed", ""),
        ("failed", ""),
    ]


def drawn_predictor(run, predictor, **recipe):
    drawn = {
        **run.recipe,
        "region": "annotations",
        "classes": ["Tumor"],
        "exclude": ["Ignore*"],
        **recipe,
    }
    sha256 = fingerprint(drawn)
    fits = tuple(
        replace(f, model=replace(f.model, recipe=drawn, recipe_sha256=sha256))
        for f in predictor.fits
    )
    return replace(predictor, fits=fits), drawn


def test_another_name_of_the_same_class_is_read_where_the_user_says_so(run, predictor, tmp_path):
    drawing, drawn = drawn_predictor(run, predictor)
    own = {**drawn, "classes": ["Tumour region"]}
    write_bag(tmp_path / "s.h5", made_bag("s", n_tiles=12, recipe=own))
    inputs = NewInputs(inputs=(tmp_path / "s.h5",))
    [row] = predict_slides(drawing, gather_slides(drawing, inputs, tmp_path / "bags")).slides
    assert row.outcome == "failed"
    assert "(classes ['Tumor'] -> ['Tumour region'])" in row.reason
    assert row.reason.endswith(
        "Or set classes to those of the bag, if they are the same tissue by another name."
    )
    for classes, outcome in ((("Tumour region",), True), (("Normal",), False)):
        chosen = replace(inputs, classes=classes)
        new = gather_slides(drawing, chosen, tmp_path / "bags")
        [row] = predict_slides(drawing, new).slides
        assert (row.has_values, row.is_promised) == (outcome, True), row.reason
        assert (
            any("Tissue of class Tumour region is read as Tumor" in n for n in new.notes) is outcome
        )


def test_slides_are_read_by_the_classes_of_the_run_or_those_that_are_named(
    run, predictor, tmp_path, monkeypatch
):
    classes, folders = [], []

    def extract(_jobs, recipe, folder, *_arguments, **_options):
        classes.append(tuple(recipe["classes"]))
        folders.append(folder.relative_to(tmp_path / "bags"))
        return {"s": FitError("no")}

    monkeypatch.setattr("mil.answers.gather.extract_slides", extract)
    (tmp_path / "s.svs").touch()
    write_geojson(tmp_path / "s.geojson", feature(box_ring(0, 0, 9, 9), classification="Normal"))
    drawing, _ = drawn_predictor(run, predictor, classes=["*Sarcoma"])
    segmenting, _ = drawn_predictor(run, predictor, region="segmented", classes=[])
    file = tmp_path / "segmenter.safetensors"
    card = replace(segmenter_card(), classes=("Lesion",))
    save_segmenter(file, Segmenter(card=card, colour=CellHead(np.ones(3, np.float32), 0.0)))
    fits = tuple(replace(fit, segmenter=file) for fit in segmenting.fits)
    inputs = NewInputs(inputs=(tmp_path / "s.svs",), annotations=tmp_path)
    for one in (drawing, replace(segmenting, fits=fits), replace(segmenting, segmenter=file)):
        gather_slides(one, inputs, tmp_path / "bags")
        gather_slides(one, replace(inputs, classes=("Normal",)), tmp_path / "bags")
    assert classes == [
        ("*Sarcoma",),
        ("Normal",),
        ("Lesion",),
        ("Normal",),
        ("Lesion",),
        ("Normal",),
    ]
    assert [str(folders[0]), len(set(folders))] == [
        "annotations",
        3,
    ]  # bags of two classes never meet
    assert len(set(zip(folders, classes, strict=True))) == 3


def test_a_bag_of_another_region_is_refused_for_its_scale_and_not_for_its_region(run, predictor):
    drawing, drawn = drawn_predictor(run, predictor, annotation_origin="auto", min_coverage=0.6)
    tissue = {**drawn, "region": "tissue", "classes": [], "exclude": [], "annotation_origin": None}
    bag = made_bag("s", n_tiles=12, recipe={**tissue, "min_coverage": 0.3, "mpp": 0.31})
    [row] = predict_slides(drawing, slides_of(bag)).slides
    assert row.reason == (
        f"s: the bag does not suit model abmil (mpp {drawn['mpp']} -> 0.31). Extract the slide with the "
        "settings the model's bags were made with."
    )


def test_words_of_the_reader_stand_in_every_file(predictor, tmp_path):
    new = slides_of(made_bag("a", n_tiles=12), broken=FitError("case 7.svs: Set slide_mpp to it."))
    new = replace(new, names=("a", "case 7", "b"), unusable={
        "case 7": new.unusable["broken"], "b": FitError("its scale is unknown"),
    }, notes=("slide_mpp is said.",))  # fmt: skip
    answers = predict_slides(predictor, new).worded(lambda text: text.replace("slide_mpp", "--mpp"))
    files = write_answers(answers, tmp_path / "p.csv")
    for file in files:
        assert "slide_mpp" not in (text := file.read_text())
        assert "case 7.svs: Set --mpp to it." in text  # a name keeps its first letter
    assert "Its scale is unknown." in text
    assert "--mpp is said." in text
    assert predictor.reader.record in text
    assert json.loads(files[1].read_text())["record"] == predictor.reader.record


def test_every_slide_and_every_case_has_a_row(predictor):
    fine, other = made_bag("fine", n_tiles=12), replace(made_bag("other"), recipe={"backbone": "b"})
    foreign = made_bag("foreign", 50 + np.random.default_rng(0).normal(size=(12, 5)))
    new = slides_of(fine, other, foreign, empty=NoTiles("no tile"), broken=FitError("no slide"))
    answers = predict_slides(predictor, new)
    outcomes = {row.slide: row.outcome for row in answers.slides}
    assert outcomes.pop("fine") in ("answered", "undecided")
    assert outcomes == {
        "other": "failed", "foreign": "abstained", "empty": "abstained", "broken": "failed",
    }  # fmt: skip
    assert [row.case for row in answers.cases] == list(new.names)
    for row in answers.rows:
        assert bool(row.values) == row.has_values
        assert row.reason or row.outcome == "answered"


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_features_that_are_none_have_no_answer(predictor, value):
    features = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    features[3, 2] = value
    [row] = predict_slides(predictor, slides_of(made_bag("odd", features))).slides
    assert row.outcome in ("failed", "abstained")
    empty = replace(made_bag("none"), features=np.zeros((0, 5), np.float32))
    [row] = predict_slides(predictor, slides_of(empty)).slides
    assert (row.outcome, row.reason) == ("failed", "the bag has no tile")


def test_slides_of_a_case_answer_together_and_one_that_cannot_is_named(run, predictor):
    table = run.rows()[:3]
    rows = [replace(row, case="new", slide=name) for row, name in zip(table, "abc", strict=True)]
    bags = [made_bag(name, n_tiles=12, seed=5) for name in "ab"]
    lost = replace(made_bag("c", 50 + np.random.default_rng(0).normal(size=(12, 5))))
    answers = predict_slides(predictor, slides_of(*bags, lost), table=rows)
    [case] = answers.cases
    assert (case.case, case.n_tiles, case.trained_on) == ("new", 24, "no")
    assert "Without c (abstained)." in case.notes
    logs = np.mean(
        [
            np.log(np.mean([list(fit.model.predict(bag).values()) for bag in bags], axis=0))
            for fit in predictor.fits
        ],
        axis=0,
    )
    scaled = np.exp(logs / predictor.reader.temperature)
    assert list(case.values.values()) == pytest.approx(scaled / scaled.sum(), abs=1e-6)


def test_a_bag_that_differs_only_in_where_tiles_were_taken_is_read_and_that_is_noted(
    run, predictor
):
    tissue = made_bag("t", n_tiles=12, recipe={**run.recipe, "region": "tissue"})
    [row] = predict_slides(predictor, slides_of(tissue)).slides
    assert row.outcome in ("answered", "undecided")
    assert any("nothing is promised" in note for note in row.notes)
    assert row.mask == "all tissue"


def test_the_map_of_an_answer_is_the_mean_over_its_fits(run, predictor):
    bag = run.bag(next(iter(run.cases)))
    drawn = answer_map(predictor.fits, bag, "class-b")
    targets = [explanation_target(fit.model, bag, "class-b") for fit in predictor.fits]
    maps = [default_scores(target) for target in targets]
    assert drawn.values == pytest.approx(sum(one.values for one in maps) / len(maps))
    assert drawn.relative == pytest.approx(sum(one.relative for one in maps) / len(maps))
    assert np.abs(drawn.relative).max() > 0


def test_the_files_hold_one_row_each(predictor, tmp_path):
    new = slides_of(made_bag("a", n_tiles=12), broken=FitError("<b>no</b> slide"))
    answers = predict_slides(predictor, new)
    table, document, page = write_answers(answers, tmp_path / "p.csv")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["level"], row["case"]) for row in rows] == [
        ("slide", "a"), ("slide", "broken"), ("case", "a"), ("case", "broken"),
    ]  # fmt: skip
    values = json.loads(document.read_text())["answers"][0]["values"]
    assert [float(rows[0][name]) for name in values] == list(values.values())
    assert "&lt;b&gt;no&lt;/b&gt; slide" in page.read_text()
    assert "<script" not in page.read_text()


def test_two_inputs_of_one_name_and_missing_files(predictor, tmp_path):
    write_bag(tmp_path / "a.h5", made_bag("a"))
    with pytest.raises(RunError, match="are both called a"):
        gather_slides(
            predictor, NewInputs(inputs=(tmp_path / "a.h5", tmp_path / "x" / "a.h5")), tmp_path
        )
    two = NewInputs(inputs=(tmp_path / "a.h5", tmp_path / "no.h5"))
    new = gather_slides(predictor, two, tmp_path / "bags")
    assert list(new.bags) == ["a"]
    assert "there is no such file" in str(new.unusable["no"])


def test_a_tables_mpp_precedes_the_forced_one_which_precedes_the_files(
    predictor, tmp_path, monkeypatch
):
    jobs = []

    def extract(given, *_arguments, **_options):
        jobs.extend(given)
        return {job.slide: FitError("no") for job in given}

    monkeypatch.setattr("mil.answers.gather.extract_slides", extract)
    for name in ("a.svs", "b.svs"):
        (tmp_path / name).touch()
    new = NewInputs(
        inputs=(tmp_path / "a.svs", tmp_path / "b.svs"), slide_mpp=0.5, slide_mpp_force=0.23
    )
    tissue = replace(predictor, fits=tuple(
        replace(f, model=replace(f.model, recipe={**RECIPE, "region": "tissue", "classes": ()}))
        for f in predictor.fits
    ))  # fmt: skip
    table = [Row(line=2, case="A", slide="a", mpp=0.41), Row(line=3, case="C", slide="c")]
    gather_slides(tissue, new, tmp_path, table=table)
    assert [(job.mpp, job.mpp_source, job.fallback_mpp) for job in jobs] == [
        (0.41, "table", 0.5), (0.23, "option", 0.5),
    ]  # fmt: skip


def test_answers_are_short_in_a_notebook(predictor):
    answers = predict_slides(predictor, slides_of(made_bag("a"), made_bag("b")))
    assert repr(answers) == f"Answers({predictor.model} of {predictor.title}: 2 slides, 2 cases)"


def test_a_folder_gives_its_bags_and_a_file_counts_once(predictor, tmp_path):
    for name in ("b", "a"):
        write_bag(tmp_path / "bags.v2" / f"{name}.h5", made_bag(name, n_tiles=12))
    (tmp_path / "nothing").mkdir()
    inputs = (tmp_path / "bags.v2", tmp_path / "bags.v2" / "b.h5", tmp_path / "nothing")
    new = gather_slides(predictor, NewInputs(inputs=inputs), tmp_path / "out")
    assert (new.names, list(new.bags)) == (("a", "b", "nothing"), ["a", "b"])
    assert "a folder with neither bags (.h5) nor slides" in str(new.unusable["nothing"])


def test_the_best_model_is_taken_and_named(run):
    predictor = predictor_of_run(run)
    assert predictor.model == "abmil"
    assert "the best of 2" in predictor.notes[0]
    assert any("looks at no slide" in note for note in predictor_of_run(run, "majority").notes)
    with pytest.raises(RunError, match="abmill"):
        predictor_of_run(run, "abmill")


def test_a_package_answers_as_its_run_and_names_no_case(run, predictor, tmp_path):
    packed = write_package(predictor, card_of_run(run, predictor), tmp_path / "package")
    again = open_predictor(packed.path)
    slide = next(iter(run.cases))
    new = slides_of(run.bag(slide), made_bag("new", n_tiles=12))
    first, second = predict_slides(predictor, new), predict_slides(again, new)
    for mine, theirs in zip(first.slides, second.slides, strict=True):
        assert replace(mine, case="") == replace(theirs, case="")
    everything = b"".join(path.read_bytes() for path in packed.path.rglob("*") if path.is_file())
    names = {*run.labels, *run.cases}
    assert [name for name in names if f'"{name}"'.encode() in everything] == []
    assert "16 cases" in (packed.path / "CARD.md").read_text()
    assert [
        name for name in names if hidden(name).encode() in everything
    ] == []  # nor by a plain hash


def test_every_package_has_fingerprints_of_its_own(run, predictor, tmp_path):
    card = card_of_run(run, predictor)
    assert (card.cases, "## Cases" in card.to_markdown()) == ((), False)
    assert "- It answers among its classes." in card.to_markdown()
    of_series = replace(card, region="volume").to_markdown()
    assert "unless the series looks unlike" in of_series
    assert "slide" not in of_series.split("## Limits")[1]
    of_risks = card_of_run(run, replace(predictor, reader=RiskReader(None))).to_markdown()
    assert "- A risk orders patients: its rank is no probability, and no time." in of_risks
    assert "among its classes" not in of_risks
    one, two = (read_package(write_package(predictor, card, tmp_path / n).path) for n in "ab")
    case = next(iter(run.labels))
    assert one.hide(case) in {*one.cases.values()}
    assert {*one.cases.values()}.isdisjoint(two.cases.values())
    assert one.hide(case.upper().replace("-", " ")) == one.hide(case)
    expected = hashlib.scrypt(
        hidden(case).encode(), salt=bytes.fromhex(one.veil.salt), n=one.veil.n, r=8, p=1, dklen=12
    )
    assert one.hide(case) == expected.hex()
    [row] = predict_slides(one, slides_of(replace(made_bag("x", n_tiles=12), case=case))).slides
    assert row.trained_on == "out of fold"
    text = (tmp_path / "a" / "CARD.md").read_text()
    assert one.hide(case) in text
    assert "does not protect a name that can be guessed" in text


def test_a_package_cannot_ask_for_a_fortune(run, predictor, tmp_path):
    path = write_package(predictor, card_of_run(run, predictor), tmp_path / "package").path
    info = json.loads((path / "package.json").read_text())
    for changes in ({"n": 2**24}, {"salt": "no hex"}, {"r": None}):
        changed = {k: v for k, v in info.items() if k != "seal"} | {"veil": info["veil"] | changes}
        (path / "package.json").write_text(json.dumps(changed | {"seal": fingerprint(changed)}))
        with pytest.raises(RunError, match="not a complete package"):
            read_package(path)
    old = {k: v for k, v in info.items() if k != "seal"} | {"format_version": 1}
    (path / "package.json").write_text(json.dumps(old | {"seal": fingerprint(old)}))
    with pytest.raises(RunError, match="Pack the run again"):
        read_package(path)


def test_a_package_that_was_changed_or_exists_is_refused(run, predictor, tmp_path):
    path = write_package(predictor, card_of_run(run, predictor), tmp_path / "package").path
    with pytest.raises(RunError, match="exists"):
        write_package(predictor, card_of_run(run, predictor), path)
    with pytest.raises(RunError, match="No model 'mean'"):
        open_predictor(path, "mean")
    package = (path / "package.json").read_text()
    (path / "package.json").write_text(package.replace('"model": "abmil"', '"model": "mean"'))
    with pytest.raises(RunError, match=r"package.json is not the file that was packed"):
        read_package(path)
    (path / "package.json").write_text(package)
    (path / "CARD.md").write_text("better")
    with pytest.raises(RunError, match=r"CARD.md is not the file that was packed"):
        read_package(path)
    (path / "CARD.md").unlink()
    with pytest.raises(RunError, match="not a complete package"):
        read_package(path)


def test_a_model_of_columns_needs_the_table(run, tmp_path):
    cohort = made_cohort((8, 8), n_tiles=12, seed=1)
    clinical = make_run(tmp_path, cohort, ("clinical",), age=AGES)
    predictor = predictor_of_run(clinical)
    slide = next(iter(clinical.cases))
    with pytest.raises(CohortError, match="age"):
        predict_slides(predictor, slides_of(clinical.bag(slide)))
    [row] = predict_slides(predictor, slides_of(clinical.bag(slide)), table=clinical.rows()).slides
    assert np.isnan(row.unlike)
    assert row.has_values


def segmenter_card():
    recipe = NetworkRecipe(
        name="tf_efficientnet_lite0.in1k", architecture="tf_efficientnet_lite0", input_px=224,
        mean=(0.5,) * 3, std=(0.5,) * 3,
    )  # fmt: skip
    return SegmenterCard(
        kind="map", classes=("Tumor",), threshold=0.5, network=recipe, weights="pretrained",
        weights_sha256="", trained_on=("a", "b"), reference_cases=("a", "b"),
        evaluation={"methods": {"map": {"dice": {"value": 0.93, "low": 0.9, "high": 0.95}, "cases": 13}}},
    )  # fmt: skip


def test_a_packed_segmenter_has_the_fingerprint_of_its_original_and_names_nobody(
    run, predictor, tmp_path
):
    file = tmp_path / "s.safetensors"
    colour = CellHead(np.ones(3, np.float32), 0.0)
    save_segmenter(file, Segmenter(card=segmenter_card(), colour=colour))
    card = card_of_run(run, predictor)
    packed = write_package(predictor, card, tmp_path / "package", segmenter=file)
    inside, fingerprint = read_segmenter_card(packed.path / SEGMENTER)
    assert fingerprint == read_segmenter_card(file)[1]
    assert not {"a", "b"} & {*inside.trained_on, *inside.reference_cases}
    assert "Dice 0.93" in (packed.path / CARD).read_text()


@pytest.mark.parametrize("region", ["annotations", "segmented"])
def test_a_card_says_how_well_its_segmenter_finds_tumour(region):
    card = segmenter_card()
    text = describe_segmenter(card, region)
    assert (
        "learnt from 2 cases; Dice 0.93 (0.90 to 0.95) over 13 cases that it had not seen" in text
    )
    assert ("nothing is promised" in text) is (region == "annotations")
    assert "was not measured" in describe_segmenter(replace(card, evaluation={}), region)


def of_folds(predictor, *marked):
    """A slide of which the segmenter of each fit marks so many tiles; without any, all 40 are read."""
    own = {}
    for fit, n in zip(predictor.fits, marked, strict=True):
        bag = made_bag("s", n_tiles=n or 40, seed=n)
        own[fit.key] = replace(bag, tumour_of_tissue=n / 40)
    first = next(iter(own.values()))
    return replace(slides_of(first), masks={"s": FOLDS}, own={"s": own})


def test_what_the_segmenters_of_folds_mark_is_told_by_their_median(predictor):
    answers = predict_slides(predictor, of_folds(predictor, 0, 13, 31, 14))
    [row] = answers.slides
    assert (row.has_values, row.n_tiles) == (True, 13)  # of 0, 13, 14 and 31
    assert (
        "1 of 4 segmenters mark no tile of it as tumour: their fits read all tissue." in row.notes
    )
    assert row.tumour_mm2 == pytest.approx(0.8 * 13 * (224 / 2000) ** 2)
    assert len(answers.bag_of(row)) == 13
    [row] = predict_slides(predictor, of_folds(predictor, 12, 13, 31, 14)).slides
    assert not row.notes


@pytest.mark.parametrize(("marked", "count"), [((0, 0, 31, 14), 2), ((0, 0, 0, 14), 3)])
def test_a_slide_on_which_most_segmenters_find_nothing_is_not_answered(predictor, marked, count):
    [row] = predict_slides(predictor, of_folds(predictor, *marked)).slides
    assert (row.outcome, row.n_tiles, row.tumour_mm2) == ("abstained", 0, 0)
    assert row.reason.startswith(f"no tile lies in what {count} of 4 segmenters mark as tumour")
    [row] = predict_slides(predictor, of_folds(predictor, 2, 0, 3, 30)).slides
    assert (row.outcome, row.n_tiles) == ("abstained", 2)
    assert "too few tiles: 2, where the smallest training slide has 12" in row.reason
