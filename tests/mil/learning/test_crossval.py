"""Cross-validation finds what is there, finds nothing where nothing is, and lets nobody peek.

Cohorts are planted (15 % of tiles tell the class, the rest are shared), shuffled (the same bags, labels
at random) or signed (slides of a case resemble one another and nothing tells the class).
"""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from mil.data.case import Case
from mil.data.splits import Fold
from mil.errors import CohortError, FitError, LeakageError
from mil.explanation.attention import attention_scores
from mil.heads.registry import check_chunks
from mil.heads.table import MODELS
from mil.learning import crossval
from mil.learning.crossval import check_seen, cross_validate, fit_fold, fold_seed, set_aside
from mil.learning.fitted import load_model, save_model
from mil.learning.training import fit_models
from mil.settings import FEW_CASES, FitSettings
from tests.mil.made import (
    QUICK,
    RECIPE,
    cohort_of,
    folds_of,
    made_case,
    made_cohort,
    planted_cohort,
    relabelled,
)
from tests.twins import auc

LEARNER = FitSettings(seeds=1, epochs=12, width=32, learning_rate=5e-3)
CHANCE = 1 / 4  # all cohorts of this file that are judged have four classes of five cases


def run(cohort, models=("abmil",), settings=QUICK, *, seed=0, folds=None, **options):
    folds = folds or folds_of(cohort, seed=seed)
    return cross_validate(cohort, folds, models, settings, seed=seed, **options)


def correct(predictions, model="abmil"):
    scores = predictions.case_scores(model, 0)
    return int((scores.p.argmax(axis=1) == scores.truth).sum())


def within_chance(n_correct, n):
    """Whether a count lies in the central 99.8 % of guessing.

    Cases of one cohort share their fits, so counts scatter more than independent guesses do: 1.35 times
    the binomial variance over 60 cohorts. The limits allow for 1.5 times, and n is a multiple of 3.
    """
    low, high = binom.interval(0.998, n / 1.5, CHANCE)
    return low <= n_correct / 1.5 <= high


@pytest.fixture(scope="module")
def planted():
    """The planted cohort, its key tiles, the predictions, and the fits by fold."""
    cohort, keys = planted_cohort()
    fits = {}

    def keep(model, fold, fitter):
        fits[fold] = fitter()
        return fits[fold]

    return cohort, keys, run(cohort, settings=LEARNER, fitter=keep), fits


def test_planted_signal_is_found(planted):
    """By guessing, 14 of 20 or more happen once in 300,000 cohorts."""
    assert correct(planted[2]) >= 14


def test_attention_lies_on_the_key_tiles_of_cases_not_seen(planted):
    cohort, keys, _, fits = planted
    results = [
        auc(keys[bag.slide], attention_scores(fitted, bag).values)
        for fold, fitted in fits.items()
        for case in cohort.named(fold.test)
        for bag in case.bags
    ]
    assert len(results) == 20
    assert np.mean(results) >= 0.8


N_SHUFFLED = 6  # benchmarks.null_cohorts draws 40


def test_shuffled_labels_are_predicted_by_chance():
    """Each fold tests one case of each class, so that guessing is right in a quarter exactly."""
    n_correct = sum(
        correct(run(relabelled(planted_cohort(seed=seed)[0], seed), settings=LEARNER, seed=seed))
        for seed in range(100, 100 + N_SHUFFLED)
    )
    assert within_chance(n_correct, 20 * N_SHUFFLED)


def test_the_bound_of_chance_would_notice_a_leak():
    """Were every fourth answer given away, the count would leave the bound."""
    n = 20 * N_SHUFFLED
    assert within_chance(CHANCE * n, n)
    assert not within_chance((1 / 4 + 3 / 4 * CHANCE) * n, n)


def signed_cohort(seed, n_slides=3, dim=16):
    """Slides of a case share a random vector as large as the spread of tiles; labels are random."""
    rng = np.random.default_rng(seed)
    cases = []
    for i in range(20):
        signature = rng.normal(size=dim)
        bags = [
            (signature + rng.normal(size=(15, dim))).astype(np.float32) for _ in range(n_slides)
        ]
        cases.append(made_case(f"case{i:02d}", f"class-{i % 4}", *bags))
    return cohort_of(cases)


