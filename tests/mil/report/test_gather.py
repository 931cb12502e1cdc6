"""What the report shows is what the run did, with bags, labels and models that are still the run's."""

import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from features.bags.bag import read_bag, write_bag
from mil.data.splits import read_folds
from mil.errors import CohortError, LeakageError, RunError
from mil.evaluation.classification.evaluate import evaluate
from mil.evaluation.comparison import compare_models
from mil.explanation.evidence import evidence_scores
from mil.explanation.heatmap import draw_layers, scale_stops
from mil.explanation.target import explanation_target
from mil.learning.fitted import load_model
from mil.report.diagnosis_sections import FEW
from mil.report.gather import gather
from mil.runs.record import update_run
from mil.runs.run import open_run
from tests.mil.made import RECIPE, made_bag, made_cohort
from tests.mil.made_runs import make_run, write_cohort


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """The folder of a run on six cases, one of them with two slides in each class."""
    folder = tmp_path_factory.mktemp("original")
    make_run(folder, made_cohort((3, 3)), age=range(40, 46))
    return folder


@pytest.fixture
def run(original, tmp_path):
    """A copy to break, in the place its run.json names."""
    folder = tmp_path / "copy"
    shutil.copytree(original, folder)
    run = open_run(folder / "run")
    moved = {"cohort": str(folder / "cohort.csv"), "store": str(folder / "store")}
    return update_run(run, settings={**run.settings.stored, **moved})


def store_of(run):
    return run.path.parent / "store"


def change_table(run, old, new):
    path = run.path.parent / "cohort.csv"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_what_did_not_suit_in_weights_to_start_from_stands_before_the_numbers(run):
    notes = ["head_weights: its model answers Q, none of which is an outcome of this table."]
    assert notes[0] in gather(update_run(run, start_notes=notes)).facts.warnings


def test_numbers_are_those_of_the_predictions(run):
    report = gather(run)
    table = pd.read_csv(run.path / "predictions.csv")
    assert report.predictions.table["case"].tolist() == table["case"].tolist()
    assert report.evaluation.to_json() == evaluate(report.predictions).to_json()
    assert report.comparison == compare_models(report.predictions)


def test_page_is_called_as_the_folder(run):
    report = gather(run)
    assert report.facts.title == f"{run.path.parent.name}/run"
    assert report.facts.created == run.finished


def test_cases_are_told_with_slides_tiles_and_further_columns(run):
    cohort = made_cohort((3, 3))
    assert gather(run).facts.cohort.to_dict("records") == [
        {
            "case": case.name,
            "label": case.label,
            "slides": len(case.bags),
            "tiles": sum(len(bag) for bag in case.bags),
            "age": str(age),
        }
        for age, case in enumerate(cohort.cases, start=40)
    ]


def test_folds_name_each_case_once_per_repeat(run):
    folds = gather(run).facts.folds
    assert Counter(map(tuple, folds[["repeat", "case"]].to_numpy().tolist())) == Counter(
        (repeat, case.name) for repeat in (0, 1) for case in made_cohort((3, 3)).cases
    )


def test_recipe_settings_and_versions_are_handed_on(run):
    report = gather(run)
    assert report.facts.recipe == RECIPE
    assert report.facts.settings == run.settings.stored
    assert report.facts.versions == run.versions


def test_each_slide_has_the_map_of_the_model_that_did_not_see_its_case(run):
    heatmaps = gather(run).facts.heatmaps
    cohort = made_cohort((3, 3))
    assert set(heatmaps) == {bag.slide for case in cohort.cases for bag in case.bags}
    first, second = [fold for fold in read_folds(run.path / "folds.json") if fold.repeat == 0]
    for fold, other in ((first, second), (second, first)):
        unseen, seen = (load_model(run.model_path("abmil", f)) for f in (fold, other))
        for case in cohort.named(fold.test):
            assert case.name not in unseen.trained_on
            assert case.name in seen.trained_on
            for bag in case.bags:
                stored = read_bag(store_of(run) / f"{bag.slide}.h5")
                of_unseen, of_seen = (
                    evidence_scores(explanation_target(fitted, stored)) for fitted in (unseen, seen)
                )
                drawn = heatmaps[bag.slide].slide_picture, heatmaps[bag.slide].map_png
                assert drawn == draw_layers(of_unseen)
                assert drawn != draw_layers(of_seen)
                assert heatmaps[bag.slide].scale == scale_stops(of_unseen)


def test_caption_says_model_and_fold_and_that_the_case_was_not_seen(run):
    fold_of = {
        name: fold.index
        for fold in read_folds(run.path / "folds.json")
        if fold.repeat == 0
        for name in fold.test
    }
    for slide, heatmap in gather(run).facts.heatmaps.items():
        fold = fold_of[slide.split("-")[0]]
        for fact in ("evidence for class-", " of abmil", f"fold {fold}", "case not seen"):
            assert fact in heatmap.caption


def test_model_that_saw_the_case_draws_no_map(run):
    first, second, *_ = read_folds(run.path / "folds.json")
    run = update_run(run, results={})  # as of a run that has noted no fingerprints of its models
    for suffix in (".safetensors", ".json"):
        source = run.model_path("abmil", second).with_suffix(suffix)
        shutil.copy(source, run.model_path("abmil", first).with_suffix(suffix))
    with pytest.raises(LeakageError, match=r"abmil-r0-f0.safetensors was trained on a"):
        gather(run)


