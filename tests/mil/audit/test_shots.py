"""Draws of few training cases: nested, of whole classes, beside the same test cases; and what they leave."""

import csv
import json
import pickle
import shutil
from dataclasses import replace
from statistics import mean, stdev

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score

from mil.audit import shots_run
from mil.audit.shots import MEASURES, draw_shots, most_shots, possible_shots
from mil.audit.shots_run import run_learning_curve
from mil.data.cohort import load_cohort
from mil.errors import CohortError, LeakageError, RunError
from mil.evaluation.predictions import read_predictions
from mil.learning.crossval import fit_cases
from mil.learning.fitted import save_model
from mil.settings import CurveSettings
from mil.tasks.grade import Grade
from mil.tasks.survival import Survival
from tests.mil.made import QUICK, folds_of, made_cohort, planted_cohort
from tests.mil.made_runs import write_cohort

MODELS = ("majority", "simpleshot")
CURVE = CurveSettings(shots=(2, 1), draws=2, folds="3", seed=4)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, planted_cohort(2, 6)[0])
    return load_cohort(folder / "cohort.csv", folder / "store")


@pytest.fixture(scope="module")
def curve(cohort, tmp_path_factory):
    return learn(cohort, tmp_path_factory.mktemp("curve") / "few")


def learn(cohort, out, curve=CURVE, **options):
    return run_learning_curve(cohort, MODELS, out, fit=QUICK, curve=curve, workers=1, **options)


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_draws_are_nested_balanced_and_differ():
    cohort = made_cohort((9, 14))
    folds, label_of = (
        folds_of(cohort, folds="4"),
        dict(zip(cohort.names, cohort.labels, strict=True)),
    )
    drawn = {
        (draw, k): draw_shots(folds, label_of, k, draw=draw, seed=3)
        for draw in (1, 2, 3)
        for k in (1, 2, 5)
    }
    for (draw, k), reduced in drawn.items():
        for fold, original in zip(reduced, folds, strict=True):
            assert (fold.test, fold.index, fold.repeat) == (original.test, original.index, draw)
            labels = [label_of[name] for name in fold.train]
            assert sorted(labels) == ["class-a"] * k + ["class-b"] * k
            assert set(fold.train) < set(original.train)
        larger = drawn.get((draw, {1: 2, 2: 5, 5: 0}[k]), reduced)
        assert all(set(a.train) <= set(b.train) for a, b in zip(reduced, larger, strict=True))
    trains = {tuple(fold.train for fold in drawn[draw, 2]) for draw in (1, 2, 3)}
    assert len(trains) == 3
    assert draw_shots(folds, label_of, 5, draw=2, seed=3) == drawn[2, 5]
    assert draw_shots(folds, label_of, 5, draw=2, seed=9) != drawn[2, 5]


def test_a_number_that_a_training_part_lacks_is_left_out_and_named():
    cohort = made_cohort((5, 9))
    folds, label_of = (
        folds_of(cohort, folds="5"),
        dict(zip(cohort.names, cohort.labels, strict=True)),
    )
    assert most_shots(folds, label_of) == (4, "class-a")
    assert possible_shots((1, 4), folds, label_of) == ((1, 4), "")
    possible, notice = possible_shots((1, 4, 8, 16), folds, label_of)
    assert possible == (1, 4)
    assert notice == (
        "Left out: 8, 16 training cases per class; the smallest training part has 4 of class class-a."
    )
    with pytest.raises(
        CohortError, match=r"No training part has 5 cases .* Set shots to 4 or fewer"
    ):
        possible_shots((5, 8), folds, label_of)


def test_every_case_is_tested_in_every_draw_by_models_that_saw_few(cohort, curve):
    assert (curve.shots, curve.n_cases, len(curve.scores)) == ((1, 2), 12, 8)
    for draw in (1, 2):
        for k in (1, 2):
            predictions = read_predictions(curve.path / "draws" / f"draw-{draw}-shots-{k}.csv")
            for model in MODELS:
                assert list(predictions.case_scores(model, draw).case) == sorted(cohort.names)
            # From as many cases of each class, the majority model says one half.
            p = predictions.case_scores("majority", draw).p
            np.testing.assert_allclose(p, 0.5, atol=1e-6)


def test_scores_are_those_of_scikit_learn(curve):
    for row in rows_of(curve.path / "draws.csv"):
        path = curve.path / "draws" / f"draw-{row['draw']}-shots-{row['shots']}.csv"
        scores = read_predictions(path).case_scores(row["model"], int(row["draw"]))
        named = scores.p.argmax(axis=1)
        assert float(row["accuracy"]) == accuracy_score(scores.truth, named)
        assert float(row["balanced_accuracy"]) == balanced_accuracy_score(scores.truth, named)
        if row["model"] == "majority":
            assert row["auc"] == ""
        else:
            assert float(row["auc"]) == pytest.approx(roc_auc_score(scores.truth, scores.p[:, 1]))


def test_summary_is_mean_sd_and_range_of_the_draws(curve):
    draws, summary = rows_of(curve.path / "draws.csv"), rows_of(curve.path / "summary.csv")
    assert len(summary) == len(MODELS) * 2 * len(MEASURES)
    for row in summary:
        own = [d for d in draws if (d["model"], d["shots"]) == (row["model"], row["shots"])]
        values = [float(d[row["metric"]]) for d in own if d[row["metric"]]]
        assert int(row["draws"]) == len(values)
        if values:
            expected = [mean(values), stdev(values), min(values), max(values)]
            got = [float(row[name]) for name in ("mean", "sd", "low", "high")]
            assert got == pytest.approx(expected)