def by_slide(cohort):
    """The mistake: each slide as if it were a case of its own."""
    return cohort_of(
        [
            Case(name=bag.slide, label=case.label, bags=(bag,))
            for case in cohort.cases
            for bag in case.bags
        ]
    )


SIGNED = range(200, 203)


def test_patient_signature_does_not_help_where_cases_stay_together():
    results = sum(
        correct(run(signed_cohort(seed), ["mean"], LEARNER, seed=seed), "mean") for seed in SIGNED
    )
    assert within_chance(results, 20 * len(SIGNED))


def test_patient_signature_would_pass_for_a_diagnosis_if_slides_were_split():
    results = sum(
        correct(run(by_slide(signed_cohort(seed)), ["mean"], LEARNER, seed=seed), "mean")
        for seed in SIGNED[:1]
    )
    assert results / 60 > 2 * CHANCE


COHORT = made_cohort((5, 5, 5), slides=2)
HALVES = folds_of(COHORT, folds="2")


def retrained(cohort, seen):
    """The cohort with bags of a backbone that has seen some cases."""
    cases = [
        replace(case, bags=tuple(replace(bag, trained_on=seen) for bag in case.bags))
        for case in cohort.cases
    ]
    return replace(cohort, cases=tuple(cases))


def test_backbone_that_saw_a_tested_case_is_leakage():
    with pytest.raises(
        LeakageError, match=r"trained on 2 cases that would be tested, e\.g\. a1, b2"
    ):
        run(retrained(COHORT, ("b2", "elsewhere", "a1")))


def test_backbone_that_saw_another_slide_of_a_tested_patient_is_leakage():
    first = COHORT.cases[0]
    bags = (replace(first.bags[0], slide="HTA9_14_00101"), *first.bags[1:])
    for case in (replace(first, name="HTA9_14"), replace(first, bags=bags)):
        cohort = replace(COHORT, cases=(case, *COHORT.cases[1:]))
        folds = folds_of(cohort)
        check_seen(retrained(cohort, ("HTA9_15_1",)), folds)
        with pytest.raises(LeakageError, match=rf"trained on 1 cases .*, e\.g\. {case.name}"):
            check_seen(retrained(cohort, ("hta9-14-27",)), folds)


def test_one_such_bag_is_enough():
    first = COHORT.cases[0]
    bags = (replace(first.bags[0], trained_on=("c4",)), *first.bags[1:])
    with pytest.raises(LeakageError, match="c4"):
        run(replace(COHORT, cases=(replace(first, bags=bags), *COHORT.cases[1:])))


def test_leakage_is_noticed_before_any_fit():
    def keep(model, fold, fitter):
        raise AssertionError("a fit was asked for")

    with pytest.raises(LeakageError):
        run(retrained(COHORT, ("a0",)), fitter=keep)


def test_slides_that_backbone_or_stain_has_seen_are_known_by_their_content():
    """Whatever the slide and its case are called."""
    first = COHORT.cases[0]
    known = replace(first, bags=(replace(first.bags[0], source_sha256="f00"), *first.bags[1:]))
    cohort = replace(COHORT, cases=(known, *COHORT.cases[1:]))
    folds = folds_of(cohort)
    check_seen(cohort, folds)
    cases = tuple(
        replace(
            case,
            bags=tuple(
                replace(bag, trained_on=("pt 9",), trained_on_slides=("f00",)) for bag in case.bags
            ),
        )
        for case in cohort.cases
    )
    with pytest.raises(LeakageError, match=rf"trained on 1 cases .* e\.g\. {first.name}\."):
        check_seen(replace(cohort, cases=cases), folds)
    stained = normalised(cohort, cases=["pt 9"], slides=["pt 9 s1"], sources=["f00"])
    with pytest.raises(LeakageError, match=f"normalised to slides of {first.name},"):
        check_seen(stained, folds)


@pytest.mark.parametrize("spelling", ["A0", "\uff410"])
def test_a_case_in_another_spelling_is_the_case(spelling):
    folds = folds_of(COHORT)
    with pytest.raises(LeakageError, match=r"1 cases that would be tested, e\.g\. a0\."):
        check_seen(retrained(COHORT, (spelling,)), folds)
    with pytest.raises(LeakageError, match=r"normalised to slides of a0,"):
        check_seen(normalised(COHORT, cases=[spelling]), folds)
    fold = next(fold for fold in folds if "a0" in fold.test)
    fitted = replace(fit_fold(COHORT, "mean", fold, QUICK, 0), trained_on=(spelling,))
    with pytest.raises(LeakageError, match=r"mean was trained on a0, which would be tested"):
        run(COHORT, models=["mean"], fitter=lambda *_: fitted)


