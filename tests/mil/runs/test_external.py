"""An ensemble is the mean of logits, its cases are unseen, and they are read by one model."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from features.bags.bag import write_bag
from mil.data.cohort import Case, assemble, read_table, split_train_test
from mil.data.splits import write_folds
from mil.errors import CohortError, FitError, LeakageError, RunError
from mil.evaluation.predictions import write_predictions
from mil.learning.batches import collate
from mil.learning.crossval import cross_validate
from mil.learning.fitted import save_fitted
from mil.learning.training import fit
from mil.runs.external import (
    check_first,
    check_unseen,
    earlier,
    log_reading,
    logs_of,
    predict_together,
    reading_of,
)
from mil.runs.record import finish_run, start_run
from mil.runs.run import Run
from tests.mil.made import QUICK, cohort_of, folds_of, made_case, made_cohort

MODELS = ("abmil", "tile-vote-logits", "majority")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two repeats of three folds, every fit kept."""
    cohort = made_cohort((4, 4), seed=1)
    folds = folds_of(cohort, folds="3", repeats=2)
    told = {
        "labels": {case.name: case.label for case in cohort.cases},
        "bags": {bag.slide: bag.data_sha256 for case in cohort.cases for bag in case.bags},
    }
    path = tmp_path_factory.mktemp("external") / "run"
    run = start_run(path, "crossval", {"models": MODELS}, told)

    def keep(model, fold, fitter):
        fitted = fitter()
        save_fitted(run.model_path(model, fold), fitted)
        return fitted

    write_folds(path / "folds.json", folds)
    write_predictions(
        path / "predictions.csv", cross_validate(cohort, folds, MODELS, QUICK, seed=0, keep=keep)
    )
    return finish_run(run)


@pytest.fixture(scope="module")
def unseen():
    """Three cases of another centre; one has two slides of unequal length."""
    rng = np.random.default_rng(9)

    def bag(n):
        return rng.normal(size=(n, 5)).astype(np.float32)

    return cohort_of(
        [
            made_case("x1", "class-a", bag(4), bag(17)),
            made_case("x2", "class-b", bag(6)),
            made_case("x3", "class-a", bag(9), bag(3), bag(5)),
        ]
    )


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


def test_an_ensemble_is_every_fit_of_the_model(run):
    members = run.ensemble("abmil")
    assert [member.model for member in members] == ["abmil"] * 6
    assert len({member.trained_on for member in members}) == 6


def test_a_member_that_another_run_has_written_is_refused(run, tmp_path):
    copied = Run(shutil.copytree(run.path, tmp_path / "run"), run.info)
    first, second = sorted((copied.path / "models").glob("abmil-*.safetensors"))[:2]
    shutil.copy(second, first)
    with pytest.raises(RunError, match=f"{first.name} is not as the run wrote it"):
        copied.ensemble("abmil")
    assert len(copied.ensemble("tile-vote-logits")) == 6


@torch.inference_mode()
def test_tiles_are_averaged_over_models_slides_and_tiles_before_the_softmax(run, unseen):
    """The twin: all tile logits of all models and slides of a case in one list, its mean, then softmax."""
    members = run.ensemble("tile-vote-logits")
    table = predict_together(members, unseen).table
    for case in unseen.cases:
        logits = []
        for member in members:
            for bag in case.bags:
                logits.extend(member.head(*collate([bag.features])).tile_logits[0].numpy())
        p = softmax(np.mean(np.array(logits, dtype=np.float64), axis=0))
        told = table[table["case"] == case.name][["p_class-a", "p_class-b"]].to_numpy()
        assert told == pytest.approx(np.tile(p, (len(case.bags), 1)), abs=1e-6)


def test_every_seed_of_a_fit_is_a_network_of_its_own(unseen):
    fits = [
        fit(
            "abmil",
            made_cohort((4, 4), seed=seed).cases,
            (),
            unseen.classes,
            replace(QUICK, seeds=2),
            seed=seed,
        )
        for seed in (1, 2)
    ]
    bag = unseen.cases[1].bags[0]
    logits = [
        head(*collate([bag.features])).logits[0].detach().numpy()
        for each in fits
        for head in each.head.members
    ]
    told = predict_together(fits, unseen).table
    p = told[told["case"] == "x2"][["p_class-a", "p_class-b"]].to_numpy()[0]
    assert len(logits) == 4
    assert p == pytest.approx(softmax(np.mean(logits, axis=0)), abs=1e-6)


