"""An ensemble is the mean of logits, its cases are unseen, and one model is tested on them."""

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from features.bags.bag import write_bag
from features.extraction.jobs import SlideJob
from mil.data.case import Case
from mil.data.cohort import assemble
from mil.data.splits import write_folds
from mil.data.table import read_table, split_train_test
from mil.errors import CohortError, FitError, LeakageError, PredictionsError, RunError
from mil.evaluation.predictions import write_predictions
from mil.heads.batches import collate
from mil.learning.crossval import cross_validate
from mil.learning.fitted import save_model
from mil.learning.training import fit_model
from mil.likeness.reference import SlideReference, save_reference
from mil.runs import external, fold_bags
from mil.runs.external import check_unseen, external_validation, predict_ensemble
from mil.runs.files import sha256_of
from mil.runs.fold_bags import check_unseen_files
from mil.runs.record import finish_run, start_run
from mil.runs.run import Run
from mil.runs.validation_log import (
    check_same_model,
    earlier_records,
    log_paths,
    new_record,
    record_validation,
)
from tests.mil.followed import followed_cohort
from tests.mil.made import QUICK, cohort_of, folds_of, made_case, made_cohort

MODELS = ("abmil", "tile-vote-logits", "majority")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two repeats of three folds, every fit kept."""
    cohort = made_cohort((4, 4), seed=1)
    folds = folds_of(cohort, folds="3", repeats=2)
    facts = {
        "labels": {case.name: case.label for case in cohort.cases},
        "bags": {bag.slide: bag.data_sha256 for case in cohort.cases for bag in case.bags},
    }
    path = tmp_path_factory.mktemp("external") / "run"
    run = start_run(path, "crossval", {"models": MODELS}, facts)

    def keep(model, fold, fitter):
        fitted = fitter()
        save_model(run.model_path(model, fold), fitted)
        return fitted

    write_folds(path / "folds.json", folds)
    write_predictions(
        path / "predictions.csv", cross_validate(cohort, folds, MODELS, QUICK, seed=0, fitter=keep)
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
    table = predict_ensemble(members, unseen).table
    for case in unseen.cases:
        logits = []
        for member in members:
            for bag in case.bags:
                logits.extend(member.head(*collate([bag.features])).tile_logits[0].numpy())
        p = softmax(np.mean(np.array(logits, dtype=np.float64), axis=0))
        rows = table[table["case"] == case.name][["p_class-a", "p_class-b"]].to_numpy()
        assert rows == pytest.approx(np.tile(p, (len(case.bags), 1)), abs=1e-6)


def test_every_seed_of_a_fit_is_a_network_of_its_own(unseen):
    fits = [
        fit_model(
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
        for member in fits
        for head in member.head.members
    ]
    rows = predict_ensemble(fits, unseen).table
    p = rows[rows["case"] == "x2"][["p_class-a", "p_class-b"]].to_numpy()[0]
    assert len(logits) == 4
    assert p == pytest.approx(softmax(np.mean(logits, axis=0)), abs=1e-6)


@torch.inference_mode()
def test_slides_of_an_attention_model_count_alike(run, unseen):
    members = run.ensemble("abmil")
    table = predict_ensemble(members, unseen).table
    for case in unseen.cases:
        slides = [
            np.mean([m.head(*collate([bag.features])).logits[0].numpy() for m in members], axis=0)
            for bag in case.bags
        ]
        rows = table[table["case"] == case.name]
        assert rows[["logit_class-a", "logit_class-b"]].to_numpy() == pytest.approx(
            np.array(slides), abs=1e-6
        )
        assert rows[["p_class-a", "p_class-b"]].to_numpy()[0] == pytest.approx(
            softmax(np.mean(slides, axis=0)), abs=1e-6
        )


def test_risks_of_different_fits_are_averaged_as_answers_not_as_logits():
    """The logit of a fit is compared with those of its own training cases alone."""
    settings = replace(QUICK, task="survival")
    trained, unseen = followed_cohort(24), followed_cohort(10, seed=3)
    halves = trained.cases[:12], trained.cases[12:]
    members = [
        fit_model("mean", half, (), trained.classes, settings, seed=0, task=trained.task)
        for half in halves
    ]
    predictions = predict_ensemble(members, unseen)
    columns = predictions.answer_columns
    for case in unseen.cases:
        answers = []
        for member in members:
            logits = [member.head(*collate([bag.features])).logits[0] for bag in case.bags]
            mean = torch.stack(logits).detach().double().mean(0)
            answers.append([member.readout.answer(mean, columns)[name] for name in columns])
        rows = predictions.table[predictions.table["case"] == case.name]
        assert list(rows["time"]) == [case.time] * len(case.bags)
        for row in rows[columns].to_numpy():
            assert row == pytest.approx(np.mean(answers, axis=0), abs=1e-6)
    assert not [name for name in predictions.table.columns if name.startswith("logit_")]


def test_a_label_no_model_knows_is_refused(run, unseen):
    strange = cohort_of([replace(unseen.cases[0], label="class-z"), *unseen.cases[1:]])
    with pytest.raises(PredictionsError, match="label 'class-z', which is none of the classes"):
        predict_ensemble(run.ensemble("majority"), strange)


def test_a_missing_fit_is_an_error(run):
    path = next((run.path / "models").glob("majority-r1-f2.safetensors"))
    content = path.read_bytes()
    path.unlink()
    try:
        with pytest.raises(FitError, match="1 of 6 fits of majority"):
            run.ensemble("majority")
    finally:
        path.write_bytes(content)
    with pytest.raises(RunError, match=r"No model 'mean'\. Known: abmil"):
        run.ensemble("mean")


def test_a_combined_model_has_no_fit(run):
    with pytest.raises(RunError, match=r"fitted anew in each fold.* Name one of abmil"):
        run.ensemble("abmil+clinical")


def test_seen_cases_are_refused_under_any_name(run, unseen):
    members = run.ensemble("majority")
    check_unseen(run, members, unseen)
    known = made_cohort((4, 4), seed=1).cases[0]
    renamed = Case(name="new", label=known.label, bags=known.bags)
    spelled = replace(unseen.cases[0], name=known.name.upper())
    for case in (known, renamed, spelled):
        with pytest.raises(LeakageError, match="1 of 3 cases were used to train"):
            check_unseen(run, members, cohort_of([case, *unseen.cases[1:]]))


@pytest.mark.parametrize(
    ("trained", "case", "slide"),
    [
        ("TCGA-ZN-A9VQ-01Z-00-DX1", "TCGA-ZN-A9VQ-01A-01-TS2", "late"),
        ("C3N-00498", "ours", "C3N-00498-24"),
    ],
)
def test_other_slides_of_a_patient_of_the_run_are_refused(
    run, unseen, monkeypatch, trained, case, slide
):
    monkeypatch.setattr(fold_bags, "slide_fingerprints", lambda _job: set())
    members = [replace(m, trained_on=(trained,)) for m in run.ensemble("majority")]
    first = unseen.cases[0]
    bags = tuple(replace(bag, slide=f"{slide}{i or ''}") for i, bag in enumerate(first.bags))
    cohort = cohort_of([replace(first, name=case, bags=bags[:1]), *unseen.cases[1:]])
    with pytest.raises(
        LeakageError, match=f"1 of 3 cases were used to train this run, e.g. {case}"
    ):
        check_unseen(run, members, cohort)
    jobs = [SlideJob(slide=slide, files=(run.path / "run.json",), case=case)]
    with pytest.raises(
        LeakageError, match=f"1 of 1 cases were used to train this run, e.g. {case}"
    ):
        check_unseen_files(run, members, jobs)
    others = [replace(m, trained_on=("TCGA-ZN-A9VP", "C3N-00499")) for m in members]
    check_unseen(run, others, cohort)


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


def test_a_record_is_added_to_every_log_and_none_is_lost(run, unseen, place):
    record = new_record(run, "abmil", place[0], unseen)
    logs = log_paths(*place)
    record_validation(logs, record)
    first = [log.read_bytes() for log in logs]
    record_validation(logs, replace(record, date="2030-01-01"))
    for log, before in zip(logs, first, strict=True):
        assert log.read_bytes().startswith(before)
        assert [json.loads(line)["model"] for line in log.read_text().splitlines()] == ["abmil"] * 2
    assert [entry.date for entry in earlier_records(logs, record)] == [record.date, "2030-01-01"]


def test_the_same_model_may_read_again_and_no_other(run, unseen, place):
    record, logs = new_record(run, "abmil", place[0], unseen), log_paths(*place)
    assert earlier_records(logs, record) == ()
    record_validation(logs, record)
    check_same_model(earlier_records(logs, record), record)
    for other in (
        replace(record, model="mean"),
        replace(record, predictions_sha256="of another run"),
    ):
        with pytest.raises(
            LeakageError, match=r"used to test abmil .* would let you pick the better one"
        ):
            check_same_model(earlier_records(logs, other), other)


@pytest.mark.parametrize(
    "way",
    ["one case less", "another store", "another table", "other bags", "copies", "a copied run"],
)
def test_no_way_round_the_log(run, unseen, place, way):
    table, store, folder = place
    record_validation(log_paths(*place), new_record(run, "abmil", table, unseen))
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
    second = replace(new_record(run, "majority", place[0], unseen), table=str(table))
    with pytest.raises(LeakageError, match="used to test abmil"):
        check_same_model(earlier_records(log_paths(table, store, folder), second), second)


def test_other_cases_in_the_same_store_are_free(run, unseen, place):
    record_validation(log_paths(*place), new_record(run, "abmil", place[0], unseen))
    others = cohort_of(
        [made_case(f"y{i}", f"class-{'ab'[i]}", np.eye(5)[i : i + 2]) for i in range(2)]
    )
    assert earlier_records(log_paths(*place), new_record(run, "majority", place[0], others)) == ()


def test_a_log_that_was_cut_or_cannot_be_written_is_an_error(run, unseen, place):
    record, logs = new_record(run, "abmil", place[0], unseen), log_paths(*place)
    record_validation(logs, record)
    logs[0].write_text(logs[0].read_text()[:40])
    with pytest.raises(RunError, match="line 1: not a record"):
        earlier_records(logs, record)
    with pytest.raises(RunError, match="cannot be written"):
        record_validation([place[1] / "absent" / "log"], record)


@pytest.mark.parametrize("first_task", ["survival", "grade", ""])
def test_a_model_of_another_question_may_be_tested_on_the_same_cases(
    run, unseen, place, first_task
):
    """Not one that reads the same outcome under another name, nor one whose question is not logged."""
    diagnosis, logs = new_record(run, "abmil", place[0], unseen), log_paths(*place)
    outcomes = ("1", "0", "1") if first_task == "survival" else diagnosis.outcomes
    first = replace(diagnosis, model="mean", task=first_task, outcomes=outcomes)
    record_validation(logs, first)
    if first_task == "survival":
        assert record_validation(logs, diagnosis) == ()
        other = replace(first, model="max")
    else:
        other = diagnosis
    with pytest.raises(LeakageError, match="used to test mean"):
        record_validation(logs, other)


def test_a_log_without_tasks_is_read_as_before(run, unseen, place):
    record, logs = new_record(run, "abmil", place[0], unseen), log_paths(*place)
    record_validation(logs, record)
    for log in logs:
        entry = json.loads(log.read_text())
        del entry["task"], entry["outcomes"]
        log.write_text(json.dumps(entry) + "\n")
    with pytest.raises(LeakageError, match="used to test abmil"):
        record_validation(logs, replace(record, model="mean", task="survival"))
    assert len(record_validation(logs, record)) == 1


def at_once(*calls):
    """What each call returned or raised, all started together."""
    start = threading.Barrier(len(calls))

    def run_one(call):
        start.wait()
        try:
            return call()
        except (LeakageError, RunError) as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run_one, calls))


@pytest.mark.parametrize("shared", [0, 1, 2])
def test_of_two_models_recorded_at_once_one_is_refused(run, unseen, tmp_path, shared):
    """Whichever of the three logs is the only one that both write to, and in whatever order they name it."""
    (tmp_path / "t").write_text("case")
    record = new_record(run, "abmil", tmp_path / "t", unseen)
    for number in range(60):
        common = tmp_path / f"{number}-m"
        sides = [[tmp_path / f"{number}-{side}{i}" for i in range(3)] for side in "az"]
        for side in sides:
            side[shared] = common
        results = at_once(
            lambda logs=sides[0]: record_validation(logs, record),
            lambda logs=sides[1][::-1]: record_validation(logs, replace(record, model="mean")),
        )
        refused = [result for result in results if isinstance(result, LeakageError)]
        assert len(refused) == 1, results
        assert [result for result in results if result == ()] == [()]
        loser = sides[results.index(refused[0])]
        assert not [log for log in loser if log != common and log.exists()]
        assert len(common.read_text().splitlines()) == 1


def test_of_two_validations_started_together_one_is_refused(
    run, cohort_on_disk, tmp_path, monkeypatch
):
    """Both have found no earlier record when they predict."""
    copied = Run(shutil.copytree(run.path, tmp_path / "run"), run.info)
    ready = threading.Barrier(2)

    def predict_together(members, cohort):
        ready.wait()
        return predict_ensemble(members, cohort)

    monkeypatch.setattr(external, "predict_ensemble", predict_together)
    results = at_once(
        *(
            lambda model=model: external_validation(
                copied, model, *cohort_on_disk, name=model, allow_missing=True
            )
            for model in ("majority", "abmil")
        )
    )
    assert sorted(type(result).__name__ for result in results) == [
        "ExternalValidation",
        "LeakageError",
    ]
    assert len(list((copied.path / "external").glob("*/predictions.csv"))) == 1


def table_of(path, *rows, head="split"):
    path.write_text("\n".join([f"case,slide,label,{head}", *rows]))
    return read_table(path)


def test_rows_for_testing_are_those_that_say_test(tmp_path):
    rows = table_of(tmp_path / "t.csv", "a,a1,x,train", "b,b1,y,", "c,c1,x,Test", "c,c2,x,test")
    train_rows, test_rows = split_train_test(rows)
    assert ([row.slide for row in train_rows], [row.slide for row in test_rows]) == (
        ["a1", "b1"],
        ["c1", "c2"],
    )
    with pytest.raises(
        CohortError, match=r"Case 'a' has slides with split=test and slides without"
    ):
        split_train_test(table_of(tmp_path / "t.csv", "a,a1,x,train", "a,a2,x,test"))


@pytest.mark.parametrize("head", ["Split", "SPLIT", " split "])
@pytest.mark.parametrize("word", ["test", " TEST ", "Testing", "external", "Held-out", "holdout"])
def test_words_for_testing_are_understood_in_any_spelling(tmp_path, head, word):
    rows = table_of(tmp_path / "t.csv", f"a,a1,x,{word}", "b,b1,y,Training", "c,c1,x,", head=head)
    train_rows, test_rows = split_train_test(rows)
    assert ([row.slide for row in train_rows], [row.slide for row in test_rows]) == (
        ["b1", "c1"],
        ["a1"],
    )
    assert all(not row.other for row in rows)


@pytest.mark.parametrize("word", ["validation", "val", "tset", "test set", "0", "?"])
def test_a_word_that_says_neither_is_refused_with_its_row(tmp_path, word):
    rows = table_of(tmp_path / "t.csv", "a,a1,x,train", f"b,b1,y,{word}", head="Split")
    with pytest.raises(CohortError) as caught:
        split_train_test(rows)
    assert f"Line 3 of the table, slide 'b1': split is {word!r}. Write train" in str(caught.value)
    assert "a validation set of your own is written train" in str(caught.value)


def test_two_split_columns_are_refused(tmp_path):
    with pytest.raises(CohortError, match=r"'Split' and 'split' both mean split\. Remove one"):
        table_of(tmp_path / "t.csv", "a,a1,x,test,train", head="Split,split")


def test_a_table_without_the_column_is_all_to_learn_from(tmp_path):
    (tmp_path / "t.csv").write_text("case,slide,label\na,a1,x\nb,b1,y\n")
    train_rows, test_rows = split_train_test(read_table(tmp_path / "t.csv"))
    assert (len(train_rows), test_rows) == (2, ())


def test_rows_for_testing_join_to_bags_like_any_cohort(tmp_path):
    for name in ("a1", "b1"):
        case = made_case(name, "x", np.random.default_rng(ord(name[0])).normal(size=(4, 5)))
        write_bag(tmp_path / "store" / f"{name}-s1.h5", case.bags[0])
    rows = table_of(tmp_path / "t.csv", "a1,a1-s1,x,test", "b1,b1-s1,y,test")
    assert len(assemble(split_train_test(rows)[1], tmp_path / "store", source="t").cases) == 2


@pytest.fixture
def cohort_on_disk(tmp_path, unseen):
    """The table and the bag store of the unseen cases, with one slide that has no bag."""
    lines = ["case,slide,label"]
    for case in unseen.cases:
        for bag in case.bags:
            write_bag(tmp_path / "store" / f"{bag.slide}.h5", bag)
            lines.append(f"{case.name},{bag.slide},{case.label}")
    (tmp_path / "table.csv").write_text("\n".join([*lines, "x9,x9-s1,class-b"]))
    return tmp_path / "table.csv", tmp_path / "store"


def test_a_validation_returns_what_it_has_written(run, unseen, cohort_on_disk, tmp_path):
    copied = Run(shutil.copytree(run.path, tmp_path / "run"), run.info)
    messages = []
    validation = external_validation(
        copied, "abmil", *cohort_on_disk, name="other", allow_missing=True, notify=messages.append
    )
    missing, unknown, unlike = messages
    assert unlike.startswith("Not known whether new slides are like those")
    assert missing.split(":")[1] == " x9-s1"
    assert unknown.startswith("Not known whether these slides show specimens of the run's own")
    assert validation.path == copied.path / "external" / "other"
    assert validation.n_members == 6
    members = copied.ensemble("abmil")
    expected = predict_ensemble(members, unseen).table
    assert validation.predictions.table.equals(expected)
    metrics = json.loads((validation.path / "metrics.json").read_text())
    assert metrics["models"] == validation.evaluation.to_json()["models"]
    assert all(log.is_file() for log in validation.logs)
    again = external_validation(copied, "abmil", *cohort_on_disk, allow_missing=True)
    assert (validation.earlier, again.earlier) == ((), (validation.record,))
    with pytest.raises(LeakageError, match="used to test abmil"):
        external_validation(copied, "majority", *cohort_on_disk, allow_missing=True)


def test_slides_are_only_for_runs_whose_folds_embed_them(run, cohort_on_disk, tmp_path):
    slides = external.ExternalSlides(folder=tmp_path)
    with pytest.raises(RunError, match=r"reads bags of one backbone: extract .* leave out slides"):
        external_validation(run, "abmil", *cohort_on_disk, slides=slides)


def test_every_fit_may_read_the_cases_with_bags_of_its_own(run, unseen):
    members = run.ensemble("abmil")
    same = predict_ensemble(members, *[unseen] * len(members)).table
    assert same.equals(predict_ensemble(members, unseen).table)
    with pytest.raises(ValueError, match="shorter"):
        predict_ensemble(members, unseen, unseen)


def test_slides_unlike_those_of_the_run_are_named_and_still_judged(run, unseen):
    [fine, *_] = made_cohort((4, 4), seed=1).cases
    foreign = made_case("y1", "class-a", np.full((6, 5), 40.0) + np.arange(30).reshape(6, 5))
    messages = []
    cohort = cohort_of([fine, foreign, *unseen.cases[1:2]])
    assert (
        external.compare_slides(run, cohort, messages.append) == {}
    )  # the run's bags are not there
    assert "Not known whether new slides are like those" in messages[0]
    bags = [bag for case in made_cohort((4, 4), seed=1).cases for bag in case.bags]
    cases = [bag.slide.split("-")[0] for bag in bags]
    save_reference(run.path / "reference.safetensors", SlideReference.of_bags(bags, cases))
    checksum = {"reference.safetensors": sha256_of(run.path / "reference.safetensors")}
    known = Run(run.path, run.info | {"results": run.info["results"] | checksum})
    messages.clear()
    unlike = external.compare_slides(known, cohort, messages.append)
    assert unlike["y1-s1"].ratio > 1.5
    assert messages[0].startswith("y1-s1: unlike the training slides")
    assert "slides are unlike those the model learnt from" in messages[-1]
    assert unlike[fine.bags[0].slide].ratio < 1