def test_backbone_that_saw_only_other_cases_is_taken():
    check_seen(retrained(COHORT, ("elsewhere",)), folds_of(COHORT))


def test_backbone_that_saw_only_training_cases_is_taken():
    folds = [fold for fold in folds_of(COHORT) if "a0" not in fold.test]
    check_seen(retrained(COHORT, ("a0",)), folds)


def normalised(cohort, *, slides=("elsewhere-s1",), cases=(), sources=()):
    """The cohort with bags whose stains are those of some slides."""
    reference = {"slides": list(slides), "cases": list(cases), "sources": list(sources)}
    recipe = RECIPE | {"stain_reference": reference}
    changed = [
        replace(case, bags=tuple(replace(bag, recipe=recipe) for bag in case.bags))
        for case in cohort.cases
    ]
    return replace(cohort, cases=tuple(changed))


@pytest.mark.parametrize("reference", [{"slides": ["a1-s2"]}, {"cases": ["a1"]}])
def test_stain_of_a_tested_case_is_leakage(reference):
    cohort = normalised(COHORT, **reference)
    with pytest.raises(
        LeakageError, match=r"to slides of a1, .*Extract with a stain_reference whose case"
    ):
        run(cohort)
    check_seen(cohort, [fold for fold in folds_of(COHORT) if "a1" not in fold.test])


def test_stain_of_another_cohort_is_taken():
    check_seen(normalised(COHORT, cases=["elsewhere"]), folds_of(COHORT))


def test_stored_fit_that_saw_a_tested_case_is_leakage():
    folds = folds_of(COHORT)
    other = fit_fold(COHORT, "mean", folds[1], QUICK, 0)
    with pytest.raises(
        LeakageError, match=f"mean was trained on {', '.join(sorted(folds[0].test))}, which"
    ):
        run(COHORT, ["mean"], folds=folds, fitter=lambda _model, _fold, _fitter: other)


def test_stored_fit_that_chose_its_epoch_by_a_tested_case_is_leakage():
    folds = folds_of(COHORT)
    honest = fit_fold(COHORT, "mean", folds[0], QUICK, 0)
    peeking = replace(honest, trained_on=(*honest.trained_on, folds[0].test[0]))
    with pytest.raises(LeakageError, match=folds[0].test[0]):
        run(COHORT, ["mean"], folds=folds[:1], fitter=lambda _model, _fold, _fitter: peeking)


def test_stored_fit_of_another_model_is_refused():
    folds = folds_of(COHORT)
    other = fit_fold(COHORT, "mean", folds[0], QUICK, 0)
    with pytest.raises(FitError, match=r"the stored fit \(of mean\) is another one"):
        run(COHORT, ["abmil"], folds=folds[:1], fitter=lambda _model, _fold, _fitter: other)


def test_stored_fit_of_fewer_training_cases_is_refused():
    """As when folds by site are asked again after cases have moved to another site."""
    fold = folds_of(COHORT)[0]
    moved = replace(fold, train=fold.train[1:])
    other = fit_fold(COHORT, "mean", moved, QUICK, 0)
    with pytest.raises(FitError, match="its bags or its training cases differ"):
        run(COHORT, ["mean"], folds=[fold], fitter=lambda _model, _fold, _fitter: other)


def test_stored_fit_on_a_backbone_that_has_seen_more_is_refused():
    fold = folds_of(COHORT)[0]
    retrained_cohort = retrained(COHORT, ("elsewhere",))
    other = fit_fold(COHORT, "mean", fold, QUICK, 0)
    with pytest.raises(FitError, match="its bags or its training cases differ"):
        run(retrained_cohort, ["mean"], folds=[fold], fitter=lambda _model, _fold, _fitter: other)


def test_every_fit_is_offered_for_keeping_and_used():
    request = []

    def keep(model, fold, fitter):
        request.append((model, fold))
        return fitter()

    folds = folds_of(COHORT)
    run(COHORT, ["mean", "majority"], folds=folds, fitter=keep)
    assert request == [(model, fold) for model in ("mean", "majority") for fold in folds]