@torch.inference_mode()
def test_slides_of_an_attention_model_count_alike(run, unseen):
    members = run.ensemble("abmil")
    table = predict_together(members, unseen).table
    for case in unseen.cases:
        slides = [
            np.mean([m.head(*collate([bag.features])).logits[0].numpy() for m in members], axis=0)
            for bag in case.bags
        ]
        told = table[table["case"] == case.name]
        assert told[["logit_class-a", "logit_class-b"]].to_numpy() == pytest.approx(
            np.array(slides), abs=1e-6
        )
        assert told[["p_class-a", "p_class-b"]].to_numpy()[0] == pytest.approx(
            softmax(np.mean(slides, axis=0)), abs=1e-6
        )


def test_a_label_no_model_knows_is_refused(run, unseen):
    strange = cohort_of([replace(unseen.cases[0], label="class-z"), *unseen.cases[1:]])
    with pytest.raises(RunError, match="class-z"):
        predict_together(run.ensemble("majority"), strange)


def test_a_missing_fit_is_told(run):
    path = next((run.path / "models").glob("majority-r1-f2.safetensors"))
    held = path.read_bytes()
    path.unlink()
    try:
        with pytest.raises(FitError, match="1 of 6 fits of majority"):
            run.ensemble("majority")
    finally:
        path.write_bytes(held)
    with pytest.raises(RunError, match=r"no model 'mean'\. Known: abmil"):
        run.ensemble("mean")


def test_a_combined_model_is_said_to_have_no_fit(run):
    with pytest.raises(RunError, match=r"fitted anew in each fold.* Name one of abmil"):
        run.ensemble("abmil+clinical")


def test_seen_cases_are_refused_under_any_name(run, unseen):
    members = run.ensemble("majority")
    check_unseen(run, members, unseen)
    known = made_cohort((4, 4), seed=1).cases[0]
    renamed = Case(name="new", label=known.label, bags=known.bags)
    spelled = replace(unseen.cases[0], name=known.name.upper())
    for case in (known, renamed, spelled):
        with pytest.raises(LeakageError, match="1 of 3 cases have been learnt from"):
            check_unseen(run, members, cohort_of([case, *unseen.cases[1:]]))


def test_a_backbone_that_has_seen_them_is_refused(run, unseen):
    case = unseen.cases[0]
    bags = tuple(replace(bag, trained_on=("X1",)) for bag in case.bags)
    with pytest.raises(LeakageError, match="backbone"):
        check_unseen(run, (), cohort_of([replace(case, bags=bags), *unseen.cases[1:]]))


@pytest.fixture
def place(tmp_path):
    """A table, a store and a run's folder to log beside."""
    (tmp_path / "store").mkdir()
    (tmp_path / "run" / "external").mkdir(parents=True)
    (tmp_path / "table.csv").write_text("case,slide,label\n")
    return tmp_path / "table.csv", tmp_path / "store", tmp_path / "run"


def test_a_reading_is_added_to_every_log_and_none_is_lost(run, unseen, place):
    reading = reading_of(run, "abmil", place[0], unseen)
    logs = logs_of(*place)
    log_reading(logs, reading)
    first = [log.read_bytes() for log in logs]
    log_reading(logs, replace(reading, date="2030-01-01"))
    for log, before in zip(logs, first, strict=True):
        assert log.read_bytes().startswith(before)
        assert [json.loads(line)["model"] for line in log.read_text().splitlines()] == ["abmil"] * 2
    assert [each.date for each in earlier(logs, reading)] == [reading.date, "2030-01-01"]


def test_the_same_model_may_read_again_and_no_other(run, unseen, place):
    reading, logs = reading_of(run, "abmil", place[0], unseen), logs_of(*place)
    assert earlier(logs, reading) == ()
    log_reading(logs, reading)
    check_first(earlier(logs, reading), reading)
    for other in (
        replace(reading, model="mean"),
        replace(reading, predictions_sha256="of another run"),
    ):
        with pytest.raises(LeakageError, match=r"read by abmil .* could be chosen by its score"):
            check_first(earlier(logs, other), other)


@pytest.mark.parametrize(
    "way",
    ["one case less", "another store", "another table", "other bags", "copies", "a copied run"],
)
def test_no_way_round_the_log(run, unseen, place, way):
    table, store, folder = place
    log_reading(logs_of(*place), reading_of(run, "abmil", table, unseen))
    if way == "one case less":
        unseen = cohort_of(unseen.cases[:2])
    elif way == "another store":
        store = store.parent / "elsewhere"
    elif way == "another table":
        table = table.with_name("renamed.csv")
        table.write_text("case,slide,label\n\n")
    elif way in ("copies", "a copied run"):
        table, store = table.parent / "b" / table.name, store.parent / "b" / "store"
        store.mkdir(parents=True)
        if way == "a copied run":
            folder = shutil.copytree(folder, store.parent / "run")
    else:
        unseen = cohort_of(
            [made_case(case.name, case.label, np.ones((3, 5), np.float32)) for case in unseen.cases]
        )
    second = replace(reading_of(run, "majority", place[0], unseen), table=str(table))
    with pytest.raises(LeakageError, match="read by abmil"):
        check_first(earlier(logs_of(table, store, folder), second), second)