def test_figure_names_test_cases_models_and_guessing(curve):
    svg = (curve.path / "learning-curve.svg").read_text()
    assert "12 test cases" in svg
    assert "dashed: guessing" in svg
    assert all(name in svg for name in (*MODELS, "macro AUC", "training cases per class"))
    assert (curve.path / "learning-curve.png").stat().st_size > 5000
    assert [curve.chance(measure) for measure in MEASURES] == [0.5, 0.5, 0.5]


def test_table_says_what_the_spread_is(curve):
    table = curve.table()
    assert table.header == (
        "model",
        "cases per class",
        "accuracy",
        "balanced accuracy",
        "macro AUC",
    )
    assert [row[:2] for row in table.rows] == [
        ("majority", "1"), ("majority", "2"), ("simpleshot", "1"), ("simpleshot", "2"),
    ]  # fmt: skip
    assert table.rows[0][2:] == ("0.50 ± 0.00 (0.50 to 0.50)",) * 2 + ("undefined",)
    assert "the same 12 cases" in table.notes[1]
    assert len(table.notes) == 2, "2 of 4 cases do not overlap by more than half"
    single = replace(curve, draws=1, scores=curve.scores[:4])
    assert single.table().title == "1 draw, 12 test cases"
    assert single.table().rows[2][2].count("(") == 0
    assert single.notes()[1].startswith("One draw does not show")
    overlapping = replace(curve, most=3).notes()[2]
    assert overlapping.startswith("With 2 cases per class the draws overlap")


def test_an_interrupted_call_goes_on_to_the_same_files(cohort, curve, tmp_path, monkeypatch):
    made = []
    first = shots_run.cross_validate

    def interrupted(*arguments, **options):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(arguments[1][0].repeat)
        return first(*arguments, **options)

    out = tmp_path / "few"
    monkeypatch.setattr(shots_run, "cross_validate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        learn(cohort, out)
    assert len(list((out / "draws").iterdir())) == 3
    again = []
    monkeypatch.setattr(
        shots_run, "cross_validate", lambda *a, **o: again.append(1) or first(*a, **o)
    )
    learn(cohort, out)
    assert len(again) == 1
    for name in ("draws.csv", "summary.csv", "learning-curve.svg", "draws/draw-2-shots-2.csv"):
        assert (out / name).read_bytes() == (curve.path / name).read_bytes(), name
    with pytest.raises(RunError, match="holds a finished run"):
        learn(cohort, out)


def test_another_curve_in_the_folder_is_refused_and_replaced_whole(cohort, curve, tmp_path):
    out = shutil.copytree(curve.path, tmp_path / "few")
    with pytest.raises(RunError, match="Choose another folder"):
        learn(cohort, out, replace(CURVE, seed=5))
    assert len(learn(cohort, out, replace(CURVE, shots=(1,), draws=1), overwrite=True).scores) == 2
    assert [path.name for path in (out / "draws").iterdir()] == ["draw-1-shots-1.csv"]


def test_predictions_of_a_draw_that_were_changed_are_refused(cohort, curve, tmp_path):
    out = shutil.copytree(curve.path, tmp_path / "few")
    card = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(card | {"complete": False}))
    changed = out / "draws" / "draw-1-shots-1.csv"
    lines = changed.read_text().splitlines(keepends=True)
    changed.write_text("".join(line for line in lines if not line.startswith('"majority"')))
    with pytest.raises(RunError, match=r"draw-1-shots-1\.csv is not as it was written"):
        learn(cohort, out)


def test_a_backbone_that_has_seen_a_case_is_refused_before_any_work(cohort, tmp_path):
    case = cohort.cases[3]
    bags = tuple(replace(bag, trained_on=(case.name,)) for bag in case.bags)
    cases = tuple(replace(c, bags=bags) if c == case else c for c in cohort.cases)
    with pytest.raises(LeakageError, match=case.name):
        learn(replace(cohort, cases=cases), tmp_path / "few")
    assert not (tmp_path / "few").exists()


def test_weights_that_know_a_case_are_refused_before_any_work(cohort, tmp_path):
    start = tmp_path / "mean.safetensors"
    save_model(start, fit_cases("mean", cohort.cases[:8], cohort.classes, QUICK, 0))
    with pytest.raises(LeakageError, match="head_weights"):
        run_learning_curve(
            cohort,
            ["mean"],
            tmp_path / "few",
            fit=replace(QUICK, head_weights=str(start)),
            curve=CURVE,
        )
    assert not (tmp_path / "few").exists()


@pytest.mark.parametrize("task", [Survival(), Grade()])
def test_an_outcome_without_classes_is_refused(cohort, tmp_path, task):
    with pytest.raises(
        CohortError, match=f"there is none for the task {task.name}. Leave out task"
    ):
        learn(replace(cohort, task=task), tmp_path / "few")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shots": (0, 2)}, "numbers of cases per class from 1; got 0, 2"),
        ({"shots": ()}, "numbers of cases per class from 1"),
        ({"draws": 0}, "draws must be at least 1; got 0"),
        ({"folds": "1"}, "folds must be at least 2"),
        ({"seed": -1}, "seed is from 0"),
    ],
)
def test_settings_out_of_range_are_refused(values, message):
    with pytest.raises(CohortError, match=message):
        CurveSettings(**values)


def test_a_draw_gives_the_same_in_another_process(cohort, curve, tmp_path):
    """As it is sent there: everything that it needs goes with it."""
    folds = folds_of(cohort, folds="3", seed=4)
    work = shots_run._Draw(cohort, MODELS, folds, QUICK, 4, tmp_path)
    pickle.loads(pickle.dumps(work))(2, 1)
    first = curve.path / "draws" / "draw-2-shots-1.csv"
    assert (tmp_path / first.name).read_bytes() == first.read_bytes()