def test_stored_fits_give_the_predictions_of_fresh_ones(tmp_path):
    def saving(model, fold, fitter):
        fitted = fitter()
        save_model(tmp_path / f"{model}{fold.index}.safetensors", fitted)
        return fitted

    def save(model, fold, fitter):
        return load_model(tmp_path / f"{model}{fold.index}.safetensors")

    models = ["majority", "tile-vote", "abmil"]
    fresh = run(COHORT, models, fitter=saving).table
    pd.testing.assert_frame_equal(run(COHORT, models, fitter=save).table, fresh, check_exact=True)


def test_a_run_that_lost_fits_predicts_what_it_would_have():
    stored = {}

    def keep(model, fold, fitter):
        if (model, fold) not in stored:
            stored[model, fold] = fitter()
        return stored[model, fold]

    folds = folds_of(COHORT)
    whole = run(COHORT, ["abmil"], folds=folds, fitter=keep).table
    del stored["abmil", folds[1]], stored["abmil", folds[4]]
    again = run(COHORT, ["abmil"], folds=folds, fitter=keep).table
    pd.testing.assert_frame_equal(again, whole, check_exact=True)


def test_of_fits_that_are_trained_together_the_one_that_fails_is_named(monkeypatch):
    folds = folds_of(COHORT)
    without = set(folds[2].test)

    def fails(model, parts, *args, **more):
        if any(without.isdisjoint(case.name for case in part.train) for part in parts):
            raise FitError("The loss is nan.")
        return fit_models(model, parts, *args, **more)

    monkeypatch.setattr(crossval, "fit_models", fails)
    stored = []

    def keep(_model, fold, fitter):
        fitted = fitter()
        stored.append(fold.index)
        return fitted

    with pytest.raises(FitError, match=r"mean, repeat 0, fold 2: The loss is nan"):
        run(COHORT, ["mean"], folds=folds, fitter=keep)
    assert stored == [0, 1]


def of_model(predictions, model):
    return predictions.table[predictions.table["model"] == model].reset_index(drop=True)


@pytest.fixture(scope="module")
def all_models():
    return run(COHORT, list(MODELS), folds=HALVES)


@pytest.mark.parametrize("model", MODELS)
def test_a_model_alone_predicts_as_among_others(all_models, model):
    alone = of_model(run(COHORT, [model], folds=HALVES), model)
    pd.testing.assert_frame_equal(alone, of_model(all_models, model), check_exact=True)


def test_order_of_models_changes_no_prediction(all_models):
    backwards = run(COHORT, list(MODELS)[::-1], folds=HALVES)
    assert backwards.models == tuple(MODELS)[::-1]
    for model in MODELS:
        pd.testing.assert_frame_equal(
            of_model(backwards, model), of_model(all_models, model), check_exact=True
        )


def test_order_of_folds_changes_no_prediction():
    keys = ["fold", "slide"]
    folds = folds_of(COHORT)
    first, second = (
        run(COHORT, folds=each).table.sort_values(keys, ignore_index=True)
        for each in (folds, folds[::-1])
    )
    pd.testing.assert_frame_equal(first, second, check_exact=True)


def test_a_seed_repeats_the_table():
    first, second = (run(COHORT, seed=3).table for _ in range(2))
    pd.testing.assert_frame_equal(first, second, check_exact=True)


def test_one_row_per_model_repeat_and_slide():
    folds = folds_of(COHORT, repeats=2)
    table = run(COHORT, ["mean", "majority"], folds=folds).table
    rows = sorted(map(tuple, table[["model", "repeat", "slide"]].to_numpy().tolist()))
    slides = [bag.slide for case in COHORT.cases for bag in case.bags]
    assert rows == sorted((m, r, s) for m in ("mean", "majority") for r in (0, 1) for s in slides)


def test_rows_hold_case_label_and_fold_of_the_slide():
    table = run(COHORT, ["majority"]).table
    owner = {bag.slide: case for case in COHORT.cases for bag in case.bags}
    fold_of = {name: fold.index for fold in folds_of(COHORT) for name in fold.test}
    for row in table.to_dict("records"):
        case = owner[row["slide"]]
        assert (row["case"], row["label"]) == (case.name, case.label)
        assert row["fold"] == fold_of[case.name]


