"""Clinical columns and a score combined inside folds: what is gained, and that no tested case is asked."""

from dataclasses import replace

import numpy as np
import pytest

import mil.learning.combined
from mil.data.cohort import Cohort
from mil.errors import CohortError, LeakageError
from mil.evaluation.classification.evaluate import evaluate
from mil.evaluation.survival.evaluate import evaluate_survival
from mil.learning.combined import SELECTED, Combination, combine
from mil.learning.crossval import fit_cases, fit_fold, fold_seed
from mil.settings import FitSettings
from tests.mil.followed import folds_by_event, followed_cohort
from tests.mil.made import cohort_of, folds_of, made_bag, made_case, made_cohort
from tests.mil.work import keep_none

MODEL = "pooled-logistic"
COMBINED = f"{MODEL}+clinical"


def two_classes(n=60, seed=0, *, telling=True):
    """A tile feature and an age that each tell a part of the class, and a column that tells nothing."""
    rng = np.random.default_rng(seed)
    cases = []
    for i in range(n):
        label = i % 2
        features = rng.normal(size=(10, 6))
        features[:, 0] += telling * (1.6 * label + rng.normal() * 0.8)
        age = 55 + telling * 8 * label + rng.normal() * 7
        case = made_case(f"c{i:02d}", "xy"[label], features.astype(np.float32))
        other = {"age": f"{age:.1f}", "arm": "lr"[int(rng.integers(2))]}
        cases.append(replace(case, other=other))
    return cohort_of(cases)


def combination(cohort, *, settings=None, fitter=keep_none, columns=("age", "arm")):
    return Combination(cohort, MODEL, columns, settings or FitSettings(), 0, fitter)


def judged(cohort, folds):
    results = evaluate(combine(combination(cohort), folds)).models
    return {result.model: result.metrics["auc"].value for result in results}


def test_both_together_tell_more_than_the_columns_alone():
    cohort = two_classes()
    scores = judged(cohort, folds_of(cohort))
    assert list(scores) == [SELECTED, COMBINED]
    assert scores[COMBINED] > scores[SELECTED] + 0.03
    assert scores[SELECTED] > 0.65


def test_where_nothing_tells_neither_does():
    """Over 8 cohorts of 30; the AUC of one has a standard error of about .11."""
    aucs = []
    for seed in range(8):
        cohort = two_classes(30, seed, telling=False)
        settings = FitSettings(seeds=1, epochs=3, width=8)
        of_mean = replace(combination(cohort), model="mean", settings=settings)
        results = evaluate(combine(of_mean, folds_of(cohort, folds="3", seed=seed))).models
        aucs += [
            result.metrics["auc"].value for result in results if result.model == "mean+clinical"
        ]
    assert abs(np.mean(aucs) - 0.5) < 3.3 * 0.11 / 8**0.5


def test_without_a_column_that_tells_the_training_share_is_said():
    cohort = two_classes(20)
    predictions = combine(combination(cohort, columns=()), folds_of(cohort))
    rows = predictions.table[predictions.table["model"] == SELECTED]
    assert rows["p_x"].unique().tolist() == pytest.approx([0.5])


def test_score_of_a_training_case_comes_from_others_of_its_fold(monkeypatch):
    cohort = two_classes(20)
    [fold, *_] = folds_of(cohort)
    trained = []

    def recorded_fit(model, cases, *arguments, **options):
        trained.append({case.name for case in cases})
        return fit_cases(model, cases, *arguments, **options)

    monkeypatch.setattr(mil.learning.combined, "fit_cases", recorded_fit)
    scored = []
    plain = Combination._score

    def recorded_score(self, fitted, case):
        scored.append((case.name, set(fitted.trained_on)))
        return plain(self, fitted, case)

    monkeypatch.setattr(Combination, "_score", recorded_score)
    combination(cohort)(fold)
    assert sorted(name for name, _ in scored) == sorted([*fold.train, *fold.test])
    assert all(name not in seen for name, seen in scored)
    assert all(seen <= set(fold.train) for _, seen in scored)
    assert len(trained) == 5


def test_labels_and_columns_of_the_test_part_choose_nothing():
    cohort = two_classes(24)
    [fold, *_] = folds_of(cohort, folds="3")
    tested = set(fold.test)
    swapped = cohort_of(
        [
            replace(case, label="yx"["xy".index(case.label)]) if case.name in tested else case
            for case in cohort.cases
        ]
    )
    first, second = (combination(one)(fold) for one in (cohort, swapped))
    for a, b in zip(first, second, strict=True):
        assert (a["p_x"], a["p_y"]) == (b["p_x"], b["p_y"])


def test_stored_fit_is_taken_and_refused_if_it_has_seen_a_test_case():
    cohort = two_classes(20)
    folds = folds_of(cohort)
    requested = []

    def keep(model, fold, fitter):
        requested.append((model, fold.index))
        return fitter()

    combine(combination(cohort, fitter=keep), folds)
    assert requested == [(MODEL, fold.index) for fold in folds]
    settings = FitSettings()
    cheat = fit_cases(MODEL, cohort.cases, cohort.classes, settings, 0)
    with pytest.raises(
        LeakageError, match=r"pooled-logistic was trained on c.*, which would be tested"
    ):
        combine(combination(cohort, fitter=lambda *_: cheat), folds)


def test_fit_of_the_fold_is_that_of_the_cross_validation():
    cohort = two_classes(20)
    [fold, *_] = folds_of(cohort)
    ours = []
    combination(cohort, fitter=lambda _m, _f, fitter: ours.append(fitter()) or ours[-1])(fold)
    theirs = fit_fold(cohort, MODEL, fold, FitSettings(), 0)
    assert ours[0].seed == theirs.seed == fold_seed(0, fold)
    assert bool((ours[0].head.weight == theirs.head.weight).all())


def test_backbone_that_has_seen_a_case_is_refused():
    cohort = two_classes(20)
    tainted = replace(cohort.cases[0], bags=(made_bag("z", dim=6, trained_on=("c05",)),))
    with pytest.raises(LeakageError, match="c05"):
        combine(combination(cohort_of([tainted, *cohort.cases[1:]])), folds_of(cohort))


def test_more_than_two_classes_are_refused():
    cohort = made_cohort((6, 6, 6))
    with pytest.raises(CohortError, match="two classes; the cohort has 3"):
        combine(combination(cohort, columns=("age",)), folds_of(cohort))


def test_survival_is_combined_by_cox_regressions():
    plain = followed_cohort(60, n_tiles=10)
    rng = np.random.default_rng(0)
    cases = tuple(
        replace(case, other={"age": f"{60 - 8 * np.log(case.time / 500) + 8 * rng.normal():.1f}"})
        for case in plain.cases
    )
    cohort = Cohort(cases=cases, classes=plain.classes, task=plain.task)
    request = combination(cohort, settings=FitSettings(task="survival"), columns=("age",))
    predictions = combine(request, folds_by_event(cohort))
    scores = {m.model: m for m in evaluate_survival(predictions).models}
    assert set(scores) == {SELECTED, COMBINED}
    assert scores[SELECTED].metrics["harrell"].low > 0.5
    assert scores[COMBINED].metrics["harrell"].value > 0.65
    assert scores[COMBINED].groups.p < 0.05
