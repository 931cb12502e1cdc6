"""A run gives its cases, bags and models as it used them, and never a model that has seen the case."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mil
from features.bags.bag import read_bag, write_bag
from mil.errors import CohortError, FitError, LeakageError, NotInRun, RunError
from mil.learning.fitted import save_model
from mil.learning.training import fit_model
from mil.runs.record import finish_run, start_run, update_run
from mil.runs.run import Relation, Run, open_run
from mil.settings import FitSettings, SplitSettings
from mil.tasks.diagnosis import Diagnosis
from mil.tasks.survival import Survival
from tests.mil.made import QUICK, made_bag, made_cohort
from tests.mil.made_runs import make_run

REPO = Path(__file__).parents[3]
COHORT = made_cohort((3, 3))
KEYS = r"\.info(\[|\.get\()|run\.settings(\[|\.get\()|settings\.stored(\[|\.get\()"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    make_run(folder, COHORT, ["majority", "abmil"])
    return folder


@pytest.fixture
def moved(original, tmp_path):
    """A copy of the run in another place; its run.json names places that are gone, and none nearby."""
    return gone(original, tmp_path / "elsewhere", places={})


def gone(original, folder, **facts):
    """A copy of the run whose table and store were at places that are gone."""
    shutil.copytree(original, folder)
    run = open_run(folder / "run")
    away = {"cohort": "/gone/cohort.csv", "store": "/gone/store"}
    update_run(run, settings={**run.settings.stored, **away}, **facts)
    return folder


@pytest.fixture
def run(original, tmp_path):
    """A copy to break, whose table and store are at hand."""
    folder = tmp_path / "copy"
    shutil.copytree(original, folder)
    return open_run(folder / "run", store=folder / "store", cohort=folder / "cohort.csv")


def test_a_run_and_a_cohort_print_in_a_line(original):
    run = open_run(original / "run")
    assert repr(run) == f"Run(path={original / 'run'!r})"
    assert repr(mil.open_run(run.path)) == repr(run)
    assert repr(COHORT) == "Cohort(6 cases, 8 slides, classes class-a, class-b, task diagnosis)"
    shown = repr(COHORT.cases[0].bags[0])
    assert len(shown) < 1000
    assert "slide=" in shown


def test_settings_are_typed(tmp_path):
    settings = {
        "model": "abmil", "cohort": "/a/cohort.csv", "store": None, "folds": "loo", "seed": 3, "epochs": 7,
        "clinical": ["age"], "task": "survival", "time_unit": "months", "finetune": "per-fold",
    }  # fmt: skip
    read = start_run(tmp_path / "run", "train", settings).settings
    assert read.fit == FitSettings(epochs=7, clinical=("age",), task="survival")
    assert read.split == SplitSettings(folds="loo", seed=3)
    assert (read.models, read.cohort, read.store) == (("abmil",), Path("/a/cohort.csv"), None)
    assert (read.task, read.seed) == (Survival(time_unit="months"), 3)
    assert read.finetunes
    assert not read.allow_missing


def test_facts_are_those_of_run_json(run):
    assert (run.command, run.cross_validated, run.task) == ("crossval", True, Diagnosis())
    assert run.classes == COHORT.classes
    assert run.labels == {case.name: case.label for case in COHORT.cases}
    assert run.title == "copy/run"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", run.finished)
    assert run.label_of("a0") == "class-a"
    assert run.label_of("z9") == ""
    assert not run.random_backbone


def test_cohort_is_the_one_the_run_has_tested(run):
    cohort = run.cohort()
    assert [case.name for case in cohort.cases] == [case.name for case in COHORT.cases]
    assert {bag.slide: bag.data_sha256 for c in cohort.cases for bag in c.bags} == run.bags


@pytest.mark.parametrize("facts", [{"complete": False}, {"command": "train"}])
def test_a_run_that_is_no_finished_cross_validation_is_refused(run, facts):
    other = Run(run.path, {**run.info, **facts})
    for method in (other.require_finished, other.cohort, lambda: other.ensemble("abmil")):
        with pytest.raises(RunError, match=r"not a finished cross-validation. Finish it first"):
            method()


def test_a_finished_training_is_taken_where_it_may_be(run):
    other = Run(run.path, {**run.info, "command": "train"})
    other.require_finished("crossval", "train")
    with pytest.raises(RunError, match="not a finished cross-validation or training"):
        Run(run.path, {**run.info, "command": "finetune"}).require_finished("crossval", "train")


def test_predictions_that_were_edited_are_refused(run):
    assert run.predictions().models == ("majority", "abmil")
    path = run.path / "predictions.csv"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(RunError, match=r"predictions.csv is not as the run wrote it"):
        run.predictions()


def test_folds_that_were_edited_are_refused(run):
    assert len(run.folds) == 4
    path = run.path / "folds.json"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(RunError, match=r"folds.json is not as the run wrote it"):
        _ = run.folds


def test_a_bag_is_the_one_the_run_has_read(run):
    assert run.bag("a0-s1").data_sha256 == run.bags["a0-s1"]
    path = run.path.parent / "store" / "a0-s1.h5"
    bag = read_bag(path)
    write_bag(path, replace(bag, features=np.asarray(bag.features) + 1))
    with pytest.raises(RunError, match="bag of a0-s1 has changed since"):
        run.bag("a0-s1")


def test_every_slide_gets_a_model_that_has_not_seen_its_case(run):
    for slide, case in run.cases.items():
        fitted, relation = run.model_for(slide, "abmil")
        fold = run.fold_of(case)
        assert case not in fitted.trained_on
        assert relation == Relation(fold, seen=False)
        assert str(relation) == f"model of fold {fold.index}, not trained on this case"


def test_a_fold_model_that_has_seen_a_tested_case_is_refused(run):
    run = update_run(run, results={})  # as in a run that has noted no fingerprints of its models
    first, second, *_ = run.folds
    shutil.copy(run.model_path("abmil", second), run.model_path("abmil", first))
    slide = next(slide for slide, case in run.cases.items() if case in first.test)
    with pytest.raises(LeakageError, match=r"abmil-r0-f0.safetensors was trained on "):
        run.model_for(slide, "abmil")


def refit(run, fold, names):
    """Put a model into a fold that has seen other cases."""
    cases = [replace(case, name=name) for case, name in zip(COHORT.cases, names, strict=True)]
    save_model(
        run.model_path("abmil", fold), fit_model("abmil", cases, (), COHORT.classes, QUICK, seed=0)
    )


@pytest.mark.parametrize(
    ("seen_by", "index", "words"),
    [
        ((), 0, "model of fold 0, not trained on this case"),
        ((0,), 1, "model of fold 1, not trained on this case"),
        ((0, 1), 0, "model of fold 0, trained on this case"),
    ],
)
def test_a_case_of_no_fold_gets_a_model_that_has_not_seen_it_where_there_is_one(
    run, seen_by, index, words
):
    run = update_run(run, results={})
    for fold in run.folds[:2]:
        seen = ["x9" if fold.index in seen_by else "y9", *(f"z{i}" for i in range(5))]
        refit(run, fold, seen)
    fitted, relation = run.model_for("new-slide", "abmil", case="x9")
    assert relation.fold.index == index
    assert ("x9" in fitted.trained_on) == relation.seen
    assert str(relation) == words


def test_a_slide_of_unknown_case_may_have_been_seen(run):
    _, relation = run.model_for("new-slide", "abmil")
    assert relation.seen is None
    assert str(relation).endswith("its case is not known: the model may have seen it")


def test_a_model_trained_on_all_cases_says_whom_it_has_seen(tmp_path):
    run = start_run(tmp_path / "run", "train", {"model": "abmil"}, {"cases": {"a0-s1": "a0"}})
    save_model(
        run.model_path("abmil"), fit_model("abmil", COHORT.cases, (), COHORT.classes, QUICK, seed=0)
    )
    run = finish_run(run)
    for slide, words in (("a0-s1", "trained on this case"), ("z9-s1", "its case is not known")):
        assert str(run.model_for(slide, "abmil")[1]).startswith(words)
    assert str(run.model_for("z9-s1", "abmil", case="z9")[1]) == "not trained on this case"


def test_an_ensemble_is_every_fold_of_every_repeat(run):
    members = run.ensemble("abmil")
    assert [set(member.trained_on) for member in members] == [set(f.train) for f in run.folds]
    run.model_path("abmil", run.folds[2]).unlink()
    with pytest.raises(FitError, match=r"1 of 4 fits of abmil .* abmil-r1-f0"):
        run.ensemble("abmil")


def test_a_model_that_the_run_does_not_have_is_named_with_the_nearest(run):
    for call in (lambda: run.model_for("a0-s1", "abmli"), lambda: run.ensemble("abmli")):
        with pytest.raises(NotInRun, match=r": No model 'abmli'\. Did you mean 'abmil'\? Known: "):
            call()


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (None, "there is no such folder. Name the folder of a run."),
        ("folder", "not a run folder: it has no run.json. Name the folder of a run."),
        ("file", "a file, not a run folder. Name the folder of a run."),
    ],
)
def test_what_is_no_run_is_said_in_words(tmp_path, made, problem):
    path = tmp_path / "nope"
    if made == "folder":
        path.mkdir()
    elif made == "file":
        path.write_text("{}")
    with pytest.raises(RunError) as caught:
        open_run(path)
    assert str(caught.value) == f"{path}: {problem}"


def test_a_place_that_is_gone_is_named_with_the_remedy(moved):
    run = open_run(moved / "run")
    with pytest.raises(CohortError) as caught:
        run.cohort()
    assert re.fullmatch(
        r"\S+run: the table \S+cohort\.csv and the bag store \S+store are not there\. "
        r"If they have moved, give their new places \(cohort=\.\.\., store=\.\.\.\)\.",
        str(caught.value),
    )
    run = open_run(moved / "run", cohort=moved / "cohort.csv")
    with pytest.raises(
        CohortError,
        match=r"run: the bag store \S+ is not there\. If it has moved, give its new place \(store=\.\.\.\)",
    ):
        run.cohort()
    with pytest.raises(CohortError, match=r"store=...\)"):
        run.bag("a0-s1")


def test_a_new_place_is_named_once_and_remembered(moved):
    open_run(moved / "run", store=moved / "store")
    open_run(moved / "run", cohort=moved / "cohort.csv")
    run = open_run(moved / "run")
    assert len(run.cohort().cases) == len(COHORT.cases)
    assert run.table == (moved / "cohort.csv").absolute()
    shutil.move(moved / "store", moved / "second")
    open_run(moved / "run", store=moved / "second")
    assert len(open_run(moved / "run").cohort().cases) == len(COHORT.cases)


def test_another_store_is_refused_and_not_remembered(moved):
    for slide in open_run(moved / "run").bags:
        write_bag(moved / "other" / f"{slide}.h5", made_bag(slide, seed=5))
    (moved / "short").mkdir()
    write_bag(moved / "short" / "a1-s1.h5", made_bag("a1-s1", seed=5))
    for store, words in (
        ("other", "is not the bag store of .* its bag of a0-s1 has other content"),
        ("short", "is not the bag store of .*no such bag"),
        ("none", "none: no such bag store. Check the path, or extract the slides into it first"),
    ):
        with pytest.raises(RunError, match=words):
            open_run(moved / "run", store=moved / store)
    assert not (moved / "run" / "moved.json").exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("a0,a0-s1,class-a", "a0,a0-s1,class-b", "gives slide a0-s1 case 'a0' with 'class-b'"),
        ("a0,a0-s1,class-a", "a9,a0-s1,class-a", "gives slide a0-s1 case 'a9'"),
        ("a0,a0-s1,class-a\n", "", "it has no slide a0-s1"),
    ],
)
def test_another_table_is_refused_and_not_remembered(moved, old, new, words):
    path = moved / "other.csv"
    text = (moved / "cohort.csv").read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(RunError, match=words):
        open_run(moved / "run", cohort=path)
    assert not (moved / "run" / "moved.json").exists()


def test_bags_of_a_fine_tuned_backbone_do_not_move(moved):
    run = open_run(moved / "run")
    update_run(run, settings={**run.settings.stored, "finetune": "per-fold"})
    with pytest.raises(RunError, match=r"in its own folder. Leave store out"):
        open_run(moved / "run", store=moved / "store")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"store": 3}'])
def test_places_that_cannot_be_read_are_refused(moved, text):
    (moved / "run" / "moved.json").write_text(text)
    with pytest.raises(RunError, match=r"moved.json: cannot be read"):
        open_run(moved / "run")


def test_an_overwritten_run_forgets_where_the_old_one_had_moved(moved):
    open_run(moved / "run", store=moved / "store")
    start_run(moved / "run", "crossval", {"models": ["mean"]}, overwrite=True)
    assert open_run(moved / "run").moved == {}


@pytest.fixture
def together(original, tmp_path):
    """A copy of the whole study, run, table and store, in another place; the old one is gone."""
    return gone(original, tmp_path / "archive" / "study")


def test_a_study_that_was_moved_whole_is_read_without_a_word(together, tmp_path):
    run = open_run(together / "run")
    assert run.table == (together / "cohort.csv").absolute()
    assert len(run.cohort().cases) == len(COHORT.cases)
    assert run.bag("a0-s1").slide == "a0-s1"
    assert sorted(open_run(together / "run").moved) == ["cohort", "store"]
    shutil.move(together, tmp_path / "again")  # where it was remembered is gone as well
    assert len(open_run(tmp_path / "again" / "run").cohort().cases) == len(COHORT.cases)


def test_another_store_that_lies_nearby_is_not_taken(together):
    write_bag(together / "store" / "a0-s1.h5", made_bag("a0-s1", seed=7))
    run = open_run(together / "run")
    assert sorted(run.moved) == ["cohort"]
    with pytest.raises(CohortError, match=r"the bag store /gone/store is not there.*store="):
        run.cohort()


def test_another_table_that_lies_nearby_is_not_taken(together):
    text = (together / "cohort.csv").read_text()
    (together / "cohort.csv").write_text(text.replace("a0,a0-s1,class-a", "a0,a0-s1,class-b"))
    run = open_run(together / "run")
    assert sorted(run.moved) == ["store"]
    with pytest.raises(CohortError, match=r"the table /gone/cohort.csv is not there.*cohort="):
        run.cohort()


def test_a_table_that_is_where_it_was_is_read_there(original, together):
    """Although another copy lies nearby."""
    run = open_run(together / "run")
    info = dict(run.info) | {"settings": dict(open_run(original / "run").info["settings"])}
    (together / "run" / "moved.json").unlink()
    update_run(open_run(together / "run"), settings=info["settings"])
    (together / "run" / "moved.json").unlink(missing_ok=True)
    assert open_run(together / "run").table == open_run(original / "run").table


def key_lookups(root):
    """Lines outside of two files of mil/runs that look into run.json by its keys."""
    return [
        f"{path.relative_to(root)}:{number}"
        for package in ("mil", "cli")
        for path in sorted((root / package).rglob("*.py"))
        if path.relative_to(root).as_posix() not in ("mil/runs/facts.py", "mil/runs/record.py")
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if re.search(KEYS, line)
    ]


def test_one_file_knows_the_keys_of_run_json():
    assert key_lookups(REPO) == []


@pytest.mark.parametrize(
    "line",
    [
        'run.info["bags"]',
        'run.info.get("labels", {})',
        'run.settings["store"]',
        'settings.stored["task"]',
    ],
)
def test_a_lookup_elsewhere_is_reported(tmp_path, line):
    for file in ("mil/report/page.py", "mil/runs/facts.py", "mil/runs/run.py", "cli/file.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(f"x = {line}\n")
    assert key_lookups(tmp_path) == ["mil/report/page.py:1", "mil/runs/run.py:1", "cli/file.py:1"]


def test_a_slide_that_the_run_does_not_have_is_named_with_the_nearest(run):
    with pytest.raises(NotInRun, match=r"has no slide 'a0-s11'\. Did you mean 'a0-s1'\?"):
        run.bag("a0-s11")


def test_a_case_in_place_of_its_slide_is_answered_with_the_slide(run):
    slide, case = next(iter(run.cases.items()))
    with pytest.raises(NotInRun) as caught:
        run.bag(case)
    assert str(caught.value).endswith(f"no slide {case!r}. {case} is a case; its slide is {slide}.")