def test_majority_predicts_the_shares_of_its_training_part():
    cohort = made_cohort((4, 8), slides=1)
    table = run(cohort, ["majority"], folds=folds_of(cohort, folds="4")).table
    np.testing.assert_allclose(table["p_class-a"], 1 / 3)
    np.testing.assert_allclose(table["p_class-b"], 2 / 3)


def test_predictions_are_the_fold_model_on_the_tested_slides():
    folds = folds_of(COHORT)
    table = run(COHORT, ["mean"], folds=folds).table
    from tests.mil.made import probabilities

    for fold in folds:
        fitted = fit_fold(COHORT, "mean", fold, QUICK, 0)
        for case in COHORT.named(fold.test):
            for bag in case.bags:
                row = table[table["slide"] == bag.slide].iloc[0]
                predicted = [row[f"p_{name}"] for name in COHORT.classes]
                assert predicted == pytest.approx(probabilities(fitted, bag), abs=1e-5)


def test_a_fold_is_fitted_on_its_training_cases_alone():
    for fold in folds_of(COHORT):
        assert fit_fold(COHORT, "mean", fold, QUICK, 0).trained_on == tuple(sorted(fold.train))


def test_early_stopping_sees_the_training_cases_alone():
    always = replace(QUICK, early_stopping="always")
    for fold in folds_of(COHORT):
        fitted = fit_fold(COHORT, "mean", fold, always, 0)
        assert fitted.trained_on == tuple(sorted(fold.train))
        assert fitted.valid_losses


@pytest.mark.parametrize("settings", [QUICK, replace(QUICK, early_stopping="always")])
@pytest.mark.parametrize("model", MODELS)
def test_what_a_tested_case_holds_moves_nothing_in_the_fit(model, settings):
    """A giant outlier in a tested case: neither scale nor weights nor chosen epoch know of it."""
    fold = folds_of(COHORT)[0]

    def spoilt(case):
        if case.name not in fold.test:
            return case
        bags = [replace(bag, features=bag.features * 1e6 + 1e6) for bag in case.bags]
        return replace(case, bags=tuple(bags))

    other = replace(COHORT, cases=tuple(map(spoilt, COHORT.cases)))
    first = fit_fold(COHORT, model, fold, settings, 0)
    second = fit_fold(other, model, fold, settings, 0)
    assert first.valid_losses == second.valid_losses
    for name, value in first.head.state_dict().items():
        assert value.equal(second.head.state_dict()[name])


def test_what_a_tested_case_is_called_moves_no_prediction():
    """Labels of tested cases go into no fit: swapping two of them changes the label column alone."""
    folds = folds_of(COHORT)
    names = {folds[0].test[0], folds[0].test[1]}
    labels = {case.name: case.label for case in COHORT.cases if case.name in names}
    assert len(set(labels.values())) == 2
    swapped = dict(zip(labels, list(labels.values())[::-1], strict=True))
    cases = [replace(case, label=swapped.get(case.name, case.label)) for case in COHORT.cases]
    other = run(replace(COHORT, cases=tuple(cases)), folds=folds[:1]).table
    first_fold = run(COHORT, folds=folds[:1]).table
    pd.testing.assert_frame_equal(
        other.drop(columns="label"), first_fold.drop(columns="label"), check_exact=True
    )


def test_every_fold_and_repeat_has_a_seed_of_its_own():
    folds = folds_of(COHORT, repeats=3)
    seeds = {fold_seed(seed, fold) for seed in range(4) for fold in folds}
    assert len(seeds) == 4 * len(folds)


def test_few_cases_give_none_up():
    train, valid = set_aside("mean", COHORT.cases, QUICK, 0)
    assert (train, valid) == (COHORT.cases, ())


def test_inner_cases_are_set_aside_whole():
    train, valid = set_aside("mean", COHORT.cases, replace(QUICK, early_stopping="always"), 0)
    assert {case.name for case in valid} | {case.name for case in train} == {
        case.name for case in COHORT.cases
    }
    assert sorted(case.label for case in valid) == list(COHORT.classes)
    assert len(train) + len(valid) == len(COHORT.cases)