def test_removed_models_leave_their_slides_without_a_map(run):
    first, second, *_ = read_folds(run.path / "folds.json")
    run.model_path("abmil", first).unlink()
    drawn = gather(run).facts.heatmaps
    assert {slide.split("-")[0] for slide in drawn} == set(second.test)


def test_run_without_attention_has_no_maps(tmp_path):
    assert (
        gather(make_run(tmp_path, made_cohort((2, 2)), ["majority", "mean"])).facts.heatmaps == {}
    )


def test_unfinished_run_is_refused(run):
    with pytest.raises(RunError, match="not a finished cross-validation"):
        gather(update_run(run, complete=False))


def test_run_of_another_command_is_refused(run):
    with pytest.raises(RunError, match="not a finished cross-validation"):
        gather(update_run(run, command="train"))


def test_bag_that_was_made_again_otherwise_is_refused(run):
    path = store_of(run) / "a1-s2.h5"
    bag = read_bag(path)
    write_bag(path, replace(bag, features=bag.features + np.float32(1)))
    with pytest.raises(RunError, match=r"1 bags have changed since the run, e\.g\. a1-s2"):
        gather(run)


def test_bag_that_is_gone_is_refused(run):
    (store_of(run) / "b0-s1.h5").unlink()
    with pytest.raises(RunError, match=r"1 bags have changed since the run, e.g. b0-s1"):
        gather(run)


def test_slide_that_came_later_is_refused(run):
    write_bag(store_of(run) / "a0-s9.h5", made_bag("a0-s9"))
    change_table(run, "a0,a0-s1,class-a,40\n", "a0,a0-s1,class-a,40\na0,a0-s9,class-a,40\n")
    with pytest.raises(RunError, match=r"1 bags have changed since the run, e.g. a0-s9"):
        gather(run)


def test_label_that_was_changed_since_is_refused(run):
    change_table(run, "a0,a0-s1,class-a", "a0,a0-s1,class-b")
    with pytest.raises(RunError, match=r"1 cases have another outcome than in the run, e\.g\. a0"):
        gather(run)


def test_table_that_is_gone_is_refused(run):
    (run.path.parent / "cohort.csv").unlink()
    with pytest.raises(CohortError, match=r"is not there\. If it has moved"):
        gather(run)


def test_rows_that_were_left_out_are_told(tmp_path):
    cohort = made_cohort((3, 3))
    write_cohort(tmp_path, cohort)
    (tmp_path / "store" / "a0-s1.h5").rename(tmp_path / "gone")
    rest = replace(cohort, cases=cohort.cases[1:])
    run = make_run(tmp_path, rest, ["majority"])
    change_table(run, "a1,a1-s1", "a0,a0-s1,class-a\na1,a1-s1")
    ((slide, reason),) = gather(run).facts.excluded
    assert slide == "a0-s1"
    assert "no such bag" in reason


def warnings_of(folder, cohort, **columns):
    return gather(make_run(folder, cohort, ["majority"], **columns)).facts.warnings


def with_weights(cohort, weights):
    recipe = RECIPE | {"weights": weights}
    cases = [
        replace(case, bags=tuple(replace(bag, recipe=recipe) for bag in case.bags))
        for case in cohort.cases
    ]
    return replace(cohort, cases=tuple(cases))


ENOUGH = made_cohort((FEW, FEW), slides=1, n_tiles=1)


def test_nothing_is_warned_of_where_all_is_well(tmp_path):
    assert warnings_of(tmp_path, ENOUGH) == ()


@pytest.mark.parametrize("weights", ["random", "random (seed 0)"])
def test_random_weights_are_called_random(tmp_path, weights):
    (warning,) = warnings_of(tmp_path, with_weights(ENOUGH, weights))
    assert warning.startswith("The backbone's weights are random")


def test_weights_that_do_not_say_whom_they_have_seen_are_told(tmp_path):
    (warning,) = warnings_of(tmp_path, with_weights(ENOUGH, "mine.pth"))
    assert warning.startswith(
        "The backbone's weights, mine.pth, do not say which cases they were trained on"
    )


def test_few_cases_are_told_with_what_one_case_moves(tmp_path):
    (warning,) = warnings_of(tmp_path, made_cohort((FEW, 4), slides=1, n_tiles=1))
    assert warning.startswith("Few cases per class: class-b has 4.")
    assert "by 25 points" in warning


def test_several_sites_are_told(tmp_path):
    (warning,) = warnings_of(tmp_path, ENOUGH, site=["x", "y"] * FEW)
    assert "several sites" in warning


def test_one_site_is_no_warning(tmp_path):
    assert warnings_of(tmp_path, ENOUGH, site=["x"] * 2 * FEW) == ()


def test_progress_is_told_of_every_slide(run):
    class Listener:
        heard = []

        def task(self, name, total, unit):
            from contextlib import nullcontext

            self.heard.append((name, total, unit))
            return nullcontext(self.heard.append)

    listener = Listener()
    gather(run, progress=listener)
    assert listener.heard == [("heatmaps", 8, "slides"), *[1] * 8]
