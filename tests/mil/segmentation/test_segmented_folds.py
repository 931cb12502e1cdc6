"""Segmentation in each fold: no mask knows a case that it is tested on, and nothing is embedded again."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.main import app
from features.bags.bag import read_bag
from features.extraction.extract import Embedder
from features.extraction.jobs import JobSettings, SlideJob, jobs_of_paths
from features.extraction.run import extract_jobs
from features.lowpower.segmenter import load_segmenter, read_segmenter_card
from features.progress import Silent
from mil.answers.card import card_of_run
from mil.answers.fold_masks import _mean
from mil.answers.gather import _choose_mask, gather_slides
from mil.answers.masks import OTHER_SEGMENTER
from mil.answers.new_inputs import NewInputs
from mil.answers.package import read_package, write_package
from mil.answers.predict import predict_slides
from mil.answers.run_predictor import LOST_SEGMENTERS, predictor_of_run
from mil.data.cohort import load_cohort
from mil.data.splits import Fold, split_cases
from mil.errors import CohortError, FitError, RunError
from mil.likeness.hidden import COST
from mil.runs.cross_validation import Computing, Plan
from mil.runs.facts import last_place
from mil.runs.record import NewRun
from mil.runs.run import open_run
from mil.segmentation import per_fold
from mil.segmentation.application import apply_segmenter
from mil.segmentation.cases import SegmentConfig, SegmentedPipeline
from mil.segmentation.learner import read_for, tumour_ratio, with_reference
from mil.segmentation.per_fold import train_slides
from mil.segmentation.slides import DrawnSlide
from mil.settings import FitSettings, SplitSettings
from mil.study import Study
from mil.tasks.registry import task_class
from tests.mil.segmentation.test_segmented_bags import RECIPE

PLAN = Plan(
    models=("majority", "simpleshot"),
    fit=FitSettings(seeds=1),
    split=SplitSettings(folds="2"),
)


@pytest.fixture(scope="module")
def tissue(study, tmp_path_factory):
    """A table of cases 2 to 5 and the bags of their tissue; 1 and 6 are annotated, and not in it."""
    folder = tmp_path_factory.mktemp("per-fold")
    files = [study.folder / "slides" / f"case-{n}.tiff" for n in range(2, 6)]
    extract_jobs(jobs_of_paths(files, JobSettings()), RECIPE, folder / "store", workers=1)
    rows = [f"case-{n},case-{n},{'ab'[n % 2]}" for n in range(2, 6)]
    (folder / "cohort.csv").write_text("\n".join(["case,slide,label", *rows]) + "\n")
    return folder


@pytest.fixture(scope="module")
def config(study):
    return SegmentConfig(source=study.source, settings=study.settings)


def cross_validate(tissue, config, out, **changes):
    study = Study(
        table=tissue / "cohort.csv",
        task=task_class()(),
        store=tissue / "store",
        segmenting=replace(config, **changes),
    )
    return study.cross_validate(PLAN, NewRun(path=out), Computing())


@pytest.fixture(scope="module")
def result(tissue, config, tmp_path_factory):
    return cross_validate(tissue, config, tmp_path_factory.mktemp("run") / "run")


def test_every_fold_selects_tiles_by_a_segmenter_of_other_cases(result, tissue):
    run = result.run
    assert len(run.folds) == 2
    for fold in run.folds:
        for number in range(2, 6):
            bag = read_bag(run.fold_store(fold) / f"case-{number}.h5")
            # Cases outside the cohort train in every fold.
            assert set(bag.trained_on) == {"case-1", "case-6", *fold.train}
            assert bag.recipe["region"] == "segmented"
            whole = read_bag(tissue / "store" / f"case-{number}.h5")
            assert 0.2 < len(bag) / len(whole) < 0.6
            places = {tuple(xy) for xy in whole.coords_l0.tolist()}
            assert {tuple(xy) for xy in bag.coords_l0.tolist()} <= places
    assert not (run.path / "maps").exists()
    assert len(result.predictions.table) == 2 * 4


def test_the_run_shows_each_slide_as_it_was_tested(result):
    run = open_run(result.run.path)
    cohort = run.cohort()
    for fold in run.folds:
        for name in fold.test:
            [bag] = cohort.named([name])[0].bags
            assert name not in bag.trained_on
            assert bag.data_sha256 == run.bag(name).data_sha256
    assert run.info["segmenting"]["kind"] == "map"
    again = SegmentConfig.from_settings(run.info["segmenting"])
    assert json.loads(json.dumps(again.to_settings())) == run.info["segmenting"]


@pytest.mark.parametrize("packed", [False, True])
def test_the_run_answers_for_its_own_slides_as_it_was_judged_and_promises_sets(
    result, study, tmp_path, packed, monkeypatch
):
    """From raw slides, each fit by the tiles that the segmenter of its fold selects."""
    monkeypatch.setitem(COST, "n", 2)
    source = result.run.path
    predictor = predictor_of_run(open_run(source), "simpleshot")
    if packed:
        package = write_package(predictor, card_of_run(result.run, predictor), tmp_path / "package")
        predictor = read_package(package.path)
    files = [study.folder / "slides" / f"case-{n}.tiff" for n in (2, 3, 4, 5, 6)]
    new = gather_slides(predictor, NewInputs(inputs=tuple(files)), tmp_path / "new")
    answers = predict_slides(predictor, new)
    table = result.predictions.select(["simpleshot"]).table.set_index("case")
    for fold in result.run.folds:
        for case in fold.test:
            stored = read_bag(result.run.fold_store(fold) / f"{case}.h5")
            bag = new.own[case][fold.repeat, fold.index]
            np.testing.assert_array_equal(bag.coords_l0, stored.coords_l0)
            np.testing.assert_array_equal(bag.features, stored.features)
            [row] = [row for row in answers.slides if row.slide == case]
            assert (row.trained_on, row.mask, row.is_promised) == (
                "out of fold",
                "segmenters",
                True,
            )
            [fit] = answers.relations[row.case].fits
            assert (fit.repeat, fit.fold) == (fold.repeat, fold.index)
            own = new.own[case]
            [answer] = predictor.answers([fit], [lambda fit, own=own: own[fit.key]], {})
            assert answer.values["p_a"] == pytest.approx(table.p_a[case], abs=1e-6)
    without = answers.slides[-1]
    assert (without.slide, without.outcome) == ("case-6", "abstained")
    assert without.reason.endswith("no tile lies in what a fold's segmenter marks as tumour")
    outlined = {path.stem for path in new.outlines.glob("*.geojson")}
    assert outlined == {f"case-{n}" for n in (2, 3, 4, 5, 6)}  # to be looked at, tumour or not
    assert not (new.outlines.parent / "cells").exists()


def test_the_outline_of_a_known_case_is_of_the_fold_that_has_not_seen_it(result, study, tmp_path):
    predictor = predictor_of_run(open_run(result.run.path), "simpleshot")
    [a, b] = result.run.folds
    files = [study.folder / "slides" / f"{case}.tiff" for case in (*a.test, *b.test, "case-1")]
    new = gather_slides(predictor, NewInputs(inputs=tuple(files)), tmp_path / "new")
    for fold in (a, b):
        segmenter = load_segmenter(result.run.fold_segmenter(fold))
        for case in fold.test:
            job = SlideJob(slide=case, files=(study.folder / "slides" / f"{case}.tiff",))
            [own] = apply_segmenter(segmenter, [job], tmp_path / fold.name)
            assert new.segmented[case].tumour_mm2 == pytest.approx(own.tumour_mm2, rel=0.02)
            assert not new.segmented[case].trained_on_it
            drawn = (new.outlines / f"{case}.geojson").read_text()
            assert drawn == (tmp_path / fold.name / f"{case}.geojson").read_text()
    assert new.segmented["case-1"].trained_on_it  # no fold has left it out


def test_a_share_of_tumour_that_no_case_of_the_run_had_is_noted(result):
    predictor = predictor_of_run(open_run(result.run.path), "simpleshot")
    shares = predictor.reference.tumour_of_tissue
    assert ((shares > 0.05) & (shares < 1)).all()
    fold = result.run.folds[0]
    bag = read_bag(result.run.fold_store(fold) / f"{fold.test[0]}.h5")
    assert bag.tumour_of_tissue in shares.tolist()
    little = replace(bag, tumour_of_tissue=shares.min() / 20)
    assert not [n for n in predictor.reference.compare(bag).notes if "of its tissue" in n]
    assert [n for n in predictor.reference.compare(little).notes if "of its tissue" in n]


def test_what_is_called_tumour_lies_as_far_from_what_was_learnt_by_cells_as_by_pixels(
    segmenter, slides, study, tmp_path
):
    segmenter = with_reference(segmenter, slides)
    rng = np.random.default_rng(0)  # more slides to have learnt from, so that a distance is defined
    more = segmenter.descriptors[rng.integers(len(segmenter.descriptors), size=12)]
    more = (more * rng.normal(1, 0.1, more.shape)).astype(np.float32)
    card = replace(segmenter.card, reference_cases=tuple(map(str, range(12))))
    segmenter = replace(segmenter, card=card, descriptors=more)
    job = SlideJob(slide="case-3", files=(study.folder / "slides" / "case-3.tiff",))
    [read] = read_for(segmenter, [DrawnSlide(job=job, full=False)], tmp_path, study.settings)
    with job.open() as slide:
        by_pixels = segmenter.tumour_map(slide)
    assert tumour_ratio(segmenter, read) == pytest.approx(by_pixels.ratio, rel=0.02)
    assert by_pixels.ratio > 0
    double = replace(by_pixels, probability=by_pixels.probability / 3, ratio=3 * by_pixels.ratio)
    mean = _mean([by_pixels, double, replace(double, ratio=np.nan)])
    np.testing.assert_allclose(mean.probability, by_pixels.probability * 5 / 9, atol=1e-6)
    assert mean.ratio == pytest.approx(2 * by_pixels.ratio)


def test_packed_segmenters_name_nobody_and_another_in_their_place_promises_nothing(
    result, tmp_path, monkeypatch
):
    monkeypatch.setitem(COST, "n", 2)
    run = result.run
    predictor = predictor_of_run(open_run(run.path), "simpleshot")
    card = card_of_run(run, predictor)
    own = write_package(predictor, card, tmp_path / "own").path
    for number, fold in enumerate(run.folds):
        inside, _ = read_segmenter_card(own / f"segmenters/{number}.safetensors")
        before, _ = read_segmenter_card(run.fold_segmenter(fold))
        assert len(inside.trained_on) == len(before.trained_on) == 2 + len(fold.train)
        assert not {*inside.trained_on, *inside.reference_cases} & {*before.trained_on}
        assert inside.evaluation == {}
        assert set(before.evaluation["by_case"]) == set(fold.test)
    by_case = [
        score
        for fold in run.folds
        for score in read_segmenter_card(run.fold_segmenter(fold))[0].evaluation["by_case"].values()
    ]
    dice = [score["dice"] for score in by_case if score["full"]]
    assert 1 < len(dice) < len(by_case)
    text = (own / "CARD.md").read_text()
    assert f"Dice {np.mean(dice):.2f} (" in text
    assert f"over {len(dice)} cases that it had not seen" in text
    assert OTHER_SEGMENTER not in text
    file = run.fold_segmenter(run.folds[0])
    other = write_package(predictor, card, tmp_path / "other", segmenter=file).path
    assert OTHER_SEGMENTER in (other / "CARD.md").read_text()
    assert not (other / "segmenters").exists()


def test_a_segmenter_of_a_fold_that_is_gone_is_named(result, study, tmp_path):
    shutil.copytree(result.run.path, tmp_path / "run")
    run = open_run(tmp_path / "run", store=last_place(result.run, "store"))
    drawings = tmp_path / "annotations"
    drawings.mkdir()
    job = SlideJob(slide="new", files=(tmp_path / "new.tiff",))
    inputs = NewInputs(inputs=(), annotations=drawings)
    assert _choose_mask(predictor_of_run(run, "simpleshot"), inputs, job) == "segmenters"
    run.fold_segmenter(run.folds[1]).unlink()
    with pytest.raises(RunError, match=r"r0-f1/segmenter\.safetensors: no such file\. Put it back"):
        predictor_of_run(run, "simpleshot")
    run.fold_segmenter(run.folds[0]).unlink()
    predictor = predictor_of_run(run, "simpleshot")
    assert LOST_SEGMENTERS in predictor.notes
    assert not predictor.segments


def test_masks_of_training_slides_may_be_unseen_too_and_nothing_is_embedded_again(
    tissue, config, result, tmp_path, monkeypatch
):
    monkeypatch.setattr(Embedder, "__call__", lambda *_a: pytest.fail("a tile is embedded"))
    unseen = cross_validate(tissue, config, tmp_path / "run", train_masks="unseen")
    fold = unseen.run.folds[0]
    differing = 0
    for name in fold.train:
        first, second = (
            read_bag(run.fold_store(fold) / f"{name}.h5") for run in (result.run, unseen.run)
        )
        differing += first.data_sha256 != second.data_sha256
    assert differing  # else they are the drawings
    assert second.recipe_sha256 != first.recipe_sha256


def test_an_annotated_slide_of_a_tested_case_is_recognised_by_case_name_slide_and_content(
    tissue, slides
):
    cohort = load_cohort(tissue / "cohort.csv", tissue / "store")
    fold, _ = split_cases(cohort.names, cohort.labels, [""] * 4, PLAN.split)

    def renamed(read, case=None, slide=None, sources=None):
        job = replace(read.drawn.job, case=case or "new", slide=slide or "new")
        return replace(
            read, drawn=replace(read.drawn, job=job), sources=sources or frozenset({"none"})
        )

    tested = fold.test[0]
    [original] = [slide for slide in slides if slide.case == tested]
    for disguised in (
        renamed(original, case=tested.upper()),
        renamed(original, slide=tested),
        renamed(original, sources=original.sources),
    ):
        left = train_slides(cohort, fold, [disguised, slides[0]])
        assert left == [slides[0]]
        with pytest.raises(FitError, match="no annotated slide is of a training case"):
            train_slides(cohort, fold, [disguised])
    stranger = renamed(original)
    assert train_slides(cohort, fold, [stranger]) == [stranger]


def test_what_is_kept_for_validation_trains_no_segmenter(tissue, slides):
    table = tissue / "reserved.csv"
    lines = (tissue / "cohort.csv").read_text().splitlines()
    rows = [f"{line}," for line in lines[1:]]
    table.write_text("\n".join([f"{lines[0]},split", *rows, "case-1,case-1,a,test"]) + "\n")
    cohort = load_cohort(table, tissue / "store")
    names = tuple(cohort.names)
    fold = Fold(repeat=0, index=0, train=names[1:], test=names[:1])
    left = {slide.name for slide in train_slides(cohort, fold, slides)}
    assert left == {*names[1:], "case-6"}


def test_a_slide_in_which_nothing_is_found_keeps_its_tissue_and_is_named(
    tissue, config, tmp_path, monkeypatch
):
    real = per_fold.probabilities
    monkeypatch.setattr(
        per_fold,
        "probabilities",
        lambda segmenter, slide: {
            name: p * (slide.name != "case-3") for name, p in real(segmenter, slide).items()
        },
    )
    notes = []
    study = Study(
        table=tissue / "cohort.csv",
        task=task_class()(),
        store=tissue / "store",
        segmenting=config,
    )
    result = study.cross_validate(
        PLAN, NewRun(path=tmp_path / "run"), Computing(notify=notes.append)
    )
    assert any(
        "case-3: no tile lies in what the segmenter of a fold marks as tumour" in n for n in notes
    )
    whole = read_bag(tissue / "store" / "case-3.h5")
    assert result.run.bag("case-3").data_sha256 == whole.data_sha256


def test_bags_of_a_region_are_refused(tissue, config, tmp_path, result):
    shutil.copytree(result.run.fold_store(result.run.folds[0]), tmp_path / "store")
    shutil.copy(tissue / "cohort.csv", tmp_path)
    with pytest.raises(
        CohortError, match=r"these bags are of segmented\. Extract the slides without"
    ):
        cross_validate(tmp_path, config, tmp_path / "run")


def test_a_shuffle_segments_and_fits_anew(result, tmp_path):
    run = open_run(result.run.path)
    pipeline = SegmentedPipeline(run, run.tissue(), tmp_path, Silent())
    predictions = pipeline(run.cohort(), run.folds, 0)
    first = result.predictions.table
    second = predictions.table
    np.testing.assert_allclose(
        second["p_a"].to_numpy(), first["p_a"].to_numpy(), atol=1e-6
    )  # the same outcomes and folds
    assert not (tmp_path / "0").exists()


def test_the_command_reads_the_run_of_a_segmenter(tissue, study, tmp_path):
    drawn = {
        "cohort": str(study.source.table),
        "slides": str(study.source.slides),
        "annotations": str(study.source.jobs.annotations),
        "cells": 200,
        "out": "elsewhere",
        "folds": "none",
    }
    (tmp_path / "run.json").write_text(json.dumps({"settings": drawn}))
    arguments = [
        "crossval",
        str(tissue / "cohort.csv"),
        str(tissue / "store"),
        "--models",
        "majority",
    ]
    arguments += ["--folds", "2", "--segment", "per-fold", "--out", str(tmp_path / "run")]
    wrong = CliRunner().invoke(app, arguments)
    assert "--segment per-fold and --segment-config FILE go together" in str(wrong.exception)
    arguments += ["--segment-config", str(tmp_path / "run.json")]
    for flags, words in {
        ("--combine", "mean"): "combine=mean does not work",
        ("--allow-missing",): "Leave out allow_missing",
    }.items():
        refused = CliRunner().invoke(app, [*arguments, *flags])
        assert words in str(refused.exception)
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert open_run(tmp_path / "run").info["segmenting"]["cells"] == 200