def test_fold_of_another_cohort_is_refused():
    strange = Fold(repeat=0, index=0, train=("a0", "b0", "c0", "z1"), test=("a1",))
    with pytest.raises(CohortError, match=r"not in the cohort, e.g. 'z1'"):
        run(COHORT, folds=[strange])


def test_bag_of_another_recipe_is_refused():
    last = COHORT.cases[-1]
    bags = tuple(replace(bag, recipe=RECIPE | {"mpp": 1.0}) for bag in last.bags)
    mixed = replace(COHORT, cases=(*COHORT.cases[:-1], replace(last, bags=bags)))
    tested_first = [fold for fold in folds_of(COHORT) if last.name in fold.test]
    with pytest.raises(FitError, match=r"mpp 1.0 where it learnt from 0.5"):
        run(mixed, folds=tested_first)


def test_progress_is_told_of_every_fit():
    class Listener:
        def __init__(self):
            self.heard = []

        def task(self, name, total, unit):
            from contextlib import contextmanager

            @contextmanager
            def opened():
                self.heard.append((name, total, unit))
                yield self.heard.append

            return opened()

    listener = Listener()
    run(COHORT, ["mean", "majority"], progress=listener)
    assert listener.heard == [("cross-validation", 10, "fits"), *[1] * 10]


def test_models_follow_one_another_in_the_table():
    models = run(COHORT, ["mean", "majority"]).table["model"].tolist()
    assert sum(a != b for a, b in pairwise(models)) == 1


def test_auto_stops_early_only_where_every_class_can_spare_a_case():
    settings = FitSettings()
    many = ["a"] * FEW_CASES
    assert settings.stops_early([*many, "b", "b"])
    assert not settings.stops_early([*many, "b"])
    assert not settings.stops_early(["a", "b"] * (FEW_CASES // 2 - 1))
    assert replace(settings, early_stopping="always").stops_early(["a", "b"])


@pytest.mark.parametrize("change", [{"settings": replace(QUICK, epochs=4)}, {"seed": 1}])
def test_a_stored_fit_of_another_request_is_refused(change):
    cohort = made_cohort((4, 4))
    folds = folds_of(cohort, folds="2")
    requested = {"settings": QUICK, "seed": 0} | change

    def keep(model, fold, fitter):
        return fit_fold(cohort, model, fold, QUICK, 0)

    with pytest.raises(FitError, match="its settings, its bags or its training cases differ"):
        cross_validate(
            cohort,
            folds,
            ["mean"],
            requested["settings"],
            seed=requested["seed"],
            fitter=keep,
            workers=1,
        )


def test_a_clinical_fact_that_a_fold_lacks_leaves_that_fold_its_shares():
    cases = [
        replace(case, other={"nf1": "yes" if number == 0 else "no"})
        for number, case in enumerate(made_cohort((4, 4)).cases)
    ]
    cohort = cohort_of(cases)
    folds = folds_of(cohort, folds="2")
    table = cross_validate(cohort, folds, ["clinical"], QUICK, seed=0, workers=1).table
    lacking = next(fold for fold in folds if cases[0].name in fold.test)
    stored = table[table["fold"] == lacking.index]
    assert np.allclose(stored["p_class-a"], 0.5, atol=1e-6)


def test_chunks_are_refused_before_any_work_where_a_head_needs_the_whole_bag():
    check_chunks(["abmil", "pooled-logistic", "tile-vote", "clinical"], 8)
    check_chunks(["transmil"], 0)
    with pytest.raises(FitError, match="transmil looks at all tiles"):
        check_chunks(["abmil", "transmil"], 8)


@pytest.mark.parametrize("model", ["abmil", "pooled-logistic", "quantile-logistic", "tile-vote"])
def test_chunks_change_no_prediction(model):
    cohort = made_cohort((4, 4), n_tiles=9)
    folds = folds_of(cohort, folds="2")
    request = replace(QUICK, precision="fp32")
    request = replace(request, dropout=0.0)
    whole = cross_validate(cohort, folds, [model], request, seed=0, workers=1)
    parts = replace(request, chunk_tiles=4)
    chunked = cross_validate(cohort, folds, [model], parts, seed=0, workers=1)
    columns = ["p_class-a", "p_class-b"]
    assert np.allclose(whole.table[columns], chunked.table[columns], atol=1e-4)