def test_other_cases_in_the_same_store_are_free(run, unseen, place):
    log_reading(logs_of(*place), reading_of(run, "abmil", place[0], unseen))
    others = cohort_of(
        [made_case(f"y{i}", f"class-{'ab'[i]}", np.eye(5)[i : i + 2]) for i in range(2)]
    )
    assert earlier(logs_of(*place), reading_of(run, "majority", place[0], others)) == ()


def test_a_log_that_was_cut_or_cannot_be_written_is_an_error(run, unseen, place):
    reading, logs = reading_of(run, "abmil", place[0], unseen), logs_of(*place)
    log_reading(logs, reading)
    logs[0].write_text(logs[0].read_text()[:40])
    with pytest.raises(RunError, match="line 1: not a reading"):
        earlier(logs, reading)
    with pytest.raises(RunError, match="cannot be written"):
        log_reading([place[1] / "absent" / "log"], reading)


def table_of(path, *rows, head="split"):
    path.write_text("\n".join([f"case,slide,label,{head}", *rows]))
    return read_table(path)


def test_rows_kept_aside_are_those_that_say_test(tmp_path):
    rows = table_of(tmp_path / "t.csv", "a,a1,x,train", "b,b1,y,", "c,c1,x,Test", "c,c2,x,test")
    rest, held = split_train_test(rows)
    assert ([row.slide for row in rest], [row.slide for row in held]) == (
        ["a1", "b1"],
        ["c1", "c2"],
    )
    with pytest.raises(
        CohortError, match=r"Case 'a' has slides with split=test and slides without"
    ):
        split_train_test(table_of(tmp_path / "t.csv", "a,a1,x,train", "a,a2,x,test"))


@pytest.mark.parametrize("head", ["Split", "SPLIT", " split "])
@pytest.mark.parametrize("said", ["test", " TEST ", "Testing", "external", "Held-out", "holdout"])
def test_whoever_keeps_cases_aside_keeps_them_however_it_is_written(tmp_path, head, said):
    rows = table_of(tmp_path / "t.csv", f"a,a1,x,{said}", "b,b1,y,Training", "c,c1,x,", head=head)
    rest, held = split_train_test(rows)
    assert ([row.slide for row in rest], [row.slide for row in held]) == (["b1", "c1"], ["a1"])
    assert all(not row.other for row in rows)


@pytest.mark.parametrize("said", ["validation", "val", "tset", "test set", "0", "?"])
def test_a_word_that_says_neither_is_refused_with_its_row(tmp_path, said):
    rows = table_of(tmp_path / "t.csv", "a,a1,x,train", f"b,b1,y,{said}", head="Split")
    with pytest.raises(CohortError) as told:
        split_train_test(rows)
    assert f"Line 3 of the table, slide 'b1': split is {said!r}. Write train" in str(told.value)
    assert "a set to validate on is written train" in str(told.value)


def test_two_columns_that_say_what_is_kept_aside_are_refused(tmp_path):
    with pytest.raises(CohortError, match=r"'Split' and 'split' both mean split\. Remove one"):
        table_of(tmp_path / "t.csv", "a,a1,x,test,train", head="Split,split")


def test_a_table_without_the_column_is_all_to_learn_from(tmp_path):
    (tmp_path / "t.csv").write_text("case,slide,label\na,a1,x\nb,b1,y\n")
    rest, held = split_train_test(read_table(tmp_path / "t.csv"))
    assert (len(rest), held) == (2, ())


def test_what_is_kept_aside_joins_to_bags_like_any_cohort(tmp_path):
    for name in ("a1", "b1"):
        case = made_case(name, "x", np.random.default_rng(ord(name[0])).normal(size=(4, 5)))
        write_bag(tmp_path / "store" / f"{name}-s1.h5", case.bags[0])
    rows = table_of(tmp_path / "t.csv", "a1,a1-s1,x,test", "b1,b1-s1,y,test")
    assert len(assemble(split_train_test(rows)[1], tmp_path / "store", source="t").cases) == 2
