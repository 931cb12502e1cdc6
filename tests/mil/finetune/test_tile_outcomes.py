"""Tiles learn the time until an event, or a grade, alone and in each fold of a cross-validation."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from lessons import QUICK, RECIPE, TILE, images, pool_of, tune
from PIL import Image

from features.backbones.registry import load_backbone
from features.extraction.embed import preprocess
from features.extraction.jobs import SlideJob
from features.progress import Silent
from mil.data.case import Case
from mil.data.cohort import assemble
from mil.data.table import read_table
from mil.errors import CohortError, FitError, LeakageError
from mil.finetune.config import FinetuneConfig, label_slides
from mil.finetune.cross_validation import PerFoldPipeline
from mil.finetune.files import load_classifier
from mil.finetune.tiles import LabelledSlide, tile_weights
from mil.learning.crossval import check_seen
from mil.runs.cross_validation import Computing, Plan
from mil.runs.record import NewRun
from mil.settings import FitSettings, SplitSettings
from mil.study import Study
from mil.tasks.diagnosis import Diagnosis
from mil.tasks.grade import Grade
from mil.tasks.survival import Survival

TASKS = {"survival": Survival(), "grade": Grade()}
N_CASES = 16
SETTINGS = replace(QUICK, epochs=8, learning_rate=3e-3, batch_tiles=16)


def colour(place):
    """From blue to red: the last case has the least time and the highest grade."""
    share = place / (N_CASES - 1)
    return (90 + 110 * share, 90, 200 - 110 * share)


def outcome(place):
    """(time, event, grade) of a case."""
    return 10.0 + 5 * (N_CASES - place), place % 4 != 0, str(1 + min(2, 3 * place // N_CASES))


def cases_with(times, events):
    return [
        Case(name=str(i), label="event" if event else "censored", bags=(), time=float(time))
        for i, (time, event) in enumerate(zip(times, events, strict=True))
    ]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A folder with slides, whose colour tells the outcome, and their table."""
    folder = tmp_path_factory.mktemp("study")
    rows = [("case", "slide", "time", "event", "grade")]
    for place in range(N_CASES):
        name = f"case-{place:02}"
        images(folder / "tiles", name, colour(place), n_tiles=4, spread=20)
        time, event, grade = outcome(place)
        rows.append((name, name, time, int(event), grade))
    with (folder / "cohort.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


def config_of(study, **settings):
    return FinetuneConfig(
        slides=study / "tiles",
        recipe=RECIPE,
        settings=replace(SETTINGS, **settings),
        slide_mpp=0.5,
        device="cpu",
        workers=1,
    )


def slides_of(study, task):
    table = study / "cohort.csv"
    return label_slides(config_of(study).read_jobs(table), read_table(table), task)


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_new_tiles_are_ordered_by_what_was_learnt(study, tmp_path, name):
    card = tune(slides_of(study, TASKS[name]), tmp_path / "out", SETTINGS, task=TASKS[name])
    assert card["losses"][-1] < card["losses"][0]
    outputs = {"survival": ["to 25", "to 45", "to 65", "to 85"], "grade": ["above 1", "above 2"]}
    assert card["classes"] == outputs[name]
    classifier, _ = load_classifier(tmp_path / "out")
    backbone = load_backbone("test_resnet", str(tmp_path / "out" / "weights.safetensors"))
    risks = []
    for place in range(0, N_CASES, 5):
        files = images(tmp_path / "new", f"new-{place}", colour(place), n_tiles=4, seed=9)
        tiles = torch.from_numpy(np.stack([np.asarray(Image.open(path)) for path in files]))
        with torch.inference_mode():
            risks.append(float(classifier(preprocess(tiles, backbone)).mean()))
    assert risks == sorted(risks)
    assert risks[-1] - risks[0] > 0.5


def test_the_likelihood_of_intervals_matches_a_product_of_hazards():
    train = cases_with([1, 2, 3, 4, 5, 6, 7, 8], [1] * 8)
    objective = Survival().tile_objective(train)
    assert objective.outputs == ("to 2", "to 4", "to 6", "to 8")
    hazards = [0.1, 0.2, 0.3, 0.4]
    logits = torch.logit(torch.tensor([hazards], dtype=torch.float64))
    alive = [math.prod(1 - h for h in hazards[:k]) for k in range(5)]
    expected = {
        (3.0, 1): alive[1] * hazards[1],  # an event in the second interval
        (4.0, 1): alive[1] * hazards[1],  # at its end
        (8.0, 1): alive[3] * hazards[3],
        (9.0, 1): alive[4],  # after the last interval
        (1.5, 0): 1.0,  # censored within the first
        (4.0, 0): alive[2],
        (20.0, 0): alive[4],
    }
    for (time, event), likelihood in expected.items():
        targets = objective.targets(cases_with([time], [event]))
        assert float(objective.losses(logits, targets)) == pytest.approx(-math.log(likelihood))


def test_the_loss_of_a_grade_is_that_of_its_decisions():
    cases = [Case(name=label, label=label, bags=()) for label in ("G2", "G1", "G3")]
    objective = Grade(grade="label").tile_objective(cases)
    assert objective.outputs == ("above G1", "above G2")
    p = [0.7, 0.4]
    logits = torch.logit(torch.tensor([p] * 3, dtype=torch.float64))
    losses = objective.losses(logits, objective.targets(cases))
    likelihoods = [p[0] * (1 - p[1]), (1 - p[0]) * (1 - p[1]), p[0] * p[1]]
    assert losses.tolist() == pytest.approx([-math.log(value) / 2 for value in likelihoods])
    with pytest.raises(FitError, match="No training case of grade G9"):
        objective.targets([Case(name="x", label="G9", bags=())])


@pytest.mark.parametrize(
    ("times", "events"),
    [([1, 2, 3, 4], [1, 1, 1, 0]), ([1, 2, 3], [0, 0, 0]), ([1, 1, 1, 1, 2, 3, 4], [1] * 7)],
)
def test_too_few_events_for_the_intervals_are_refused(times, events):
    with pytest.raises(FitError, match=r"each of 4 intervals.*Use fewer folds"):
        Survival().tile_objective(cases_with(times, events))


def test_every_case_weighs_the_same_where_labels_are_no_classes(tmp_path):
    names = {"a1": "a", "a2": "a", "b": "b", "c": "c"}
    slides = []
    for slide, case in names.items():
        files = images(tmp_path, slide, (90, 90, 90), n_tiles=2)
        job = SlideJob(slide=slide, files=files, mpp=0.5, case=case, from_tiles=True)
        slides.append(LabelledSlide(job, "event" if case == "c" else "censored", 1.0))
    with pool_of(slides) as pool:
        chosen = pool.draw(range(4), 2, np.random.default_rng(0))
        equally = tile_weights(pool, chosen, range(4), labels_equally=False)
    assert equally == pytest.approx([8 / 12, 8 / 12, 8 / 6, 8 / 6])
    weighs = [
        task.tile_objective([slide.case for slide in slides]).weighs_labels_equally
        for task in (Diagnosis(), Grade(grade_order=("censored", "event")))
    ]
    assert weighs == [True, False]


@pytest.mark.slow
def test_the_inner_part_is_judged_by_the_same_loss(study, tmp_path):
    task = TASKS["survival"]
    settings = replace(SETTINGS, epochs=2, early_stopping="always")
    card = tune(slides_of(study, task), tmp_path / "out", settings, task=task)
    assert len(card["valid_losses"]) == 2
    assert len(card["chosen_by"]) == 3
    assert set(card["chosen_by"]) < set(card["trained_on"])


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_a_run_finds_the_signal_and_no_fold_has_seen_its_test_cases(study, tmp_path, name):
    task, config = TASKS[name], config_of(study, epochs=2)
    plan = Plan(
        models=("pooled-logistic", "majority"),
        fit=FitSettings(task=name, seeds=1),
        split=SplitSettings(folds="2"),
    )
    learnt = Study(table=study / "cohort.csv", task=task, tuning=config)
    result = learnt.cross_validate(plan, NewRun(path=tmp_path / "run"), Computing())
    run, metric = result.run, task.null_metric[0]
    values = {model.model: model.metrics[metric].value for model in result.evaluation.models}
    assert values["pooled-logistic"] > 0.7
    rows = read_table(study / "cohort.csv")
    first, second = run.folds
    for fold, other in ((first, second), (second, first)):
        cohort = assemble(rows, run.fold_store(fold), task=task)
        assert {case.bags[0].trained_on for case in cohort.cases} == {tuple(sorted(fold.train))}
        check_seen(cohort, [fold])
        with pytest.raises(LeakageError):
            check_seen(cohort, [other])
    assert FinetuneConfig.from_settings(run.finetuning) == config
    pipeline = PerFoldPipeline(run, tmp_path / "shuffles", Silent())
    again = pipeline(run.cohort(), run.folds, 0)
    pd.testing.assert_frame_equal(again.table, result.predictions.table, check_exact=True)
    assert not list((tmp_path / "shuffles").iterdir())


def test_slides_without_an_outcome_are_named(study, tmp_path):
    table = tmp_path / "cohort.csv"
    table.write_text((study / "cohort.csv").read_text().replace("90.0,0,1", ",0,1"))
    with pytest.raises(CohortError, match=r"1 of 16 slides have no outcome, e.g. case-00"):
        label_slides(config_of(study).read_jobs(table), read_table(table), TASKS["survival"])
    with pytest.raises(CohortError, match="no column 'months'"):
        slides_of(study, Survival(time="months"))


@pytest.mark.slow
def test_the_command_trains_for_a_task(study, tmp_path, mil):
    options = [
        "--slides", "tiles", "--slide-mpp", "0.5", "--mpp", "0.5", "--tile", str(TILE), "--backbone",
        "test_resnet", "--weights", "random", "--epochs", "1", "--tiles-per-slide", "4",
    ]  # fmt: skip
    out = tmp_path / "tuned"
    mil("finetune", "cohort.csv", "--task", "survival", *options, "--out", out, cwd=study)
    assert json.loads((out / "card.json").read_text())["classes"][0] == "to 25"
    assert json.loads((out / "run.json").read_text())["times"]["case-00"] == 90
    per_fold = ["--finetune", "per-fold", "--finetune-config", out / "run.json"]
    refused = mil(
        "crossval", "cohort.csv", "--task", "grade", *per_fold, "--out", "x", cwd=study, check=False
    )
    assert refused.returncode == 2
    assert "has task survival, but --task is grade" in refused.stderr
